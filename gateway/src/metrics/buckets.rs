//! Hot: how many durations lie below each of some bounds.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bounds that OpenTelemetry asks for where a model answers, in microseconds: 10 ms, doubling.
pub(super) const SECONDS: [u64; 14] = [
    10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 5_120_000, 10_240_000,
    20_480_000, 40_960_000, 81_920_000,
];
/// The bounds for what takes us microseconds.
pub(super) const MICROSECONDS: [u64; 12] = [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 10_000, 100_000];

/// A histogram over as many bounds as it has counts.
#[derive(Debug)]
pub(super) struct Buckets<const N: usize> {
    /// Those up to the bound of the same place and above the one before.
    counts: [AtomicU64; N],
    above: AtomicU64,
    sum_us: AtomicU64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Buckets<{ SECONDS.len() }> {
    pub(super) fn add(&self, took_us: u64) {
        self.add_under(&SECONDS, took_us);
    }
}

impl Buckets<{ MICROSECONDS.len() }> {
    pub(super) fn add(&self, took_us: u64) {
        self.add_under(&MICROSECONDS, took_us);
    }
}

impl<const N: usize> Buckets<N> {
    fn add_under(&self, bounds: &[u64; N], took_us: u64) {
        let place = bounds.iter().position(|bound| took_us <= *bound);
        let count = place.and_then(|place| self.counts.get(place)).unwrap_or(&self.above);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// How many lie up to each bound, how many there are, and their sum.
    pub(super) fn read(&self) -> (Vec<u64>, u64, u64) {
        let mut below = 0;
        let up_to = self.counts.iter().map(|count| {
            below += count.load(Ordering::Relaxed);
            below
        });
        let up_to: Vec<u64> = up_to.collect();
        (up_to, below + self.above.load(Ordering::Relaxed), self.sum_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_below_its_bound_and_all_above() {
        let buckets = Buckets::<{ MICROSECONDS.len() }>::default();
        [0, 5, 6, 100_000, 100_001].iter().for_each(|took| buckets.add(*took));
        let (up_to, count, sum) = buckets.read();
        assert_eq!((up_to[0], up_to[1], up_to[11]), (2, 3, 4));
        assert_eq!((count, sum), (5, 200_012));
        assert!(up_to.is_sorted() && SECONDS.is_sorted() && MICROSECONDS.is_sorted());
    }
}
