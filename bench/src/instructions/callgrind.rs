//! A process under valgrind's callgrind, which counts what each thread executes. It is told when to count and asked
//! for its counts through `vgdb`, which comes with valgrind, so that neither start nor key derivation is counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

const COUNTS: &str = "counts";
/// A program that does nothing but wait answers when it next wakes up.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Instructions executed by the threads of a name, in user space.
pub(super) type Counts = BTreeMap<String, u64>;

/// Where the counts of one process go.
#[derive(Debug)]
pub(super) struct Callgrind {
    folder: TempDir,
}

impl Callgrind {
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-instructions-").tempdir();
        Ok(Self { folder: folder.context("no temporary folder")? })
    }

    /// What goes before a program to have it counted.
    pub(super) fn wrapper(&self) -> Vec<String> {
        vec![
            "valgrind".into(),
            "--quiet".into(),
            "--tool=callgrind".into(),
            "--instr-atstart=no".into(),
            "--separate-threads=yes".into(),
            format!("--callgrind-out-file={}", self.folder.path().join(COUNTS).display()),
            self.channel(),
        ]
    }

    fn channel(&self) -> String {
        format!("--vgdb-prefix={}", self.folder.path().join("vgdb").display())
    }

    /// Counts from now on.
    pub(super) async fn begin(&self, pid: u32) -> Result<()> {
        self.tell(pid, &["instrumentation", "on"]).await.map(drop)
    }

    /// What was counted since the beginning or the last time.
    pub(super) async fn take(&self, pid: u32) -> Result<Counts> {
        self.tell(pid, &["dump"]).await?;
        let names = names(pid, &self.tell(pid, &["v.info", "scheduler"]).await?);
        let mut counts = Counts::new();
        for (thread, count) in self.dumped()? {
            let name = names.get(&thread).cloned().unwrap_or_else(|| "ended".into());
            *counts.entry(name).or_default() += count;
        }
        Ok(counts)
    }

    async fn tell(&self, pid: u32, order: &[&str]) -> Result<String> {
        let shown = order.join(" ");
        let mut command = Command::new("vgdb");
        command.arg(self.channel()).arg(format!("--pid={pid}")).args(order).kill_on_drop(true);
        let output = timeout(ANSWER_WAIT_MAX, command.output())
            .await
            .with_context(|| format!("no answer of valgrind to `{shown}` in {ANSWER_WAIT_MAX:?}"))?
            .context("cannot run vgdb, which comes with valgrind")?;
        ensure!(
            output.status.success(),
            "valgrind refuses `{shown}`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The count of each thread in the files of one dump, which are gone then.
    fn dumped(&self) -> Result<Vec<(u32, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder.path()).context("cannot list the counts")? {
            let path = entry.context("cannot list the counts")?.path();
            if is_dump(&path) {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                found.push(parse_dump(&text).with_context(|| format!("no count in {}", path.display()))?);
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        ensure!(!found.is_empty(), "valgrind wrote no counts");
        Ok(found)
    }
}

/// `counts.PART-THREAD`, beside the empty `counts` that is there from the start.
fn is_dump(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("counts."))
}

/// The thread and its count, of the lines `thread: 3` and `totals: 90712760`.
fn parse_dump(text: &str) -> Option<(u32, u64)> {
    let after = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).map(str::trim);
    Some((after("thread:")?.parse().ok()?, after("totals:")?.parse().ok()?))
}

/// The names of the threads that valgrind lists, by its own numbers; what has ended since has none.
fn names(pid: u32, listed: &str) -> BTreeMap<u32, String> {
    let name = |line: &str| {
        let (thread, task) = parse_listed(line)?;
        let name = fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).ok()?;
        Some((thread, name.trim().to_owned()))
    };
    listed.lines().filter_map(name).collect()
}

/// Valgrind's number and the system's, of `Thread 3: status = VgTs_WaitSys syscall 232 (lwpid 24893)`.
fn parse_listed(line: &str) -> Option<(u32, u32)> {
    let (thread, rest) = line.strip_prefix("Thread ")?.split_once(':')?;
    let task = rest.split_once("(lwpid ")?.1.split_once(')')?.0;
    Some((thread.parse().ok()?, task.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_tells_its_thread_and_count() {
        let text = "# callgrind format\npid: 7\nthread: 3\nsummary: 12\n\ntotals: 90712760\n";
        assert_eq!(parse_dump(text), Some((3, 90_712_760)));
        assert_eq!(parse_dump("# callgrind format\nthread: 3\n"), None);
    }

    #[test]
    fn only_files_of_a_dump_are_read() {
        assert!(is_dump(Path::new("/tmp/x/counts.1-03")));
        assert!(!is_dump(Path::new("/tmp/x/counts")));
        assert!(!is_dump(Path::new("/tmp/x/vgdb-to-7")));
    }

    #[test]
    fn threads_are_found_in_the_list_of_the_scheduler() {
        let line = "Thread 3: status = VgTs_WaitSys syscall 232 (lwpid 24893)";
        assert_eq!(parse_listed(line), Some((3, 24893)));
        assert_eq!(parse_listed("==7==    at 0x49: epoll_wait (in libc)"), None);
        let own = std::process::id();
        assert_eq!(names(own, &format!("Thread 1: status = VgTs_Runnable (lwpid {own})")).len(), 1);
    }
}
