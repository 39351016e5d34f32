//! Signals that only several things make together: a book of what was seen in the last minutes.

use crate::{Map, Signal, Subject, TimestampUs};

use super::MINUTE_US;

/// What is counted lies at most so long apart.
const SPAN_US: i64 = 10 * MINUTE_US;
/// Subjects and signals that are counted at once.
const ENTRIES_MAX: usize = 4_096;

/// What was seen lately, by subject and signal. It is kept in memory: who starts anew counts anew.
#[derive(Debug, Default)]
pub struct SignalCounter {
    seen: Map<(Subject, Signal), Vec<Seen>>,
}

#[derive(Debug)]
struct Seen {
    at: TimestampUs,
    /// What makes it different from others, as a number.
    what: u64,
}

impl SignalCounter {
    /// Counts one, and answers whether it makes `needed` within ten minutes. Then counting begins anew. Of denials those
    /// of the same thing (`what`) count once: a caller that repeats one request asks for nothing else.
    pub fn count(
        &mut self,
        subject: Subject,
        signal: Signal,
        what: u64,
        needed: usize,
        now: TimestampUs,
    ) -> bool {
        let key = (subject, signal);
        if self.seen.len() >= ENTRIES_MAX && !self.seen.contains_key(&key) {
            self.forget_old(now);
        }
        let seen = self.seen.entry(key.clone()).or_default();
        seen.retain(|seen| now.saturating_sub(seen.at) < SPAN_US);
        let is_distinct = signal == Signal::ScopeDenials;
        if is_distinct && let Some(same) = seen.iter_mut().find(|seen| seen.what == what) {
            same.at = now;
        } else {
            seen.push(Seen { at: now, what });
        }
        let is_enough = seen.len() >= needed;
        if is_enough {
            self.seen.remove(&key);
        }
        is_enough
    }

    /// Makes room: for those that are not counted any more, and if that is not enough for all.
    fn forget_old(&mut self, now: TimestampUs) {
        self.seen.retain(|_, seen| seen.iter().any(|seen| now.saturating_sub(seen.at) < SPAN_US));
        if self.seen.len() >= ENTRIES_MAX {
            self.seen.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(counter: &mut SignalCounter, signal: Signal, what: u64, now: TimestampUs) -> bool {
        counter.count(Subject::Global, signal, what, 3, now)
    }

    #[test]
    fn so_many_within_ten_minutes_are_a_signal() {
        let mut counter = SignalCounter::default();
        let dead = Signal::DeadCapability;
        assert!(!count(&mut counter, dead, 1, 0));
        assert!(!count(&mut counter, dead, 1, SPAN_US - 1));
        assert!(!count(&mut counter, dead, 1, SPAN_US), "the first is too old");
        assert!(count(&mut counter, dead, 1, SPAN_US + 1));
        assert!(!count(&mut counter, dead, 1, SPAN_US + 2), "it begins anew");
    }

    #[test]
    fn what_is_denied_again_and_again_is_one_denial() {
        let mut counter = SignalCounter::default();
        let denials = Signal::ScopeDenials;
        assert!((0..100).all(|now| !count(&mut counter, denials, 1, now)));
        assert!(!count(&mut counter, denials, 2, 100));
        assert!(count(&mut counter, denials, 3, 101));
    }

    #[test]
    fn the_book_does_not_grow_without_end() {
        let mut counter = SignalCounter::default();
        for number in 0..3 * ENTRIES_MAX {
            let agent = Subject::Agent(format!("a{number}").parse().unwrap());
            counter.count(agent, Signal::DeadCapability, 0, 3, 0);
            assert!(counter.seen.len() <= ENTRIES_MAX);
        }
    }
}
