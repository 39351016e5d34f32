//! Over which time a budget counts, and where that time begins and ends.
//!
//! A period is counted in buckets. A calendar period and `total` are one bucket; a rolling span is cut into slices,
//! and what is counted at an instant is every slice that reaches into the span before it, so never less than the span.
//! There is no reset: a new day is a new bucket.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};

use crate::TimestampUs;

/// Slices of a rolling span. More of them follow the span more closely and make more rows.
const SLICES: i64 = 60;
const MINUTE_US: i64 = 60_000_000;
/// A day; longer times are calendar periods.
const MINUTES_MAX: u32 = 7 * 24 * 60;

/// Over which time a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Any span of this many minutes.
    Rolling {
        /// At least one, at most seven days.
        minutes: u32,
    },
    /// From midnight to midnight.
    Daily,
    /// From Monday to Sunday.
    Weekly,
    /// A month of the calendar.
    Monthly,
    /// For ever.
    Total,
}

/// What a period counts at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The start of the earliest bucket that counts, as long as the zone stays what it is.
    pub from: TimestampUs,
    /// Buckets that start from here on count. Earlier than `from` where days of another zone may reach into this
    /// period: after a change of zone they count in both, so that no change gives a budget back.
    pub counts_from: TimestampUs,
    /// The start of the bucket to which a request of this instant is charged.
    pub bucket: TimestampUs,
    /// When the bucket ends, exclusively; `None` is never.
    pub bucket_end: Option<TimestampUs>,
}

/// Text that names no period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a period: daily, weekly, monthly, total, or a rolling span such as 5h or 90m")]
pub struct InvalidPeriod(String);

impl Window {
    /// One bucket for ever.
    const ENDLESS: Self = Self { from: 0, counts_from: 0, bucket: 0, bucket_end: None };
}

impl Period {
    /// What counts at `now`. Calendar periods begin at midnight in `zone`, or at the first instant of a day whose
    /// midnight a change of clocks skips.
    pub fn window(self, now: TimestampUs, zone: &TimeZone) -> Window {
        match self {
            Self::Total => Window::ENDLESS,
            Self::Rolling { minutes } => {
                let span = i64::from(minutes) * MINUTE_US;
                let slice = span / SLICES;
                let start = |at: i64| at.div_euclid(slice) * slice;
                let (from, bucket) = (start(now.saturating_sub(span)), start(now));
                Window { from, counts_from: from, bucket, bucket_end: Some(bucket + slice) }
            }
            Self::Daily | Self::Weekly | Self::Monthly => self.calendar_window(now, zone),
        }
    }

    /// An instant that the calendar cannot express counts for ever, which no clock ever shows.
    fn calendar_window(self, now: TimestampUs, zone: &TimeZone) -> Window {
        let bounds = || {
            let here = Timestamp::from_microsecond(now).ok()?.to_zoned_datetime(zone.clone());
            let today = here.start_of_day().ok()?;
            let (start, length) = match self {
                Self::Weekly => {
                    let since = today.weekday().since(Weekday::Monday);
                    (today.checked_sub(i64::from(since).days()).ok()?, 1.week())
                }
                Self::Monthly => (today.first_of_month().ok()?, 1.month()),
                Self::Daily | Self::Rolling { .. } | Self::Total => (today, 1.day()),
            };
            let (former, end) = (start.checked_sub(length).ok()?, start.checked_add(length).ok()?);
            let [former, start, end] = [former, start, end].map(|at| at.start_of_day().ok());
            Some((us(&former?), us(&start?), us(&end?)))
        };
        match bounds() {
            Some((former, start, end)) => {
                // In this zone nothing starts between the two; a day of another zone that does may reach into this.
                // Where a zone skipped a whole day, there is nothing between them.
                let counts_from = (former + 1).min(start);
                Window { from: start, counts_from, bucket: start, bucket_end: Some(end) }
            }
            None => Window::ENDLESS,
        }
    }

    /// When money spent in `bucket` counts no more; `None` is never.
    pub fn renewal(self, bucket: TimestampUs, zone: &TimeZone) -> Option<TimestampUs> {
        match self {
            Self::Total => None,
            Self::Rolling { minutes } => {
                let span = i64::from(minutes) * MINUTE_US;
                Some(bucket + span / SLICES + span)
            }
            Self::Daily | Self::Weekly | Self::Monthly => self.window(bucket, zone).bucket_end,
        }
    }
}

