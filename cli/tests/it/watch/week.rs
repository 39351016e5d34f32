//! A week of honest use, looked at all the time: nothing is found.

use policy::{Basis, Usage};
use serde_json::Value;
use storage::{Outcome, RequestRow};

use super::account::{DAY, HOUR, MINUTE, MONDAY, Use, Watched};

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Requests of a week: most by day, of every length, also over the ends of hours and days.
fn requests() -> Vec<Use> {
    let mut numbers = Numbers(7);
    let kinds = [
        ("openai", "gpt-4o", "gpt-4o-2024-08-06"),
        ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("anthropic", "claude-sonnet-4-0", "claude-sonnet-4-20250514"),
        ("openrouter", "x/y", "x/y"),
    ];
    let request = |_| {
        let (provider, asked, model) = kinds[usize::try_from(numbers.below(4)).unwrap()];
        let day = i64::try_from(numbers.below(7)).unwrap();
        let minute = 7 * 60 + numbers.below(if day < 5 { 1_020 } else { 120 });
        let begin =
            MONDAY + day * DAY + i64::try_from(minute * 60_000_000 + numbers.below(60_000_000)).unwrap();
        // Seconds, minutes, and now and then more than an hour.
        let length = [10, 90, 600, 5_000][usize::try_from(numbers.below(20)).unwrap() / 6];
        let end = begin + i64::try_from(numbers.below(length) + 1).unwrap() * 1_000_000;
        let input = numbers.below(30_000) + 1;
        Use { provider, asked, model, key: "key_ours", begin, end, input, output: numbers.below(3_000) + 1 }
    };
    (0..2_500).map(request).collect()
}

/// What the log has of them. One in thirty callers left before the end: the log has an estimate, the provider bills more.
fn rows(watched: &Watched, requests: &[Use]) -> Vec<RequestRow> {
    let row = |(number, one): (usize, &Use)| {
        let row = watched.row(one);
        match number % 30 {
            0 if one.provider != "openrouter" => RequestRow {
                outcome: Outcome::ClientGone,
                basis: Basis::Estimated,
                usage: Usage { input: one.input, output: one.output / 3, ..Usage::default() },
                ..row
            },
            _ => row,
        }
    };
    requests.iter().enumerate().map(row).collect()
}

fn week() -> Watched {
    let watched = Watched::new().admin("openai").admin("anthropic");
    let requests = requests();
    watched.log(rows(&watched, &requests));
    watched.book(requests);
    watched
}

#[track_caller]
fn check_silent(watched: &Watched, now: i64, args: &[&str]) -> Value {
    let output = watched.at(now).watch(args);
    assert_eq!(output.code, Some(0), "{} {}", jiff::Timestamp::from_microsecond(now).unwrap(), output.stdout);
    output.json()
}

#[test]
fn a_week_of_honest_use_is_silent_at_every_look() {
    let watched = week();
    // Every hundred minutes, so that looks fall on every part of an hour.
    let looks = (0..7 * DAY / (100 * MINUTE)).map(|number| MONDAY + number * 100 * MINUTE);
    for now in looks {
        let report = check_silent(&watched, now, &[]);
        assert_eq!(report["findings"], 0);
    }
    let report = check_silent(&watched, MONDAY + 7 * DAY + 7 * HOUR, &["--period", "7d"]);
    for provider in report["providers"].as_array().unwrap() {
        assert_eq!(provider["status"], "ok", "{report:#}");
        let compared = &provider["compared"][0];
        assert!(compared["reported"] != Value::Null, "{report:#}");
    }
    let openai = &report["providers"][1]["compared"][0];
    assert!(openai["reported"]["requests"].as_u64().unwrap() > 1_000, "{report:#}");
    assert_eq!(openai["reported"]["requests"], openai["logged"]["requests"], "every page was read");
}
