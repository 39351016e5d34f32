//! What has to hold at the end, and whether it does.

use serde::Serialize;

use super::SoakArgs;
use super::books::{Books, Sums, usd};
use super::hold::Held;
use super::memory::{Growth, after_warm_up, files_at_ends};
use super::samples::Sample;
use crate::load::LoadReport;

/// Resident, with some hundred streams.
const RSS_MOST_MIB: f64 = 150.0;
const WAL_MOST_MIB: f64 = 64.0;
const FILES_MOST: usize = 5;

#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) what: &'static str,
    found: String,
    bar: String,
    /// None: told and not judged.
    pub(super) is_met: Option<bool>,
}

impl Check {
    fn new(
        what: &'static str,
        found: String,
        bar: impl Into<String>,
        is_met: impl Into<Option<bool>>,
    ) -> Self {
        Self { what, found, bar: bar.into(), is_met: is_met.into() }
    }
}

pub(super) fn all(args: &SoakArgs, held: &Held, books: &Books) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend(held.json.as_ref().map(|load| answers("requests", load)));
    checks.extend(
        held.streams.as_ref().map(|load| answers("streams, each event in its place and byte for byte", load)),
    );
    checks.extend((args.edits > 0).then(|| edits(held)));
    checks.extend(of_books(books));
    checks.extend(of_process(args, &held.samples));
    checks
}

fn answers(what: &'static str, load: &LoadReport) -> Check {
    let first = load.first_error.as_ref().map(|error| format!(", the first: {error}")).unwrap_or_default();
    let found = format!("{} answered, {} failed{first}", load.requests, load.errors);
    Check::new(what, found, "none fails", load.errors == 0 && load.requests > 0)
}

fn edits(held: &Held) -> Check {
    let edits = &held.edits;
    let first = edits.first_failure.as_ref().map(|error| format!(", the first: {error}")).unwrap_or_default();
    let found = format!("{} made, {} failed{first}", edits.made, edits.failed);
    Check::new("changes of the rules", found, "none fails", edits.failed == 0 && edits.made > 0)
}

fn of_books(books: &Books) -> [Check; 3] {
    let Books { expected, logged, odd_rows, budgets, budget_faults } = books;
    let cost = |sums: &Sums| {
        format!(
            "{} for {} tokens in and {} out",
            usd(sums.cost_nano_usd),
            sums.input_tokens,
            sums.output_tokens
        )
    };
    let rows = format!("{}, of which {odd_rows} refused, failed or unpriced", logged.requests);
    let faults = format!("{budgets} compared, {} differ {}", budget_faults.len(), budget_faults.join("; "));
    [
        Check::new("rows in the log", rows, format!("{}, none", expected.requests), books.rows_are_right()),
        Check::new("sum of the rows", cost(logged), cost(expected), books.costs_are_right()),
        Check::new(
            "budgets against their rows",
            faults.trim().to_owned(),
            "none differs",
            books.budgets_are_right(),
        ),
    ]
}

fn of_process(args: &SoakArgs, samples: &[Sample]) -> Vec<Check> {
    let length = args.length();
    let warm = after_warm_up(samples, length);
    let most = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
    let (rss_mib, wal_mib) = (most(|sample| sample.rss_mib), most(|sample| sample.wal_mib));
    let mut checks = vec![match Growth::of(warm) {
        None => Check::new(GROWTH, "too few minutes for a line".into(), "≤ 2 MiB/h", None),
        Some(growth) => {
            let found = format!("{:.1} ± {:.1} MiB/h", growth.mib_per_h, growth.noise);
            Check::new(GROWTH, found, format!("≤ {:.1} MiB/h", growth.most()), growth.is_met(length))
        }
    }];
    checks.push(Check::new(
        "resident, the most",
        format!("{rss_mib:.1} MiB"),
        format!("≤ {RSS_MOST_MIB} MiB"),
        rss_mib <= RSS_MOST_MIB,
    ));
    checks.push(match files_at_ends(warm) {
        None => Check::new(FILES, "too short to say".into(), format!("± {FILES_MOST}"), None),
        Some((first, last)) => {
            let is_flat = first.abs_diff(last) <= FILES_MOST;
            Check::new(FILES, format!("{first}, then {last}"), format!("± {FILES_MOST}"), is_flat)
        }
    });
    checks.push(Check::new(
        "the database's journal, the most",
        format!("{wal_mib:.1} MiB"),
        format!("≤ {WAL_MOST_MIB} MiB"),
        wal_mib <= WAL_MOST_MIB,
    ));
    checks.push(threads(warm));
    checks
}

const FILES: &str = "open files after the warm-up and at the end, the least";
const GROWTH: &str = "growth of resident memory after the warm-up";

/// For information: a runtime may start a thread when it needs one.
fn threads(samples: &[Sample]) -> Check {
    let found = match (samples.first(), samples.last()) {
        (Some(first), Some(last)) => format!("{}, then {}", first.threads, last.threads),
        _ => "not seen".into(),
    };
    Check::new("threads after the warm-up and at the end", found, "–", None)
}

pub(super) fn markdown(checks: &[Check]) -> String {
    let mut text = "\n| | found | bar | |\n|---|---|---|---|\n".to_owned();
    for Check { what, found, bar, is_met } in checks {
        let verdict = match is_met {
            None => "not judged",
            Some(true) => "met",
            Some(false) => "**missed**",
        };
        text += &format!("| {what} | {found} | {bar} | {verdict} |\n");
    }
    text
}
