//! What the gateway is meant to cost with everything on, held against what it did cost in this run.

use serde::Serialize;

use super::{Metric, Samples, Section};
use crate::subject::Name;

/// A target, and how it was met.
#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) text: &'static str,
    pub(super) bound: Bound,
    /// None: not part of this run.
    pub(super) measured: Option<f64>,
    pub(super) is_met: Option<bool>,
    pub(super) unit: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    Most(f64),
    Least(f64),
    /// To three digits after the point.
    Exactly(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Most(most) => value <= most,
            Self::Least(least) => value >= least,
            Self::Exactly(wanted) => (value - wanted).abs() < 0.0005,
        }
    }
}

/// How a target's number comes out of the samples.
#[derive(Debug, Clone, Copy)]
enum Figure {
    Ratio(Section, Metric, Name),
    Added(Section, Metric, Name),
    Median(Section, Metric),
    /// Of what must never happen, one time is too much.
    Highest(Section, Metric),
    /// By another command, because it needs another tool.
    Elsewhere,
}

impl Figure {
    fn of(self, samples: &Samples) -> Option<f64> {
        let name = Name::Everything;
        match self {
            Self::Ratio(section, metric, base) => samples.ratio(section, name, base, metric),
            Self::Added(section, metric, base) => samples.added(section, name, base, metric),
            Self::Median(section, metric) => samples.median(section, name, metric),
            Self::Highest(section, metric) => samples.highest(section, name, metric),
            Self::Elsewhere => None,
        }
    }
}

/// What a call may cost with everything on.
pub(super) const CPU_TO_FLOOR_MOST: f64 = 1.15;

const TARGETS: [(&str, Bound, Figure, &str); 18] = [
    ("CPU per call, × floor", Bound::Most(CPU_TO_FLOOR_MOST), CPU_TO_FLOOR, "×"),
    ("CPU per call, × floor, never over", Bound::Most(1.25), CPU_TO_FLOOR, "×"),
    ("CPU per call, × nginx", Bound::Most(2.4), CPU_TO_NGINX, "×"),
    ("CPU per stream of 66 events, × nginx", Bound::Most(2.0), STREAM_TO_NGINX, "×"),
    ("instructions per call, × floor (`bench instructions`)", Bound::Most(1.3), Figure::Elsewhere, "×"),
    (
        "instructions per SSE chunk over the floor (`bench instructions`)",
        Bound::Most(2000.0),
        Figure::Elsewhere,
        "",
    ),
    ("rate of the json load, × floor", Bound::Least(0.9), RATE, "×"),
    ("p50 over the floor, one connection", Bound::Most(20.0), ADDED, " µs"),
    ("first event over nginx", Bound::Most(1000.0), FIRST_EVENT, " µs"),
    ("time of an event over nginx", Bound::Most(20.0), EVENT, " µs"),
    ("events per read", Bound::Exactly(1.0), EVENTS_PER_READ, ""),
    ("calls admitted over a one-call budget, 64 at once", Bound::Exactly(0.0), OVER, ""),
    ("time of a 1 MB prompt, × floor", Bound::Most(1.25), PROMPT, "×"),
    ("resident idle", Bound::Most(15.0), memory(Metric::IdleMib), " MiB"),
    ("resident at the json load", Bound::Most(25.0), memory(Metric::ConnectionsMib), " MiB"),
    ("resident for each idle connection", Bound::Most(50.0), memory(Metric::IdleConnectionKib), " KiB"),
    ("resident with 1,000 streams", Bound::Most(120.0), memory(Metric::Streams1000Mib), " MiB"),
    ("start to first answer, without key derivation", Bound::Most(150.0), START, " ms"),
];

const CPU_TO_FLOOR: Figure = Figure::Ratio(Section::Json, Metric::CpuUsPerRequest, Name::Floor);
const CPU_TO_NGINX: Figure = Figure::Ratio(Section::Json, Metric::CpuUsPerRequest, Name::Nginx);
const STREAM_TO_NGINX: Figure = Figure::Ratio(Section::Sse66, Metric::CpuUsPerRequest, Name::Nginx);
const RATE: Figure = Figure::Ratio(Section::Json, Metric::RequestsPerS, Name::Floor);
const ADDED: Figure = Figure::Added(Section::JsonSingle, Metric::LatencyP50Us, Name::Floor);
const FIRST_EVENT: Figure = Figure::Added(Section::Paced, Metric::FirstEventP50Us, Name::Nginx);
const EVENT: Figure = Figure::Added(Section::Paced, Metric::EventDelayP50Us, Name::Nginx);
const EVENTS_PER_READ: Figure = Figure::Median(Section::Paced, Metric::EventsPerRead);
const OVER: Figure = Figure::Highest(Section::Overrun, Metric::AdmittedOver);
const PROMPT: Figure = Figure::Ratio(Section::Prompt1M, Metric::LatencyP50Us, Name::Floor);
const START: Figure = Figure::Median(Section::Start, Metric::LockedStartMs);

const fn memory(metric: Metric) -> Figure {
    Figure::Median(Section::Memory, metric)
}

/// All targets, in the order in which they are told.
pub(super) fn targets(samples: &Samples) -> Vec<Target> {
    let target = |(text, bound, figure, unit): (_, Bound, Figure, _)| {
        let measured = figure.of(samples);
        Target { text, bound, measured, is_met: measured.map(|value| bound.holds(value)), unit }
    };
    TARGETS.into_iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict of the target called `text` when the gateway used `us` of CPU and the floor 100.
    #[track_caller]
    fn check(us: f64, text: &str, want: Option<bool>) {
        let mut samples = Samples::default();
        for (name, us) in [(Name::Floor, 100.0), (Name::Everything, us)] {
            samples.push(Section::Json, name, Metric::CpuUsPerRequest, Some(us));
        }
        let found = targets(&samples).into_iter().find(|target| target.text == text).expect("a target");
        assert_eq!(found.is_met, want, "{found:?}");
    }

    #[test]
    fn a_target_is_met_up_to_its_bound() {
        check(115.0, "CPU per call, × floor", Some(true));
        check(116.0, "CPU per call, × floor", Some(false));
        check(116.0, "CPU per call, × floor, never over", Some(true));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        check(115.0, "CPU per call, × nginx", None);
        check(115.0, "resident idle", None);
    }

    #[test]
    fn one_call_over_the_budget_in_one_trial_is_a_miss() {
        let mut samples = Samples::default();
        for over in [0.0, 1.0, 0.0] {
            samples.push(Section::Overrun, Name::Everything, Metric::AdmittedOver, Some(over));
        }
        let over = OVER.of(&samples);
        assert_eq!(over, Some(1.0));
        assert!(!Bound::Exactly(0.0).holds(1.0));
    }

    #[test]
    fn events_per_read_are_exact_to_three_digits() {
        let bound = Bound::Exactly(1.0);
        assert_eq!([1.0, 1.0004, 1.001, 0.9].map(|value| bound.holds(value)), [true, true, false, false]);
    }
}
