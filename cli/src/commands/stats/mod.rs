//! `stats`: sums over the log.

mod csv;

use std::time::Duration;

use clap::{Args, ValueEnum};
use gateway::overview::form::timestamp;
use jiff::tz::TimeZone;
use policy::{NanoUsd, Period as Calendar, TimestampUs};
use serde_json::{Value, json};
use storage::{Stats as Sums, StatsBy, StatsGroup, StatsQuery, StatsRow, Store};

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::commands::agent::parse_agent;
use crate::commands::log::{READING, provider_in_log};
use crate::failure::Failure;
use crate::format::{millis, parse_instant, percent, span_or_dash, usd};

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Over which time; days begin at midnight in `budget.timezone`
    #[arg(long, value_enum, default_value = "today", conflicts_with_all = ["since", "until"])]
    period: Period,
    /// Only requests begun since then: `90m`, `45d`, `2026-11-25`, `2026-11-25T10:00:00Z`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only requests begun before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// What makes a line of the table
    #[arg(long, value_enum, default_value = "provider")]
    by: By,
    /// Only requests to this provider
    #[arg(long)]
    provider: Option<String>,
    /// Only requests of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Print comma-separated values, without a total
    #[arg(long)]
    csv: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Period {
    /// Since midnight
    Today,
    /// The last 24 hours
    #[value(name = "24h")]
    Hours24,
    /// The last seven times 24 hours
    #[value(name = "7d")]
    Days7,
    /// The last thirty times 24 hours
    #[value(name = "30d")]
    Days30,
    /// Since the first of the month
    Month,
    /// Everything in the log
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Provider,
    Model,
    Agent,
    Hour,
    Day,
    Status,
}

const COLUMNS: [Column; 13] = [
    Column::Left("group"),
    Column::Right("requests"),
    Column::SpareRight("refused"),
    Column::SpareRight("errors"),
    Column::Right("in"),
    Column::SpareRight("cached"),
    Column::Right("out"),
    Column::Right("cost"),
    Column::Left(""),
    Column::SpareRight("each"),
    Column::SpareRight("p50"),
    Column::SpareRight("p95"),
    Column::SpareRight("ttft p50"),
];

impl Stats {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        if self.csv && app.output.is_json {
            return Err(Failure::usage("--csv and --json exclude each other"));
        }
        app.flush_log();
        let config = app.config()?;
        let store = Store::open_existing(&config.logging.db_path)?;
        let (now, zone) = (now_us(), config.budget.timezone.clone());
        let typed = |text: &Option<String>| text.as_deref().map(|text| parse_instant(text, now)).transpose();
        let (since, until) = (typed(&self.since)?, typed(&self.until)?);
        let is_typed = since.is_some() || until.is_some();
        let query = StatsQuery {
            since: if is_typed { since } else { self.period.begin(now, &zone) },
            until: Some(until.unwrap_or(now)),
            provider: self.provider.as_deref().map(|name| provider_in_log(app, &store, name)).transpose()?,
            agent: self.agent.as_deref().map(parse_agent).transpose()?,
            by: self.by.group(),
            zone: zone.clone(),
        };
        let sums = app.output.during(READING, || store.stats(&query))?;
        let document = json!({
            "period": (!is_typed).then(|| name(self.period)),
            "since": query.since.map(timestamp),
            "until": query.until.map(timestamp),
            "timezone": zone.iana_name(),
            "by": name(self.by),
            "rows": sums.rows.iter().map(document).collect::<Vec<_>>(),
            "total": document(&sums.total),
        });
        app.output.data(&document, || match self.csv {
            true => csv::table(name(self.by), &sums.rows),
            false => table(&sums, &query),
        });
        Ok(())
    }
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is skipped").get_name().to_owned()
}

impl Period {
    /// When it begins; `None` for the whole log.
    fn begin(self, now: TimestampUs, zone: &TimeZone) -> Option<TimestampUs> {
        let hours = |hours: u64| {
            let span = Duration::from_secs(hours * 60 * 60).as_micros();
            now.saturating_sub(i64::try_from(span).unwrap_or(i64::MAX))
        };
        match self {
            Self::Today => Some(Calendar::Daily.window(now, zone).from),
            Self::Hours24 => Some(hours(24)),
            Self::Days7 => Some(hours(7 * 24)),
            Self::Days30 => Some(hours(30 * 24)),
            Self::Month => Some(Calendar::Monthly.window(now, zone).from),
            Self::All => None,
        }
    }
}

