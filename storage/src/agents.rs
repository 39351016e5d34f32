//! Agents: the names that capabilities stand for and to which requests are booked.

use policy::{AgentName, NanoUsd, Revocation, TimestampUs};
use rusqlite::{OptionalExtension, Row};

use crate::capabilities::ENDED;
use crate::error::{Doing, Error};
use crate::row::{parsed, unsigned};
use crate::store::Store;
use crate::sums::USES;

/// An agent as a person sees it listed. What was used and spent is counted from the request log, and so reaches
/// back as far as that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSummary {
    /// Its name.
    pub name: AgentName,
    /// When its first capability was minted.
    pub created_at: TimestampUs,
    /// What its maker noted.
    pub note: Option<String>,
    /// Capabilities minted for it that are remembered: all that its owner minted, and children for a while.
    pub capabilities: u64,
    /// Capabilities in force: neither they nor an ancestor nor the agent is revoked, and none has expired.
    pub capabilities_active: u64,
    /// When the agent was revoked, and why.
    pub revoked: Option<Revocation>,
    /// When its last admitted request began.
    pub last_used_at: Option<TimestampUs>,
    /// Requests, refused ones included.
    pub requests: u64,
    /// What its requests cost, as far as prices are known.
    pub spent: NanoUsd,
    /// Requests whose price is unknown, and which `spent` therefore leaves out.
    pub unpriced: u64,
}

/// An agent, and when it last did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUse {
    /// Its name.
    pub name: AgentName,
    /// When its last admitted request in the log began.
    pub last_used_at: Option<TimestampUs>,
}

impl Store {
    /// Lists agents by name, those too that were never minted and are in the log. Costs a fraction of [`Store::agents`],
    /// which adds up all that they ever did.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn agent_uses(&self) -> Result<Vec<AgentUse>, Error> {
        let doing = "list agents";
        let sql = format!(
            "WITH {USES},
            last_used AS (SELECT agent, max(at_us) AS at_us FROM uses WHERE agent <> '' GROUP BY agent)
            SELECT coalesce(name, agent) AS known_name, at_us
            FROM agents FULL JOIN last_used ON last_used.agent = agents.name
            ORDER BY known_name"
        );
        let mut statement = self.conn.prepare_cached(&sql).doing(doing)?;
        let used = |row: &Row<'_>| {
            Ok(AgentUse { name: parsed(row, "known_name")?, last_used_at: row.get("at_us")? })
        };
        let rows = statement.query_map([], used).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// Lists agents by name. `now` decides which capabilities are active.
    ///
    /// # Errors
    /// SQLite's failure, or [`Error::Overflow`].
    pub fn agents(&self, now: TimestampUs) -> Result<Vec<AgentSummary>, Error> {
        let doing = "list agents";
        let sql = format!(
            "WITH RECURSIVE {ENDED}, {USES},
            logged AS (
                SELECT agent, requests, cost_nano_usd, unpriced FROM request_sums
                UNION ALL
                SELECT agent, repeats, coalesce(cost_nano_usd, 0), cost_nano_usd IS NULL AND outcome <> 'refused'
                FROM requests NOT INDEXED WHERE seq > (SELECT through_seq FROM request_sums_mark)),
            last_used AS (SELECT agent, max(at_us) AS at_us FROM uses GROUP BY agent),
            used AS (
                SELECT agent, sum(requests) AS requests, sum(cost_nano_usd) AS spent_nano_usd,
                       sum(unpriced) AS unpriced
                FROM logged GROUP BY agent),
            minted AS (
                SELECT agent, count(*) AS capabilities,
                       count(*) FILTER (WHERE id NOT IN (SELECT id FROM ended)) AS active
                FROM capabilities GROUP BY agent)
            SELECT name, created_at_us, note, coalesce(capabilities, 0) AS capabilities,
                   coalesce(active, 0) AS active, coalesce(requests, 0) AS requests,
                   last_used.at_us AS last_used_at_us,
                   coalesce(spent_nano_usd, 0) AS spent_nano_usd, coalesce(unpriced, 0) AS unpriced,
                   revoked_at_us, coalesce(revoke_reason, '') AS revoke_reason
            FROM agents LEFT JOIN minted ON minted.agent = name LEFT JOIN used ON used.agent = name
                 LEFT JOIN last_used ON last_used.agent = name
            ORDER BY name"
        );
        let mut statement = self.conn.prepare_cached(&sql).doing(doing)?;
        let rows = statement.query_map([now], from_row).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// The names of all agents.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn agent_names(&self) -> Result<Vec<AgentName>, Error> {
        let doing = "list agents";
        let mut statement = self.conn.prepare_cached("SELECT name FROM agents ORDER BY name").doing(doing)?;
        let names = statement.query_map([], |row| parsed(row, "name")).doing(doing)?;
        names.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// Agents are never deleted, so one that is found stays.
    pub(crate) fn require_agent(&self, name: &AgentName) -> Result<(), Error> {
        let sql = "SELECT 1 FROM agents WHERE name = ?1";
        let known = self.conn.query_row(sql, [name.as_str()], |_| Ok(())).optional();
        match known.doing("look up an agent")? {
            Some(()) => Ok(()),
            None => Err(Error::NoSuchAgent { name: name.clone() }),
        }
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<AgentSummary> {
    Ok(AgentSummary {
        name: parsed(row, "name")?,
        created_at: row.get("created_at_us")?,
        note: row.get("note")?,
        capabilities: unsigned(row, "capabilities")?,
        capabilities_active: unsigned(row, "active")?,
        revoked: row
            .get::<_, Option<TimestampUs>>("revoked_at_us")?
            .map(|at| Ok::<_, rusqlite::Error>(Revocation { at, reason: row.get("revoke_reason")? }))
            .transpose()?,
        last_used_at: row.get("last_used_at_us")?,
        requests: unsigned(row, "requests")?,
        spent: NanoUsd::from_nanos(row.get("spent_nano_usd")?),
        unpriced: unsigned(row, "unpriced")?,
    })
}
