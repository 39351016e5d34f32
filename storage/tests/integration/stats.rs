//! Sums: exact, grouped, and honest about what is not known.

use policy::NanoUsd;
use storage::{Error, LogText, Outcome, RequestRow, StatsBy, StatsGroup, StatsQuery};

use crate::common::{Home, refusal, row};

fn by(by: StatsBy) -> StatsQuery {
    StatsQuery::of(by)
}

fn name(text: &str) -> StatsGroup {
    StatsGroup::Name(Some(text.to_owned()))
}

#[test]
fn sums_are_exact_and_unknown_prices_are_counted() {
    let home = Home::new();
    let unpriced = RequestRow { cost: None, ..row(3) };
    let free = RequestRow { cost: Some(NanoUsd::ZERO), ..row(4) };
    let cut = RequestRow { outcome: Outcome::Cut, ..row(5) };
    let failed = RequestRow { status: Some(500), ..row(6) };
    let gone = RequestRow { outcome: Outcome::ClientGone, status: None, ..row(7) };
    let refused = refusal(8, "out_of_scope", "/openai");
    home.log([row(1), row(2), unpriced, free, cut, failed, gone, refused]);
    let stats = home.store().stats(&by(StatsBy::Provider)).unwrap();
    let total = &stats.total;
    assert_eq!((total.requests, total.refused, total.errors, total.unpriced), (8, 1, 2, 1));
    assert_eq!(total.input_tokens, 28);
    assert_eq!(total.cache_read_tokens, 28 + 7);
    assert_eq!(total.cache_write_tokens, 28 + 14 + 28 + 21);
    assert_eq!(total.output_tokens, 28 + 28);
    assert_eq!(total.cost.nanos(), 7 * (1 + 2 + 5 + 6 + 7));
    assert_eq!(total.group, StatsGroup::All);
    assert_eq!(stats.rows.len(), 1);
    assert_eq!(stats.rows[0], storage::StatsRow { group: name("openai"), ..total.clone() });
}

#[test]
fn percentiles_are_by_nearest_rank_and_leave_refusals_out() {
    let home = Home::new();
    let mut rows: Vec<_> = (1..=100).map(row).collect();
    rows.extend((101..=200).map(|number| refusal(number, "killed", &format!("/{number}"))));
    home.log(rows);
    let total = home.store().stats(&by(StatsBy::Model)).unwrap().total;
    assert_eq!((total.latency_p50_us, total.latency_p95_us), (Some(60), Some(105)));
    assert_eq!(total.first_byte_p50_us, Some(55));
}

#[track_caller]
fn check_groups(by_what: StatsBy, expected: &[(StatsGroup, u64)]) {
    let home = Home::new();
    let hour = |hour: u64| hour * 3_600;
    home.log([
        row(hour(0)),
        RequestRow { model: Some(LogText::model("o3")), ..row(hour(1)) },
        RequestRow { agent: None, ..row(hour(1) + 3_599) },
        RequestRow { provider: None, status: None, model: None, ..row(hour(2)) },
        RequestRow { status: Some(429), ..row(hour(25)) },
    ]);
    let rows = home.store().stats(&by(by_what)).unwrap().rows;
    let found: Vec<_> = rows.into_iter().map(|row| (row.group, row.requests)).collect();
    assert_eq!(found, expected);
}

#[test]
fn each_thing_makes_its_groups() {
    let none = StatsGroup::Name(None);
    check_groups(StatsBy::Provider, &[(none.clone(), 1), (name("openai"), 4)]);
    check_groups(StatsBy::Model, &[(none.clone(), 1), (name("gpt-4o"), 3), (name("o3"), 1)]);
    check_groups(StatsBy::Agent, &[(none, 1), (name("ci"), 4)]);
    let status = StatsGroup::Status;
    check_groups(StatsBy::Status, &[(status(None), 1), (status(Some(200)), 3), (status(Some(429)), 1)]);
    let hour = |hour: i64| StatsGroup::Begin(hour * 3_600_000_000);
    check_groups(StatsBy::Hour, &[(hour(0), 1), (hour(1), 2), (hour(2), 1), (hour(25), 1)]);
    check_groups(StatsBy::Day, &[(hour(0), 4), (hour(24), 1)]);
}

#[test]
fn a_period_and_names_narrow_the_sums() {
    let home = Home::new();
    let other = RequestRow { agent: Some("other".parse().unwrap()), ..row(2) };
    let groq = RequestRow { provider: Some("groq".parse().unwrap()), ..row(3) };
    home.log([row(1), other, groq, row(4)]);
    let store = home.store();
    let requests = |query: StatsQuery| store.stats(&query).unwrap().total.requests;
    let all = || by(StatsBy::Day);
    assert_eq!(requests(all()), 4);
    assert_eq!(requests(StatsQuery { since: Some(2_000_000), until: Some(4_000_000), ..all() }), 2);
    assert_eq!(requests(StatsQuery { agent: Some("ci".parse().unwrap()), ..all() }), 3);
    assert_eq!(requests(StatsQuery { provider: Some("groq".parse().unwrap()), ..all() }), 1);
    let nothing = store.stats(&StatsQuery { since: Some(9_000_000), ..all() }).unwrap();
    assert_eq!((nothing.rows.len(), nothing.total.requests), (0, 0));
    assert_eq!(nothing.total.latency_p50_us, None);
}

#[test]
fn a_sum_that_does_not_fit_is_an_error() {
    let home = Home::new();
    let huge = |number| RequestRow { cost: Some(NanoUsd::from_nanos(i64::MAX)), ..row(number) };
    home.log([huge(1), huge(2)]);
    let error = home.store().stats(&by(StatsBy::Provider)).unwrap_err();
    assert!(matches!(error, Error::Overflow { .. }), "{error}");
    assert!(matches!(home.store().agents(0), Ok(agents) if agents.is_empty()));
}
