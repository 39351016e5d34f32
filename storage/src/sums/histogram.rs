//! How many of which length: counts in buckets that grow with what they hold, 64 to each power of two. A value is known
//! to within 1/128; below 128 it is exact.

/// Buckets to each power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts by bucket, as many buckets as were needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram(Vec<u64>);

impl Histogram {
    pub(super) fn add(&mut self, value: u64) {
        self.add_to(bucket(value), 1);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        other.0.iter().enumerate().filter(|(_, count)| **count > 0).for_each(|(bucket, count)| {
            self.add_to(bucket, *count);
        });
    }

    fn add_to(&mut self, bucket: usize, count: u64) {
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] = self.0[bucket].saturating_add(count);
    }

    /// By nearest rank: the value that `percent` of all values do not exceed, to within its bucket.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.0.iter().sum();
        let rank = total.saturating_mul(percent).div_ceil(100);
        let mut seen = 0;
        let found = self.0.iter().position(|count| {
            seen += count;
            rank > 0 && seen >= rank
        });
        found.map(value)
    }

    /// Two bytes of a bucket and four of its count, for each that is not empty, the smallest first.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (bucket, count) =
                (u16::try_from(bucket).unwrap_or(u16::MAX), u32::try_from(*count).unwrap_or(u32::MAX));
            bytes.extend_from_slice(&bucket.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        bytes
    }

    /// Adds what [`Self::encode`] made. What is no such thing is passed over.
    pub(super) fn add_encoded(&mut self, bytes: &[u8]) {
        for entry in bytes.chunks_exact(6) {
            let bucket = usize::from(u16::from_le_bytes([entry[0], entry[1]]));
            if bucket < bucket_count() {
                self.add_to(bucket, u32::from_le_bytes([entry[2], entry[3], entry[4], entry[5]]).into());
            }
        }
    }
}

fn bucket_count() -> usize {
    bucket(u64::MAX) + 1
}

fn bucket(value: u64) -> usize {
    let power = u64::BITS - 1 - value.max(1).leading_zeros();
    let bucket = match power.checked_sub(STEP_BITS) {
        None => value,
        Some(shift) => (u64::from(shift) + 1) * STEPS + (value >> shift) - STEPS,
    };
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The middle of a bucket.
fn value(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match (bucket / STEPS).checked_sub(1) {
        None => bucket,
        Some(shift) => {
            let low = (STEPS + bucket % STEPS) << shift;
            low + ((1 << shift) - 1) / 2
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.add(*value));
        histogram
    }

    #[track_caller]
    fn check_percentile(values: &[u64], percent: u64, expected: Option<u64>) {
        assert_eq!(of(values).percentile(percent), expected, "{percent} % of {values:?}");
    }

    #[test]
    fn percentiles_of_small_values_are_values_that_were_there() {
        check_percentile(&[], 50, None);
        check_percentile(&[7], 50, Some(7));
        check_percentile(&[7], 95, Some(7));
        check_percentile(&[4, 1, 3, 2], 50, Some(2));
        check_percentile(&[4, 1, 3, 2], 95, Some(4));
        check_percentile(&[5, 1, 4, 2, 127], 95, Some(127));
        check_percentile(&[1, 1, 1, 9], 50, Some(1));
        check_percentile(&[0, 0], 50, Some(0));
    }

    #[test]
    fn buckets_follow_each_other_to_the_end() {
        for power in 0..64 {
            let at = 1u64 << power;
            assert_eq!(bucket(at), bucket(at - 1) + 1, "{at}");
        }
        assert!(bucket_count() < usize::from(u16::MAX));
        assert!(value(bucket(u64::MAX)) > u64::MAX / 2);
    }

    proptest! {
        #[test]
        fn a_value_is_known_to_within_a_hundredth(values in proptest::collection::vec(any::<u64>(), 1..50), percent in 1u64..=100) {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = (values.len() as u64 * percent).div_ceil(100);
            let exact = sorted[usize::try_from(rank).unwrap() - 1];
            let told = of(&values).percentile(percent).unwrap();
            prop_assert!(exact.abs_diff(told) <= exact / 128, "{exact} {told}");
        }

        #[test]
        fn what_is_written_and_merged_is_what_was_counted(
            one in proptest::collection::vec(any::<u64>(), 0..50),
            other in proptest::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(&merged, &of(&[one.clone(), other.clone()].concat()));
            let mut read = of(&one);
            read.add_encoded(&of(&other).encode());
            prop_assert_eq!(read, merged);
        }
    }
}
