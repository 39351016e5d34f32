//! Medians over rounds, and latency as a distribution.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

const LATENCY_MAX_NS: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The quantiles of a latency's curve, closer to each other towards the end, which is what a curve is looked at for.
pub(crate) const CURVE: [f64; 15] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.999_75, 0.9999];

/// The middle value, or the mean of the two in the middle; none of no values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[middle - 1] + upper) / 2.0)
}

/// The median of what `combine` makes of the two values of each round. Both values of a round met the same
/// state of the machine, so this moves less than `combine` of the two medians.
pub(crate) fn paired_median(left: &[f64], right: &[f64], combine: impl Fn(f64, f64) -> f64) -> Option<f64> {
    let pairs: Vec<f64> = left.iter().zip(right).map(|(&l, &r)| combine(l, r)).collect();
    median(&pairs)
}

/// A line through points, by least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Line {
    /// Of y for one of x.
    pub(crate) slope: f64,
    /// The standard error of the slope, from how the points scatter about the line.
    pub(crate) slope_error: f64,
}

impl Line {
    /// None of fewer than three points, which say nothing of how they scatter, or of points above each other.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 3 {
            return None;
        }
        let count = points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let off_line = |(x, y): &(f64, f64)| (y - mean_y - slope * (x - mean_x)).powi(2);
        let scatter = points.iter().map(off_line).sum::<f64>() / (count - 2.0);
        Some(Self { slope, slope_error: (scatter / spread).sqrt() })
    }
}

/// Latencies in nanoseconds, 1 ns to 60 s with three significant digits.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        Histogram::new_with_bounds(1, LATENCY_MAX_NS, SIGNIFICANT_DIGITS)
            .map(Self)
            .context("histogram bounds")
    }

    /// Records one value; what is past the range counts as the end of the range, so it still weighs.
    pub(crate) fn record_ns(&mut self, latency_ns: u64) {
        self.0.saturating_record(latency_ns.max(1));
    }

    /// The values at `quantiles`, in microseconds; none of no values.
    pub(crate) fn at(&self, quantiles: &[f64]) -> Vec<f64> {
        if self.0.is_empty() {
            return Vec::new();
        }
        quantiles.iter().map(|quantile| ns_to_us(self.0.value_at_quantile(*quantile))).collect()
    }

    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        if self.0.is_empty() {
            return None;
        }
        let us = |quantile| ns_to_us(self.0.value_at_quantile(quantile));
        Some(Quantiles {
            count: self.0.len(),
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: ns_to_us(self.0.max()),
        })
    }
}

/// A distribution in the form in which it is reported, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

fn ns_to_us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_value() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was ten times slower in the second round; the ratio is 2 in each.
        let ratio = paired_median(&[2.0, 20.0, 2.0], &[1.0, 10.0, 1.0], |subject, floor| subject / floor);
        assert_eq!(ratio, Some(2.0));
        assert_eq!(paired_median(&[], &[1.0], |l, r| l / r), None);
    }

    #[test]
    fn a_line_has_the_slope_of_its_points_and_an_error_that_grows_with_their_scatter() {
        let exact = Line::through(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]).expect("a line");
        assert_eq!(exact, Line { slope: 2.0, slope_error: 0.0 });
        // Residuals of 1, -1, -1, 1: their squares, 4, over two degrees of freedom and the spread of 5.
        let scattered = Line::through(&[(0.0, 2.0), (1.0, 2.0), (2.0, 4.0), (3.0, 8.0)]).expect("a line");
        assert!((scattered.slope - 2.0).abs() < 1e-9, "{scattered:?}");
        assert!((scattered.slope_error - 0.4_f64.sqrt()).abs() < 1e-9, "{scattered:?}");
        assert_eq!(Line::through(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Line::through(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn quantiles_are_those_of_the_recorded_values() {
        let mut latencies = Latencies::new().expect("bounds hold");
        assert_eq!(latencies.quantiles(), None);
        for us in 1..=1000 {
            latencies.record_ns(us * 1000);
        }
        let quantiles = latencies.quantiles().expect("recorded");
        assert_eq!(quantiles.count, 1000);
        assert!((quantiles.p50_us - 500.0).abs() <= 1.0, "{quantiles:?}");
        assert!((quantiles.p99_us - 990.0).abs() <= 1.0, "{quantiles:?}");
        assert!((quantiles.max_us - 1000.0).abs() <= 1.0, "{quantiles:?}");
    }

    #[test]
    fn a_value_past_the_range_still_counts() {
        let mut latencies = Latencies::new().expect("bounds hold");
        latencies.record_ns(0);
        latencies.record_ns(u64::MAX);
        assert_eq!(latencies.quantiles().map(|q| q.count), Some(2));
    }
}
