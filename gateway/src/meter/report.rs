//! Hot: collects the values of an answer, and at its end makes one usage of them.

use policy::{NanoUsd, Usage};

use super::number::{self, Count};
use super::places::{self, Counted, Place, Whole};
use super::{Ending, Metered};
use crate::wire::tokens::{Container, Leaves, Text};
use crate::wire::{Framing, WireFormat};

/// Anthropic's faster mode, which has rates of its own; the tier beside it is the ordinary one.
const FAST: &str = "fast";

/// What was read so far. Of everything but the text, the last value holds.
#[derive(Debug)]
pub(super) struct Report {
    wire: WireFormat,
    framing: Framing,
    counts: [Option<u64>; Counted::COUNT],
    cost: Option<NanoUsd>,
    upstream_cost: Option<NanoUsd>,
    is_byok: bool,
    model: Option<String>,
    service_tier: Option<String>,
    is_fast: bool,
    /// What is known of the entry of a list of modalities that goes by.
    entry: Entry,
    text_bytes: u64,
    ending: Ending,
    has_bad_numbers: bool,
    /// Whether a count came that nobody has asked for yet.
    has_news: bool,
}

/// An entry of a list of what tokens were; its members may come in any order.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    kind: Option<Kind>,
    count: Option<Count>,
}

/// What tokens were: their modality, or how long they are kept.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Audio,
    Image,
    FiveMinutes,
    Hour,
    Other,
}

impl Kind {
    fn of(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"AUDIO") => Self::Audio,
            // Pages of documents are shown to the model as images, and billed as such.
            Some(b"IMAGE" | b"DOCUMENT") => Self::Image,
            Some(b"5m") => Self::FiveMinutes,
            Some(b"1h") => Self::Hour,
            _ => Self::Other,
        }
    }
}

impl Report {
    pub(super) fn new(wire: WireFormat, framing: Framing) -> Self {
        Self {
            wire,
            framing,
            counts: [None; Counted::COUNT],
            cost: None,
            upstream_cost: None,
            is_byok: false,
            model: None,
            service_tier: None,
            is_fast: false,
            entry: Entry::default(),
            text_bytes: 0,
            ending: Ending::Open,
            has_bad_numbers: false,
            has_news: false,
        }
    }

    pub(super) fn served_in(self, service_tier: Option<&str>) -> Self {
        Self { service_tier: service_tier.map(str::to_owned), ..self }
    }

    pub(super) fn output_text_bytes(&self) -> u64 {
        self.text_bytes
    }

    pub(super) fn take_news(&mut self) -> Option<Usage> {
        if std::mem::take(&mut self.has_news) { self.usage() } else { None }
    }

    pub(super) fn metered(&self) -> Metered {
        Metered {
            usage: self.usage(),
            model: self.model.clone(),
            service_tier: if self.is_fast { Some(FAST.to_owned()) } else { self.service_tier.clone() },
            reported_cost: self.reported_cost(),
            output_text_bytes: self.text_bytes,
            ending: self.ending,
            has_bad_numbers: self.has_bad_numbers,
        }
    }

    /// With the caller's own key at the upstream, OpenRouter's cost is its fee alone.
    fn reported_cost(&self) -> Option<NanoUsd> {
        match self.upstream_cost {
            Some(upstream) if self.is_byok => self.cost?.checked_add(upstream).ok(),
            Some(_) | None => self.cost,
        }
    }

    fn usage(&self) -> Option<Usage> {
        let (kinds, output) = (self.input_kinds(), self.value(Counted::Output));
        if kinds.is_none() && output.is_none() {
            return self.second_hand_usage();
        }
        let kinds = kinds.unwrap_or_default();
        let output = output.unwrap_or(0).saturating_add(self.or_zero(Counted::Thoughts));
        // xAI and Gemini's OpenAI-compatible route leave reasoning out of the output, but not out of the total.
        let listed = kinds.input_total().saturating_add(output);
        let output = output.saturating_add(self.or_zero(Counted::Total).saturating_sub(listed));
        let (reasoning_beside, all_beside) = self.beside_the_output();
        let output = output.saturating_add(all_beside);
        let reasoning = self.or_zero(Counted::Reasoning).saturating_add(self.or_zero(Counted::Thoughts));
        let reasoning = reasoning.saturating_add(reasoning_beside);
        let usage = Usage { output, reasoning: reasoning.min(output), ..kinds };
        Some(self.with_parts(usage))
    }

