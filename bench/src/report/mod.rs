//! What a comparison found: samples by section, subject and metric, one a round, and their medians.

mod document;
mod machine;
mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::stats::{median, paired_median};
use crate::subject::Name;
pub(crate) use document::document;
pub(crate) use machine::Machine;
pub(crate) use table::{human, markdown};

/// A part of the comparison with a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Section {
    Json,
    JsonRate,
    Sse,
    Paced,
    Memory,
    Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    RequestsPerS,
    LatencyP50Us,
    LatencyP99Us,
    CpuUsPerRequest,
    FirstEventP50Us,
    EventDelayP50Us,
    EventDelayP99Us,
    IdleMib,
    StreamsMib,
    PeakMib,
    FirstAnswerMs,
}

/// What a column shows of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// The median, with its ratio to the floor's.
    Value(Metric, &'static str),
    /// How much more than on the direct way.
    Added(Metric, &'static str),
}

impl Section {
    pub(crate) const ALL: [Self; 6] =
        [Self::Json, Self::JsonRate, Self::Sse, Self::Paced, Self::Memory, Self::Start];

    fn columns(self) -> &'static [Column] {
        use Column::{Added, Value};
        match self {
            Self::Json => &[
                Value(Metric::RequestsPerS, "requests/s"),
                Value(Metric::LatencyP50Us, "p50 µs"),
                Value(Metric::LatencyP99Us, "p99 µs"),
                Value(Metric::CpuUsPerRequest, "CPU µs/request"),
            ],
            Self::JsonRate => &[
                Value(Metric::LatencyP50Us, "p50 µs"),
                Added(Metric::LatencyP50Us, "added p50 µs"),
                Value(Metric::LatencyP99Us, "p99 µs"),
                Added(Metric::LatencyP99Us, "added p99 µs"),
                Value(Metric::CpuUsPerRequest, "CPU µs/request"),
            ],
            Self::Sse => &[
                Value(Metric::RequestsPerS, "streams/s"),
                Value(Metric::LatencyP50Us, "p50 µs"),
                Value(Metric::LatencyP99Us, "p99 µs"),
                Value(Metric::CpuUsPerRequest, "CPU µs/stream"),
            ],
            Self::Paced => &[
                Value(Metric::EventDelayP50Us, "event p50 µs"),
                Value(Metric::EventDelayP99Us, "event p99 µs"),
                Value(Metric::FirstEventP50Us, "first event p50 µs"),
                Added(Metric::FirstEventP50Us, "added to first event µs"),
                Value(Metric::CpuUsPerRequest, "CPU µs/stream"),
            ],
            Self::Memory => &[
                Value(Metric::IdleMib, "idle MiB"),
                Value(Metric::StreamsMib, "200 streams MiB"),
                Value(Metric::PeakMib, "peak MiB"),
            ],
            Self::Start => &[Value(Metric::FirstAnswerMs, "start to first answer ms")],
        }
    }
}

/// The sections that tell what deciding costs, as they are called in the table of that, with their latencies.
const DECIDED: [(Section, &str, Metric, Metric); 4] = [
    (Section::Json, "json", Metric::LatencyP50Us, Metric::LatencyP99Us),
    (Section::JsonRate, "json, open loop", Metric::LatencyP50Us, Metric::LatencyP99Us),
    (Section::Sse, "sse", Metric::LatencyP50Us, Metric::LatencyP99Us),
    (Section::Paced, "paced, each event", Metric::EventDelayP50Us, Metric::EventDelayP99Us),
];

/// What the run was, for the reader of its numbers.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) tokfence_version: Option<String>,
    pub(crate) is_debug_build: bool,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) connections: u32,
    pub(crate) rate: u32,
    pub(crate) threads: usize,
    pub(crate) logs: Vec<Log>,
}

/// Requests that a gateway answered, and how many it says it logged.
#[derive(Debug, Serialize)]
pub(crate) struct Log {
    subject: Name,
    answered: u64,
    logged: Option<u64>,
}

impl Log {
    pub(crate) fn new(subject: Name, answered: u64, logged: Option<u64>) -> Self {
        Self { subject, answered, logged }
    }
}

