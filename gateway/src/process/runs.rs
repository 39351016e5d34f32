//! Runs: a command that was given a capability of its own, which ends with it even where nobody is left to end it.
//!
//! `tokfence run` holds the lock of a file that is named after its capability, from before that is minted until after
//! it is revoked. A lock ends with its process, however that ends. So a file whose lock is free belongs to a run that
//! died: whoever finds it revokes the capability and then removes the file.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policy::CapabilityId;

use crate::process::daemon::Daemon;
use crate::process::home::Home;

/// Why the capability of such a run was revoked.
pub const DEAD_RUN: &str = "its run died";

/// How often runs that died are looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// That a run is alive. Dropped without [`RunLock::release`], its file stays, and whoever finds it ends the run's
/// capability.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    /// Its lock ends when it is closed; a child does not inherit it.
    _file: File,
}

impl RunLock {
    /// Takes the lock of a run whose capability is about to be minted.
    ///
    /// # Errors
    /// The system's, when the file cannot be made or locked.
    pub fn take(home: &Home, id: CapabilityId) -> io::Result<Self> {
        let path = home.control_dir().join(format!("run-{id}.lock"));
        loop {
            let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock()?;
            // Somebody may have found it before it was locked, and removed it.
            if is_at(&file, &path)? {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// The capability is revoked: nobody needs to look after it any more.
    ///
    /// # Errors
    /// The system's, when the file cannot be removed; whoever finds it later does no harm.
    pub fn release(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Ends the capabilities of runs that died, with `end`, and removes their files. Answers how many there were.
///
/// # Errors
/// What `end` failed with; the file stays, to be looked at again.
pub fn end_dead_runs<E>(home: &Home, mut end: impl FnMut(CapabilityId) -> Result<(), E>) -> Result<usize, E> {
    // Without the folder there was no run.
    let Ok(entries) = fs::read_dir(home.control_dir()) else { return Ok(0) };
    let mut ended = 0;
    for entry in entries.flatten() {
        let Some(id) = run_of(&entry) else { continue };
        let Ok(file) = File::open(entry.path()) else { continue };
        if file.try_lock().is_err() || !is_at(&file, &entry.path()).unwrap_or(false) {
            continue;
        }
        end(id)?;
        // The way that a sandbox had to the gateway; most runs have none.
        let _ = fs::remove_file(entry.path().with_extension("sock"));
        // While the lock is held: a run that is about to begin then notices that its file is gone.
        let _ = fs::remove_file(entry.path());
        ended += 1;
    }
    Ok(ended)
}

fn run_of(entry: &DirEntry) -> Option<CapabilityId> {
    entry.file_name().to_str()?.strip_prefix("run-")?.strip_suffix(".lock")?.parse().ok()
}

/// Whether the file is still the one at this path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks for runs that died. Whether all could be ended is answered.
pub(crate) async fn look(daemon: &Arc<Daemon>, was_failing: bool) -> bool {
    let daemon = daemon.clone();
    match tokio::task::spawn_blocking(move || daemon.end_dead_runs()).await {
        Ok(Err(error)) => {
            if !was_failing {
                tracing::error!(%error, "the capability of a run that died cannot be revoked yet");
            }
            false
        }
        Ok(Ok(())) | Err(_) => true,
    }
}

/// The same for as long as the daemon serves.
pub(crate) async fn watch(daemon: Arc<Daemon>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_well = true;
    loop {
        interval.tick().await;
        is_well = look(&daemon, !is_well).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn home() -> (tempfile::TempDir, Home) {
        let place = tempfile::tempdir().unwrap();
        let home = Home::new(place.path().join("home"));
        fs::create_dir_all(home.control_dir()).unwrap();
        (place, home)
    }

    fn id(number: usize) -> CapabilityId {
        format!("{number:08}").parse().unwrap()
    }

    fn look(home: &Home) -> Vec<CapabilityId> {
        let mut found = Vec::new();
        end_dead_runs(home, |id| {
            found.push(id);
            Ok::<(), ()>(())
        })
        .unwrap();
        found
    }

    fn files(home: &Home) -> usize {
        fs::read_dir(home.control_dir()).unwrap().count()
    }

    #[test]
    fn only_runs_that_died_are_found_and_only_once() {
        let (_place, home) = home();
        let (alive, dead, over) = (
            RunLock::take(&home, id(1)).unwrap(),
            RunLock::take(&home, id(2)).unwrap(),
            RunLock::take(&home, id(3)).unwrap(),
        );
        fs::write(home.control_dir().join("run-short.lock"), "").unwrap();
        for way in [id(1), id(2)] {
            fs::write(home.control_dir().join(format!("run-{way}.sock")), "").unwrap();
        }
        fs::write(home.control_socket(), "").unwrap();
        over.release().unwrap();
        drop(dead);
        assert_eq!(look(&home), [id(2)]);
        assert_eq!(look(&home), []);
        assert!(home.control_dir().join(format!("run-{}.sock", id(1))).exists(), "its run lives");
        drop(alive);
        assert_eq!(look(&home), [id(1)]);
        assert_eq!(files(&home), 2);
        assert_eq!(look(&Home::new("/nowhere")), []);
    }

    #[test]
    fn what_could_not_be_ended_is_looked_at_again() {
        let (_place, home) = home();
        drop(RunLock::take(&home, id(1)).unwrap());
        assert_eq!(end_dead_runs(&home, |_| Err("the database is busy")), Err("the database is busy"));
        assert_eq!(look(&home), [id(1)]);
    }

    /// However a look and a beginning run meet, a run that has its lock is not taken for dead.
    #[test]
    fn a_run_that_begins_is_not_taken_for_dead() {
        let (_place, home) = home();
        for number in 0..300 {
            let start = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    look(&home);
                });
                start.wait();
                let lock = RunLock::take(&home, id(number)).unwrap();
                let found: BTreeSet<_> = look(&home).into_iter().collect();
                assert!(!found.contains(&id(number)));
                assert!(lock.path.exists());
                lock.release().unwrap();
            });
        }
        assert_eq!(files(&home), 0);
    }
}
