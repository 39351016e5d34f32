//! One measurement: a load in a process of its own against one subject, and what that cost the subject.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::child::own_command;
use crate::load::{CREDENTIAL_ENV, LoadReport};
use crate::process::{CpuTime, Memory};
use crate::subject::Subject;

/// Work that a subject puts off, such as a log written in batches, belongs to the load that caused it.
const SETTLE: Duration = Duration::from_millis(50);
const MEMORY_POLL: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) load: LoadReport,
    /// None for the direct way: it has no proxy.
    pub(crate) cpu_us_per_request: Option<f64>,
    /// The most memory seen while the load ran.
    pub(crate) memory_mib: Option<f64>,
}

/// Runs `bench load ARGUMENTS` against `subject`. A request that fails ends the comparison: numbers of a
/// subject that does not do its work mean nothing.
pub(crate) async fn measure(subject: &mut Subject, arguments: &[String]) -> Result<Measurement> {
    let before = subject.pid.map(CpuTime::of).transpose()?;
    let mut memory_mib = None;
    let load = tokio::select! {
        load = run_load(subject, arguments) => load?,
        error = watch_memory(subject.pid, &mut memory_mib) => return Err(error),
    };
    subject.answered += load.requests;
    ensure!(
        load.errors == 0 && load.requests > 0,
        "{}: {} requests failed, the first with: {}",
        subject.name.text(),
        load.errors,
        load.first_error.as_deref().unwrap_or("no request was answered")
    );
    sleep(SETTLE).await;
    let spent_ns = match (subject.pid, before) {
        (Some(pid), Some(before)) => Some(CpuTime::of(pid)?.since_ns(&before)),
        _ => None,
    };
    let cpu_us_per_request = spent_ns.map(|ns| ns as f64 / 1e3 / load.requests as f64);
    Ok(Measurement { load, cpu_us_per_request, memory_mib })
}

/// The load itself. It may fail to be answered, which is for the caller to judge.
pub(crate) async fn run_load(subject: &Subject, arguments: &[String]) -> Result<LoadReport> {
    let output = own_command("load")?
        .args(["--address", &subject.address.to_string(), "--prefix", subject.prefix])
        .args(arguments)
        .env(CREDENTIAL_ENV, &subject.credential)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("cannot run the load generator")?;
    ensure!(output.status.success(), "the load on {} failed", subject.name.text());
    serde_json::from_slice(&output.stdout).context("unreadable report of the load generator")
}

/// Keeps the highest reading in `peak_mib`; returns only when there is nothing to read any more.
async fn watch_memory(pid: Option<u32>, peak_mib: &mut Option<f64>) -> anyhow::Error {
    let Some(pid) = pid else { return std::future::pending().await };
    let mut ticks = interval(MEMORY_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match Memory::of(pid) {
            Ok(memory) => *peak_mib = Some(memory.now_mib.max(peak_mib.unwrap_or(0.0))),
            Err(error) => return error,
        }
    }
}