impl Run {
    fn title(&self, section: Section) -> String {
        let (connections, rate) = (self.connections, self.rate);
        match section {
            Section::Json => {
                format!("json: 500 byte request, 1.5 KB answer, {connections} connections, closed loop")
            }
            Section::JsonRate => format!("json at {rate} requests/s, {connections} connections, open loop"),
            Section::Sse => format!("sse: streams of 200 events, unpaced, {connections} connections"),
            Section::Paced => "paced: 20 streams of 200 events, one each 5 ms".into(),
            Section::Memory => "memory: resident, before any load, with 200 paced streams, highest".into(),
            Section::Start => {
                "start: from the command to the first answer (tokfence: unlock included)".into()
            }
        }
    }

    fn summary(&self) -> String {
        let Machine { cpu, cores, kernel, load_average } = &self.machine;
        let version = self.tokfence_version.as_deref().unwrap_or("no tokfence");
        let warning =
            if self.is_debug_build { " Debug build of bench: the numbers mean nothing." } else { "" };
        format!(
            "{version}; {cpu}, {cores} cores, {kernel}, load average {load_average} at the start. {threads} proxy \
             thread(s), {rounds} round(s) of {seconds} s, interleaved; medians over rounds, in parentheses the \
             median ratio to the floor of the same round.{warning}",
            threads = self.threads,
            rounds = self.rounds,
            seconds = self.seconds,
        )
    }
}

/// All samples; those of one key are in the order of rounds.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(Section, Name, Metric), Vec<f64>>);

impl Samples {
    pub(crate) fn push(&mut self, section: Section, name: Name, metric: Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.0.entry((section, name, metric)).or_default().push(value);
        }
    }

    fn rounds(&self, section: Section, name: Name, metric: Metric) -> &[f64] {
        self.0.get(&(section, name, metric)).map_or(&[], Vec::as_slice)
    }

    fn median(&self, section: Section, name: Name, metric: Metric) -> Option<f64> {
        median(self.rounds(section, name, metric))
    }

    fn ratio(&self, section: Section, name: Name, base: Name, metric: Metric) -> Option<f64> {
        let base = self.rounds(section, base, metric);
        paired_median(self.rounds(section, name, metric), base, |subject, base| subject / base)
    }

    /// How much more than `base`.
    fn added(&self, section: Section, name: Name, base: Name, metric: Metric) -> Option<f64> {
        let base = self.rounds(section, base, metric);
        paired_median(self.rounds(section, name, metric), base, |subject, base| subject - base)
    }

    /// The subjects that have anything in `section`.
    fn names(&self, section: Section) -> Vec<Name> {
        let mut names: Vec<Name> = self.0.keys().filter(|key| key.0 == section).map(|key| key.1).collect();
        names.dedup();
        names
    }

    fn metrics(&self, section: Section, name: Name) -> impl Iterator<Item = Metric> {
        self.0.keys().filter(move |key| key.0 == section && key.1 == name).map(|key| key.2)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two rounds of direct and floor, the second on a machine twice as slow.
    pub(crate) fn samples() -> Samples {
        let mut samples = Samples::default();
        for slowness in [1.0, 2.0] {
            let mut push = |name, value| {
                samples.push(Section::JsonRate, name, Metric::LatencyP50Us, Some(value * slowness));
            };
            push(Name::Direct, 100.0);
            push(Name::Floor, 200.0);
        }
        samples.push(Section::JsonRate, Name::Direct, Metric::CpuUsPerRequest, None);
        samples.push(Section::JsonRate, Name::Floor, Metric::CpuUsPerRequest, Some(30.0));
        samples
    }

    pub(crate) fn run() -> Run {
        Run {
            machine: Machine {
                cpu: "CPU".into(),
                cores: 2,
                kernel: "Linux 6".into(),
                load_average: "0.10".into(),
            },
            tokfence_version: None,
            is_debug_build: false,
            rounds: 2,
            seconds: 1.0,
            connections: 32,
            rate: 1000,
            threads: 1,
            logs: Vec::new(),
        }
    }

    #[test]
    fn ratios_and_differences_are_taken_round_by_round() {
        let samples = samples();
        let of = |name| samples.ratio(Section::JsonRate, name, Name::Floor, Metric::LatencyP50Us);
        assert_eq!(of(Name::Direct), Some(0.5));
        assert_eq!(of(Name::Tokfence), None);
        let added = samples.added(Section::JsonRate, Name::Floor, Name::Direct, Metric::LatencyP50Us);
        assert_eq!(added, Some(150.0));
    }

    #[test]
    fn a_section_names_the_subjects_that_were_measured() {
        assert_eq!(samples().names(Section::JsonRate), [Name::Direct, Name::Floor]);
        assert!(samples().names(Section::Sse).is_empty());
    }
}
