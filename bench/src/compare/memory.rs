//! What a subject holds in memory: while it is new, and step by step as connections and streams come.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::rounds::arguments;
use super::{CompareArgs, Part, progress};
use crate::client::Connection;
use crate::load::request_bytes;
use crate::measure::measure;
use crate::plan::Wire;
use crate::process::Memory;
use crate::report::{Metric, Samples, Section};
use crate::subject::Subject;

/// Connections that have asked once and then say nothing.
const IDLE_CONNECTIONS: u16 = 1000;
/// What is put off is done by then.
const SETTLE: Duration = Duration::from_millis(200);
const KIB_PER_MIB: f64 = 1024.0;

/// Before anything was asked of them.
pub(super) async fn keep_idle(args: &CompareArgs, subjects: &[Subject], samples: &mut Samples) -> Result<()> {
    if !args.wants(Part::Memory) {
        return Ok(());
    }
    sleep(SETTLE).await;
    for subject in subjects {
        let idle_mib = subject.pid.map(Memory::of).transpose()?.map(|memory| memory.now_mib);
        samples.push(Section::Memory, subject.name, Metric::IdleMib, idle_mib);
    }
    Ok(())
}

/// Goes from little to much, since what an allocator holds rarely becomes less.
pub(super) async fn measure_growth(
    args: &CompareArgs,
    subjects: &mut [Subject],
    samples: &mut Samples,
) -> Result<()> {
    progress("memory");
    let connections = args.connections;
    // Slower than `paced`: memory is what counts here, not how the machine copes with the rate.
    let (seconds, events) = if args.quick { (args.seconds(), 20) } else { (1.0, 100) };
    let mut loads = vec![
        (Metric::ConnectionsMib, format!("--workload json --connections {connections} --seconds {seconds}")),
        (
            Metric::Streams200Mib,
            format!("--workload paced --connections 200 --requests 200 --events {events} --gap-ms 20"),
        ),
    ];
    if !args.quick {
        let text = "--workload paced --connections 1000 --requests 1000 --events 10 --gap-ms 500";
        loads.push((Metric::Streams1000Mib, text.into()));
    }
    for subject in subjects.iter_mut().filter(|subject| args.measures(Section::Memory, subject.name)) {
        for (metric, load) in &loads {
            let mib = measure(subject, &arguments(load)).await?.memory_mib;
            samples.push(Section::Memory, subject.name, *metric, mib);
            if *metric == Metric::ConnectionsMib {
                let kib = idle_connection_kib(subject).await?;
                samples.push(Section::Memory, subject.name, Metric::IdleConnectionKib, kib);
            }
        }
    }
    Ok(())
}

/// What a kept connection takes when nothing is asked over it any more; none for the direct way.
async fn idle_connection_kib(subject: &mut Subject) -> Result<Option<f64>> {
    let Some(pid) = subject.pid else { return Ok(None) };
    let request = request_bytes(Wire::Openai, subject.address, subject.prefix, &subject.credential, None);
    sleep(SETTLE).await;
    let before = Memory::of(pid)?;
    let mut connections = Vec::new();
    for _ in 0..IDLE_CONNECTIONS {
        let mut connection = Connection::new(subject.address);
        connection.exchange(&request, &mut |_, _| ()).await.context("a connection that was to idle")?;
        subject.answered += 1;
        connections.push(connection);
    }
    sleep(SETTLE).await;
    let after = Memory::of(pid)?;
    Ok(Some((after.now_mib - before.now_mib) * KIB_PER_MIB / f64::from(IDLE_CONNECTIONS)))
}

/// At the end of these loads.
pub(super) fn keep_peak(subjects: &[Subject], samples: &mut Samples) -> Result<()> {
    for subject in subjects {
        let peak_mib = subject.pid.map(Memory::of).transpose()?.map(|memory| memory.peak_mib);
        samples.push(Section::Memory, subject.name, Metric::PeakMib, peak_mib);
    }
    Ok(())
}