    /// Perplexity's deep research bills its reasoning and what it read beside the output, and leaves both out of the
    /// total. Others who have a count of that name include it.
    fn beside_the_output(&self) -> (u64, u64) {
        let Some(citations) = self.value(Counted::Citations) else { return (0, 0) };
        let reasoning = self.or_zero(Counted::OuterReasoning);
        (reasoning, reasoning.saturating_add(citations))
    }

    /// The same usage, with what its tokens were. Of the input, what came from a cache is left out.
    fn with_parts(&self, usage: Usage) -> Usage {
        let uncached = |all, cached| self.or_zero(all).saturating_sub(self.or_zero(cached));
        let cached = |counted| self.or_zero(counted).min(usage.cache_read);
        Usage {
            audio_input: uncached(Counted::AudioInput, Counted::AudioCached).min(usage.input),
            image_input: uncached(Counted::ImageInput, Counted::ImageCached).min(usage.input),
            audio_cache_read: cached(Counted::AudioCached),
            image_cache_read: cached(Counted::ImageCached),
            audio_output: self.or_zero(Counted::AudioOutput).min(usage.output),
            image_output: self.or_zero(Counted::ImageOutput).min(usage.output),
            searches: self.or_zero(Counted::Searches),
            ..usage
        }
    }

    /// Cohere's unbilled tokens where none are billed; a total, which is all that some embedding endpoints report.
    fn second_hand_usage(&self) -> Option<Usage> {
        let (input, output) = (self.value(Counted::UnbilledInput), self.value(Counted::UnbilledOutput));
        let input = input.or(if output.is_none() { Some(self.value(Counted::Total)?) } else { None });
        Some(Usage { input: input.unwrap_or(0), output: output.unwrap_or(0), ..Usage::default() })
    }

    /// The input in its disjoint kinds.
    fn input_kinds(&self) -> Option<Usage> {
        let cache_read = self.or_zero(Counted::CacheRead);
        let cache_write_1h = self.or_zero(Counted::CacheWrite1h);
        // Without a split, and for what the split leaves over, the provider's ordinary lifetime holds.
        let unsplit = self.or_zero(Counted::CacheWrite).saturating_sub(cache_write_1h);
        let cache_write_5m = self.or_zero(Counted::CacheWrite5m).max(unsplit);
        let kinds = Usage { cache_read, cache_write_5m, cache_write_1h, ..Usage::default() };
        let input = self.value(Counted::UncachedInput).or_else(|| {
            let all = self.value(Counted::Input)?.saturating_add(self.or_zero(Counted::ToolInput));
            Some(all.saturating_sub(kinds.input_total()))
        })?;
        Some(Usage { input, ..kinds })
    }

    fn value(&self, counted: Counted) -> Option<u64> {
        self.counts[counted as usize]
    }

    fn or_zero(&self, counted: Counted) -> u64 {
        self.value(counted).unwrap_or(0)
    }

    fn count(&mut self, counted: Counted, text: Text<'_>) {
        self.take(counted, text.whole().map_or(Count::Bad, number::count));
    }

    fn take(&mut self, counted: Counted, count: Count) {
        self.has_news = true;
        let slot = &mut self.counts[counted as usize];
        match count {
            Count::Is(count) => *slot = Some(count),
            Count::Clamped(count) => {
                *slot = Some(count);
                self.has_bad_numbers = true;
            }
            Count::Missing => {}
            Count::Bad => self.has_bad_numbers = true,
        }
    }

    /// Takes an entry of a list of what tokens were, once both of its members have gone by.
    fn take_entry(&mut self, whole: Whole) {
        let (Some(kind), Some(count)) = (self.entry.kind, self.entry.count) else { return };
        self.entry = Entry::default();
        let counted = match (whole, kind) {
            (Whole::Input, Kind::Audio) => Counted::AudioInput,
            (Whole::Input, Kind::Image) => Counted::ImageInput,
            (Whole::Cached, Kind::Audio) => Counted::AudioCached,
            (Whole::Cached, Kind::Image) => Counted::ImageCached,
            (Whole::Output, Kind::Audio) => Counted::AudioOutput,
            (Whole::Output, Kind::Image) => Counted::ImageOutput,
            (Whole::Written, Kind::FiveMinutes) => Counted::CacheWrite5m,
            (Whole::Written, Kind::Hour) => Counted::CacheWrite1h,
            _ => return,
        };
        self.take(counted, count);
    }

