//! Which buckets are compared: whole ones of the provider's, old enough for everything in them to be reported, and young
//! enough for the log to know of them.

use std::time::Duration;

use policy::TimestampUs;
use policy::reconcile::Span;

pub(super) const MINUTE_US: i64 = 60_000_000;
pub(super) const HOUR_US: i64 = 60 * MINUTE_US;
pub(super) const DAY_US: i64 = 24 * HOUR_US;

/// Use is reported some minutes late: about five at Anthropic by its own account, up to ten at OpenAI as others measured.
const REPORT_DELAY_US: i64 = 15 * MINUTE_US;
/// A bill takes longer, and nobody says how long.
const BILL_DELAY_US: i64 = 6 * HOUR_US;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    /// Whole hours of use; `None` where none is old enough.
    pub(super) hours: Option<Span>,
    /// Whole days of the bill.
    pub(super) days: Option<Span>,
    /// From when counters are compared.
    pub(super) since: TimestampUs,
}

impl Windows {
    /// The windows at `now`. What was before `earliest` the log knows nothing of, and a bucket beside that may count it.
    pub(super) fn at(now: TimestampUs, period: Duration, earliest: TimestampUs) -> Self {
        let period = i64::try_from(period.as_micros()).unwrap_or(i64::MAX);
        let whole = |width: i64, delay: i64| {
            let end = now.saturating_sub(delay).div_euclid(width) * width;
            let begin = end.saturating_sub(period.max(width)).div_euclid(width) * width;
            let known = earliest.saturating_add(2 * width - 1).div_euclid(width) * width;
            let begin = begin.max(known);
            (begin < end).then_some(Span { begin, end })
        };
        Self {
            hours: whole(HOUR_US, REPORT_DELAY_US),
            days: whole(DAY_US, BILL_DELAY_US),
            since: now.saturating_sub(period).max(earliest),
        }
    }

    /// The begin of everything that is compared.
    pub(super) fn begin(&self) -> TimestampUs {
        let begins = [self.hours, self.days].into_iter().flatten().map(|span| span.begin);
        begins.min().unwrap_or(self.since).min(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(now: &str, hours: u64, earliest: &str, expected: [Option<(&str, &str)>; 2]) {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let windows = Windows::at(at(now), Duration::from_secs(hours * 3_600), at(earliest));
        let expected = expected.map(|span| span.map(|(begin, end)| Span { begin: at(begin), end: at(end) }));
        assert_eq!([windows.hours, windows.days], expected, "{now}");
    }

    const LONG_AGO: &str = "2020-01-01T00:00:00Z";

    #[test]
    fn only_whole_hours_that_are_reported_by_now_are_compared() {
        let day = Some(("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"));
        let hours = Some(("2026-11-24T16:00:00Z", "2026-11-25T16:00:00Z"));
        check("2026-11-25T17:14:59Z", 24, LONG_AGO, [hours, day]);
        let hours = Some(("2026-11-24T17:00:00Z", "2026-11-25T17:00:00Z"));
        check("2026-11-25T17:15:00Z", 24, LONG_AGO, [hours, day]);
        let hours = Some(("2026-11-25T16:00:00Z", "2026-11-25T17:00:00Z"));
        check("2026-11-25T17:15:00Z", 1, LONG_AGO, [hours, day]);
    }

    #[test]
    fn a_day_is_billed_some_hours_after_its_end() {
        let days = |first, end| [Some((first, end)), Some((first, end))][1];
        let hours = Some(("2026-11-18T05:00:00Z", "2026-11-25T05:00:00Z"));
        let expected = days("2026-11-17T00:00:00Z", "2026-11-24T00:00:00Z");
        check("2026-11-25T05:59:59Z", 7 * 24, LONG_AGO, [hours, expected]);
        let expected = days("2026-11-18T00:00:00Z", "2026-11-25T00:00:00Z");
        check("2026-11-25T06:00:00Z", 7 * 24, LONG_AGO, [hours, expected]);
    }

    #[test]
    fn what_the_log_does_not_know_is_not_compared() {
        let hours = Some(("2026-11-25T14:00:00Z", "2026-11-25T16:00:00Z"));
        check("2026-11-25T16:30:00Z", 24, "2026-11-25T12:00:01Z", [hours, None]);
        check("2026-11-25T16:30:00Z", 24, "2026-11-25T13:00:00Z", [hours, None]);
        check("2026-11-25T16:30:00Z", 24, "2026-11-25T16:00:00Z", [None, None]);
        check("2026-11-25T16:30:00Z", 24, "2026-11-25T16:30:00Z", [None, None]);
    }
}
