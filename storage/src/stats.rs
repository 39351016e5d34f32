//! Sums over the request log. Sums are exact: one that does not fit is an error, never a wrong number.

use std::collections::HashMap;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
        let mut rows = sums(&read, query, Grouping::By(query.by))?;
        let total = sums(&read, query, Grouping::Whole)?;
        let mut total = total.into_iter().next().unwrap_or_else(StatsRow::nothing);
        let mut times = times(&read, query)?;
        let mut whole = Times::default();
        for row in &mut rows {
            let mut of_group = times.remove(&row.group).unwrap_or_default();
            of_group.fill(row);
            whole.append(of_group);
        }
        whole.fill(&mut total);
        Ok(Stats { rows, total })
    }
}

impl StatsQuery {
    fn conditions(&self) -> Conditions {
        let mut all = Conditions::default();
        all.add("started_at_us >= ?", self.since);
        all.add("started_at_us < ?", self.until);
        all.add("provider = ?", self.provider.as_ref().map(|provider| provider.as_str().to_owned()));
        all.add("agent = ?", self.agent.as_ref().map(|agent| agent.as_str().to_owned()));
        all
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
    let conditions = query.conditions();
    let sql = sums_sql(grouping.expression(), &conditions.sql());
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
            ..StatsRow::nothing()
        })
    });
    rows.doing(doing)?.collect::<rusqlite::Result<_>>().doing(doing)
}

/// SQLite's `sum()` of integers is exact and fails when it does not fit; `total()` would turn into a float.
fn sums_sql(group: &str, conditions: &str) -> String {
    format!(
        "SELECT {group} AS key, sum(repeats) AS requests,
                coalesce(sum(repeats) FILTER (WHERE outcome = 'refused'), 0) AS refused,
                count(*) FILTER (WHERE outcome IN ('upstream_error', 'cut', 'unfinished')
                                 OR outcome = 'completed' AND status >= 400) AS errors,
                sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens,
                sum(cache_write_5m_tokens + cache_write_1h_tokens) AS cache_write_tokens,
                sum(output_tokens) AS output_tokens, coalesce(sum(cost_nano_usd), 0) AS cost_nano_usd,
                count(*) FILTER (WHERE cost_nano_usd IS NULL AND outcome <> 'refused') AS unpriced
         FROM requests WHERE {conditions} GROUP BY key ORDER BY key"
    )
}

/// How long the requests of a group took, in microseconds.
#[derive(Debug, Default)]
struct Times {
    latency: Vec<u64>,
    first_byte: Vec<u64>,
}

/// Collects the times of all requests that were not refused. Sixteen bytes a request and one pass; window functions
/// in SQL give the same percentiles, but sorting for them took three times as long as everything else together.
fn times(conn: &Connection, query: &StatsQuery) -> Result<HashMap<StatsGroup, Times>, Error> {
    let doing = "collect the times of requests";
    let grouping = Grouping::By(query.by);
    let conditions = query.conditions();
    let sql = format!(
        "SELECT {} AS key, latency_us, first_byte_us FROM requests WHERE outcome <> 'refused' AND {}",
        grouping.expression(),
        conditions.sql()
    );
    let mut statement = conn.prepare_cached(&sql).doing(doing)?;
    let mut rows = statement.query(params_from_iter(conditions.values)).doing(doing)?;
    let mut times: HashMap<StatsGroup, Times> = HashMap::new();
    while let Some(row) = rows.next().doing(doing)? {
        let of_group = times.entry(grouping.read(row).doing(doing)?).or_default();
        of_group.latency.push(unsigned(row, "latency_us").doing(doing)?);
        of_group.first_byte.extend(unsigned_opt(row, "first_byte_us").doing(doing)?);
    }
    Ok(times)
}

impl Times {
    fn append(&mut self, mut other: Self) {
        self.latency.append(&mut other.latency);
        self.first_byte.append(&mut other.first_byte);
    }

    fn fill(&mut self, row: &mut StatsRow) {
        row.latency_p50_us = percentile(&mut self.latency, 50);
        row.latency_p95_us = percentile(&mut self.latency, 95);
        row.first_byte_p50_us = percentile(&mut self.first_byte, 50);
    }
}

/// By nearest rank: the smallest value that `percent` of all values do not exceed.
fn percentile(values: &mut [u64], percent: usize) -> Option<u64> {
    let index = (values.len() * percent).div_ceil(100).checked_sub(1)?;
    Some(*values.select_nth_unstable(index).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_percentile(values: &[u64], percent: usize, expected: Option<u64>) {
        assert_eq!(percentile(&mut values.to_vec(), percent), expected, "{percent} % of {values:?}");
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        check_percentile(&[], 50, None);
        check_percentile(&[7], 50, Some(7));
        check_percentile(&[7], 95, Some(7));
        check_percentile(&[4, 1, 3, 2], 50, Some(2));
        check_percentile(&[4, 1, 3, 2], 95, Some(4));
        check_percentile(&[5, 1, 4, 2, 3], 50, Some(3));
        check_percentile(&[1, 1, 1, 9], 50, Some(1));
    }
}