    fn usd(&mut self, text: Text<'_>, read: fn(&[u8]) -> Option<NanoUsd>) -> Option<NanoUsd> {
        let text = text.whole().filter(|text| *text != b"null");
        let amount = text.and_then(read);
        self.has_bad_numbers |= text.is_some() && amount.is_none();
        amount
    }

    fn event_type(&mut self, text: Text<'_>) {
        match text.whole() {
            Some(
                b"message_stop"
                | b"response.completed"
                | b"response.incomplete"
                | b"message-end"
                | b"stream-end"
                | b"image_generation.completed"
                | b"image_edit.completed"
                | b"speech.audio.done"
                | b"transcript.text.done",
            ) => {
                self.complete();
            }
            Some(b"error" | b"response.failed") => self.ending = Ending::Error,
            _ => {}
        }
    }

    /// An error stays one, whatever follows.
    fn complete(&mut self) {
        if self.ending == Ending::Open {
            self.ending = Ending::Complete;
        }
    }
}

impl Leaves for Report {
    type Place = Place;
    const ROOT: Place = Place::Root;
    const NOWHERE: Place = Place::Nowhere;

    fn member(&self, object: Place, key: &[u8]) -> Place {
        // Perplexity repeats in each event of a stream the whole message so far, beside what is new of it.
        if self.framing == Framing::Sse && object == Place::Choices && key == b"message" {
            return Place::Nowhere;
        }
        places::member(self.wire, object, key)
    }

    fn open(&mut self, place: Place, _: Container) {
        match place {
            Place::Error => self.ending = Ending::Error,
            Place::Count(_) => self.has_bad_numbers = true,
            Place::Split(_) => self.entry = Entry::default(),
            _ => {}
        }
    }

    fn string(&mut self, place: Place, text: Text<'_>) {
        let name = || text.whole().and_then(|text| String::from_utf8(text.to_vec()).ok());
        match place {
            // `response` is Ollama's text, and an object elsewhere.
            Place::Text | Place::Response => self.text_bytes = self.text_bytes.saturating_add(text.length),
            Place::Model if self.model.as_deref().map(str::as_bytes) != text.whole() => self.model = name(),
            Place::ServiceTier if self.service_tier.as_deref().map(str::as_bytes) != text.whole() => {
                self.service_tier = name();
            }
            Place::Speed => self.is_fast = text.whole() == Some(FAST.as_bytes()),
            Place::SplitKind(whole) => {
                self.entry.kind = Some(Kind::of(text.whole()));
                self.take_entry(whole);
            }
            Place::Type => self.event_type(text),
            Place::FinishReason => self.complete(),
            Place::Error => self.ending = Ending::Error,
            Place::Count(_) | Place::Cost | Place::CostTicks | Place::UpstreamCost => {
                self.has_bad_numbers = true
            }
            _ => {}
        }
    }

    fn scalar(&mut self, place: Place, text: Text<'_>) {
        match place {
            Place::Count(counted) => self.count(counted, text),
            Place::SplitCount(whole) => {
                self.entry.count = Some(text.whole().map_or(Count::Bad, number::count));
                self.take_entry(whole);
            }
            Place::Cost => self.cost = self.usd(text, number::usd).or(self.cost),
            Place::CostTicks => self.cost = self.usd(text, number::usd_ticks).or(self.cost),
            Place::UpstreamCost => {
                self.upstream_cost = self.usd(text, number::usd).or(self.upstream_cost);
            }
            Place::IsByok => self.is_byok = text.whole() == Some(b"true"),
            Place::Done if text.whole() == Some(b"true") => self.complete(),
            // `data: [DONE]` reads as an array with a word in it.
            Place::Root if text.whole() == Some(b"DONE") => self.complete(),
            _ => {}
        }
    }

    fn document_end(&mut self) {
        if self.framing == Framing::Json {
            self.complete();
        }
    }
}
