//! Bills: a usage, part by part, at the rates of a model.

use super::{Part, Rates, TokenPrice};
use crate::{NanoUsd, Overflow, Usage};

const MILLION: u128 = 1_000_000;

/// What a usage costs and why. Its lines are what is charged, not a copy of it for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill<'a> {
    /// The rates that apply.
    pub rates: &'a Rates,
    /// The service tier whose rates these are, where they are not the ordinary ones.
    pub service_tier: Option<&'a str>,
    /// The threshold that the input has passed, where the rates are those of a long context.
    pub above_input_tokens: Option<u64>,
    lines: [Line; Part::ALL.len()],
}

/// One part of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was used.
    pub part: Part,
    /// How much of it: tokens, or pieces.
    pub count: u64,
    /// What a million of it costs.
    pub price: TokenPrice,
}

impl Line {
    /// The exact amount, in millionths of a nano-dollar.
    pub fn scaled(&self) -> u128 {
        self.price.scaled(self.count)
    }
}

impl<'a> Bill<'a> {
    pub(super) fn new(
        rates: &'a Rates,
        service_tier: Option<&'a str>,
        above_input_tokens: Option<u64>,
        usage: &Usage,
    ) -> Self {
        let line = |part| Line { part, count: count(usage, part), price: rates.get(part) };
        Self { rates, service_tier, above_input_tokens, lines: Part::ALL.map(line) }
    }

    /// The parts that were used, without the pieces that cost nothing.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let is_free = |line: &Line| line.part.is_by_the_piece() && line.price == TokenPrice::default();
        self.lines.into_iter().filter(move |line| line.count > 0 && !is_free(line))
    }

    /// The sum, in millionths of a nano-dollar.
    ///
    /// # Errors
    /// [`Overflow`] when it does not fit.
    pub fn scaled(&self) -> Result<u128, Overflow> {
        self.lines().try_fold(0u128, |sum, line| sum.checked_add(line.scaled()).ok_or(Overflow))
    }

    /// What is charged: the exact sum, rounded up once.
    ///
    /// # Errors
    /// [`Overflow`] when it does not fit in an `i64` of nano-dollars.
    pub fn total(&self) -> Result<NanoUsd, Overflow> {
        NanoUsd::try_from(self.scaled()?.div_ceil(MILLION))
    }
}

/// How much of a part a usage has. Whatever it says, no token is in two parts, and none in no part.
fn count(usage: &Usage, part: Part) -> u64 {
    let [input, audio_input, image_input] = split(usage.input, [usage.audio_input, usage.image_input]);
    let [cache_read, audio_cache_read, image_cache_read] =
        split(usage.cache_read, [usage.audio_cache_read, usage.image_cache_read]);
    let [words, audio_output, image_output] = split(usage.output, [usage.audio_output, usage.image_output]);
    let [output, reasoning, _] = split(words, [usage.reasoning, 0]);
    match part {
        Part::Input => input,
        Part::Output => output,
        Part::CacheRead => cache_read,
        Part::CacheWrite5m => usage.cache_write_5m,
        Part::CacheWrite1h => usage.cache_write_1h,
        Part::Reasoning => reasoning,
        Part::AudioInput => audio_input,
        Part::AudioCacheRead => audio_cache_read,
        Part::AudioOutput => audio_output,
        Part::ImageInput => image_input,
        Part::ImageCacheRead => image_cache_read,
        Part::ImageOutput => image_output,
        Part::Request => 1,
        Part::Search => usage.searches,
    }
}

/// What two parts of a whole leave of it, and the parts, none of them more than there is.
fn split(whole: u64, [first, second]: [u64; 2]) -> [u64; 3] {
    let first = first.min(whole);
    let second = second.min(whole - first);
    [whole - first - second, first, second]
}
