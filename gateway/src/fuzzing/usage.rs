//! What an answer reports. Of the bytes that the function is given, the first eight say where the rest is cut into chunks,
//! and the next one whose answer it is.

use super::{chunks, cuts};
use crate::meter::{Ending, Meter, Metered};
use crate::wire::{Framing, WireFormat};
use policy::{Basis, Usage};

const FRAMINGS: [Framing; 3] = [Framing::Sse, Framing::Ndjson, Framing::Json];
/// What one count in a report is at most; some fields of a usage are a few of them together.
const COUNT_MAX: u64 = 1 << 53;
const SUM_MAX: u64 = 8 * COUNT_MAX;

/// What is read of an answer does not depend on where it is cut; no number is negative or larger than a provider can mean,
/// no part is more than its whole, and what broke off is never cheaper than what had come.
pub fn usage_parse(data: &[u8]) {
    let (cuts, answer) = cuts(data);
    let Some((kind, answer)) = answer.split_first() else { return };
    let wire = WireFormat::ALL[usize::from(*kind) % WireFormat::ALL.len()];
    let framing = FRAMINGS[usize::from(*kind) / WireFormat::ALL.len() % FRAMINGS.len()];
    let whole = metered(wire, framing, [answer].into_iter());
    assert_eq!(metered(wire, framing, chunks(cuts, answer)), whole, "{wire} {framing:?}");
    assert!(whole.output_text_bytes <= answer.len() as u64 * 2);
    assert!(whole.reported_cost.is_none_or(|cost| cost.nanos() >= 0));
    whole.usage.iter().for_each(check);
    let (charged, basis) = whole.usage_or_estimate(77);
    check(&charged);
    assert!(whole.usage.is_some() || (basis, charged.input) == (Basis::Estimated, 77));
    if whole.ending != Ending::Complete {
        assert!(charged.output >= crate::meter::estimate_output(whole.output_text_bytes));
    }
}

fn metered<'c>(wire: WireFormat, framing: Framing, chunks: impl Iterator<Item = &'c [u8]>) -> Metered {
    let mut meter = Meter::new(wire, framing);
    chunks.for_each(|chunk| meter.feed(chunk));
    meter.finish()
}

#[track_caller]
fn check(usage: &Usage) {
    for (part, whole) in [
        (usage.reasoning, usage.output),
        (usage.audio_input, usage.input),
        (usage.image_input, usage.input),
        (usage.audio_cache_read, usage.cache_read),
        (usage.image_cache_read, usage.cache_read),
        (usage.audio_output, usage.output),
        (usage.image_output, usage.output),
    ] {
        assert!(part <= whole, "{usage:?}");
    }
    assert!(usage.total() <= SUM_MAX && usage.searches <= COUNT_MAX, "{usage:?}");
}
