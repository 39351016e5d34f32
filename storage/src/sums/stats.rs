//! Questions to the log that sums answer.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use policy::{AgentName, NanoUsd, ProviderId, TimestampUs};
use rusqlite::{Connection, Row, params_from_iter};

use super::{QUARTER_US, RAW, Sums, quarter, rollup};
use crate::error::{Doing, Error};
use crate::query::Conditions;
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
    /// Where hours and days begin.
    pub zone: TimeZone,
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
    /// Each hour of the zone.
    Hour,
    /// Each day of the zone.
    Day,
    /// Each status.
    Status,
}

/// What a line of the table stands for. `None` stands for the requests that had no such thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Half of the requests that were not refused took no longer than this, in microseconds, to within a hundredth.
    pub latency_p50_us: Option<u64>,
    /// Nineteen in twenty took no longer than this, in microseconds, to within a hundredth.
    pub latency_p95_us: Option<u64>,
    /// Half of those that got a body got its first byte no later than this, in microseconds, to within a hundredth.
    pub first_byte_p50_us: Option<u64>,
}

impl StatsRow {
    /// All input tokens, cached or not.
    pub fn input_total(&self) -> u64 {
        self.input_tokens.saturating_add(self.cache_read_tokens).saturating_add(self.cache_write_tokens)
    }
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
        let read = self.conn.unchecked_transaction().doing(DOING)?;
        let mut groups =
            Groups { by: query.by, zone: &query.zone, begins: HashMap::new(), sums: BTreeMap::new() };
        let through = rollup::through(&read).doing(DOING)?;
        let (from, until) = query.whole_quarters(newest_start(&read).doing(DOING)?);
        if from < until {
            add_sums(&read, query, (from, until), &mut groups)?;
            // What is summed up and lies beside whole quarters, and what is not summed up yet.
            let before = [("started_at_us < ?", from), ("seq <= ?", through)];
            let behind = [("started_at_us >= ?", until), ("seq <= ?", through)];
            add_requests(&read, query, "requests_by_time", &before, &mut groups)?;
            add_requests(&read, query, "requests_by_time", &behind, &mut groups)?;
            add_requests(&read, query, "", &[("seq > ?", through)], &mut groups)?;
        } else {
            add_requests(&read, query, "requests_by_time", &[], &mut groups)?;
        }
        groups.finish()
    }
}

const DOING: &str = "sum up the request log";

/// The sums of the groups that were met.
struct Groups<'z> {
    by: StatsBy,
    zone: &'z TimeZone,
    /// When the hour or the day of a quarter begins.
    begins: HashMap<TimestampUs, TimestampUs>,
    sums: BTreeMap<StatsGroup, Sums>,
}

impl StatsQuery {
    /// Everything in the log, in UTC.
    pub fn of(by: StatsBy) -> Self {
        Self { since: None, until: None, provider: None, agent: None, by, zone: TimeZone::UTC }
    }

    fn conditions(&self) -> Conditions {
        let mut all = Conditions::default();
        all.add("provider = ?", self.provider.as_ref().map(|provider| provider.as_str().to_owned()));
        all.add("agent = ?", self.agent.as_ref().map(|agent| agent.as_str().to_owned()));
        all
    }

    /// The quarters of an hour that lie in the time that is asked for: the start of the first, and of the one behind the
    /// last. The quarter of the `newest` request is whole although it is not over, if all of it is asked for: who asks
    /// until now asks for that.
    fn whole_quarters(&self, newest: TimestampUs) -> (TimestampUs, TimestampUs) {
        let from = self.since.map_or(TimestampUs::MIN, |since| quarter(since.saturating_add(QUARTER_US - 1)));
        let until = self.until.filter(|until| *until <= newest);
        (from, until.map_or(TimestampUs::MAX, quarter))
    }
}