fn us(at: &ZonedDateTime) -> TimestampUs {
    at.timestamp().as_microsecond()
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daily => f.pad("daily"),
            Self::Weekly => f.pad("weekly"),
            Self::Monthly => f.pad("monthly"),
            Self::Total => f.pad("total"),
            Self::Rolling { minutes } if minutes % 60 == 0 => f.pad(&format!("{}h", minutes / 60)),
            Self::Rolling { minutes } => f.pad(&format!("{minutes}m")),
        }
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let rolling = || {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let is_plain = number.bytes().all(|b| b.is_ascii_digit());
            let number: u32 = number.parse().ok().filter(|_| is_plain)?;
            let minutes = match unit {
                "m" => Some(number),
                "h" => number.checked_mul(60),
                "d" => number.checked_mul(24 * 60),
                _ => None,
            };
            minutes.filter(|minutes| (1..=MINUTES_MAX).contains(minutes))
        };
        match text {
            "daily" => Ok(Self::Daily),
            "weekly" => Ok(Self::Weekly),
            "monthly" => Ok(Self::Monthly),
            "total" => Ok(Self::Total),
            _ => rolling()
                .map(|minutes| Self::Rolling { minutes })
                .ok_or_else(|| InvalidPeriod(text.escape_debug().to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> TimestampUs {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[track_caller]
    fn check_calendar(period: &str, zone_name: &str, now: &str, start: &str, end: &str) {
        let window = period.parse::<Period>().unwrap().window(at(now), &zone(zone_name));
        let expected = (at(start), at(start), Some(at(end)));
        let found = (window.from, window.bucket, window.bucket_end);
        assert_eq!(found, expected, "{period} in {zone_name} at {now}");
        let former = period.parse::<Period>().unwrap().window(at(start) - 1, &zone(zone_name));
        assert_eq!(
            window.counts_from,
            former.bucket + 1,
            "what begins with the former period counts no more"
        );
    }

    #[test]
    fn a_day_is_from_midnight_to_midnight_where_the_owner_is() {
        check_calendar(
            "daily",
            "UTC",
            "2026-11-25T23:59:59Z",
            "2026-11-25T00:00:00Z",
            "2026-11-26T00:00:00Z",
        );
        check_calendar(
            "daily",
            "Asia/Tokyo",
            "2026-11-25T15:00:00Z",
            "2026-11-25T15:00:00Z",
            "2026-11-26T15:00:00Z",
        );
        check_calendar(
            "daily",
            "Europe/Berlin",
            "2026-11-25T22:59:59Z",
            "2026-11-24T23:00:00Z",
            "2026-11-25T23:00:00Z",
        );
    }

    #[test]
    fn a_day_has_23_or_25_hours_when_the_clocks_change() {
        check_calendar(
            "daily",
            "Europe/Berlin",
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        check_calendar(
            "daily",
            "Europe/Berlin",
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
        // In Santiago midnight itself is skipped.
        check_calendar(
            "daily",
            "America/Santiago",
            "2026-09-06T12:00:00Z",
            "2026-09-06T04:00:00Z",
            "2026-09-07T03:00:00Z",
        );
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_their_first() {
        check_calendar(
            "weekly",
            "UTC",
            "2026-11-25T10:00:00Z",
            "2026-11-23T00:00:00Z",
            "2026-11-30T00:00:00Z",
        );
        check_calendar(
            "weekly",
            "UTC",
            "2026-11-23T00:00:00Z",
            "2026-11-23T00:00:00Z",
            "2026-11-30T00:00:00Z",
        );
        check_calendar(
            "monthly",
            "UTC",
            "2028-02-29T10:00:00Z",
            "2028-02-01T00:00:00Z",
            "2028-03-01T00:00:00Z",
        );
        check_calendar(
            "monthly",
            "UTC",
            "2026-12-31T23:59:59Z",
            "2026-12-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
    }

    #[test]
    fn what_is_typed_is_what_is_shown() {
        for text in ["daily", "weekly", "monthly", "total", "5h", "90m", "24h"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!("7d".parse::<Period>().unwrap().to_string(), "168h");
        for text in ["", "h", "0h", "-1h", "+5h", "8d", "5s", "day", "Daily", "5 h", "99999999999h", "é"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn spend_of_a_total_never_renews_and_that_of_a_day_at_midnight() {
        let day = at("2026-11-25T00:00:00Z");
        assert_eq!(Period::Total.renewal(0, &TimeZone::UTC), None);
        assert_eq!(Period::Daily.renewal(day, &TimeZone::UTC), Some(at("2026-11-26T00:00:00Z")));
    }

    proptest! {
        #[test]
        fn a_rolling_window_covers_its_span_and_little_more(now in 0i64..4_000_000_000_000_000, minutes in 1u32..=MINUTES_MAX) {
            let period = Period::Rolling { minutes };
            let window = period.window(now, &TimeZone::UTC);
            let span = i64::from(minutes) * MINUTE_US;
            prop_assert!(window.from <= now - span && window.from > now - span - span / SLICES - 1);
            prop_assert!(window.bucket <= now && now < window.bucket_end.unwrap());
            let renewal = period.renewal(window.bucket, &TimeZone::UTC).unwrap();
            prop_assert!(period.window(renewal, &TimeZone::UTC).from > window.bucket);
            prop_assert!(period.window(renewal - 1, &TimeZone::UTC).from <= window.bucket);
        }

        #[test]
        fn any_instant_is_in_its_own_bucket(now in 0i64..250_000_000_000_000_000, name in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/Santiago", "Asia/Kolkata", "Pacific/Apia"])) {
            for period in [Period::Daily, Period::Weekly, Period::Monthly] {
                let window = period.window(now, &zone(name));
                prop_assert!(window.bucket <= now && window.counts_from <= window.bucket);
                let former = period.window(window.bucket - 1, &zone(name));
                prop_assert!(former.bucket < window.counts_from);
                prop_assert!(window.bucket_end.is_none_or(|end| now < end));
                prop_assert_eq!(period.window(window.bucket, &zone(name)), window);
            }
        }
    }
}
