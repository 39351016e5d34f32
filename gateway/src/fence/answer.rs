//! Hot: an answer on its way to the caller, with the secrets taken out of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::reader::Reader;
use super::texts::Found;
use super::watch::{Finding, Watch};
use crate::wire::Framing;

/// More than this is not held back from its event on, but from where the secret may begin.
const HELD_EVENTS_BYTES_MAX: u64 = 16 * 1024;
/// More than this is no key that somebody is spelling.
const HELD_BYTES_MAX: u64 = 24 * 1024;
/// More stars than these that wait for bytes to be let go are no key either.
const MASKS_MAX: usize = 128;
/// What is not told yet is not held back for longer, unless so much of a secret is there that it would tell.
const HELD_FOR_MAX: Duration = Duration::from_secs(2);

/// The scan of one answer.
#[derive(Debug)]
pub(crate) struct Fence {
    watch: Arc<Watch>,
    reader: Reader,
    /// Whether something is done about what is found.
    enforces: bool,
    /// Whether the answer can be ended early; a canary in one that cannot is masked.
    can_stop: bool,
    /// Bytes that the caller has not got yet, from `released` on.
    held: Vec<u8>,
    released: u64,
    /// Where stars belong, from `released` on, in order.
    masks: Vec<Range<u64>>,
    held_since: Option<Instant>,
    reported: Vec<usize>,
    is_stopped: bool,
}

/// What became of a chunk.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// What the caller gets now.
    pub(crate) bytes: Option<Bytes>,
    /// What was found for the first time.
    pub(crate) findings: Vec<Finding>,
    /// Whether the answer has to end here: what is left of it may not be shown.
    pub(crate) must_stop: bool,
}

impl Fence {
    /// For an answer that begins.
    pub(crate) fn new(watch: Arc<Watch>, framing: Option<Framing>, enforces: bool, can_stop: bool) -> Self {
        let reader = Reader::new(framing);
        Self {
            watch,
            reader,
            enforces,
            can_stop,
            held: Vec::new(),
            released: 0,
            masks: Vec::new(),
            held_since: None,
            reported: Vec::new(),
            is_stopped: false,
        }
    }

    /// Reads a chunk, and answers what may be shown of what was read so far; after the last one, all that is left.
    pub(crate) fn pass(&mut self, chunk: Option<Bytes>, is_end: bool) -> Passed {
        if self.is_stopped {
            return Passed { must_stop: true, ..Passed::default() };
        }
        let chunk = chunk.unwrap_or_default();
        self.reader.feed(&self.watch.list, &chunk);
        let found = self.take_found();
        if !self.enforces {
            let findings = self.report(&found);
            self.reader.texts.forget_before(self.reader.at);
            return Passed { bytes: shown(chunk), findings, must_stop: false };
        }
        let end = if found.is_empty() { self.reader.at } else { self.act_on(&found, &chunk) };
        let findings = self.report(&found);
        let end = self.end_of_shown(end, &chunk, is_end);
        let bytes = self.release(chunk, end.max(self.released));
        Passed { bytes, findings, must_stop: self.is_stopped }
    }

    /// What was found in the last chunk. A mark in a prompt that the provider repeats was said by the caller, and is no
    /// finding.
    fn take_found(&mut self) -> Vec<Found> {
        let mut found = self.reader.texts.take_found();
        found.retain(|found| !(found.is_echo && self.watch.watched(found.hit.secret).is_prompt_mark()));
        found
    }

    /// Puts stars where they belong, or decides that the answer ends. Answers up to where it may be shown.
    fn act_on(&mut self, found: &[Found], chunk: &[u8]) -> u64 {
        let is_lost = self.reader.texts.is_lost;
        let ends_it =
            |found: &&Found| is_lost || self.can_stop && self.watch.watched(found.hit.secret).is_canary();
        let (ending, masked): (Vec<&Found>, Vec<&Found>) = found.iter().partition(ends_it);
        let end = ending.iter().map(|found| found.quiet_event_to).min();
        self.is_stopped = end.is_some();
        if !masked.is_empty() {
            let unseen = [&self.held, chunk].concat();
            let places = self.reader.texts.places_of(&masked, &unseen, self.released);
            self.mask(places);
        }
        end.unwrap_or(self.reader.at)
    }

