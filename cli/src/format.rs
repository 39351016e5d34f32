//! Numbers and times as a person reads them.

use jiff::tz::TimeZone;
use policy::{NanoUsd, TimestampUs};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;

/// Bytes as digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Dollars with their sign: `$0.000150`.
pub(crate) fn usd(amount: NanoUsd) -> String {
    match amount.to_string().strip_prefix('-') {
        Some(debt) => format!("-${debt}"),
        None => format!("${amount}"),
    }
}

/// A span in the unit that suits it: `850µs`, `1.7ms`, `12ms`, `1.24s`, `2m03s`.
pub(crate) fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}µs"),
        1_000..10_000 => format!("{}.{}ms", us / 1_000, us / 100 % 10),
        10_000..1_000_000 => format!("{}ms", us / 1_000),
        1_000_000..60_000_000 => format!("{}.{:02}s", us / 1_000_000, us / 10_000 % 100),
        _ => format!("{}m{:02}s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

/// As [`span`], `-` where there is none.
pub(crate) fn span_or_dash(us: Option<u64>) -> String {
    us.map_or_else(|| "-".to_owned(), span)
}

/// Milliseconds with three decimals, for programs.
pub(crate) fn millis(us: u64) -> Value {
    // Exact: a microsecond count that matters fits in the 53 bits of the number, and is printed back as short.
    Value::from(us as f64 / 1_000.0)
}

/// The share of `part` in `whole`, rounded down so that 100 % means all of it; nothing where there is no part.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 100).checked_div(u128::from(whole)) {
        Some(percent) if part > 0 => format!("{percent}%"),
        _ => String::new(),
    }
}

/// An instant as the clock on the wall shows it.
pub(crate) fn local_time(us: TimestampUs) -> String {
    in_zone(us, TimeZone::system())
}

/// The same, of an instant of today.
pub(crate) fn local_clock(us: TimestampUs) -> String {
    show(us, TimeZone::system(), "%H:%M:%S")
}

fn in_zone(us: TimestampUs, zone: TimeZone) -> String {
    show(us, zone, "%Y-%m-%d %H:%M:%S")
}

fn show(us: TimestampUs, zone: TimeZone, form: &str) -> String {
    let Ok(at) = jiff::Timestamp::from_microsecond(us) else { return us.to_string() };
    at.to_zoned_datetime(zone).strftime(form).to_string()
}

/// A span of which only the size matters, in at most four characters or so: `45s`, `12m`, `3h`, `40d`.
pub(crate) fn rough(us: TimestampUs) -> String {
    let seconds = us.max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A count of which only the size matters: `950`, `12.3k`, `4.5M`.
pub(crate) fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}.{}k", count / 1_000, count / 100 % 10),
        _ => format!("{}.{}M", count / 1_000_000, count / 100_000 % 10),
    }
}

/// A text of somebody else's without what a terminal would obey, and without what cannot be seen.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| -> String {
        if matches!(c, '\'' | '"' | '\\') { c.into() } else { c.escape_debug().collect() }
    };
    text.chars().map(shown).collect()
}

/// The fields of a document as a person reads them: names and values.
pub(crate) fn fields(document: &Value) -> Vec<(String, String)> {
    let fields = document.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.replace('_', " "), field(name, value))).collect()
}