impl By {
    fn group(self) -> StatsBy {
        match self {
            Self::Provider => StatsBy::Provider,
            Self::Model => StatsBy::Model,
            Self::Agent => StatsBy::Agent,
            Self::Hour => StatsBy::Hour,
            Self::Day => StatsBy::Day,
            Self::Status => StatsBy::Status,
        }
    }
}

/// What a line stands for, as programs read it; null for requests that had no such thing.
fn group(group: &StatsGroup) -> Value {
    match group {
        StatsGroup::Name(name) => json!(name),
        StatsGroup::Begin(at) => json!(timestamp(*at)),
        StatsGroup::Status(status) => json!(status),
        StatsGroup::All => Value::Null,
    }
}

fn group_text(of: &StatsGroup, zone: &TimeZone) -> String {
    match of {
        StatsGroup::All => "total".to_owned(),
        StatsGroup::Name(None) | StatsGroup::Status(None) => "-".to_owned(),
        StatsGroup::Name(Some(name)) => name.clone(),
        StatsGroup::Status(Some(status)) => status.to_string(),
        StatsGroup::Begin(at) => local_minute(*at, zone),
    }
}

/// `2026-11-25 10:00`, as the clock shows in the zone.
fn local_minute(at: TimestampUs, zone: &TimeZone) -> String {
    let Ok(at) = jiff::Timestamp::from_microsecond(at) else { return at.to_string() };
    at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// What a request of a known price cost on average, half a nano-dollar rounded up; refused ones are none.
fn cost_each(row: &StatsRow) -> Option<NanoUsd> {
    let priced = row.requests.saturating_sub(row.refused).saturating_sub(row.unpriced);
    let priced = i64::try_from(priced).ok().filter(|priced| *priced > 0)?;
    let (whole, rest) = (row.cost.nanos() / priced, row.cost.nanos() % priced);
    Some(NanoUsd::from_nanos(whole + i64::from(rest >= priced - rest)))
}

/// The part of the input that came from a cache, in percent with one decimal place.
fn cache_share(row: &StatsRow) -> Option<f64> {
    let (cached, all) = (u128::from(row.cache_read_tokens), u128::from(row.input_total()));
    let thousandths = (cached * 1_000 + all / 2).checked_div(all)?;
    u32::try_from(thousandths).ok().map(|thousandths| f64::from(thousandths) / 10.0)
}

fn document(row: &StatsRow) -> Value {
    json!({
        "group": group(&row.group),
        "requests": row.requests,
        "refused": row.refused,
        "errors": row.errors,
        "input_tokens": row.input_total(),
        "cache_read_tokens": row.cache_read_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "cache_read_percent": cache_share(row),
        "output_tokens": row.output_tokens,
        "cost_usd": row.cost.to_string(),
        "cost_per_request_usd": cost_each(row).map(|cost| cost.to_string()),
        "unpriced": row.unpriced,
        "latency_p50_ms": row.latency_p50_us.map(millis),
        "latency_p95_ms": row.latency_p95_us.map(millis),
        "first_byte_p50_ms": row.first_byte_p50_us.map(millis),
    })
}

fn table(sums: &Sums, query: &StatsQuery) -> String {
    let zone = &query.zone;
    let since = query
        .since
        .map_or_else(|| "all requests".to_owned(), |at| format!("since {}", local_minute(at, zone)));
    if sums.rows.is_empty() {
        return format!("no requests ({since})");
    }
    let rows: Vec<_> = sums.rows.iter().chain([&sums.total]).map(|row| cells(row, zone)).collect();
    let name = zone.iana_name().unwrap_or("UTC");
    format!("{}\n\n{since}; times are those of {name}", Columns::table(&COLUMNS, &rows, ""))
}

fn cells(row: &StatsRow, zone: &TimeZone) -> Vec<String> {
    vec![
        group_text(&row.group, zone),
        row.requests.to_string(),
        row.refused.to_string(),
        row.errors.to_string(),
        row.input_total().to_string(),
        percent(row.cache_read_tokens, row.input_total()),
        row.output_tokens.to_string(),
        usd(row.cost),
        if row.unpriced == 0 { String::new() } else { format!("+{} unpriced", row.unpriced) },
        cost_each(row).map_or_else(|| "-".to_owned(), usd),
        span_or_dash(row.latency_p50_us),
        span_or_dash(row.latency_p95_us),
        span_or_dash(row.first_byte_p50_us),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn row(group: StatsGroup) -> StatsRow {
        StatsRow {
            group,
            requests: 12,
            refused: 2,
            errors: 1,
            input_tokens: 150,
            cache_read_tokens: 800,
            cache_write_tokens: 50,
            output_tokens: 70,
            cost: NanoUsd::from_nanos(1_250_000_000),
            unpriced: 3,
            latency_p50_us: Some(1_240_000),
            latency_p95_us: Some(3_000_000),
            first_byte_p50_us: None,
        }
    }

    #[track_caller]
    fn check_begin(period: Period, now: &str, expected: &str) {
        let now: jiff::Timestamp = now.parse().unwrap();
        let begin = period.begin(now.as_microsecond(), &TimeZone::UTC).map(timestamp);
        assert_eq!(begin.as_deref(), Some(expected), "{period:?} at {now}");
    }

    #[test]
    fn periods_begin_where_their_names_say() {
        check_begin(Period::Today, "2026-11-25T23:59:59.999999Z", "2026-11-25T00:00:00.000Z");
        check_begin(Period::Today, "2026-11-25T00:00:00Z", "2026-11-25T00:00:00.000Z");
        check_begin(Period::Hours24, "2028-03-01T10:00:00Z", "2028-02-29T10:00:00.000Z");
        check_begin(Period::Hours24, "2027-03-01T10:00:00Z", "2027-02-28T10:00:00.000Z");
        check_begin(Period::Days7, "2026-01-03T00:00:00Z", "2025-12-27T00:00:00.000Z");
        check_begin(Period::Days30, "2028-03-30T00:00:00Z", "2028-02-29T00:00:00.000Z");
        check_begin(Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00.000Z");
        check_begin(Period::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00.000Z");
        check_begin(Period::Month, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00.000Z");
        assert_eq!(Period::All.begin(0, &TimeZone::UTC), None);
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let late: jiff::Timestamp = "2026-11-25T23:30:00Z".parse().unwrap();
        let begin = Period::Today.begin(late.as_microsecond(), &berlin).map(timestamp);
        assert_eq!(begin.as_deref(), Some("2026-11-25T23:00:00.000Z"), "it is tomorrow there");
    }

    #[test]
    fn names_are_those_that_are_typed() {
        assert_eq!(
            (name(Period::Hours24), name(Period::Month), name(By::Day)),
            ("24h".into(), "month".into(), "day".into())
        );
    }

    #[test]
    fn the_table_ends_with_its_total() {
        let rows = vec![row(StatsGroup::Name(None)), row(StatsGroup::Name(Some("openai".to_owned())))];
        let sums = Sums { rows, total: StatsRow { requests: 24, ..row(StatsGroup::All) } };
        let expected = "\
GROUP   REQUESTS  REFUSED  ERRORS    IN  CACHED  OUT       COST                       EACH    P50    P95  TTFT P50
-             12        2       1  1000     80%   70  $1.250000  +3 unpriced  $0.178571429  1.24s  3.00s         -
openai        12        2       1  1000     80%   70  $1.250000  +3 unpriced  $0.178571429  1.24s  3.00s         -
total         24        2       1  1000     80%   70  $1.250000  +3 unpriced  $0.065789474  1.24s  3.00s         -

since 1970-01-01 00:00; times are those of UTC";
        let query = StatsQuery { since: Some(0), ..StatsQuery::of(StatsBy::Provider) };
        assert_eq!(table(&sums, &query), expected);
        let nothing = Sums { rows: Vec::new(), total: row(StatsGroup::All) };
        assert_eq!(table(&nothing, &StatsQuery::of(StatsBy::Day)), "no requests (all requests)");
    }

    #[test]
    fn a_group_has_one_name_for_people_and_one_for_programs() {
        let zone = TimeZone::UTC;
        assert_eq!(group_text(&StatsGroup::Begin(3_600_000_000), &zone), "1970-01-01 01:00");
        assert_eq!(group(&StatsGroup::Begin(3_600_000_000)), "1970-01-01T01:00:00.000Z");
        assert_eq!(group(&StatsGroup::Status(Some(429))), 429);
        assert_eq!(group(&StatsGroup::Name(None)), Value::Null);
        assert_eq!(group_text(&StatsGroup::Status(None), &zone), "-");
    }
}
