//! Anthropic: use by the hour and costs by the day, of an organisation.
//!
//! Fields as in its reference of `GET /v1/organizations/usage_report/messages` and `/v1/organizations/cost_report`, read in
//! November 2026. There are no counts of requests, and amounts are cents.

use gateway::config::WatchScope;
use policy::reconcile::{Amounts, Series, SeriesKind, Span};
use policy::{PriceTable, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Buckets, Instant, Told, aligned, passes, worth};
use crate::commands::watch::pages::{Client, Fault, Query, amount};
use crate::commands::watch::windows::{DAY_US, HOUR_US, Windows};

/// The most that a page may have.
const HOURS_A_PAGE: i64 = 168;
const DAYS_A_PAGE: i64 = 31;
const CENTS: i32 = -2;

#[derive(Deserialize)]
struct Period<T> {
    starting_at: Instant,
    ending_at: Instant,
    #[serde(default = "Vec::new")]
    results: Vec<T>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    uncached_input_tokens: u64,
    #[serde(default)]
    cache_creation: Option<Written>,
    #[serde(default)]
    cache_read_input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    api_key_id: Option<String>,
    #[serde(default)]
    workspace_id: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

/// Tokens written to a cache, by its lifetime.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    ephemeral_5m_input_tokens: u64,
    #[serde(default)]
    ephemeral_1h_input_tokens: u64,
}

#[derive(Deserialize)]
struct Cost {
    amount: Box<RawValue>,
    currency: String,
    #[serde(default)]
    workspace_id: Option<String>,
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
        let path = format!("{base_path}/v1/organizations/usage_report/messages");
        let periods = client.pages::<Period<Line>>(&path, &usage_query(scope, hours));
        let series = periods.and_then(|periods| count(periods, scope, hours, prices));
        let series = told.take("usage_report", series);
        told.series.extend(series);
    }
    if !scope.api_key_ids.is_empty() {
        told.notes.push("costs are not compared: Anthropic does not tell them by key".to_owned());
    } else if let Some(days) = windows.days {
        let path = format!("{base_path}/v1/organizations/cost_report");
        let periods = client.pages::<Period<Cost>>(&path, &cost_query(scope, days));
        let series = told.take("cost_report", periods.and_then(|periods| bill(periods, scope, days)));
        told.series.extend(series);
    }
    told
}

fn usage_query(scope: &WatchScope, hours: Span) -> Query {
    let mut groups = vec!["model".to_owned()];
    groups.extend((!scope.api_key_ids.is_empty()).then(|| "api_key_id".to_owned()));
    groups.extend((!scope.project_ids.is_empty()).then(|| "workspace_id".to_owned()));
    within(hours)
        .with("bucket_width", "1h")
        .with("limit", HOURS_A_PAGE)
        .with_each("group_by[]", &groups)
        .with_each("api_key_ids[]", &scope.api_key_ids)
        .with_each("workspace_ids[]", &scope.project_ids)
}

fn cost_query(scope: &WatchScope, days: Span) -> Query {
    let groups = if scope.project_ids.is_empty() { Vec::new() } else { vec!["workspace_id".to_owned()] };
    within(days).with("bucket_width", "1d").with("limit", DAYS_A_PAGE).with_each("group_by[]", &groups)
}

fn within(span: Span) -> Query {
    Query::default().with("starting_at", Instant(span.begin)).with("ending_at", Instant(span.end))
}

fn span_of<T>(period: &Period<T>, width: i64, asked: Span) -> Result<Option<Span>, Fault> {
    aligned(period.starting_at.0, period.ending_at.0, width, asked)
}

fn count(
    periods: Vec<Period<Line>>,
    scope: &WatchScope,
    hours: Span,
    (prices, provider): (&PriceTable, &str),
) -> Result<Series, Fault> {
    let mut buckets = Buckets::default();
    for period in periods {
        let Some(span) = span_of(&period, HOUR_US, hours)? else { continue };
        buckets.open(span);
        for line in &period.results {
            let is_ours = passes(&scope.api_key_ids, line.api_key_id.as_ref())
                && passes(&scope.project_ids, line.workspace_id.as_ref());
            if is_ours {
                let usage = line.usage();
                let model = line.model.as_deref();
                let used = Amounts {
                    requests: None,
                    tokens: Some(usage.total()),
                    cost: worth(prices, provider, model, &usage),
                };
                buckets.add(span, model, &used);
            }
        }
    }
    buckets.into_series(SeriesKind::Usage, HOUR_US)
}

impl Line {
    fn usage(&self) -> Usage {
        let written = self.cache_creation.as_ref();
        Usage {
            input: self.uncached_input_tokens,
            cache_read: self.cache_read_input_tokens,
            cache_write_5m: written.map_or(0, |written| written.ephemeral_5m_input_tokens),
            cache_write_1h: written.map_or(0, |written| written.ephemeral_1h_input_tokens),
            output: self.output_tokens,
            ..Usage::NONE
        }
    }
}

fn bill(periods: Vec<Period<Cost>>, scope: &WatchScope, days: Span) -> Result<Series, Fault> {
    let mut buckets = Buckets::default();
    for period in periods {
        let Some(span) = span_of(&period, DAY_US, days)? else { continue };
        for cost in &period.results {
            if !cost.currency.eq_ignore_ascii_case("usd") {
                return Err(Fault::not_understood("an amount is not in US dollars"));
            }
            if passes(&scope.project_ids, cost.workspace_id.as_ref()) {
                let used = Amounts { cost: Some(amount(&cost.amount, CENTS)?), ..Amounts::default() };
                buckets.add(span, None, &used);
            }
        }
    }
    buckets.into_series(SeriesKind::Billed, DAY_US)
}
