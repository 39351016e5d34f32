//! Spending that rises as it never did: more in ten minutes than five times what is usual, and much of a day's budget.

use std::collections::VecDeque;

use crate::{Map, NanoUsd, Subject, TimestampUs};

use super::MINUTE_US;

const BUCKET_US: i64 = 10 * MINUTE_US;
/// Buckets of a day.
const BUCKETS: i64 = 144;
/// Nothing is usual before there were so many buckets with spending in them.
const BUCKETS_MIN: usize = 6;
const TIMES_USUAL: i64 = 5;
/// The part of a day's budget that must be spent in one bucket.
const PART_OF_BUDGET: i64 = 4;
const SUBJECTS_MAX: usize = 4_096;

/// What was spent lately, by subject. It is kept in memory: who starts anew learns anew what is usual.
#[derive(Debug, Default)]
pub struct SpendSlope {
    spent: Map<Subject, VecDeque<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    number: i64,
    nanos: i64,
    is_told: bool,
}

impl SpendSlope {
    /// Counts what was spent at `now`, and answers whether spending rises as it never did; of each ten minutes once.
    /// `day` is what the subject may spend in a day.
    pub fn add(&mut self, subject: &Subject, spent: NanoUsd, day: NanoUsd, now: TimestampUs) -> bool {
        if self.spent.len() >= SUBJECTS_MAX && !self.spent.contains_key(subject) {
            self.spent.clear();
        }
        let number = now.div_euclid(BUCKET_US);
        let buckets = self.spent.entry(subject.clone()).or_default();
        while buckets.front().is_some_and(|bucket| bucket.number <= number - BUCKETS) {
            buckets.pop_front();
        }
        if buckets.back().is_none_or(|bucket| bucket.number < number) {
            buckets.push_back(Bucket { number, nanos: 0, is_told: false });
        }
        let usual = usual(buckets);
        let Some(last) = buckets.back_mut() else { return false };
        last.nanos = last.nanos.saturating_add(spent.nanos());
        let is_much = last.nanos > day.nanos() / PART_OF_BUDGET;
        let is_unusual = usual.is_some_and(|usual| last.nanos > usual.saturating_mul(TIMES_USUAL));
        is_much && is_unusual && !std::mem::replace(&mut last.is_told, true)
    }
}

/// The median of the buckets before the last in which anything was spent.
fn usual(buckets: &VecDeque<Bucket>) -> Option<i64> {
    let before = buckets.len().saturating_sub(1);
    let mut nanos: Vec<i64> = buckets.iter().take(before).map(|bucket| bucket.nanos).collect();
    nanos.retain(|nanos| *nanos > 0);
    nanos.sort_unstable();
    (nanos.len() >= BUCKETS_MIN).then(|| nanos[nanos.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: NanoUsd = NanoUsd::from_nanos(10_000);

    fn spend(slope: &mut SpendSlope, nanos: i64, bucket: i64) -> bool {
        slope.add(&Subject::Global, NanoUsd::from_nanos(nanos), DAY, bucket * BUCKET_US)
    }

    #[test]
    fn a_rise_needs_a_past_that_was_flat() {
        let mut slope = SpendSlope::default();
        assert!(!spend(&mut slope, 9_000, 0), "nothing is usual yet");
        let mut slope = SpendSlope::default();
        assert!((0..6).all(|bucket| !spend(&mut slope, 100, bucket)));
        assert!(!spend(&mut slope, 2_500, 6), "a quarter is not more than a quarter");
        assert!(spend(&mut slope, 1, 6));
        assert!(!spend(&mut slope, 5_000, 6), "it is told once");
    }

    #[test]
    fn what_is_usual_or_little_is_no_rise() {
        let mut slope = SpendSlope::default();
        assert!((0..20).all(|bucket| !spend(&mut slope, 2_600, bucket)), "it is always so");
        let mut slope = SpendSlope::default();
        assert!((0..6).all(|bucket| !spend(&mut slope, 100, bucket)));
        assert!(!spend(&mut slope, 2_400, 6), "little of the day's budget");
    }

    #[test]
    fn what_was_usual_a_day_ago_is_forgotten() {
        let mut slope = SpendSlope::default();
        assert!((0..6).all(|bucket| !spend(&mut slope, 100, bucket)));
        assert!(!spend(&mut slope, 9_000, 200));
    }
}
