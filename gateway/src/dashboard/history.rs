//! What was: the sums of `stats` for the hours of the last day, the days of the last month, and providers since midnight.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{RoundMode, ToSpan, Unit, ZonedDateTimeRound};
use policy::{Period, TimestampUs};
use serde::Serialize;
use storage::{StatsBy, StatsGroup, StatsQuery, StatsRow, Store};

use crate::overview::form::timestamp;
use crate::provider::credentials::KeyRing;
use crate::state::{Shared, now_us};

/// What was read so recently is not read again.
const FRESH: Duration = Duration::from_secs(10);
/// So many times what reading took passes before it is read again, so that looking costs little however long the log is.
const REST: u32 = 20;

const HOUR_S: i64 = 60 * 60;
const HOURS: i64 = 24;
const DAYS: i64 = 30;

/// What was last read, and until when it will do.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Option<(Arc<Past>, Instant)>>);

/// Everything that the page tells of the past.
#[derive(Debug, Serialize)]
pub(super) struct Past {
    read_at: String,
    timezone: String,
    hours: Spans,
    days: Spans,
    providers: Vec<OfProvider>,
}

/// Spans of one length; those in which nothing was asked are left out.
#[derive(Debug, Serialize)]
struct Spans {
    /// When the first one begins.
    since: String,
    /// How long each is; a day in which the clocks change is an hour more or less.
    step_s: i64,
    count: i64,
    rows: Vec<Sums>,
}

#[derive(Debug, Default, Serialize)]
struct Sums {
    #[serde(skip_serializing_if = "String::is_empty")]
    at: String,
    requests: u64,
    refused: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: String,
    unpriced: u64,
}

#[derive(Debug, Default, Serialize)]
struct OfProvider {
    provider: String,
    has_key: bool,
    #[serde(flatten)]
    today: Sums,
}

impl History {
    /// What was, as of a moment ago.
    pub(super) fn look(&self, shared: &Shared) -> Result<Arc<Past>, storage::Error> {
        // Nothing under the lock is left half-changed by a panic.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        if let Some((past, until)) = &*last
            && began < *until
        {
            return Ok(past.clone());
        }
        let past = Arc::new(Past::read(shared)?);
        let took = began.elapsed();
        *last = Some((past.clone(), began + took + FRESH.max(took * REST)));
        Ok(past)
    }
}

impl Past {
    fn read(shared: &Shared) -> Result<Self, storage::Error> {
        let zone = &shared.snapshot.load().config.budget.timezone;
        let store = Store::open_existing(&shared.database())?;
        let now = shared.ledger.now();
        let today = Period::Daily.window(now, zone).from;
        let spans = |by, since, step_s, count| -> Result<Spans, storage::Error> {
            let query = StatsQuery { since: Some(since), zone: zone.clone(), ..StatsQuery::of(by) };
            let rows = store.stats(&query)?.rows.iter().filter_map(sums_of_span).collect();
            Ok(Spans { since: timestamp(since), step_s, count, rows })
        };
        let query =
            StatsQuery { since: Some(today), zone: zone.clone(), ..StatsQuery::of(StatsBy::Provider) };
        Ok(Self {
            read_at: timestamp(now_us()),
            timezone: zone.iana_name().unwrap_or("UTC").to_owned(),
            hours: spans(StatsBy::Hour, first_hour(now, zone), HOUR_S, HOURS)?,
            days: spans(StatsBy::Day, first_day(now, zone), 24 * HOUR_S, DAYS)?,
            providers: providers(shared, &store.stats(&query)?.rows),
        })
    }
}

/// Where the present hour is the last of the day.
fn first_hour(now: TimestampUs, zone: &TimeZone) -> TimestampUs {
    let first = jiff::Timestamp::from_microsecond(now).and_then(|now| {
        let whole = ZonedDateTimeRound::new().smallest(Unit::Hour).mode(RoundMode::Trunc);
        now.to_zoned_datetime(zone.clone()).round(whole)?.checked_sub((HOURS - 1).hours())
    });
    first.map_or(now, |first| first.timestamp().as_microsecond())
}

/// Where today is the last of the days.
fn first_day(now: TimestampUs, zone: &TimeZone) -> TimestampUs {
    let first = jiff::Timestamp::from_microsecond(now)
        .and_then(|now| now.to_zoned_datetime(zone.clone()).checked_sub((DAYS - 1).days())?.start_of_day());
    first.map_or(now, |first| first.timestamp().as_microsecond())
}

fn sums(row: &StatsRow) -> Sums {
    Sums {
        at: String::new(),
        requests: row.requests,
        refused: row.refused,
        input_tokens: row.input_total(),
        output_tokens: row.output_tokens,
        cost_usd: row.cost.to_string(),
        unpriced: row.unpriced,
    }
}

fn sums_of_span(row: &StatsRow) -> Option<Sums> {
    match row.group {
        StatsGroup::Begin(at) => Some(Sums { at: timestamp(at), ..sums(row) }),
        StatsGroup::Name(_) | StatsGroup::Status(_) | StatsGroup::All => None,
    }
}

/// Those that can be used and those that were, by name.
fn providers(shared: &Shared, rows: &[StatsRow]) -> Vec<OfProvider> {
    let mut found: BTreeMap<String, OfProvider> = BTreeMap::new();
    if let KeyRing::Unlocked(keys) = &**shared.keys.load() {
        keys.keys().for_each(|id| found.entry(id.to_string()).or_default().has_key = true);
    }
    for name in shared.snapshot.load().config.passthrough_providers() {
        found.entry(name).or_default();
    }
    for row in rows {
        if let StatsGroup::Name(Some(name)) = &row.group {
            found.entry(name.clone()).or_default().today = sums(row);
        }
    }
    found.into_iter().map(|(provider, found)| OfProvider { provider, ..found }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(now: &str, zone: &str, hour: &str, day: &str) {
        let (zone, at) = (TimeZone::get(zone).unwrap(), now.parse::<jiff::Timestamp>().unwrap());
        let firsts = [first_hour, first_day].map(|first| timestamp(first(at.as_microsecond(), &zone)));
        assert_eq!(firsts, [hour, day], "{now}");
    }

    #[test]
    fn the_present_hour_and_today_are_the_last_ones() {
        check("2026-11-30T07:42:11Z", "UTC", "2026-11-29T08:00:00.000Z", "2026-11-01T00:00:00.000Z");
        check(
            "2026-11-30T23:30:00Z",
            "Europe/Berlin",
            "2026-11-30T00:00:00.000Z",
            "2026-11-01T23:00:00.000Z",
        );
        check("2026-11-30T07:42:11Z", "Asia/Kolkata", "2026-11-29T08:30:00.000Z", "2026-10-31T18:30:00.000Z");
        // The clocks went back in between.
        check(
            "2026-10-25T12:00:00Z",
            "Europe/Berlin",
            "2026-10-24T13:00:00.000Z",
            "2026-09-25T22:00:00.000Z",
        );
    }
}
