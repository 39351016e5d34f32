//! Whether a provider's account shows use that did not go through this gateway: what a stolen key leaves behind.
//!
//! A provider reports in buckets of time, the log knows each request from its start to its end. Nobody says whether
//! a provider books a request to its start or to its end, so everything that was running within a bucket, or one
//! bucket's length beside it, may explain the use that the bucket reports. What is left over is found. The invariant:
//! use that is in the log, however it is booked within that slack, is never a finding.

mod compare;
mod log;
mod models;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{NanoUsd, TimestampUs};

pub use log::{Log, LoggedMinute, Totals};
pub use models::{KnownModels, same_model};

/// From an instant up to, and without, another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first microsecond of it.
    pub begin: TimestampUs,
    /// The first after it.
    pub end: TimestampUs,
}

/// How much was used. What nobody tells is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Requests.
    pub requests: Option<u64>,
    /// Tokens of input and output, cached ones included.
    pub tokens: Option<u64>,
    /// What it cost.
    pub cost: Option<NanoUsd>,
}

/// What a provider reports of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Of when.
    pub span: Span,
    /// All together.
    pub used: Amounts,
    /// By model, where that is told.
    pub models: BTreeMap<String, Amounts>,
}

/// What the numbers of a series mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesKind {
    /// Requests and tokens, and what these would cost by the price list.
    Usage,
    /// What is billed, of whole days. It comes with what no request of the day is the reason for, such as storage.
    Billed,
    /// How far a counter of money moved from one look to the next.
    Counter,
}

/// What a provider reports, in the order of time, without overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// What its numbers mean.
    pub kind: SeriesKind,
    /// How far beside a bucket a request may have run that the bucket counts.
    pub slack_us: i64,
    /// The buckets.
    pub buckets: Vec<Bucket>,
}

/// What is not worth a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many requests more than the log has.
    pub requests: u64,
    /// So many tokens more.
    pub tokens: u64,
    /// So much money more.
    pub cost: NanoUsd,
    /// For how long before and after there must be nothing in the log for it to be idle.
    pub idle_us: i64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// The provider reports more than the log has.
    MoreUse,
    /// The provider reports a model that nobody asked for here.
    UnknownModel,
    /// The provider reports use of a time in which nothing went through this gateway.
    IdleUse,
    /// What is left over costs much more than it did.
    SpendSlope,
}

/// Use that the log does not explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// When it was.
    pub span: Span,
    /// The model, where it is one that nobody asked for.
    pub model: Option<String>,
    /// What the provider reports of the span.
    pub reported: Amounts,
    /// What the log has of the span, with the slack.
    pub logged: Amounts,
}

/// Text that names no kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a finding is one of more_use, unknown_model, idle_use, spend_slope")]
pub struct UnknownFindingKind;

/// Compares a series with the log.
pub fn reconcile(series: &Series, log: &Log, known: &KnownModels, limits: &Limits) -> Vec<Finding> {
    let mut found = compare::more_use(series, log, limits);
    match series.kind {
        SeriesKind::Usage => {
            found.extend(compare::unknown_models(series, log, known));
            found.extend(compare::idle_use(series, log, limits));
            found.extend(compare::spend_slope(series, log, limits));
        }
        SeriesKind::Counter => {
            found.extend(compare::idle_use(series, log, limits));
            found.extend(compare::spend_slope(series, log, limits));
        }
        SeriesKind::Billed => {}
    }
    found
}

impl Span {
    /// With so much more on either side.
    pub fn widened(self, by_us: i64) -> Self {
        Self { begin: self.begin.saturating_sub(by_us), end: self.end.saturating_add(by_us) }
    }

    /// From the begin of this to the end of another.
    fn up_to(self, other: Self) -> Self {
        Self { begin: self.begin.min(other.begin), end: self.end.max(other.end) }
    }
}

impl Amounts {
    /// Counts another amount in. What one of them does not tell is that of the other.
    pub fn add(&mut self, other: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        self.requests = sum(self.requests, other.requests);
        self.tokens = sum(self.tokens, other.tokens);
        self.cost = match (self.cost, other.cost) {
            (Some(a), Some(b)) => Some(NanoUsd::from_nanos(a.nanos().saturating_add(b.nanos()))),
            (a, b) => a.or(b),
        };
    }

    /// Whether there is any use at all.
    pub fn is_some(&self) -> bool {
        let is_used = |count: Option<u64>| count.is_some_and(|count| count > 0);
        is_used(self.requests) || is_used(self.tokens) || self.cost.is_some_and(|cost| cost > NanoUsd::ZERO)
    }
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::MoreUse, Self::UnknownModel, Self::IdleUse, Self::SpendSlope];

    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MoreUse => "more_use",
            Self::UnknownModel => "unknown_model",
            Self::IdleUse => "idle_use",
            Self::SpendSlope => "spend_slope",
        }
    }

    /// What it means, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::MoreUse => "the provider reports more use than the log has",
            Self::UnknownModel => "the provider reports a model that nobody asked for here",
            Self::IdleUse => "the provider reports use while nothing went through this gateway",
            Self::SpendSlope => "spending that the log does not explain rises as it never did",
        }
    }

    /// How far apart two findings may be that are one and the same. A model that others use now and then is told of
    /// once; use at another hour is another finding.
    pub fn gap_us(self) -> i64 {
        match self {
            Self::UnknownModel => 24 * 3_600_000_000,
            Self::MoreUse | Self::IdleUse | Self::SpendSlope => 0,
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FindingKind {
    type Err = UnknownFindingKind;

    fn from_str(text: &str) -> Result<Self, UnknownFindingKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownFindingKind)
    }
}

#[cfg(test)]
mod tests;
