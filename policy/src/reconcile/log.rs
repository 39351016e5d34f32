//! What the log has, by minutes: how much began in each, and how much ended.
//!
//! What was running at some instant of a span is what had begun by its end, without what had ended before its begin. So
//! two running sums answer for every span, and no request has to be looked at again.

use crate::TimestampUs;

use super::Span;

const MINUTE_US: i64 = 60_000_000;

/// Sums over requests that reached the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Tokens of input and output, cached ones included.
    pub tokens: u64,
    /// What those of a known price cost, in nano-dollars.
    pub cost_nanos: u128,
    /// Requests whose price is unknown.
    pub unpriced: u64,
    /// Requests of whose usage the provider told nothing: their tokens and cost are estimates, or zero.
    pub unmeasured: u64,
    /// Their part of `tokens`.
    pub unmeasured_tokens: u64,
    /// Their part of `cost_nanos`.
    pub unmeasured_cost_nanos: u128,
    /// Requests that named no model, which may have been for any.
    pub nameless: u64,
}

/// A minute of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoggedMinute {
    /// When it begins.
    pub at: TimestampUs,
    /// The requests that began in it.
    pub begun: Totals,
    /// The requests that ended in it.
    pub ended: Totals,
}

/// What the log has of one provider.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Minutes in their order, each with the sums up to its end.
    sums: Vec<LoggedMinute>,
}

impl Log {
    /// Sums up minutes, in whichever order. A request that ended in one of them must have begun in one of them.
    pub fn new(mut minutes: Vec<LoggedMinute>) -> Self {
        minutes.sort_by_key(|minute| minute.at);
        let mut sum = LoggedMinute::default();
        for minute in &mut minutes {
            sum.begun = sum.begun.plus(&minute.begun);
            sum.ended = sum.ended.plus(&minute.ended);
            *minute = LoggedMinute { at: minute.at, ..sum };
        }
        Self { sums: minutes }
    }

    /// The requests that were running at some instant of the span, which grows to whole minutes.
    pub fn within(&self, span: Span) -> Totals {
        self.begun_before(span.end).minus(&self.ended_before(span.begin))
    }

    /// What had begun by an instant.
    pub(super) fn begun_before(&self, at: TimestampUs) -> Totals {
        self.up_to(at.saturating_add(MINUTE_US - 1).div_euclid(MINUTE_US)).begun
    }

    /// What had ended by an instant.
    pub(super) fn ended_before(&self, at: TimestampUs) -> Totals {
        self.up_to(at.div_euclid(MINUTE_US)).ended
    }

    /// The sums of all minutes before this one.
    fn up_to(&self, minute: i64) -> LoggedMinute {
        let count = self.sums.partition_point(|sum| sum.at.div_euclid(MINUTE_US) < minute);
        count.checked_sub(1).map(|last| self.sums[last]).unwrap_or_default()
    }
}

impl Totals {
    fn plus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            cost_nanos: self.cost_nanos.saturating_add(other.cost_nanos),
            unpriced: self.unpriced.saturating_add(other.unpriced),
            unmeasured: self.unmeasured.saturating_add(other.unmeasured),
            unmeasured_tokens: self.unmeasured_tokens.saturating_add(other.unmeasured_tokens),
            unmeasured_cost_nanos: self.unmeasured_cost_nanos.saturating_add(other.unmeasured_cost_nanos),
            nameless: self.nameless.saturating_add(other.nameless),
        }
    }

    fn minus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
            cost_nanos: self.cost_nanos.saturating_sub(other.cost_nanos),
            unpriced: self.unpriced.saturating_sub(other.unpriced),
            unmeasured: self.unmeasured.saturating_sub(other.unmeasured),
            unmeasured_tokens: self.unmeasured_tokens.saturating_sub(other.unmeasured_tokens),
            unmeasured_cost_nanos: self.unmeasured_cost_nanos.saturating_sub(other.unmeasured_cost_nanos),
            nameless: self.nameless.saturating_sub(other.nameless),
        }
    }
}
