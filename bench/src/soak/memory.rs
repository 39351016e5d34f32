//! Whether a process grows, from samples of it.
//!
//! Samples that are taken one after the other are not independent: an allocator keeps pages for seconds. So the line is laid
//! through means of a minute each, about which nothing is known but how they scatter, and what the slope of such
//! a line may be off by is twice its standard error (19 times in 20). Where minutes scatter so much that this says nothing, it
//! excuses nothing either: there is a most.

use std::time::Duration;

use serde::Serialize;

use super::samples::{PER_MINUTE, Sample};
use crate::stats::Line;

const WARM_UP_PART: f64 = 0.25;
const WARM_UP_MAX: Duration = Duration::from_secs(15 * 60);
const SECONDS_PER_HOUR: f64 = 3600.0;
/// Before this a line is told and not judged: of seven minutes its noise is larger than what it has to stay under.
const JUDGED_FROM: Duration = Duration::from_secs(30 * 60);
const SLOPE_MOST: f64 = 2.0;
const NOISE_MOST: f64 = 4.0;

/// How fast resident memory grows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Growth {
    pub(super) mib_per_h: f64,
    /// What it may be off by.
    pub(super) noise: f64,
}

impl Growth {
    /// None of too few minutes.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        let minutes: Vec<(f64, f64)> = samples.chunks_exact(PER_MINUTE).map(mean).collect();
        let line = Line::through(&minutes)?;
        Some(Self { mib_per_h: line.slope, noise: 2.0 * line.slope_error })
    }

    /// The most that it may be.
    pub(super) fn most(self) -> f64 {
        SLOPE_MOST + self.noise.min(NOISE_MOST)
    }

    /// None: the run was too short to say.
    pub(super) fn is_met(self, length: Duration) -> Option<bool> {
        (length >= JUDGED_FROM).then(|| self.mib_per_h <= self.most())
    }
}

/// Hours and MiB.
fn mean(samples: &[Sample]) -> (f64, f64) {
    let count = samples.len() as f64;
    let sum = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>();
    (sum(|sample| sample.at_s) / count / SECONDS_PER_HOUR, sum(|sample| sample.rss_mib) / count)
}

/// The samples while all of the load ran and caches had filled: without the first quarter, or the first quarter of an hour if
/// that is less, and without the last streams, which end when no other begins.
pub(super) fn after_warm_up(samples: &[Sample], length: Duration) -> &[Sample] {
    let warm_up = length.mul_f64(WARM_UP_PART).min(WARM_UP_MAX);
    let [first, end] =
        [warm_up, length].map(|time| samples.partition_point(|sample| sample.at_s < time.as_secs_f64()));
    &samples[first..end]
}

/// The least files that were open at once in the first and in the last quarter of the samples. What is never closed is open in every
/// later sample, so the least tells a leak, whereas the number of connections to the provider goes up and down: one more is made
/// when requests come together, as they do on a busy machine, and kept for a while. None of less than a minute.
pub(super) fn files_at_ends(samples: &[Sample]) -> Option<(usize, usize)> {
    if samples.len() < PER_MINUTE {
        return None;
    }
    let quarter = samples.len() / 4;
    let least = |part: &[Sample]| part.iter().map(|sample| sample.files).min();
    Some((least(&samples[..quarter])?, least(&samples[samples.len() - quarter..])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::samples::PERIOD;

    fn samples(count: u32, rss_mib: impl Fn(f64) -> f64) -> Vec<Sample> {
        let sample = |at: u32| {
            let at_s = f64::from(at) * PERIOD.as_secs_f64();
            Sample { at_s, rss_mib: rss_mib(at_s), files: 50, threads: 9, wal_mib: 4.0 }
        };
        (0..count).map(sample).collect()
    }

    const HALF_HOUR: Duration = JUDGED_FROM;

    #[test]
    fn what_grows_by_three_mib_an_hour_is_a_miss() {
        let growth = Growth::of(&samples(900, |at_s| 30.0 + at_s * 3.0 / SECONDS_PER_HOUR)).expect("a line");
        assert!((growth.mib_per_h - 3.0).abs() < 1e-6, "{growth:?}");
        assert_eq!(growth.is_met(HALF_HOUR), Some(false));
        assert_eq!(growth.is_met(HALF_HOUR / 2), None, "a short run says nothing");
    }

    #[test]
    fn what_goes_up_and_down_within_minutes_is_none() {
        let growth = Growth::of(&samples(900, |at_s| 30.0 + (at_s / 9.0).sin())).expect("a line");
        assert_eq!(growth.is_met(HALF_HOUR), Some(true), "{growth:?}");
    }

    #[test]
    fn wild_memory_is_not_excused_by_its_wildness() {
        let wild = Growth { mib_per_h: 20.0, noise: 50.0 };
        assert_eq!(wild.is_met(HALF_HOUR), Some(false));
    }

    #[test]
    fn the_warm_up_is_a_quarter_and_at_most_a_quarter_of_an_hour() {
        let first = |minutes: u64| {
            let length = Duration::from_secs(60 * minutes);
            after_warm_up(&samples(4000, |_| 30.0), length).first().map(|sample| sample.at_s)
        };
        assert_eq!([first(2), first(60), first(120)], [Some(30.0), Some(900.0), Some(900.0)]);
    }

    #[test]
    fn what_is_seen_when_the_load_has_ended_does_not_count() {
        let all = samples(100, |_| 30.0);
        let warm = after_warm_up(&all, Duration::from_secs(120));
        assert_eq!(warm.last().map(|sample| sample.at_s), Some(118.0));
    }

    #[test]
    fn files_that_stay_open_are_told_from_connections_that_come_and_go() {
        let mut all = samples(100, |_| 30.0);
        for busy in &mut all[80..95] {
            busy.files = 70;
        }
        assert_eq!(files_at_ends(&all), Some((50, 50)));
        for leaking in &mut all[60..] {
            leaking.files += 6;
        }
        assert_eq!(files_at_ends(&all), Some((50, 56)));
        assert_eq!(files_at_ends(&all[..PER_MINUTE - 1]), None);
    }
}
