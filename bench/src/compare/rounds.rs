//! The loads of a comparison, their order, and which of their numbers are kept.

use anyhow::Result;

use super::{CompareArgs, Part, progress};
use crate::measure::{Measurement, measure};
use crate::process::Memory;
use crate::report::{Metric, Samples, Section};
use crate::stats::Quantiles;
use crate::subject::{Name, Subject};

const WARM_UP_SECONDS_MAX: f64 = 0.5;

/// Measures memory first, while the processes are new, then all rounds, then the highest memory.
pub(super) async fn measure_all(
    args: &CompareArgs,
    subjects: &mut [Subject],
    samples: &mut Samples,
) -> Result<()> {
    if args.wants(Part::Memory) {
        progress("memory");
        measure_streams(args, subjects, samples).await?;
    }
    let sections = sections(args);
    if !sections.is_empty() {
        measure_round(args, &sections, None, subjects, &mut Samples::default()).await?;
        for round in 0..args.rounds {
            progress(&format!("round {} of {}", round + 1, args.rounds));
            measure_round(args, &sections, Some(round), subjects, samples).await?;
        }
    }
    if args.wants(Part::Memory) {
        for subject in subjects {
            let peak_mib = subject.pid.map(Memory::of).transpose()?.map(|memory| memory.peak_mib);
            samples.push(Section::Memory, subject.name, Metric::PeakMib, peak_mib);
        }
    }
    Ok(())
}

fn sections(args: &CompareArgs) -> Vec<Section> {
    let parts = [
        (Part::Json, Section::Json),
        (Part::Json, Section::JsonRate),
        (Part::Sse, Section::Sse),
        (Part::Paced, Section::Paced),
    ];
    parts.into_iter().filter(|(part, _)| args.wants(*part)).map(|(_, section)| section).collect()
}

/// One load of each section on each subject; without a number it is a short one to warm up.
async fn measure_round(
    args: &CompareArgs,
    sections: &[Section],
    round: Option<u32>,
    subjects: &mut [Subject],
    samples: &mut Samples,
) -> Result<()> {
    let seconds = if round.is_some() { args.seconds } else { args.seconds.min(WARM_UP_SECONDS_MAX) };
    let shift = usize::try_from(round.unwrap_or(0)).unwrap_or(0) % subjects.len();
    for &section in sections {
        let arguments = load_arguments(args, section, seconds);
        let (last, first) = subjects.split_at_mut(shift);
        for subject in first.iter_mut().chain(last) {
            let measurement = measure(subject, &arguments).await?;
            keep(samples, section, subject.name, &measurement);
        }
    }
    Ok(())
}

fn load_arguments(args: &CompareArgs, section: Section, seconds: f64) -> Vec<String> {
    let (connections, rate) = (args.connections, args.rate);
    let text = match section {
        Section::Json => format!("--workload json --connections {connections} --seconds {seconds}"),
        Section::JsonRate => {
            format!("--workload json --connections {connections} --seconds {seconds} --rate {rate}")
        }
        Section::Sse => format!("--workload sse --connections {connections} --seconds {seconds}"),
        Section::Paced => "--workload paced --connections 20 --requests 20 --events 200 --gap-ms 5".into(),
        // Slower than `paced`: memory is what counts here, not how the machine copes with the rate.
        Section::Memory => {
            "--workload paced --connections 200 --requests 200 --events 100 --gap-ms 20".into()
        }
        // The start is measured while setting up, with single requests.
        Section::Start => String::new(),
    };
    text.split_ascii_whitespace().map(String::from).collect()
}

async fn measure_streams(args: &CompareArgs, subjects: &mut [Subject], samples: &mut Samples) -> Result<()> {
    let arguments = load_arguments(args, Section::Memory, args.seconds);
    for subject in subjects.iter_mut().filter(|subject| subject.pid.is_some()) {
        let streams_mib = measure(subject, &arguments).await?.memory_mib;
        samples.push(Section::Memory, subject.name, Metric::StreamsMib, streams_mib);
    }
    Ok(())
}

fn keep(samples: &mut Samples, section: Section, name: Name, measurement: &Measurement) {
    let Measurement { load, cpu_us_per_request, .. } = measurement;
    let mut push = |metric, value| samples.push(section, name, metric, value);
    let p50 = |quantiles: Option<Quantiles>| quantiles.map(|quantiles| quantiles.p50_us);
    let p99 = |quantiles: Option<Quantiles>| quantiles.map(|quantiles| quantiles.p99_us);
    push(Metric::RequestsPerS, Some(load.requests_per_s));
    push(Metric::LatencyP50Us, p50(load.latency));
    push(Metric::LatencyP99Us, p99(load.latency));
    push(Metric::CpuUsPerRequest, *cpu_us_per_request);
    push(Metric::FirstEventP50Us, p50(load.first_event));
    push(Metric::EventDelayP50Us, p50(load.event_delay));
    push(Metric::EventDelayP99Us, p99(load.event_delay));
}