/// A field of a document as a person reads it; an instant by the clock on the wall.
pub(crate) fn field(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if name.ends_with("_at") || matches!(name, "at" | "since") => {
            let at = text.parse::<jiff::Timestamp>();
            at.map_or_else(|_| plain(text), |at| local_time(at.as_microsecond()))
        }
        Value::String(text) => plain(text),
        Value::Array(list) => list.iter().map(|value| field(name, value)).collect::<Vec<_>>().join(", "),
        // An amount.
        Value::Object(one) => one
            .iter()
            .map(|(unit, number)| format!("{} {unit}", field(unit, number)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Names and values below each other, a line each.
pub(crate) fn lines(fields: &[(String, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.width()).max().unwrap_or_default();
    let lines = fields.iter().map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// What is spent and what is held of a whole, as a bar of so many cells: `███▒▒·····`. What is there at all takes a cell.
pub(crate) fn bar(spent: i64, held: i64, whole: i64, cells: usize) -> String {
    let (spent, held) = (spent.max(0), held.max(0));
    let cells_of = |part: i64| -> usize {
        if part == 0 {
            return 0;
        }
        let filled = i128::from(part) * cells as i128 / i128::from(whole.max(1));
        usize::try_from(filled).unwrap_or(cells).clamp(1, cells)
    };
    let full = cells_of(spent);
    let reserved = cells_of(spent.saturating_add(held)).saturating_sub(full);
    let reserved = reserved.max(usize::from(held > 0)).min(cells - full);
    let free = cells - full - reserved;
    ["█".repeat(full), "▒".repeat(reserved), "·".repeat(free)].concat()
}

/// The instant that somebody typed: a time ago (`30m`, `2d`), RFC 3339, or date and time of the local clock.
pub(crate) fn parse_instant(text: &str, now: TimestampUs) -> Result<TimestampUs, Failure> {
    parse_instant_in(text, now, TimeZone::system()).ok_or_else(|| {
        Failure::usage(format!("`{text}` is not a time"))
            .with_hint("a time ago such as 30m or 2d, or a date such as 2026-11-25 or 2026-11-25T10:00:00Z")
    })
}

fn parse_instant_in(text: &str, now: TimestampUs, zone: TimeZone) -> Option<TimestampUs> {
    if let Some(ago) = gateway::config::parse_duration(text) {
        return now.checked_sub(i64::try_from(ago.as_micros()).ok()?);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_microsecond());
    }
    let local: jiff::civil::DateTime = text.parse().ok()?;
    Some(local.to_zoned_datetime(zone).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_instant(text: &str, expected: Option<&str>) {
        let now: jiff::Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let found = parse_instant_in(text, now.as_microsecond(), zone);
        let expected = expected.map(|text| text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn an_instant_is_a_time_ago_or_a_date() {
        check_instant("90m", Some("2026-03-01T10:30:00Z"));
        check_instant("2d", Some("2026-02-27T12:00:00Z"));
        check_instant("2026-02-28T10:00:00+01:00", Some("2026-02-28T09:00:00Z"));
        check_instant("2026-02-28", Some("2026-02-27T22:00:00Z"));
        check_instant("2026-02-28 10:00:00", Some("2026-02-28T08:00:00Z"));
        check_instant("2024-02-29", Some("2024-02-28T22:00:00Z"));
        for text in ["", "soon", "2026-02-29", "5", "-1h", "99999999999999999d"] {
            check_instant(text, None);
        }
    }

    #[test]
    fn a_span_has_the_unit_that_suits_it() {
        let texts = [0, 999, 1_790, 999_999, 1_239_999, 59_999_999, 60_000_000, 3_723_000_000].map(span);
        assert_eq!(texts, ["0µs", "999µs", "1.7ms", "999ms", "1.23s", "59.99s", "1m00s", "62m03s"]);
    }

    #[test]
    fn what_only_has_a_size_is_short() {
        let spans = [-5, 59_999_999, 60_000_000, 3_600_000_000, 172_799_000_000, 172_800_000_000].map(rough);
        assert_eq!(spans, ["0s", "59s", "1m", "1h", "47h", "2d"]);
        let counts = [0, 9_999, 10_000, 999_999, 1_000_000, 12_345_678].map(short);
        assert_eq!(counts, ["0", "9999", "10.0k", "999.9k", "1.0M", "12.3M"]);
    }

    #[test]
    fn a_bar_shows_what_is_there_and_never_more_than_it_has() {
        assert_eq!(bar(0, 0, 100, 10), "··········");
        assert_eq!(bar(50, 20, 100, 10), "█████▒▒···");
        assert_eq!(bar(1, 1, 1_000, 10), "█▒········");
        assert_eq!(bar(100, 0, 100, 10), "██████████");
        assert_eq!(bar(100, 5, 100, 10), "██████████");
        assert_eq!(bar(i64::MAX, i64::MAX, 1, 10), "██████████");
        assert_eq!(bar(-5, -5, 100, 4), "····");
        assert_eq!(bar(5, 0, 0, 4), "████");
    }

    #[test]
    fn a_terminal_obeys_nothing_of_a_plain_text() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{9b}c é"), "a\\u{1b}[2Jb\\n\\u{9b}c é");
    }

    #[test]
    fn milliseconds_keep_their_microseconds() {
        let texts = [0, 1, 1_500, 123_456_789].map(|us| millis(us).to_string());
        assert_eq!(texts, ["0.0", "0.001", "1.5", "123456.789"]);
    }

    #[test]
    fn all_of_it_is_a_hundred_percent_and_nearly_all_is_not() {
        assert_eq!(percent(1_000, 1_000), "100%");
        assert_eq!(percent(999, 1_000), "99%");
        assert_eq!(percent(0, 1_000), "");
        assert_eq!(percent(5, 0), "");
        assert_eq!(percent(u64::MAX, u64::MAX), "100%");
    }

    #[test]
    fn a_debt_has_its_sign_in_front() {
        assert_eq!(usd(NanoUsd::from_nanos(150_000)), "$0.000150");
        assert_eq!(usd(NanoUsd::from_nanos(-1_500_000_000)), "-$1.500000");
    }

    #[test]
    fn times_are_those_of_the_zone() {
        assert_eq!(in_zone(0, TimeZone::fixed(jiff::tz::offset(-1))), "1969-12-31 23:00:00");
    }
}
