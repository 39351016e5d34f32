//! What was measured: samples by section, subject and metric, one a round.

use std::collections::BTreeMap;

use super::{Metric, Section};
use crate::stats::{CURVE, median, paired_median};
use crate::subject::Name;

/// All samples; those of one key are in the order of rounds.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    numbers: BTreeMap<(Section, Name, Metric), Vec<f64>>,
    /// Latencies at each quantile of `CURVE`, one list a round.
    curves: BTreeMap<(Section, Name), Vec<Vec<f64>>>,
}

impl Samples {
    pub(crate) fn push(&mut self, section: Section, name: Name, metric: Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.numbers.entry((section, name, metric)).or_default().push(value);
        }
    }

    pub(crate) fn push_curve(&mut self, section: Section, name: Name, curve_us: &[f64]) {
        self.curves.entry((section, name)).or_default().push(curve_us.to_vec());
    }

    pub(super) fn rounds(&self, section: Section, name: Name, metric: Metric) -> &[f64] {
        self.numbers.get(&(section, name, metric)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn median(&self, section: Section, name: Name, metric: Metric) -> Option<f64> {
        median(self.rounds(section, name, metric))
    }

    pub(super) fn highest(&self, section: Section, name: Name, metric: Metric) -> Option<f64> {
        self.rounds(section, name, metric).iter().copied().reduce(f64::max)
    }

    pub(super) fn ratio(&self, section: Section, name: Name, base: Name, metric: Metric) -> Option<f64> {
        let base = self.rounds(section, base, metric);
        paired_median(self.rounds(section, name, metric), base, |subject, base| subject / base)
    }

    /// How much more than `base`.
    pub(super) fn added(&self, section: Section, name: Name, base: Name, metric: Metric) -> Option<f64> {
        let base = self.rounds(section, base, metric);
        paired_median(self.rounds(section, name, metric), base, |subject, base| subject - base)
    }

    /// The median over rounds at each quantile of `CURVE`, in microseconds, with the quantile; empty where none was
    /// measured.
    pub(super) fn curve_us(&self, section: Section, name: Name) -> Vec<(f64, f64)> {
        let Some(rounds) = self.curves.get(&(section, name)) else { return Vec::new() };
        let at =
            |index: usize| median(&rounds.iter().filter_map(|us| us.get(index).copied()).collect::<Vec<_>>());
        CURVE.iter().enumerate().filter_map(|(index, quantile)| Some((*quantile, at(index)?))).collect()
    }

    /// The subjects that have anything in `section`.
    pub(super) fn names(&self, section: Section) -> Vec<Name> {
        let keys = self.numbers.keys();
        let mut names: Vec<Name> = keys.filter(|key| key.0 == section).map(|key| key.1).collect();
        names.dedup();
        names
    }

    pub(super) fn metrics(&self, section: Section, name: Name) -> impl Iterator<Item = Metric> {
        self.numbers.keys().filter(move |key| key.0 == section && key.1 == name).map(|key| key.2)
    }

    /// Whether `name` was measured at all.
    pub(super) fn has(&self, name: Name) -> bool {
        self.numbers.keys().any(|key| key.1 == name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    #[test]
    fn ratios_and_differences_are_taken_round_by_round() {
        let samples = samples();
        let of = |name| samples.ratio(Section::JsonRate, name, Name::Floor, Metric::LatencyP50Us);
        assert_eq!(of(Name::Direct), Some(0.5));
        assert_eq!(of(Name::Everything), None);
        let added = samples.added(Section::JsonRate, Name::Floor, Name::Direct, Metric::LatencyP50Us);
        assert_eq!(added, Some(150.0));
    }

    #[test]
    fn a_section_names_the_subjects_that_were_measured() {
        assert_eq!(samples().names(Section::JsonRate), [Name::Direct, Name::Floor]);
        assert!(samples().names(Section::Sse).is_empty());
    }

    #[test]
    fn a_curve_is_the_median_of_the_rounds_at_each_quantile() {
        let mut samples = Samples::default();
        for us in [1.0, 5.0, 3.0] {
            samples.push_curve(Section::JsonRate, Name::Floor, &[us, us * 2.0]);
        }
        assert_eq!(samples.curve_us(Section::JsonRate, Name::Floor), [(0.0, 3.0), (0.1, 6.0)]);
        assert!(samples.curve_us(Section::JsonRate, Name::Direct).is_empty());
    }
}
