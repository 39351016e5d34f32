//! A change of the owner's, which can only be kept together with the row that tells of it.

use std::ops::Deref;

use policy::TimestampUs;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::chain::{AuditHead, hash_of};
use super::{Actor, AuditNote, AuditRow, anchor, head};
use crate::error::{Doing, Error};
use crate::store::Store;

/// A change under way. What writes policy takes one, and it is committed by [`Act::record`], which writes the row;
/// dropped without, nothing has changed.
#[must_use = "what was changed is undone unless it is recorded"]
pub(crate) struct Act<'a> {
    write: Transaction<'a>,
    store: Place<'a>,
    doing: &'static str,
}

/// Of whom and where.
struct Place<'a> {
    actor: &'a Actor,
    path: &'a std::path::Path,
}

impl Store {
    /// Begins a change; `doing` completes "cannot …".
    pub(crate) fn act(&mut self, doing: &'static str) -> Result<Act<'_>, Error> {
        let write = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        Ok(Act { write, store: Place { actor: &self.actor, path: &self.path }, doing })
    }
}

impl Act<'_> {
    /// Writes down what was done, and keeps both.
    pub(crate) fn record(self, note: &AuditNote, at: TimestampUs) -> Result<(), Error> {
        self.record_all(std::slice::from_ref(note), at)
    }

    /// As [`Act::record`], for several changes in one step. Without a note nothing was changed by an owner, and the rest
    /// is kept.
    pub(crate) fn record_all(self, notes: &[AuditNote], at: TimestampUs) -> Result<(), Error> {
        if notes.is_empty() {
            return self.write.commit().doing(self.doing);
        }
        let path = self.store.path.to_owned();
        let is_led = anchor::is_led(&self.write, &path).doing(self.doing)?;
        let Some(head) = self.keep(notes, at)? else { return Ok(()) };
        if is_led {
            // The change is kept whatever becomes of this; a head that is behind is told by who checks the chain.
            let _ = anchor::advance(&path, head);
        }
        Ok(())
    }

    /// Writes down what was done and keeps both, but leaves the head beside the database to the caller.
    pub(super) fn commit(self, note: &AuditNote, at: TimestampUs) -> Result<AuditHead, Error> {
        Ok(self.keep(std::slice::from_ref(note), at)?.unwrap_or(AuditHead::NONE))
    }

    /// Keeps what an agent did within its own rights, which is no change of the owner's.
    pub(crate) fn keep_of_agent(self) -> Result<(), Error> {
        self.write.commit().doing(self.doing)
    }

    fn keep(self, notes: &[AuditNote], at: TimestampUs) -> Result<Option<AuditHead>, Error> {
        let mut last = None;
        for note in notes {
            last = Some(self.append(note, at).doing(self.doing)?);
        }
        self.write.commit().doing(self.doing)?;
        Ok(last)
    }

    fn append(&self, note: &AuditNote, at: TimestampUs) -> rusqlite::Result<AuditHead> {
        let before = head(&self.write)?;
        let mut row = AuditRow {
            seq: before.seq + 1,
            at,
            actor: self.store.actor.to_string(),
            action: note.action.as_str().to_owned(),
            subject: note.subject.clone(),
            detail: note.detail.to_string(),
            prev_hash: before.hash,
            hash: [0; 32],
        };
        row.hash = hash_of(&row);
        let sql = "INSERT INTO audit (seq, at_us, actor, action, subject, detail, prev_hash, hash)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let AuditRow { seq, at, actor, action, subject, detail, prev_hash, hash } = &row;
        self.write
            .prepare_cached(sql)?
            .execute(params![seq, at, actor, action, subject, detail, prev_hash, hash])?;
        Ok(AuditHead { seq: row.seq, hash: row.hash })
    }
}

impl<'a> Deref for Act<'a> {
    type Target = Transaction<'a>;

    fn deref(&self) -> &Transaction<'a> {
        &self.write
    }
}
