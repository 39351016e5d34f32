//! The loads of a comparison, their order, and which of their numbers are kept.

use anyhow::Result;

use super::{CompareArgs, Part, progress};
use crate::measure::{Measurement, measure};
use crate::report::{Metric, Samples, Section};
use crate::subject::{Name, Subject};

/// Each load follows a short one of its kind on the same subject, which is not counted: whoever waits for its turn for
/// some seconds loses its place in the caches, and on some machines its pages.
const WARM_UP_SECONDS: f64 = 0.2;
/// The same for streams whose length is told in events.
const WARM_UP_EVENTS: u32 = 20;

/// Events of a paced stream that counts.
const PACED_EVENTS: u32 = 200;

/// All rounds.
pub(super) async fn measure_all(
    args: &CompareArgs,
    subjects: &mut [Subject],
    samples: &mut Samples,
) -> Result<()> {
    let sections = sections(args);
    if sections.is_empty() {
        return Ok(());
    }
    for round in 0..args.rounds() {
        progress(&format!("round {} of {}", round + 1, args.rounds()));
        measure_round(args, &sections, round, subjects, samples).await?;
    }
    Ok(())
}

fn sections(args: &CompareArgs) -> Vec<Section> {
    let parts = [
        (Part::Json, Section::Json),
        (Part::Json, Section::JsonSingle),
        (Part::Json, Section::JsonRate),
        (Part::Prompts, Section::Prompt50K),
        (Part::Prompts, Section::Prompt1M),
        (Part::Sse, Section::Sse),
        (Part::Sse, Section::Sse66),
        (Part::Paced, Section::Paced),
    ];
    parts.into_iter().filter(|(part, _)| args.wants(*part)).map(|(_, section)| section).collect()
}

/// One load of each section on each subject, who begin by turns.
async fn measure_round(
    args: &CompareArgs,
    sections: &[Section],
    round: u32,
    subjects: &mut [Subject],
    samples: &mut Samples,
) -> Result<()> {
    let shift = usize::try_from(round).unwrap_or(0) % subjects.len();
    for &section in sections {
        let warm_up = arguments(&load(args, section, WARM_UP_SECONDS, WARM_UP_EVENTS));
        let arguments = arguments(&load(args, section, args.seconds(), PACED_EVENTS));
        let (last, first) = subjects.split_at_mut(shift);
        for subject in first.iter_mut().chain(last).filter(|subject| args.measures(section, subject.name)) {
            if !args.quick {
                measure(subject, &warm_up).await?;
            }
            let measurement = measure(subject, &arguments).await?;
            keep(samples, section, subject.name, &measurement);
        }
    }
    Ok(())
}

/// The arguments of `bench load` for a section of the rounds.
fn load(args: &CompareArgs, section: Section, seconds: f64, paced_events: u32) -> String {
    let (connections, rate) = (args.connections, args.rate);
    match section {
        Section::Json => format!("--workload json --connections {connections} --seconds {seconds}"),
        Section::JsonSingle => format!("--workload json --connections 1 --seconds {seconds}"),
        Section::JsonRate => {
            format!("--workload json --connections {connections} --seconds {seconds} --rate {rate}")
        }
        Section::Prompt50K => {
            format!("--workload json --connections 1 --seconds {seconds} --prompt-bytes 50000")
        }
        Section::Prompt1M => {
            format!("--workload json --connections 1 --seconds {seconds} --prompt-bytes 1000000")
        }
        Section::Sse => format!("--workload sse --connections {connections} --seconds {seconds}"),
        // With those that frame it a stream of 66 events.
        Section::Sse66 => {
            format!("--workload whole --connections {connections} --seconds {seconds} --events 62")
        }
        Section::Paced => {
            format!("--workload paced --connections 20 --requests 20 --events {paced_events} --gap-ms 5")
        }
        // Measured apart from the rounds.
        Section::Memory | Section::Start | Section::Overrun => String::new(),
    }
}

pub(super) fn arguments(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(String::from).collect()
}

fn keep(samples: &mut Samples, section: Section, name: Name, measurement: &Measurement) {
    let Measurement { load, cpu_us_per_request, .. } = measurement;
    let mut push = |metric, value| samples.push(section, name, metric, value);
    push(Metric::RequestsPerS, Some(load.requests_per_s));
    push(Metric::CpuUsPerRequest, *cpu_us_per_request);
    push(Metric::EventsPerRead, load.events_per_read);
    let latency = [Metric::LatencyP50Us, Metric::LatencyP99Us, Metric::LatencyP999Us];
    let first_event = [Metric::FirstEventP50Us, Metric::FirstEventP99Us, Metric::FirstEventP999Us];
    let event_delay = [Metric::EventDelayP50Us, Metric::EventDelayP99Us, Metric::EventDelayP999Us];
    for (metrics, found) in
        [(latency, load.latency), (first_event, load.first_event), (event_delay, load.event_delay)]
    {
        let Some(found) = found else { continue };
        for (metric, us) in metrics.into_iter().zip([found.p50_us, found.p99_us, found.p999_us]) {
            push(metric, Some(us));
        }
    }
    samples.push_curve(section, name, &load.curve_us);
}
