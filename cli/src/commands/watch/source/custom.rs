//! An endpoint of the owner's that tells use in the form of `docs/watch.md`.

use policy::reconcile::{Amounts, SeriesKind, Span};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Buckets, Instant, Told};
use crate::commands::watch::pages::{Client, Fault, Query, amount};
use crate::commands::watch::windows::{HOUR_US, MINUTE_US, Windows};

/// No bucket is so narrow that a request cannot have run beside it for so long.
const SLACK_US_MIN: i64 = 15 * MINUTE_US;
const WIDTH_US_MAX: i64 = 31 * 24 * HOUR_US;

#[derive(Deserialize)]
struct Line {
    start: Instant,
    end: Instant,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    requests: Option<u64>,
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cost_usd: Option<Box<RawValue>>,
}

/// Asks for everything that the windows hold.
pub(in crate::commands::watch) fn ask(client: &Client<'_>, path: &str, windows: &Windows) -> Told {
    let mut told = Told::default();
    let Some(hours) = windows.hours else { return told };
    let query = Query::default().with("start", Instant(hours.begin)).with("end", Instant(hours.end));
    let lines = client.pages::<Line>(path, &query.with("bucket_width", "1h"));
    let series = told.take("usage_endpoint", lines.and_then(|lines| read(&lines, hours)));
    told.series.extend(series.into_iter().flatten());
    told
}

/// Requests and tokens as one series, money as another: some endpoints tell only one of them.
fn read(lines: &[Line], hours: Span) -> Result<Vec<policy::reconcile::Series>, Fault> {
    let (mut usage, mut bill) = (Buckets::default(), Buckets::default());
    let mut slack = SLACK_US_MIN;
    let mut has_bill = false;
    for line in lines {
        let Some((span, used)) = line.within(hours)? else { continue };
        slack = slack.max(span.end - span.begin);
        usage.add(span, line.model.as_deref(), &used);
        bill.add(span, None, &Amounts { cost: used.cost, ..Amounts::default() });
        has_bill |= used.cost.is_some();
    }
    let usage = usage.into_series(SeriesKind::Usage, slack)?;
    let bill = has_bill.then(|| bill.into_series(SeriesKind::Billed, slack)).transpose()?;
    Ok(std::iter::once(usage).chain(bill).collect())
}

impl Line {
    /// Its span and what it counts, if it lies within what was asked for.
    fn within(&self, asked: Span) -> Result<Option<(Span, Amounts)>, Fault> {
        let span = Span { begin: self.start.0, end: self.end.0 };
        if span.end <= span.begin || span.end.saturating_sub(span.begin) > WIDTH_US_MAX {
            return Err(Fault::not_understood("a bucket has no width, or more than a month"));
        }
        let tokens = match (self.input_tokens, self.output_tokens) {
            (None, None) => None,
            (input, output) => Some(input.unwrap_or(0).saturating_add(output.unwrap_or(0))),
        };
        let cost = self.cost_usd.as_ref().map(|raw| amount(raw, 0)).transpose()?;
        let used = Amounts { requests: self.requests, tokens, cost };
        Ok((span.begin >= asked.begin && span.end <= asked.end).then_some((span, used)))
    }
}
