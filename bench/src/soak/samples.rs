//! The gateway's process and its journal, looked at every other second while the load runs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::compare::progress;
use crate::process::{self, Memory};

pub(super) const PERIOD: Duration = Duration::from_secs(2);
pub(super) const PER_MINUTE: usize = 30;
/// A line of progress for so many samples.
const PER_PROGRESS: usize = 15;
const MIB: f64 = 1_048_576.0;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Since the load began.
    pub(super) at_s: f64,
    pub(super) rss_mib: f64,
    pub(super) files: usize,
    pub(super) threads: usize,
    pub(super) wal_mib: f64,
}

impl Sample {
    fn take(pid: u32, wal: &Path, started: Instant) -> Result<Self> {
        let wal_bytes =
            std::fs::metadata(wal).with_context(|| format!("cannot look at {}", wal.display()))?.len();
        Ok(Self {
            at_s: started.elapsed().as_secs_f64(),
            rss_mib: Memory::of(pid)?.now_mib,
            files: process::open_files(pid)?,
            threads: process::threads(pid)?,
            wal_mib: wal_bytes as f64 / MIB,
        })
    }
}

/// Keeps samples until dropped; returns only when there is nothing to look at any more.
pub(super) async fn watch(
    pid: u32,
    wal: &Path,
    length: Duration,
    samples: &mut Vec<Sample>,
) -> anyhow::Error {
    let started = Instant::now();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = match Sample::take(pid, wal, started) {
            Ok(sample) => sample,
            Err(error) => return error,
        };
        if samples.len().is_multiple_of(PER_PROGRESS) {
            tell(&sample, length);
        }
        samples.push(sample);
    }
}

fn tell(sample: &Sample, length: Duration) {
    let Sample { at_s, rss_mib, files, threads, wal_mib } = sample;
    progress(&format!(
        "{:.1} of {:.1} min: {rss_mib:.1} MiB, {files} files, {threads} threads, journal {wal_mib:.1} MiB",
        at_s / 60.0,
        length.as_secs_f64() / 60.0
    ));
}
