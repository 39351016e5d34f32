//! What `watch` reads of the log, and what it remembers.

use policy::reconcile::{Amounts, Finding, FindingKind, Log, Span, Totals};
use policy::{Basis, NanoUsd, ProviderId, RouteClass};
use storage::{CounterSample, LogText, Outcome, RequestRow};

use crate::common::{Home, refusal, row};

const SECOND: i64 = 1_000_000;

fn openai() -> ProviderId {
    "openai".parse().unwrap()
}

/// The log of these rows, and what ran in it between two seconds.
#[track_caller]
fn check_within(rows: Vec<RequestRow>, (begin, end): (i64, i64), expected: Totals) {
    let home = Home::new();
    home.log(rows);
    let minutes = home.store().logged_minutes(&openai(), begin * SECOND, end * SECOND).unwrap();
    let span = Span { begin: begin * SECOND, end: end * SECOND };
    assert_eq!(Log::new(minutes).within(span), expected);
}

#[test]
fn what_ran_in_a_span_is_summed_up_wherever_it_began_and_ended() {
    let before = row(10);
    let over_the_begin = RequestRow { latency_us: 100_000_000, ..row(100) };
    let whole = RequestRow { latency_us: 1_000_000_000, ..row(30) };
    let after = row(300);
    let sum = |a: u64, b: u64| a * 5 + 10 + b * 5 + 10;
    check_within(
        vec![before, over_the_begin, whole, after],
        (120, 240),
        Totals { requests: 2, tokens: sum(100, 30), cost_nanos: 7 * 130, ..Totals::default() },
    );
}

#[test]
fn only_what_may_have_been_answered_by_a_model_counts() {
    let at =
        |number| RequestRow { usage: policy::Usage::default(), cost: Some(NanoUsd::ZERO), ..row(number) };
    let listing = RequestRow { route_class: Some(RouteClass::Metadata), ..at(1) };
    let elsewhere = RequestRow { provider: Some("groq".parse().unwrap()), ..at(2) };
    let failed = RequestRow { basis: Basis::None, status: Some(500), ..at(3) };
    let broken =
        RequestRow { basis: Basis::None, outcome: Outcome::UpstreamError, status: Some(502), ..at(4) };
    let left = RequestRow { basis: Basis::Estimated, cost: None, model: None, ..at(5) };
    check_within(
        vec![listing, elsewhere, failed, broken, left, refusal(6, "killed", "/openai")],
        (0, 60),
        Totals { requests: 3, unpriced: 1, unmeasured: 2, nameless: 1, ..Totals::default() },
    );
}

#[test]
fn models_are_read_from_where_reading_ended() {
    let home = Home::new();
    let asked = |number, model| RequestRow { model: Some(LogText::model(model)), ..row(number) };
    home.log([asked(1, "a"), asked(2, "b"), asked(3, "a"), refusal(4, "killed", "/x")]);
    let first = home.store().models_asked(0).unwrap();
    let names = |asked: &storage::Asked| {
        let mut names: Vec<_> = asked.models.iter().map(|(_, model)| model.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!((first.seq, names(&first)), (4, vec!["a".to_owned(), "b".to_owned()]));
    home.log([asked(5, "c")]);
    let next = home.store().models_asked(first.seq).unwrap();
    assert_eq!((next.seq, names(&next)), (5, vec!["c".to_owned()]));
    assert_eq!(home.store().models_asked(next.seq).unwrap().models, []);
}

#[test]
fn a_log_speaks_from_its_oldest_row_or_from_the_first_look() {
    let home = Home::new();
    let mut store = home.store();
    assert_eq!(store.start_watching(&openai(), 500 * SECOND).unwrap(), 500 * SECOND);
    assert_eq!(store.start_watching(&openai(), 900 * SECOND).unwrap(), 500 * SECOND);
    home.log([row(700)]);
    assert_eq!(store.start_watching(&openai(), 901 * SECOND).unwrap(), 500 * SECOND);
    home.log([row(100)]);
    assert_eq!(store.start_watching(&openai(), 902 * SECOND).unwrap(), 100 * SECOND);
}

#[test]
fn a_counter_has_a_past_until_its_key_is_replaced() {
    let home = Home::new();
    let mut store = home.store();
    let mut sample = |since, at, total, from| {
        let sample = CounterSample { at, total: NanoUsd::from_nanos(total) };
        let samples = store.sample_counter(&openai(), ("key", since), sample, from).unwrap();
        samples.iter().map(|sample| (sample.at, sample.total.nanos())).collect::<Vec<_>>()
    };
    assert_eq!(sample(0, 10, 5, 0), [(10, 5)]);
    assert_eq!(sample(0, 20, 7, 0), [(10, 5), (20, 7)]);
    assert_eq!(sample(0, 30, 9, 25), [(20, 7), (30, 9)], "the one before is the base");
    assert_eq!(sample(31, 40, 1, 25), [(40, 1)], "another key");
}

fn found(kind: FindingKind, begin: i64, end: i64) -> Finding {
    let model = (kind == FindingKind::UnknownModel).then(|| "gpt-5".to_owned());
    let span = Span { begin, end };
    Finding { kind, span, model, reported: Amounts::default(), logged: Amounts::default() }
}

#[test]
fn a_finding_is_the_same_as_long_as_it_goes_on() {
    let home = Home::new();
    let mut store = home.store();
    let hour = 3_600 * SECOND;
    let mut raise = |kind, begin, end| {
        let raised = store.raise_findings(&openai(), vec![found(kind, begin * hour, end * hour)], 7).unwrap();
        let [raised] = raised.try_into().unwrap();
        store.mark_finding_told(raised.seq, 8).unwrap();
        (raised.seq, raised.is_told)
    };
    assert_eq!(raise(FindingKind::MoreUse, 3, 4), (1, false));
    assert_eq!(raise(FindingKind::MoreUse, 3, 5), (1, true), "it goes on");
    assert_eq!(raise(FindingKind::MoreUse, 5, 6), (1, true), "its begin is out of sight");
    assert_eq!(raise(FindingKind::MoreUse, 9, 10), (2, false), "another");
    assert_eq!(raise(FindingKind::IdleUse, 9, 10), (3, false));
    assert_eq!(raise(FindingKind::UnknownModel, 9, 10), (4, false));
    assert_eq!(raise(FindingKind::UnknownModel, 20, 21), (4, true));
    assert_eq!(raise(FindingKind::UnknownModel, 80, 81), (5, false));
}

#[test]
fn what_was_not_told_is_told_the_next_time() {
    let home = Home::new();
    let mut store = home.store();
    for _ in 0..2 {
        let raised = store.raise_findings(&openai(), vec![found(FindingKind::IdleUse, 0, 1)], 7).unwrap();
        assert!(!raised[0].is_told);
    }
    store.mark_finding_told(1, 8).unwrap();
    let again = vec![found(FindingKind::IdleUse, 0, 1), found(FindingKind::IdleUse, 1, 2)];
    let raised = store.raise_findings(&openai(), again, 9).unwrap();
    assert_eq!((raised.len(), raised[0].is_told, raised[0].first_seen_at), (1, true, 7));
    let elsewhere =
        store.raise_findings(&"groq".parse().unwrap(), vec![found(FindingKind::IdleUse, 0, 1)], 9);
    assert!(!elsewhere.unwrap()[0].is_told);
}
