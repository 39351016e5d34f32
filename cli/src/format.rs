//! Numbers, times and columns as a person reads them.

use jiff::tz::TimeZone;
use policy::{NanoUsd, TimestampUs};
use serde_json::Value;

use crate::failure::Failure;

/// A column: its header, and on which side its cells stand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Lines in columns. Unlike `Output::table` it aligns numbers on the right, and it can go on: a log that is
/// followed has to align lines that are not there yet.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    columns: &'static [Column],
    widths: Vec<usize>,
}

impl Column {
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Left(header) | Self::Right(header) => header,
        }
    }

    fn pad(self, cell: &str, width: usize) -> String {
        match self {
            Self::Left(_) => format!("{cell:<width$}"),
            Self::Right(_) => format!("{cell:>width$}"),
        }
    }
}

impl Columns {
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        Self { widths: columns.iter().map(|column| column.header().chars().count()).collect(), columns }
    }

    /// Header and rows, aligned; or what to say when there are none.
    pub(crate) fn table(columns: &'static [Column], rows: &[Vec<String>], when_empty: &str) -> String {
        if rows.is_empty() {
            return when_empty.to_owned();
        }
        let mut layout = Self::new(columns);
        layout.fit(rows);
        let lines = rows.iter().map(|row| layout.line(row));
        std::iter::once(layout.header()).chain(lines).collect::<Vec<_>>().join("\n")
    }

    /// Makes the columns wide enough for these rows too.
    pub(crate) fn fit(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
    }

    pub(crate) fn header(&self) -> String {
        let headers: Vec<String> = self.columns.iter().map(|column| column.header().to_uppercase()).collect();
        self.line(&headers)
    }

    pub(crate) fn line(&self, row: &[String]) -> String {
        let cells = self.columns.iter().zip(&self.widths).zip(row);
        let cells: Vec<String> = cells.map(|((column, width), cell)| column.pad(cell, *width)).collect();
        cells.join("  ").trim_end().to_owned()
    }
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

fn in_zone(us: TimestampUs, zone: TimeZone) -> String {
    let Ok(at) = jiff::Timestamp::from_microsecond(us) else { return us.to_string() };
    at.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
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

    #[test]
    fn numbers_stand_right_and_texts_left() {
        const COLUMNS: [Column; 3] = [Column::Left("name"), Column::Right("n"), Column::Left("note")];
        let row = |name: &str, n: &str, note: &str| vec![name.to_owned(), n.to_owned(), note.to_owned()];
        let rows = [row("a", "1", ""), row("longer", "1000", "x")];
        let expected = "NAME       N  NOTE\na          1\nlonger  1000  x";
        assert_eq!(Columns::table(&COLUMNS, &rows, "none"), expected);
        assert_eq!(Columns::table(&COLUMNS, &[], "none"), "none");
    }
}