impl Groups<'_> {
    /// The sums of the group that a row belongs to, whose quarter begins at `quarter`.
    fn of(&mut self, row: &Row<'_>, quarter: TimestampUs) -> rusqlite::Result<&mut Sums> {
        let group = match self.by {
            StatsBy::Provider => StatsGroup::Name(row.get("provider")?),
            StatsBy::Model => StatsGroup::Name(row.get("model")?),
            StatsBy::Agent => StatsGroup::Name(row.get("agent")?),
            StatsBy::Status => StatsGroup::Status(row.get("status")?),
            StatsBy::Hour | StatsBy::Day => {
                let (by, zone) = (self.by, self.zone);
                StatsGroup::Begin(*self.begins.entry(quarter).or_insert_with(|| begin(by, zone, quarter)))
            }
        };
        Ok(self.sums.entry(group).or_default())
    }

    fn finish(self) -> Result<Stats, Error> {
        let mut total = Sums::default();
        self.sums.values().try_for_each(|sums| total.merge(sums))?;
        let rows = self.sums.into_iter().map(|(group, sums)| sums.into_row(group)).collect();
        Ok(Stats { rows, total: total.into_row(StatsGroup::All) })
    }
}

/// When the request in the log that began last did so.
fn newest_start(conn: &Connection) -> rusqlite::Result<TimestampUs> {
    let sql = "SELECT coalesce(max(started_at_us), 0) FROM requests";
    conn.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// When the hour or the day begins that an instant lies in.
fn begin(by: StatsBy, zone: &TimeZone, at: TimestampUs) -> TimestampUs {
    let Ok(instant) = Timestamp::from_microsecond(at) else { return at };
    let local = instant.to_zoned_datetime(zone.clone());
    let begin = match by {
        StatsBy::Day => local.start_of_day(),
        _ => local.with().minute(0).second(0).subsec_nanosecond(0).build(),
    };
    begin.map_or(at, |begin| begin.timestamp().as_microsecond())
}

fn add_sums(
    conn: &Connection,
    query: &StatsQuery,
    (from, until): (TimestampUs, TimestampUs),
    groups: &mut Groups<'_>,
) -> Result<(), Error> {
    let mut conditions = query.conditions();
    conditions.add("quarter_us >= ?", Some(from));
    conditions.add("quarter_us < ?", Some(until));
    let sql = format!("SELECT * FROM request_sums WHERE {}", conditions.sql());
    let mut statement = conn.prepare_cached(&sql).doing(DOING)?;
    let mut rows = statement.query(params_from_iter(conditions.values)).doing(DOING)?;
    while let Some(row) = rows.next().doing(DOING)? {
        let quarter = row.get("quarter_us").doing(DOING)?;
        groups.of(row, quarter).and_then(|sums| sums.add_sums(row)).doing(DOING)??;
    }
    Ok(())
}

/// Adds requests of the time that is asked for for which `further` holds. Without an index the table itself is read.
fn add_requests(
    conn: &Connection,
    query: &StatsQuery,
    index: &str,
    further: &[(&'static str, i64)],
    groups: &mut Groups<'_>,
) -> Result<(), Error> {
    let mut conditions = query.conditions();
    conditions.add("started_at_us >= ?", query.since);
    conditions.add("started_at_us < ?", query.until);
    further.iter().for_each(|(text, value)| conditions.add(text, Some(*value)));
    let is_bounded = query.since.is_some() || query.until.is_some();
    let how = match index {
        "" => "NOT INDEXED".to_owned(),
        // Without a bound on time all is to be read in any case.
        _ if !is_bounded && further.is_empty() => "NOT INDEXED".to_owned(),
        index => format!("INDEXED BY {index}"),
    };
    let sql = format!("SELECT {RAW} FROM requests {how} WHERE {}", conditions.sql());
    let mut statement = conn.prepare_cached(&sql).doing(DOING)?;
    let mut rows = statement.query(params_from_iter(conditions.values)).doing(DOING)?;
    while let Some(row) = rows.next().doing(DOING)? {
        let quarter = quarter(row.get("started_at_us").doing(DOING)?);
        groups.of(row, quarter).and_then(|sums| sums.add_request(row)).doing(DOING)??;
    }
    Ok(())
}
