//! OpenAI: use by the hour and costs by the day, of an organisation.
//!
//! Fields as in its reference of `GET /v1/organization/usage/…` and `/v1/organization/costs`, read in November 2026.

use gateway::config::WatchScope;
use policy::PriceTable;
use policy::Usage;
use policy::reconcile::{Amounts, SeriesKind, Span};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Buckets, Told, aligned, passes, worth};
use crate::commands::watch::pages::{Client, Fault, Query, amount};
use crate::commands::watch::windows::{DAY_US, HOUR_US, Windows};

/// Each kind of use has a list of its own. A thief takes whichever he likes.
const KINDS: [&str; 6] =
    ["completions", "embeddings", "images", "audio_speeches", "audio_transcriptions", "moderations"];
const SECOND_US: i64 = 1_000_000;
/// The most that a page may have.
const HOURS_A_PAGE: i64 = 168;
const DAYS_A_PAGE: i64 = 180;

#[derive(Deserialize)]
struct Period<T> {
    start_time: i64,
    end_time: i64,
    #[serde(default = "Vec::new")]
    results: Vec<T>,
}

/// A line of use. Which counts there are depends on the kind of use.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    input_tokens: u64,
    /// A part of the input.
    #[serde(default)]
    input_cached_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    num_model_requests: u64,
    #[serde(default)]
    project_id: Option<String>,
    #[serde(default)]
    api_key_id: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
struct Cost {
    amount: Money,
    #[serde(default)]
    project_id: Option<String>,
}

#[derive(Deserialize)]
struct Money {
    value: Box<RawValue>,
    currency: String,
}

/// Asks for everything that the windows hold.
pub(in crate::commands::watch) fn ask(
    client: &Client<'_>,
    base_path: &str,
    scope: &WatchScope,
    windows: &Windows,
    prices: (&PriceTable, &str),
) -> Told {
    let mut told = Told::default();
    if let Some(hours) = windows.hours {
        let mut buckets = Buckets::default();
        for kind in KINDS {
            let path = format!("{base_path}/v1/organization/usage/{kind}");
            let periods = client.pages::<Period<Line>>(&path, &usage_query(scope, hours));
            let counted = periods.and_then(|periods| count(periods, scope, hours, prices, &mut buckets));
            told.take(kind, counted);
        }
        let series = buckets.into_series(SeriesKind::Usage, HOUR_US);
        match series {
            Ok(series) => told.series.push(series),
            Err(fault) => told.faults.push(fault),
        }
    }
    if !scope.api_key_ids.is_empty() {
        told.notes.push("costs are not compared: OpenAI does not tell them by key".to_owned());
    } else if let Some(days) = windows.days {
        let path = format!("{base_path}/v1/organization/costs");
        let periods = client.pages::<Period<Cost>>(&path, &cost_query(scope, days));
        let series = periods.and_then(|periods| bill(periods, scope, days));
        let series = told.take("costs", series);
        told.series.extend(series);
    }
    told
}

fn usage_query(scope: &WatchScope, hours: Span) -> Query {
    let mut groups = vec!["model".to_owned()];
    groups.extend((!scope.api_key_ids.is_empty()).then(|| "api_key_id".to_owned()));
    groups.extend((!scope.project_ids.is_empty()).then(|| "project_id".to_owned()));
    within(hours)
        .with("bucket_width", "1h")
        .with("limit", HOURS_A_PAGE)
        .with_each("group_by", &groups)
        .with_each("api_key_ids", &scope.api_key_ids)
        .with_each("project_ids", &scope.project_ids)
}

fn cost_query(scope: &WatchScope, days: Span) -> Query {
    let query = within(days).with("bucket_width", "1d").with("limit", DAYS_A_PAGE);
    let groups = if scope.project_ids.is_empty() { Vec::new() } else { vec!["project_id".to_owned()] };
    query.with_each("group_by", &groups).with_each("project_ids", &scope.project_ids)
}

fn within(span: Span) -> Query {
    let query = Query::default().with("start_time", span.begin / SECOND_US);
    query.with("end_time", span.end / SECOND_US)
}

fn instants<T>(period: &Period<T>) -> Result<(i64, i64), Fault> {
    let us = |seconds: i64| seconds.checked_mul(SECOND_US);
    us(period.start_time)
        .zip(us(period.end_time))
        .ok_or_else(|| Fault::not_understood("a bucket is out of all time"))
}

fn count(
    periods: Vec<Period<Line>>,
    scope: &WatchScope,
    hours: Span,
    (prices, provider): (&PriceTable, &str),
    buckets: &mut Buckets,
) -> Result<(), Fault> {
    for period in periods {
        let (begin, end) = instants(&period)?;
        let Some(span) = aligned(begin, end, HOUR_US, hours)? else { continue };
        buckets.open(span);
        for line in &period.results {
            let is_ours = passes(&scope.api_key_ids, line.api_key_id.as_ref())
                && passes(&scope.project_ids, line.project_id.as_ref());
            if is_ours {
                let cached = line.input_cached_tokens.unwrap_or(0).min(line.input_tokens);
                let usage = Usage {
                    input: line.input_tokens - cached,
                    cache_read: cached,
                    output: line.output_tokens,
                    ..Usage::default()
                };
                let model = line.model.as_deref();
                let used = Amounts {
                    requests: Some(line.num_model_requests),
                    tokens: Some(usage.total()),
                    cost: worth(prices, provider, model, &usage),
                };
                buckets.add(span, model, &used);
            }
        }
    }
    Ok(())
}

fn bill(
    periods: Vec<Period<Cost>>,
    scope: &WatchScope,
    days: Span,
) -> Result<policy::reconcile::Series, Fault> {
    let mut buckets = Buckets::default();
    for period in periods {
        let (begin, end) = instants(&period)?;
        let Some(span) = aligned(begin, end, DAY_US, days)? else { continue };
        for cost in &period.results {
            if !cost.amount.currency.eq_ignore_ascii_case("usd") {
                return Err(Fault::not_understood("an amount is not in US dollars"));
            }
            if passes(&scope.project_ids, cost.project_id.as_ref()) {
                let used = Amounts { cost: Some(amount(&cost.amount.value, 0)?), ..Amounts::default() };
                buckets.add(span, None, &used);
            }
        }
    }
    buckets.into_series(SeriesKind::Billed, DAY_US)
}