    /// What of the answer up to `end` may be shown now.
    fn end_of_shown(&mut self, end: u64, chunk: &[u8], is_end: bool) -> u64 {
        if self.is_stopped || self.reader.texts.is_quiet() {
            return end;
        }
        let texts = &self.reader.texts;
        if texts.is_lost && texts.is_telling(&self.watch.list) {
            // What would be told cannot be masked.
            self.is_stopped = true;
            return texts.quiet_event_to;
        }
        if !is_end {
            return self.hold_from();
        }
        self.mask_telling_ends(chunk);
        end
    }

    /// What of this was not found before in this answer.
    fn report(&mut self, found: &[Found]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for found in found {
            if self.reported.contains(&found.hit.secret) {
                continue;
            }
            self.reported.push(found.hit.secret);
            findings.push(self.watch.finding(&found.hit));
        }
        findings
    }

    /// The answer ends with the beginning of a secret: if that tells too much, it is masked.
    fn mask_telling_ends(&mut self, chunk: &[u8]) {
        let unseen = [&self.held, chunk].concat();
        let places = self.reader.texts.telling_ends(&self.watch.list, &unseen, self.released);
        self.mask(places);
    }

    /// Remembers where stars belong, counted from `released` on.
    fn mask(&mut self, places: Vec<Range<usize>>) {
        let released = self.released;
        self.masks.extend(
            places.into_iter().map(|place| released + place.start as u64..released + place.end as u64),
        );
        self.masks.sort_unstable_by_key(|mask| mask.start);
        self.masks.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            last.end = if touches { last.end.max(next.end) } else { last.end };
            touches
        });
    }

    /// Up to where bytes can be let go while some text ends with what may be a secret's beginning.
    fn hold_from(&mut self) -> u64 {
        let Self { reader: Reader { texts, at, .. }, watch, .. } = self;
        let (at, is_telling) = (*at, texts.is_telling(&watch.list));
        let since = *self.held_since.get_or_insert_with(Instant::now);
        let from = texts.quiet_event_to.max(self.released);
        let is_late = since.elapsed() > HELD_FOR_MAX && !is_telling;
        if !is_late && at - from <= HELD_EVENTS_BYTES_MAX {
            return from;
        }
        let from = texts.quiet_to.max(self.released);
        if !is_late && at - from <= HELD_BYTES_MAX {
            return from;
        }
        if is_telling {
            // Whatever this is, it is neither shown nor kept.
            self.is_stopped = true;
            return from;
        }
        texts.dismiss(at);
        at
    }

    /// Lets go of the bytes up to `end`.
    fn release(&mut self, mut chunk: Bytes, end: u64) -> Option<Bytes> {
        let count = usize::try_from(end - self.released).unwrap_or(usize::MAX);
        let bytes = if self.held.is_empty() && self.masks.is_empty() {
            chunk.split_to(count.min(chunk.len()))
        } else if count == 0 {
            Bytes::new()
        } else {
            self.keep(&mut chunk);
            let rest = self.held.split_off(count.min(self.held.len()));
            let mut bytes = std::mem::replace(&mut self.held, rest);
            self.masks.iter().for_each(|mask| put_stars(&mut bytes, mask, self.released));
            self.masks.retain(|mask| mask.end > end);
            self.masks.shrink_to(MASKS_MAX);
            bytes.into()
        };
        self.keep(&mut chunk);
        self.released = end;
        self.is_stopped |= self.masks.len() > MASKS_MAX;
        if self.held.is_empty() || self.is_stopped {
            (self.held, self.held_since) = (Vec::new(), None);
        }
        self.reader.texts.forget_before(end);
        shown(bytes)
    }

    /// Takes a chunk to what is held.
    fn keep(&mut self, chunk: &mut Bytes) {
        let chunk = std::mem::take(chunk);
        // Not twice as much as is needed.
        self.held.reserve_exact(chunk.len());
        self.held.extend_from_slice(&chunk);
    }
}

fn shown(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

/// Puts stars at a place of the answer, as far as it is within `bytes`, which begin at `start`.
fn put_stars(bytes: &mut [u8], place: &Range<u64>, start: u64) {
    let index = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
    let (from, to) = (index(place.start), index(place.end));
    bytes[from..to].fill(b'*');
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "cost_tests.rs"]
mod cost_tests;

#[cfg(test)]
#[path = "property_tests.rs"]
mod property_tests;
