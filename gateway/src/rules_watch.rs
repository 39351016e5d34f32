//! The rules as the database has them at this moment. Whatever process changes them, the next decision goes by the
//! change: before each one a few bytes are read that tell whether anybody has committed anything.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::{Denial, DenialCode, Rules};
use storage::{ChangeMark, Store};

use crate::state::{Shared, Snapshot};

/// The connection through which rules are read, and what was last seen through it.
#[derive(Debug)]
pub(crate) struct RulesWatch {
    mark: ChangeMark,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    store: Store,
    data_version: i64,
    epoch: i64,
}

impl RulesWatch {
    /// Reads the rules and watches what becomes of them.
    pub(crate) fn start(store: Store) -> Result<(Self, Rules), storage::Error> {
        let mark = ChangeMark::open(store.path())?;
        let data_version = store.data_version()?;
        let policy = store.load_policy()?;
        let seen = Seen { store, data_version, epoch: policy.epoch };
        Ok((Self { mark, seen: Mutex::new(seen) }, policy.rules))
    }

    /// Nothing under the lock is left half-changed by a panic.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Hot: makes the snapshot follow the database, if that has moved.
    ///
    /// # Errors
    /// `state_unavailable` when the rules cannot be read: nothing is decided by old ones.
    pub(crate) fn follow_rules(&self) -> Result<(), Denial> {
        if self.rules.mark.moved().is_none() {
            return Ok(());
        }
        self.look_at_rules().map_err(|_| {
            let message = "the rules cannot be read at the moment";
            Denial::new(DenialCode::StateUnavailable, message).with_hint("tokfence status")
        })
    }

    /// The same, whatever the mark says.
    pub(crate) fn look_at_rules(&self) -> Result<(), storage::Error> {
        let moved = self.rules.mark.moved();
        let mut seen = self.rules.seen();
        if let Err(error) = seen.store.check_in_place() {
            // The mark is one of the old file. Until the database is back, each request looks and is refused.
            self.rules.mark.forget();
            return Err(error);
        }
        let data_version = seen.store.data_version()?;
        if seen.data_version != data_version {
            if seen.store.policy_epoch()? != seen.epoch {
                self.publish(&mut seen)?;
            }
            // Only now: a change that could not be read is looked at again.
            seen.data_version = data_version;
        }
        drop(seen);
        if let Some(moved) = moved {
            self.rules.mark.remember(moved);
        }
        Ok(())
    }

    /// Reads the rules again. From when this returns requests see them, and those that no longer stand are cut.
    pub(crate) fn reload_rules(&self) -> Result<(), storage::Error> {
        let mut seen = self.rules.seen();
        seen.store.check_in_place()?;
        self.publish(&mut seen)
    }

    /// Changes the rules through the connection that reads them, and makes them known.
    pub(crate) fn change_rules<T>(
        &self,
        change: impl FnOnce(&mut Store) -> Result<T, storage::Error>,
    ) -> Result<T, storage::Error> {
        let mut seen = self.rules.seen();
        let changed = change(&mut seen.store)?;
        self.publish(&mut seen)?;
        Ok(changed)
    }

    /// Where the rules and all the rest are.
    pub(crate) fn database(&self) -> PathBuf {
        self.rules.seen().store.path().to_owned()
    }

    /// Writes what is no rule through the same connection; nobody needs to know.
    pub(crate) fn with_store<T>(
        &self,
        write: impl FnOnce(&mut Store) -> Result<T, storage::Error>,
    ) -> Result<T, storage::Error> {
        write(&mut self.rules.seen().store)
    }

    fn publish(&self, seen: &mut Seen) -> Result<(), storage::Error> {
        let policy = seen.store.load_policy()?;
        seen.epoch = policy.epoch;
        let rules = Arc::new(policy.rules);
        self.change_snapshot(|old| Snapshot { rules: rules.clone(), ..old });
        // Only now: a request that begins in between finds the new rules by itself.
        self.live.recheck(&rules, self.ledger.now());
        Ok(())
    }
}
