//! The owner's rules, read whole as of one moment for the gateway's snapshot.

use policy::{AgentName, Budget, BudgetId, Map, ProviderId, RateLimit, Revocation, Rules, Subject, Unit};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::{Doing, Error};
use crate::row::{parsed, unreadable, unsigned_opt};
use crate::store::Store;
use crate::{canaries, capabilities, risk};

/// Everything the gateway decides by, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRows {
    /// The epoch these rows belong to, see [`Store::policy_epoch`].
    pub epoch: i64,
    /// The rows.
    pub rules: Rules,
}

impl Store {
    /// Reads all policy as of one moment.
    ///
    /// # Errors
    /// SQLite's failure, or a row that cannot be understood. A caller keeps no half of an answer: it refuses
    /// requests until this succeeds.
    pub fn load_policy(&self) -> Result<PolicyRows, Error> {
        let doing = "load the policy";
        // Dropped at the end: nothing is written, so there is nothing to commit.
        let read = self.conn.unchecked_transaction().doing(doing)?;
        let epoch = self.policy_epoch()?;
        let rules = rules(&read).doing(doing)?;
        Ok(PolicyRows { epoch, rules })
    }
}

fn rules(conn: &Connection) -> rusqlite::Result<Rules> {
    Ok(Rules {
        capabilities: capabilities::all(conn)?,
        killed: killed(conn)?,
        revoked_providers: revoked_providers(conn)?,
        revoked_agents: revoked_agents(conn)?,
        rate_limits: rate_limits(conn)?,
        budgets: budgets(conn)?,
        canaries: canaries::all(conn)?,
        risks: risk::all(conn)?,
        ..Rules::default()
    })
}

/// Whether the kill switch is on.
pub(crate) fn killed(conn: &Connection) -> rusqlite::Result<Option<Revocation>> {
    let sql = "SELECT killed_at_us AS at_us, reason FROM kill_switch";
    conn.prepare_cached(sql)?.query_row([], revocation).optional()
}

/// The providers that are revoked.
pub(crate) fn revoked_providers(conn: &Connection) -> rusqlite::Result<Map<ProviderId, Revocation>> {
    let sql = "SELECT provider, revoked_at_us AS at_us, reason FROM revoked_providers";
    let mut statement = conn.prepare_cached(sql)?;
    statement.query_map([], |row| Ok((parsed(row, "provider")?, revocation(row)?)))?.collect()
}

/// The agents that are revoked.
pub(crate) fn revoked_agents(conn: &Connection) -> rusqlite::Result<Map<AgentName, Revocation>> {
    let sql = "SELECT name, revoked_at_us AS at_us, coalesce(revoke_reason, '') AS reason
               FROM agents WHERE revoked_at_us IS NOT NULL";
    let mut statement = conn.prepare_cached(sql)?;
    statement.query_map([], |row| Ok((parsed(row, "name")?, revocation(row)?)))?.collect()
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    Ok(Revocation { at: row.get("at_us")?, reason: row.get("reason")? })
}

/// Every limit on rates.
pub(crate) fn rate_limits(conn: &Connection) -> rusqlite::Result<Map<Subject, RateLimit>> {
    let mut statement = conn.prepare_cached("SELECT * FROM rate_limits")?;
    let rows = statement.query_map([], |row| Ok((subject(row)?, rate_limit(row)?)))?;
    rows.collect()
}

/// The limits of a row.
pub(crate) fn rate_limit(row: &Row<'_>) -> rusqlite::Result<RateLimit> {
    Ok(RateLimit {
        requests_per_minute: row.get("requests_per_minute")?,
        tokens_per_minute: unsigned_opt(row, "tokens_per_minute")?,
        concurrent: row.get("concurrent")?,
    })
}

fn budgets(conn: &Connection) -> rusqlite::Result<Map<Subject, Vec<Budget>>> {
    let mut statement = conn.prepare_cached(crate::budgets::IN_FORCE)?;
    let mut budgets: Map<Subject, Vec<Budget>> = Map::default();
    for budget in statement.query_map([], budget)? {
        let budget = budget?;
        budgets.entry(budget.subject.clone()).or_default().push(budget);
    }
    Ok(budgets)
}

/// The budget of a row.
pub(crate) fn budget(row: &Row<'_>) -> rusqlite::Result<Budget> {
    let unit: Unit = parsed(row, "unit")?;
    Ok(Budget {
        id: BudgetId(row.get("id")?),
        subject: subject(row)?,
        period: parsed(row, "period")?,
        limit: unit.of(row.get("limit_amount")?),
    })
}

/// The subject of a row, which has a kind and a name.
pub(crate) fn subject(row: &Row<'_>) -> rusqlite::Result<Subject> {
    let (kind, name): (String, String) = (row.get("subject_kind")?, row.get("subject_name")?);
    Subject::from_parts(&kind, &name).map_err(|error| unreadable(row, "subject_name", error))
}
