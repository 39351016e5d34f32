//! Which processes that have borrowed from budgets are alive. Each holds a lock on a small file of its own beside the
//! database for as long as it runs; the system lets go of it however the process ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::leases::Holder;

/// The lock of this process. Dropping it says that nothing borrowed is left.
#[derive(Debug)]
pub(crate) struct Alive {
    path: PathBuf,
    _locked: File,
}

impl Alive {
    /// Makes and locks the file of `holder`.
    pub(crate) fn claim(database: &Path, holder: &Holder) -> Result<Self, Error> {
        let path = lock_path(database, holder);
        let failed = |source| Error::Io { action: "make the lock file", path: path.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Self { path, _locked: file })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // One that is left behind is removed by whoever finds nobody holding it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the process of `holder` has ended. Its file is removed then. What cannot be found out is taken for alive:
/// nobody's lease is charged on a guess.
pub(crate) fn is_dead(database: &Path, holder: &Holder) -> bool {
    let path = lock_path(database, holder);
    match File::open(&path) {
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        Ok(file) => match file.try_lock() {
            Ok(()) => {
                // Only a file; whoever fails to remove it leaves it to the next.
                let _ = fs::remove_file(&path);
                true
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        },
    }
}

/// Only letters and digits of a holder get into the name.
fn lock_path(database: &Path, holder: &Holder) -> PathBuf {
    let plain: String = holder.chars().filter(char::is_ascii_alphanumeric).collect();
    crate::file::beside(database, &format!("-lease-{plain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_lets_go() {
        let home = tempfile::tempdir().unwrap();
        let database = home.path().join("tokfence.db");
        let holder = "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned();
        assert!(is_dead(&database, &holder), "a process without a file is dead");
        let alive = Alive::claim(&database, &holder).unwrap();
        assert!(!is_dead(&database, &holder));
        drop(alive);
        assert!(is_dead(&database, &holder));
        File::create(lock_path(&database, &holder)).unwrap();
        assert!(is_dead(&database, &holder), "nobody holds the file that a crash left behind");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
