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
const HELD_EVENTS_BYTES_MAX: usize = 16 * 1024;
/// More than this is no key that somebody is spelling.
const HELD_BYTES_MAX: usize = 64 * 1024;
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
    held_since: Option<Instant>,
    /// Where stars belong, from `released` on.
    masks: Vec<Range<u64>>,
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
        let reader = Reader::new(framing, &watch.list);
        Self {
            watch,
            reader,
            enforces,
            can_stop,
            held: Vec::new(),
            released: 0,
            held_since: None,
            masks: Vec::new(),
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
        let mut end = self.reader.at;
        if !found.is_empty() {
            end = self.act_on(&found, &chunk);
        }
        let findings = self.report(&found);
        if self.is_stopped {
            return Passed { bytes: self.release(chunk, end.max(self.released)), findings, must_stop: true };
        }
        if is_end {
            self.mask_telling_ends(&chunk);
        } else if !self.reader.texts.is_quiet() {
            end = self.hold_from(chunk.len());
        }
        let bytes = self.release(chunk, end);
        Passed { bytes, findings, must_stop: self.is_stopped }
    }

    /// What was found in the last chunk. A mark in a prompt that the provider repeats was said by the caller, and is no
    /// finding.
    fn take_found(&mut self) -> Vec<Found> {
        let mut found = self.reader.texts.take_found();
        found.retain(|found| !(found.is_echo && self.watch.watched(found.hit.secret).is_prompt_mark()));
        found
    }

    /// Decides on what was found: where stars belong, and whether the answer ends, and where.
    fn act_on(&mut self, found: &[Found], chunk: &[u8]) -> u64 {
        let unseen = [&self.held[..], chunk].concat();
        let mut end = self.reader.at;
        for found in found {
            if self.can_stop && self.watch.watched(found.hit.secret).is_canary() {
                self.is_stopped = true;
                end = end.min(found.quiet_event_to);
            } else {
                self.masks.extend(self.reader.texts.place_of(found, &unseen, self.released));
            }
        }
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
        if !self.reader.texts.is_quiet() {
            let unseen = [&self.held[..], chunk].concat();
            self.masks.extend(self.reader.texts.telling_ends(&self.watch.list, &unseen, self.released));
        }
    }

    /// Up to where bytes can be let go while some text ends with what may be a secret's beginning.
    fn hold_from(&mut self, chunk: usize) -> u64 {
        let texts = &self.reader.texts;
        let since = *self.held_since.get_or_insert_with(Instant::now);
        if since.elapsed() > HELD_FOR_MAX && !texts.is_telling(&self.watch.list) {
            return self.reader.at;
        }
        let from = texts.quiet_event_to.max(self.released);
        let unseen = self.held.len() + chunk;
        let held = unseen - usize::try_from(from - self.released).unwrap_or(0);
        if held <= HELD_EVENTS_BYTES_MAX {
            return from;
        }
        let from = texts.quiet_to.max(self.released);
        // Whatever this is, it is neither shown nor kept.
        self.is_stopped = self.reader.at - from > HELD_BYTES_MAX as u64;
        from
    }

    /// Lets go of the bytes up to `end`, with stars where they belong.
    fn release(&mut self, chunk: Bytes, end: u64) -> Option<Bytes> {
        let count = usize::try_from(end - self.released).unwrap_or(usize::MAX);
        let bytes = if self.held.is_empty() && self.masks.is_empty() {
            let mut chunk = chunk;
            let bytes = chunk.split_to(count.min(chunk.len()));
            self.held.extend_from_slice(&chunk);
            bytes
        } else {
            self.held.extend_from_slice(&chunk);
            let rest = self.held.split_off(count.min(self.held.len()));
            let mut bytes = std::mem::replace(&mut self.held, rest);
            self.masks.iter().for_each(|mask| put_stars(&mut bytes, mask, self.released));
            self.masks.retain(|mask| mask.end > end);
            bytes.into()
        };
        self.released = end;
        if self.held.is_empty() {
            self.held_since = None;
        }
        self.reader.texts.forget_before(end);
        shown(bytes)
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
#[path = "property_tests.rs"]
mod property_tests;
