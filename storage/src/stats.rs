//! Sums over the request log. Sums are exact: one that does not fit is an error, never a wrong number.

use policy::{AgentName, NanoUsd, ProviderId, TimestampUs};
use rusqlite::{Connection, Row, params_from_iter};

use crate::error::{Doing, Error};
use crate::query::Conditions;
use crate::row::{unsigned, unsigned_opt};
use crate::store::Store;

/// What to sum up. Conditions that are `None` hold for all.
#[derive(Clone, Debug)]
pub struct StatsQuery {
    /// Begun at this instant or later.
    pub since: Option<TimestampUs>,
    /// Begun before this instant.
    pub until: Option<TimestampUs>,
    /// Of this provider.
    pub provider: Option<ProviderId>,
    /// Booked to this agent.
    pub agent: Option<AgentName>,
    /// What makes a line of the table.
    pub by: StatsBy,
}

/// What makes a line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsBy {
    /// Each provider.
    Provider,
    /// Each model.
    Model,
    /// Each agent.
    Agent,
    /// Each hour, UTC.
    Hour,
    /// Each day, UTC.
    Day,
    /// Each status.
    Status,
}

/// What a line of the table stands for. `None` stands for the requests that had no such thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsGroup {
    /// A provider, a model or an agent.
    Name(Option<String>),
    /// An hour or a day, by the instant it begins.
    Begin(TimestampUs),
    /// A status.
    Status(Option<u16>),
    /// Everything: the total.
    All,
}

/// The sums of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsRow {
    /// Which group.
    pub group: StatsGroup,
    /// Requests, refused ones included, each repeated one counted.
    pub requests: u64,
    /// Requests we refused.
    pub refused: u64,
    /// Requests that failed: the provider answered with status 400 or more, could not be reached or broke off, or we
    /// cut the answer. A caller who left is none of these.
    pub errors: u64,
    /// Input tokens outside any cache.
    pub input_tokens: u64,
    /// Input tokens read from a cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to a cache of any lifetime.
    pub cache_write_tokens: u64,
    /// Output tokens, reasoning included.
    pub output_tokens: u64,
    /// What the requests of a known price cost.
    pub cost: NanoUsd,
    /// Requests whose price is unknown, and which `cost` therefore leaves out.
    pub unpriced: u64,
    /// Half of the requests that were not refused took no longer than this, in microseconds.
    pub latency_p50_us: Option<u64>,
    /// Nineteen in twenty took no longer than this, in microseconds.
    pub latency_p95_us: Option<u64>,
    /// Half of those that got a body got its first byte no later than this, in microseconds.
    pub first_byte_p50_us: Option<u64>,
}

/// The sums of each group, and of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// In the order of the group: names and statuses ascending, time ascending, what has none first.
    pub rows: Vec<StatsRow>,
    /// Over everything that was asked for.
    pub total: StatsRow,
}

impl Store {
    /// Sums up the log, as of one moment.
    ///
    /// # Errors
    /// [`Error::Overflow`], or SQLite's failure.
    pub fn stats(&self, query: &StatsQuery) -> Result<Stats, Error> {
        let read = self.conn.unchecked_transaction().doing("sum up the request log")?;
        let rows = sums(&read, query, Grouping::By(query.by))?;
        let total = sums(&read, query, Grouping::Whole)?;
        Ok(Stats { rows, total: total.into_iter().next().unwrap_or_else(StatsRow::nothing) })
    }
}

impl StatsRow {
    fn nothing() -> Self {
        Self {
            group: StatsGroup::All,
            requests: 0,
            refused: 0,
            errors: 0,
            input_tokens: 0,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            output_tokens: 0,
            cost: NanoUsd::ZERO,
            unpriced: 0,
            latency_p50_us: None,
            latency_p95_us: None,
            first_byte_p50_us: None,
        }
    }
}

#[derive(Clone, Copy)]
enum Grouping {
    By(StatsBy),
    Whole,
}

impl Grouping {
    fn expression(self) -> &'static str {
        match self {
            Self::By(StatsBy::Provider) => "provider",
            Self::By(StatsBy::Model) => "model",
            Self::By(StatsBy::Agent) => "agent",
            Self::By(StatsBy::Hour) => "started_at_us / 3600000000 * 3600000000",
            Self::By(StatsBy::Day) => "started_at_us / 86400000000 * 86400000000",
            Self::By(StatsBy::Status) => "status",
            Self::Whole => "NULL",
        }
    }

    fn read(self, row: &Row<'_>) -> rusqlite::Result<StatsGroup> {
        Ok(match self {
            Self::By(StatsBy::Provider | StatsBy::Model | StatsBy::Agent) => {
                StatsGroup::Name(row.get("key")?)
            }
            Self::By(StatsBy::Hour | StatsBy::Day) => StatsGroup::Begin(row.get("key")?),
            Self::By(StatsBy::Status) => StatsGroup::Status(row.get("key")?),
            Self::Whole => StatsGroup::All,
        })
    }
}

