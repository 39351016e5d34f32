//! Limits on requests and tokens a minute, and on requests at once, as rows.

use policy::{RateLimit, Subject, TimestampUs};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use crate::audit::{Act, AuditAction, AuditNote};
use crate::error::{Doing, Error};
use crate::rules::{self, rate_limit};
use crate::store::Store;

impl Store {
    /// Every limit, by subject.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn rate_limits(&self) -> Result<Vec<(Subject, RateLimit)>, Error> {
        let limits = rules::rate_limits(&self.conn).doing("list rate limits")?;
        let mut limits: Vec<_> = limits.into_iter().collect();
        limits.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(limits)
    }

    /// Changes the limit of a subject in one step: `change` is given the present one, and what it answers is in force
    /// afterwards. A limit that limits nothing is removed. Answers the limit before and the one after.
    ///
    /// # Errors
    /// SQLite's failure, a limit beyond what a row may hold among them; nothing has changed then.
    pub fn change_rate_limit(
        &mut self,
        subject: &Subject,
        now: TimestampUs,
        change: impl FnOnce(RateLimit) -> RateLimit,
    ) -> Result<(RateLimit, RateLimit), Error> {
        let doing = "change a rate limit";
        let act = self.act(doing)?;
        let sql = "SELECT * FROM rate_limits WHERE subject_kind = ?1 AND subject_name = ?2";
        let found = act.query_row(sql, [subject.kind(), subject.name()], rate_limit).optional();
        let before = found.doing(doing)?.unwrap_or_default();
        let after = change(before);
        if after != before {
            put(&act, subject, &after).doing(doing)?;
            let action =
                if after.is_open() { AuditAction::RatelimitClear } else { AuditAction::RatelimitSet };
            let detail = json!({ "before": document(&before), "after": document(&after) });
            act.record(&AuditNote::new(action, subject, detail), now)?;
        }
        Ok((before, after))
    }
}

/// Writes the limit of a subject, or removes its row where nothing is limited.
pub(crate) fn put(act: &Act<'_>, subject: &Subject, limit: &RateLimit) -> rusqlite::Result<()> {
    if limit.is_open() {
        let sql = "DELETE FROM rate_limits WHERE subject_kind = ?1 AND subject_name = ?2";
        return act.execute(sql, [subject.kind(), subject.name()]).map(drop);
    }
    let sql = "INSERT OR REPLACE INTO rate_limits
                   (subject_kind, subject_name, requests_per_minute, tokens_per_minute, concurrent)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let tokens = limit.tokens_per_minute.map(|tokens| i64::try_from(tokens).unwrap_or(i64::MAX));
    let row = params![subject.kind(), subject.name(), limit.requests_per_minute, tokens, limit.concurrent];
    act.execute(sql, row).map(drop)
}

/// A limit as it is written down; `null` limits nothing.
pub(crate) fn document(limit: &RateLimit) -> Value {
    if limit.is_open() {
        return Value::Null;
    }
    json!({
        "requests_per_minute": limit.requests_per_minute,
        "tokens_per_minute": limit.tokens_per_minute,
        "concurrent": limit.concurrent,
    })
}
