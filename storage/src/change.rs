//! Whether anybody has committed anything, for the price of one read.
//!
//! `PRAGMA data_version` says the same but takes locks; this asks for nothing but four bytes. In WAL mode the shared
//! index beside the database begins with a counter that grows with each committed transaction, of whatever process
//! (<https://www.sqlite.org/walformat.html>, section 2.1: `iChange` at offset 8 of the header). It is only a hint to
//! look: what was changed is read through SQLite.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::file::beside;

const COUNTER_AT: u64 = 8;
/// No counter: it was never read, or cannot be.
const UNKNOWN: u64 = u64::MAX;

/// Sees that something was committed since it was last asked to remember.
#[derive(Debug)]
pub struct ChangeMark {
    index: File,
    seen: AtomicU64,
}

impl ChangeMark {
    /// Watches the database at `path`, which some connection of this process keeps open for as long.
    ///
    /// # Errors
    /// The system's, when the index cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = beside(path, "-shm");
        let opened = File::open(&path);
        let index = opened.map_err(|source| Error::Io { action: "watch", path, source })?;
        Ok(Self { index, seen: AtomicU64::new(UNKNOWN) })
    }

    /// The counter, to be remembered once what it stands for was read; `None` when nothing was committed since.
    pub fn moved(&self) -> Option<Moved> {
        let counter = self.counter();
        let is_known = counter == self.seen.load(Ordering::Acquire) && counter != UNKNOWN;
        (!is_known).then_some(Moved(counter))
    }

    /// What was committed up to `moved` is known now.
    pub fn remember(&self, moved: Moved) {
        self.seen.store(moved.0, Ordering::Release);
    }

    /// Nothing is known any more: whoever asks has to look.
    pub fn forget(&self) {
        self.seen.store(UNKNOWN, Ordering::Release);
    }

    fn counter(&self) -> u64 {
        let mut bytes = [0; 4];
        match self.index.read_exact_at(&mut bytes, COUNTER_AT) {
            Ok(()) => u64::from(u32::from_ne_bytes(bytes)),
            Err(_) => UNKNOWN,
        }
    }
}

/// How far the database has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it is remembered once what it stands for was read"]
pub struct Moved(u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn every_commit_of_anybody_moves_the_mark_and_reading_does_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokfence.db");
        let store = Store::open(&path).unwrap();
        store.data_version().unwrap();
        let mark = ChangeMark::open(store.path()).unwrap();
        mark.remember(mark.moved().expect("nothing is known at first"));
        assert_eq!(mark.moved(), None);
        store.load_policy().unwrap();
        drop(Store::open(&path).unwrap());
        assert_eq!(mark.moved(), None, "reading moves nothing");
        for number in 0..3 {
            let other = Store::open(&path).unwrap();
            let sql = "INSERT INTO agents (name, created_at_us) VALUES (?1, 0)";
            other.conn.execute(sql, [format!("a{number}")]).unwrap();
            let moved = mark.moved().expect("another connection has committed");
            mark.remember(moved);
            assert_eq!(mark.moved(), None);
        }
        store.conn.execute("DELETE FROM agents", []).unwrap();
        assert!(mark.moved().is_some(), "this process counts too");
    }

    #[test]
    fn a_checkpoint_does_not_hide_a_commit() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokfence.db");
        let (store, other) = (Store::open(&path).unwrap(), Store::open(&path).unwrap());
        let mark = ChangeMark::open(store.path()).unwrap();
        for number in 0..100 {
            if let Some(moved) = mark.moved() {
                mark.remember(moved);
            }
            let sql = "INSERT INTO agents (name, created_at_us) VALUES (?1, 0)";
            other.conn.execute(sql, [format!("a{number}")]).unwrap();
            assert!(mark.moved().is_some(), "commit {number}");
            if number % 7 == 0 {
                other.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            }
        }
    }
}
