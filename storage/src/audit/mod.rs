//! What the owner changed, as a chain of rows: who did what to whom, when, and what it was before.
//!
//! A change in the database and its row are one transaction ([`act::Act`]), so neither is there without the other. The
//! hash of each row covers the row and the hash of the one before it (`chain`): a row that was edited, removed or moved
//! is found, until somebody computes all later hashes anew. The last hash is kept in a second place as well (`anchor`),
//! so that a tail that was cut off is missed. Nothing of this has a key: it tells of edits, and stops nobody who can
//! write to both places.

mod act;
mod action;
mod anchor;
mod chain;
#[cfg(test)]
mod tests;

use std::fmt;

use policy::TimestampUs;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use crate::error::{Doing, Error};
use crate::store::Store;
pub(crate) use act::Act;
pub use action::{AuditAction, UnknownAction};
pub use anchor::{NotedHead, anchor_path};
pub use chain::{AuditFault, AuditHead, AuditReport, InvalidHead};

/// Who changes something: a process of some user, by what it was called to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub uid: u32,
    /// The process.
    pub pid: u32,
    /// The command without what was typed behind it: `agent revoke`, `daemon`.
    pub command: String,
}

/// What was done, to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditNote {
    /// What.
    pub action: AuditAction,
    /// To whom: a subject as limits have them, `canary:NAME`, or the name of what is no subject.
    pub subject: String,
    /// What it was before and is now, as a JSON object. Whoever makes a note sees to it that no secret is in it.
    pub detail: Value,
}

/// A row of the audit log, as it stands there: one that was edited may say anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number; the first is 1.
    pub seq: i64,
    /// When.
    pub at: TimestampUs,
    /// Who, as [`Actor`] is written.
    pub actor: String,
    /// What.
    pub action: String,
    /// To whom.
    pub subject: String,
    /// What it was before and is now: a JSON object.
    pub detail: String,
    /// The hash of the row before it.
    pub prev_hash: [u8; 32],
    /// Its own.
    pub hash: [u8; 32],
}

/// Which rows to show. Conditions that are `None` hold for all.
#[derive(Clone, Copy, Debug)]
pub struct AuditFilter {
    /// Of this action.
    pub action: Option<AuditAction>,
    /// From this instant on.
    pub since: Option<TimestampUs>,
    /// The newest so many.
    pub limit: u32,
}

impl Actor {
    /// This process, called to do `command`.
    pub fn new(command: impl Into<String>) -> Self {
        Self { uid: rustix::process::getuid().as_raw(), pid: std::process::id(), command: command.into() }
    }

    /// Reads what [`Actor`] is written as; `None` where it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (uid, pid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { uid, pid, command: parts.next()?.to_owned() })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.uid, self.pid, self.command)
    }
}

impl AuditNote {
    /// A note of what was done to `subject`.
    pub fn new(action: AuditAction, subject: impl ToString, detail: Value) -> Self {
        Self { action, subject: subject.to_string(), detail }
    }
}

impl Store {
    /// Writes down a change that is in no table, once it is done.
    ///
    /// # Errors
    /// SQLite's failure; nothing is written down then.
    pub fn record(&mut self, note: &AuditNote, now: TimestampUs) -> Result<(), Error> {
        self.act("write to the audit log")?.record(note, now)
    }

    /// The rows that pass the filter, the newest first.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn audit_rows(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, Error> {
        let doing = "read the audit log";
        let sql = "SELECT * FROM audit WHERE (?1 IS NULL OR action = ?1) AND (?2 IS NULL OR at_us >= ?2)
                   ORDER BY seq DESC LIMIT ?3";
        let mut statement = self.conn.prepare_cached(sql).doing(doing)?;
        let wanted = params![filter.action.map(AuditAction::as_str), filter.since, filter.limit];
        let rows = statement.query_map(wanted, from_row).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// Checks the whole chain, against the head that is kept beside the database and against `noted`, which somebody kept
    /// elsewhere.
    ///
    /// # Errors
    /// SQLite's failure. What is wrong with the chain is no error but in the report.
    pub fn verify_audit(&self, noted: Option<AuditHead>) -> Result<AuditReport, Error> {
        let doing = "check the audit log";
        // First: a change that comes after it makes the chain longer, and the head stays in it.
        let kept = anchor::read(self.path());
        let read = self.conn.unchecked_transaction().doing(doing)?;
        chain::verify(&read, &kept, noted).doing(doing)
    }

    /// Takes the chain as it is from now on, where it does not have the head that is kept beside the database: after that
    /// was restored from a backup, say. The row that tells of it is the new head. Answers the head that was given up.
    ///
    /// # Errors
    /// SQLite's failure, or the system's when the head cannot be written.
    pub fn accept_audit(&mut self, reason: &str, now: TimestampUs) -> Result<NotedHead, Error> {
        let former = anchor::read(self.path());
        let detail = serde_json::json!({ "before": former.to_string(), "reason": reason });
        let note = AuditNote::new(AuditAction::AuditAccept, "audit", detail);
        let head = self.act("write to the audit log")?.commit(&note, now)?;
        anchor::write(self.path(), head)?;
        Ok(former)
    }
}

/// The last row's number and hash; of an empty chain, [`AuditHead::NONE`].
fn head(conn: &Connection) -> rusqlite::Result<AuditHead> {
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let head =
        conn.prepare_cached(sql)?.query_row([], |row| Ok(AuditHead { seq: row.get(0)?, hash: row.get(1)? }));
    Ok(head.optional()?.unwrap_or(AuditHead::NONE))
}

/// Whether the chain has this head, as its last one or further back.
fn holds(conn: &Connection, head: AuditHead) -> rusqlite::Result<bool> {
    if head == AuditHead::NONE {
        return Ok(true);
    }
    let sql = "SELECT 1 FROM audit WHERE seq = ?1 AND hash = ?2";
    let found = conn.prepare_cached(sql)?.query_row(params![head.seq, head.hash], |_| Ok(())).optional();
    Ok(found?.is_some())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        seq: row.get("seq")?,
        at: row.get("at_us")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        detail: row.get("detail")?,
        prev_hash: row.get("prev_hash")?,
        hash: row.get("hash")?,
    })
}
