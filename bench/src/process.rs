//! What a process costs, from outside: CPU time and memory as Linux accounts for them in `/proc`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

const KIB_PER_MIB: f64 = 1024.0;

/// Scheduler run time of each thread of a process. Nanoseconds, where `/proc/PID/stat` counts in 10 ms ticks.
#[derive(Debug, Default)]
pub(crate) struct CpuTime(BTreeMap<u32, u64>);

impl CpuTime {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let tasks = format!("/proc/{pid}/task");
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(&tasks).with_context(|| format!("cannot list {tasks}"))? {
            let entry = entry.with_context(|| format!("cannot list {tasks}"))?;
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread that ended since the listing has nothing left to read.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let run_ns = run_time_ns(&text).with_context(|| format!("unreadable schedstat {text:?}"))?;
            threads.insert(tid, run_ns);
        }
        anyhow::ensure!(!threads.is_empty(), "no thread of process {pid} has a schedstat");
        Ok(Self(threads))
    }

    /// Time spent since `earlier`. A thread that ended in between is left out, one that began counts in full.
    pub(crate) fn since_ns(&self, earlier: &Self) -> u64 {
        let spent = |(tid, now): (&u32, &u64)| now.saturating_sub(earlier.0.get(tid).copied().unwrap_or(0));
        self.0.iter().map(spent).sum()
    }
}

/// The first of the three numbers of a `schedstat`: time on a CPU.
fn run_time_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// Resident memory of a process in MiB, now and at its highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    pub(crate) now_mib: f64,
    pub(crate) peak_mib: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        parse_status(&text).with_context(|| format!("no VmRSS and VmHWM in {path}"))
    }
}

/// How many files a process has open.
pub(crate) fn open_files(pid: u32) -> Result<usize> {
    entries(&format!("/proc/{pid}/fd"))
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> Result<usize> {
    entries(&format!("/proc/{pid}/task"))
}

fn entries(folder: &str) -> Result<usize> {
    Ok(fs::read_dir(folder).with_context(|| format!("cannot list {folder}"))?.count())
}

fn parse_status(status: &str) -> Option<Memory> {
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / KIB_PER_MIB)
    };
    Some(Memory { now_mib: mib("VmRSS")?, peak_mib: mib("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_time_is_the_first_number_of_schedstat() {
        assert_eq!(run_time_ns("61752 44306 2\n"), Some(61752));
        assert_eq!(run_time_ns(""), None);
        assert_eq!(run_time_ns("x 1 2"), None);
    }

    #[test]
    fn spent_time_sums_over_threads_and_never_goes_back() {
        let earlier = CpuTime(BTreeMap::from([(1, 100), (2, 500)]));
        let later = CpuTime(BTreeMap::from([(1, 150), (3, 7)]));
        assert_eq!(later.since_ns(&earlier), 57);
    }

    #[test]
    fn memory_is_read_in_mib() {
        let status = "Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n";
        assert_eq!(parse_status(status), Some(Memory { now_mib: 1.0, peak_mib: 4.0 }));
        assert_eq!(parse_status("VmRSS:\t1024 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_read() {
        let earlier = CpuTime::of(std::process::id()).expect("own schedstat");
        assert!(!earlier.0.is_empty());
        assert!(Memory::of(std::process::id()).expect("own status").now_mib > 0.0);
        assert!(threads(std::process::id()).expect("own threads") > 0);
        let before = open_files(std::process::id()).expect("own files");
        assert!(before > 0);
    }
}
