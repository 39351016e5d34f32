//! What the owner takes back at once, and gives back: everything, one provider, one agent.
//!
//! Each is a switch of its own, so that lifting one changes no other: after `unkill` what had been revoked before is
//! still revoked. A switch that is on keeps the date and the reason with which it was turned on.

use policy::{AgentName, ProviderId, Revocation, Subject, TimestampUs};
use rusqlite::{Params, params};
use serde_json::json;

use crate::audit::{AuditAction, AuditNote};
use crate::error::{Doing, Error};
use crate::rules;
use crate::store::Store;

/// Which switches are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Why nothing is served at all.
    pub killed: Option<Revocation>,
    /// Providers that are not served, by name.
    pub revoked_providers: Vec<(ProviderId, Revocation)>,
    /// Agents that are not served, by name.
    pub revoked_agents: Vec<(AgentName, Revocation)>,
}

impl Store {
    /// Which switches are on.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn controls(&self) -> Result<Controls, Error> {
        let doing = "read what is revoked";
        let read = self.conn.unchecked_transaction().doing(doing)?;
        let mut controls = Controls {
            killed: rules::killed(&read).doing(doing)?,
            revoked_providers: rules::revoked_providers(&read).doing(doing)?.into_iter().collect(),
            revoked_agents: rules::revoked_agents(&read).doing(doing)?.into_iter().collect(),
        };
        controls.revoked_providers.sort_by(|a, b| a.0.cmp(&b.0));
        controls.revoked_agents.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(controls)
    }

    /// Serves nothing from now on. Answers whether something was served before.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn kill(&mut self, reason: &str, now: TimestampUs) -> Result<bool, Error> {
        let sql = "INSERT INTO kill_switch (only_row, killed_at_us, reason) VALUES (1, ?1, ?2)
                   ON CONFLICT (only_row) DO NOTHING";
        let detail = json!({ "before": "served", "after": "killed", "reason": reason });
        let note = AuditNote::new(AuditAction::Kill, Subject::Global, detail);
        self.turn(sql, params![now, reason], &note, now, "turn the kill switch on")
    }

    /// Serves again what was served before the kill. Answers whether the switch was on.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn unkill(&mut self, now: TimestampUs) -> Result<bool, Error> {
        let detail = json!({ "before": "killed", "after": "served" });
        let note = AuditNote::new(AuditAction::Unkill, Subject::Global, detail);
        self.turn("DELETE FROM kill_switch", [], &note, now, "turn the kill switch off")
    }

    /// Serves a provider no more. Answers whether it was served before.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn revoke_provider(
        &mut self,
        provider: &ProviderId,
        reason: &str,
        now: TimestampUs,
    ) -> Result<bool, Error> {
        let sql = "INSERT INTO revoked_providers (provider, revoked_at_us, reason) VALUES (?1, ?2, ?3)
                   ON CONFLICT (provider) DO NOTHING";
        let detail = json!({ "before": "served", "after": "revoked", "reason": reason });
        let note = AuditNote::new(AuditAction::ProviderRevoke, provider, detail);
        self.turn(sql, params![provider.as_str(), now, reason], &note, now, "revoke a provider")
    }

    /// Serves a provider again. Answers whether it had been revoked.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn restore_provider(&mut self, provider: &ProviderId, now: TimestampUs) -> Result<bool, Error> {
        let sql = "DELETE FROM revoked_providers WHERE provider = ?1";
        let detail = json!({ "before": "revoked", "after": "served" });
        let note = AuditNote::new(AuditAction::ProviderRestore, provider, detail);
        self.turn(sql, [provider.as_str()], &note, now, "restore a provider")
    }

    /// Serves an agent no more, whatever its capabilities say. Answers whether it was served before.
    ///
    /// # Errors
    /// [`Error::NoSuchAgent`], or SQLite's failure; nothing has changed then.
    pub fn revoke_agent(&mut self, name: &AgentName, reason: &str, now: TimestampUs) -> Result<bool, Error> {
        self.require_agent(name)?;
        let sql = "UPDATE agents SET revoked_at_us = ?2, revoke_reason = ?3
                   WHERE name = ?1 AND revoked_at_us IS NULL";
        let detail = json!({ "before": "served", "after": "revoked", "reason": reason });
        let note = AuditNote::new(AuditAction::AgentRevoke, Subject::Agent(name.clone()), detail);
        self.turn(sql, params![name.as_str(), now, reason], &note, now, "revoke an agent")
    }

    /// Serves an agent again, with the capabilities that are still in force by themselves. Answers whether it had
    /// been revoked.
    ///
    /// # Errors
    /// [`Error::NoSuchAgent`], or SQLite's failure; nothing has changed then.
    pub fn restore_agent(&mut self, name: &AgentName, now: TimestampUs) -> Result<bool, Error> {
        self.require_agent(name)?;
        let sql = "UPDATE agents SET revoked_at_us = NULL, revoke_reason = NULL
                   WHERE name = ?1 AND revoked_at_us IS NOT NULL";
        let detail = json!({ "before": "revoked", "after": "served" });
        let note = AuditNote::new(AuditAction::AgentRestore, Subject::Agent(name.clone()), detail);
        self.turn(sql, [name.as_str()], &note, now, "restore an agent")
    }

    /// Runs the one statement that turns a switch. Answers whether it stood differently before.
    fn turn(
        &mut self,
        sql: &str,
        params: impl Params,
        note: &AuditNote,
        now: TimestampUs,
        doing: &'static str,
    ) -> Result<bool, Error> {
        let act = self.act(doing)?;
        if act.execute(sql, params).doing(doing)? == 0 {
            return Ok(false);
        }
        act.record(note, now)?;
        Ok(true)
    }
}
