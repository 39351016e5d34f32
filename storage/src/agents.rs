//! Agents: the names that capabilities stand for and to which requests are booked.

use std::collections::BTreeMap;

use policy::{AgentName, NanoUsd, Revocation, TimestampUs};
use rusqlite::{OptionalExtension, Row};

use crate::capabilities::ENDED;
use crate::error::{Doing, Error};
use crate::row::{parsed, unsigned};
use crate::store::Store;
use crate::sums::{self, USES};

/// What is told of parts of the log that are summed up, and what is behind them.
const USED_IN_SPANS: &str = "
    SELECT agent, max(last_used_us) FROM request_spans WHERE part > ?1 AND agent <> '' GROUP BY agent";
const USED_BEHIND: &str = "
    SELECT agent, max(started_at_us) FROM requests NOT INDEXED
    WHERE seq > ?1 AND outcome <> 'refused' AND agent IS NOT NULL GROUP BY agent";

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

/// When agents last did something, read from the log bit by bit: what was read once is not read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentUses {
    /// When the last admitted request of each began; those too that were never minted and are in the log.
    pub last_used: BTreeMap<AgentName, Option<TimestampUs>>,
    /// Up to this row everything is in it for good.
    through: i64,
}

impl AgentUses {
    fn add(&mut self, name: AgentName, at: Option<TimestampUs>) {
        let last = self.last_used.entry(name).or_default();
        *last = at.max(*last);
    }
}

impl Store {
    /// Reads on when agents were used. Costs a fraction of [`Store::agents`], which adds up all that they ever did.
    ///
    /// # Errors
    /// SQLite's failure; what was read so far is in it.
    pub fn follow_uses(&self, uses: &mut AgentUses) -> Result<(), Error> {
        let doing = "look up when agents were used";
        let read = self.conn.unchecked_transaction().doing(doing)?;
        let before = uses.through;
        let mut add = |sql: &str, after: i64| -> rusqlite::Result<()> {
            let mut statement = read.prepare_cached(sql)?;
            let mut rows = statement.query([after])?;
            while let Some(row) = rows.next()? {
                uses.add(parsed(row, 0)?, row.get(1)?);
            }
            Ok(())
        };
        let through = sums::through(&read).doing(doing)?;
        add("SELECT name, NULL FROM agents WHERE ?1 >= 0", 0).doing(doing)?;
        add(USED_IN_SPANS, before).doing(doing)?;
        add(USED_BEHIND, through).doing(doing)?;
        uses.through = through;
        Ok(())
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