fn sums(conn: &Connection, query: &StatsQuery, grouping: Grouping) -> Result<Vec<StatsRow>, Error> {
    let doing = "sum up the request log";
    let mut conditions = Conditions::default();
    conditions.add("started_at_us >= ?", query.since);
    conditions.add("started_at_us < ?", query.until);
    conditions.add("provider = ?", query.provider.as_ref().map(|provider| provider.as_str().to_owned()));
    conditions.add("agent = ?", query.agent.as_ref().map(|agent| agent.as_str().to_owned()));
    let sql = statement(grouping.expression(), &conditions.sql());
    let mut statement = conn.prepare_cached(&sql).doing(doing)?;
    let rows = statement.query_map(params_from_iter(conditions.values), |row| {
        Ok(StatsRow {
            group: grouping.read(row)?,
            requests: unsigned(row, "requests")?,
            refused: unsigned(row, "refused")?,
            errors: unsigned(row, "errors")?,
            input_tokens: unsigned(row, "input_tokens")?,
            cache_read_tokens: unsigned(row, "cache_read_tokens")?,
            cache_write_tokens: unsigned(row, "cache_write_tokens")?,
            output_tokens: unsigned(row, "output_tokens")?,
            cost: NanoUsd::from_nanos(row.get("cost_nano_usd")?),
            unpriced: unsigned(row, "unpriced")?,
            latency_p50_us: unsigned_opt(row, "latency_p50_us")?,
            latency_p95_us: unsigned_opt(row, "latency_p95_us")?,
            first_byte_p50_us: unsigned_opt(row, "first_byte_p50_us")?,
        })
    });
    rows.doing(doing)?.collect::<rusqlite::Result<_>>().doing(doing)
}

/// Percentiles are by nearest rank: the smallest value that enough of the others do not exceed. SQLite's `sum()` of
/// integers is exact and fails when it does not fit; `total()` would turn into a float.
fn statement(group: &str, conditions: &str) -> String {
    format!(
        "WITH chosen AS MATERIALIZED (
            SELECT {group} AS key, outcome, status, repeats, input_tokens, cache_read_tokens, cache_write_5m_tokens,
                   cache_write_1h_tokens, output_tokens, cost_nano_usd, latency_us, first_byte_us
            FROM requests WHERE {conditions}),
        latency AS (
            SELECT key,
                   max(latency_us) FILTER (WHERE rank = (n * 50 + 99) / 100) AS latency_p50_us,
                   max(latency_us) FILTER (WHERE rank = (n * 95 + 99) / 100) AS latency_p95_us
            FROM (SELECT key, latency_us, row_number() OVER (PARTITION BY key ORDER BY latency_us) AS rank,
                         count(*) OVER (PARTITION BY key) AS n
                  FROM chosen WHERE outcome <> 'refused')
            GROUP BY key),
        first_byte AS (
            SELECT key, max(first_byte_us) FILTER (WHERE rank = (n * 50 + 99) / 100) AS first_byte_p50_us
            FROM (SELECT key, first_byte_us, row_number() OVER (PARTITION BY key ORDER BY first_byte_us) AS rank,
                         count(*) OVER (PARTITION BY key) AS n
                  FROM chosen WHERE first_byte_us IS NOT NULL)
            GROUP BY key),
        sums AS (
            SELECT key, sum(repeats) AS requests,
                   coalesce(sum(repeats) FILTER (WHERE outcome = 'refused'), 0) AS refused,
                   count(*) FILTER (WHERE outcome IN ('upstream_error', 'cut', 'unfinished')
                                    OR outcome = 'completed' AND status >= 400) AS errors,
                   sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens,
                   sum(cache_write_5m_tokens + cache_write_1h_tokens) AS cache_write_tokens,
                   sum(output_tokens) AS output_tokens, coalesce(sum(cost_nano_usd), 0) AS cost_nano_usd,
                   count(*) FILTER (WHERE cost_nano_usd IS NULL AND outcome <> 'refused') AS unpriced
            FROM chosen GROUP BY key)
        SELECT sums.*, latency_p50_us, latency_p95_us, first_byte_p50_us
        FROM sums LEFT JOIN latency ON latency.key IS sums.key LEFT JOIN first_byte ON first_byte.key IS sums.key
        ORDER BY sums.key"
    )
}
