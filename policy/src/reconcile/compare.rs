//! The comparisons, one for each kind of finding.

use std::ops::Range;

use crate::NanoUsd;

use super::{
    Amounts, Bucket, Finding, FindingKind, KnownModels, Limits, Log, Series, SeriesKind, Span, Totals,
};

/// What a request may have taken that its estimate does not tell: a provider may go on for a while after a caller has
/// left, and what a model thinks is not seen.
const UNMEASURED_TOKENS: i128 = 16_384;
/// The same in money, in nano-dollars.
const UNMEASURED_NANOS: i128 = 250_000_000;
/// Tokens that may be missing from the log, in hundredths of those it has.
const TOKENS_PERCENT: i128 = 1;
/// Money that may be missing, in hundredths: a price list is not a bill.
const COST_PERCENT: i128 = 10;
/// More than everything: a request of unknown price may have cost anything.
const ANYTHING: i128 = 1 << 100;
/// Spending rises when it is more than so many times what is usual.
const TIMES_USUAL: i128 = 5;
/// Nothing is usual before there were so many buckets with something left over.
const BUCKETS_MIN: usize = 6;
const HOUR_US: i128 = 3_600_000_000;

/// What is counted and compared. All of it in hundredths, so that a percentage needs no division.
#[derive(Clone, Copy)]
enum Measure {
    Requests,
    Tokens,
    Cost,
}

impl Measure {
    /// The measures that say something in a series.
    fn of(kind: SeriesKind) -> &'static [Self] {
        match kind {
            SeriesKind::Usage => &[Self::Requests, Self::Tokens],
            SeriesKind::Billed | SeriesKind::Counter => &[Self::Cost],
        }
    }

    fn reported(self, used: &Amounts) -> i128 {
        let count = match self {
            Self::Requests => used.requests.map(i128::from),
            Self::Tokens => used.tokens.map(i128::from),
            Self::Cost => used.cost.map(|cost| i128::from(cost.nanos())),
        };
        count.unwrap_or(0) * 100
    }

    /// How much of it these requests can be the reason for.
    fn explained(self, logged: &Totals) -> i128 {
        let unmeasured = i128::from(logged.unmeasured);
        match self {
            Self::Requests => i128::from(logged.requests) * 100,
            Self::Tokens => {
                let further = i128::from(logged.unmeasured_tokens) + unmeasured * UNMEASURED_TOKENS;
                i128::from(logged.tokens) * (100 + TOKENS_PERCENT) + further * 100
            }
            Self::Cost => {
                let further = wide(logged.unmeasured_cost_nanos) + unmeasured * UNMEASURED_NANOS;
                let unpriced = i128::from(logged.unpriced).min(1 << 20) * ANYTHING;
                wide(logged.cost_nanos) * (100 + COST_PERCENT) + further * 100 + unpriced
            }
        }
    }

    fn threshold(self, limits: &Limits) -> i128 {
        let count = match self {
            Self::Requests => i128::from(limits.requests),
            Self::Tokens => i128::from(limits.tokens),
            Self::Cost => i128::from(limits.cost.nanos()),
        };
        count * 100
    }
}

/// A sum of the log; one that is as large as this is as good as endless.
fn wide(nanos: u128) -> i128 {
    i128::try_from(nanos).unwrap_or(ANYTHING).min(ANYTHING)
}

/// Buckets that report more than ran within or beside them; and, where each of a row of them reports a little more,
/// that row.
pub(super) fn more_use(series: &Series, log: &Log, limits: &Limits) -> Vec<Finding> {
    let mut is_more = vec![false; series.buckets.len()];
    for measure in Measure::of(series.kind) {
        let mut points = points(series, log, *measure);
        let threshold = measure.threshold(limits);
        let mut of_measure = Vec::new();
        for (index, point) in points.iter_mut().enumerate() {
            if point.excess(point) > threshold {
                of_measure.push(index..index + 1);
                // What is found already is no part of a row.
                point.reported = 0;
            }
        }
        of_measure.extend(rows_with_more(&points, threshold));
        of_measure.into_iter().flatten().for_each(|index| is_more[index] = true);
    }
    runs(&is_more).map(|run| finding(FindingKind::MoreUse, series, log, run)).collect()
}

/// A bucket, as what it does to the excess of any row of buckets that begins or ends with it.
struct Point {
    reported: i128,
    /// What had ended before the row begins with this bucket, and so explains nothing of it.
    over: i128,
    /// What had begun before the row ends with this bucket.
    begun: i128,
}

impl Point {
    /// What a row of which both ends are known reports beyond what explains it, without what lies between them.
    fn excess(&self, last: &Self) -> i128 {
        self.reported - (last.begun - self.over)
    }
}

fn points(series: &Series, log: &Log, measure: Measure) -> Vec<Point> {
    let point = |bucket: &Bucket| {
        let span = bucket.span.widened(series.slack_us);
        Point {
            reported: measure.reported(&bucket.used),
            over: measure.explained(&log.ended_before(span.begin)),
            begun: measure.explained(&log.begun_before(span.end)),
        }
    };
    series.buckets.iter().map(point).collect()
}

