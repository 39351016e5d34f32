//! What a comparison found: samples by section, subject and metric, one a round, and their medians.

mod document;
mod features;
mod machine;
mod plot;
mod samples;
mod section;
mod table;
mod targets;

use serde::Serialize;

use crate::subject::Name;
pub(crate) use document::document;
pub(crate) use machine::Machine;
pub(crate) use plot::plot;
pub(crate) use samples::Samples;
pub(crate) use section::{Metric, Section};
pub(crate) use table::{human, markdown};

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
    fn summary(&self, has_nginx: bool) -> String {
        let nginx = if has_nginx { ", and after the stroke to nginx," } else { "" };
        let Machine { cpu, cores, kernel, load_average } = &self.machine;
        let version = self.tokfence_version.as_deref().unwrap_or("no tokfence");
        let warning =
            if self.is_debug_build { " Debug build of bench: the numbers mean nothing." } else { "" };
        format!(
            "{version}; {cpu}, {cores} cores, {kernel}, load average {load_average} at the start. {threads} proxy \
             thread(s), {rounds} round(s) of {seconds} s, interleaved; medians over rounds, in parentheses the \
             median ratio to the floor{nginx} of the same round.{warning}",
            threads = self.threads,
            rounds = self.rounds,
            seconds = self.seconds,
        )
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
}