/// Rows of buckets that together report more than explains them by more than the threshold.
fn rows_with_more(points: &[Point], threshold: i128) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let whole = 0..points.len();
    let mut parts = vec![whole];
    while let Some(part) = parts.pop() {
        let Some((row, excess)) = row_with_most(points, part.clone()) else { continue };
        if excess > threshold {
            parts.extend([part.start..row.start, row.end..part.end]);
            found.push(row);
        }
    }
    found
}

/// The row of buckets with the largest excess. The excess of a row is a difference of two sums, one that its first
/// bucket decides and one that its last does, so that one pass finds it.
fn row_with_most(points: &[Point], part: Range<usize>) -> Option<(Range<usize>, i128)> {
    let mut reported = 0;
    let mut least: Option<(usize, i128)> = None;
    let mut most: Option<(Range<usize>, i128)> = None;
    for index in part {
        let point = &points[index];
        let before = reported - point.over;
        if least.is_none_or(|(_, so_far)| before < so_far) {
            least = Some((index, before));
        }
        reported += point.reported;
        let (first, before) = least?;
        let excess = reported - point.begun - before;
        if most.as_ref().is_none_or(|(_, so_far)| excess > *so_far) {
            most = Some((first..index + 1, excess));
        }
    }
    most
}

/// Buckets with use while nothing ran for long before, in and after them; never for less than the slack.
pub(super) fn idle_use(series: &Series, log: &Log, limits: &Limits) -> Vec<Finding> {
    let beside = limits.idle_us.max(series.slack_us);
    let is_idle = |span: Span| log.within(span.widened(beside)).requests == 0;
    let flags: Vec<bool> =
        series.buckets.iter().map(|bucket| bucket.used.is_some() && is_idle(bucket.span)).collect();
    runs(&flags).map(|run| finding(FindingKind::IdleUse, series, log, run)).collect()
}

/// Models that nobody asked for. A request without a model's name may have been for any.
pub(super) fn unknown_models(series: &Series, log: &Log, known: &KnownModels) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for bucket in &series.buckets {
        let unknown = bucket.models.iter().filter(|(model, used)| used.is_some() && !known.knows(model));
        for (model, used) in unknown {
            if log.within(bucket.span.widened(series.slack_us)).nameless > 0 {
                continue;
            }
            match found.iter_mut().find(|finding| finding.model.as_ref() == Some(model)) {
                Some(finding) => {
                    finding.span = finding.span.up_to(bucket.span);
                    finding.reported.add(used);
                }
                None => found.push(Finding {
                    kind: FindingKind::UnknownModel,
                    span: bucket.span,
                    model: Some(model.clone()),
                    reported: *used,
                    logged: Amounts { requests: Some(0), tokens: Some(0), cost: None },
                }),
            }
        }
    }
    found
}

/// Buckets in which what the log does not explain costs more in an hour than the limit, and many times what was usual.
/// Where nothing is ever left over there is nothing that could rise.
pub(super) fn spend_slope(series: &Series, log: &Log, limits: &Limits) -> Vec<Finding> {
    let points = points(series, log, Measure::Cost);
    let mut before: Vec<i128> = Vec::new();
    let mut flags = Vec::new();
    for (bucket, point) in series.buckets.iter().zip(&points) {
        let width = i128::from(bucket.span.end.saturating_sub(bucket.span.begin)).max(1);
        let an_hour = point.excess(point).max(0).saturating_mul(HOUR_US) / width;
        let is_unusual = median(&before).is_some_and(|usual| an_hour > usual.saturating_mul(TIMES_USUAL));
        flags.push(is_unusual && an_hour > Measure::Cost.threshold(limits));
        before.extend((an_hour > 0).then_some(an_hour));
    }
    runs(&flags).map(|run| finding(FindingKind::SpendSlope, series, log, run)).collect()
}

fn median(values: &[i128]) -> Option<i128> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    (sorted.len() >= BUCKETS_MIN).then(|| sorted[sorted.len() / 2])
}

/// Neighbours that are flagged, together.
fn runs(flags: &[bool]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at + flags[at..].iter().position(|flag| *flag)?;
        at = flags[begin..].iter().position(|flag| !flag).map_or(flags.len(), |length| begin + length);
        Some(begin..at)
    })
}

fn finding(kind: FindingKind, series: &Series, log: &Log, run: Range<usize>) -> Finding {
    let buckets = &series.buckets[run];
    let mut reported = Amounts::default();
    buckets.iter().for_each(|bucket| reported.add(&bucket.used));
    let span = buckets.iter().map(|bucket| bucket.span).reduce(Span::up_to);
    let span = span.unwrap_or(Span { begin: 0, end: 0 });
    let logged = log.within(span.widened(series.slack_us));
    let cost = i64::try_from(logged.cost_nanos).unwrap_or(i64::MAX);
    Finding {
        kind,
        span,
        model: None,
        reported,
        logged: Amounts {
            requests: Some(logged.requests),
            tokens: Some(logged.tokens),
            cost: Some(NanoUsd::from_nanos(cost)),
        },
    }
}
