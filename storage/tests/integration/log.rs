//! The request log: what goes in comes out, and questions find what they ask for.

use std::borrow::Cow;

use policy::{Basis, NanoUsd, RouteClass, Transport, Usage};
use proptest::prelude::*;
use storage::{Error, LogFilter, LogOrder, LogText, Outcome, RequestRow};

use crate::common::{Home, id, refusal, row};

fn all() -> LogFilter {
    LogFilter { order: LogOrder::After(0), limit: 1_000, ..LogFilter::default() }
}

fn any_row() -> impl Strategy<Value = RequestRow> {
    let tokens = 0..=1_000_000_000_000_u64;
    let usage = prop::array::uniform6(tokens);
    let ends = (0..Outcome::ALL.len(), prop::option::of(0..=999_u16), prop::option::of("[a-z_]{1,64}"));
    let texts = (".{0,600}", ".{0,40}", prop::option::of(".{0,300}"));
    let numbers = (any::<u64>(), prop::option::of(any::<u64>()), prop::option::of(0..=i64::MAX));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<Option<u32>>());
    (usage, ends, texts, numbers, flags).prop_map(|(usage, ends, texts, numbers, flags)| RequestRow {
        path: LogText::path(&texts.0),
        method: LogText::method(&texts.1),
        model: texts.2.as_deref().map(LogText::model),
        provider: flags.0.then(|| "openai".parse().unwrap()),
        route_class: flags.0.then_some(RouteClass::File),
        agent: flags.1.then(|| "ci".parse().unwrap()),
        capability: flags.1.then(|| "abcdefgh".parse().unwrap()),
        transport: if flags.2 { Transport::Tcp } else { Transport::Unix },
        peer_pid: flags.3,
        peer_uid: flags.3,
        status: ends.1,
        error_code: ends.2.map(Cow::Owned),
        outcome: Outcome::ALL[ends.0],
        basis: if flags.2 { Basis::Estimated } else { Basis::None },
        usage: Usage {
            input: usage[0],
            cache_read: usage[1],
            cache_write_5m: usage[2],
            cache_write_1h: usage[3],
            output: usage[4],
            reasoning: usage[5],
            ..Usage::default()
        },
        cost: numbers.2.map(NanoUsd::from_nanos),
        latency_us: numbers.0 >> 1,
        first_byte_us: numbers.1.map(|n| n >> 1),
        request_bytes: numbers.0 >> 2,
        response_bytes: numbers.0 >> 3,
        ..row(1)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_goes_in_comes_out(mut rows in prop::collection::vec(any_row(), 1..30)) {
        for (number, row) in (0..).zip(&mut rows) {
            row.id = id(number);
        }
        let home = Home::new();
        home.log(rows.clone());
        let logged = home.store().requests(&all()).unwrap();
        let found: Vec<_> = logged.into_iter().map(|logged| logged.request).collect();
        prop_assert_eq!(found, rows);
    }

    #[test]
    fn text_of_a_caller_is_short_and_tame(raw in "(?s).{0,700}") {
        let path = LogText::path(&raw);
        prop_assert!(path.as_str().len() <= 512);
        prop_assert!(!path.as_str().contains('?'));
        prop_assert!(!path.as_str().chars().any(char::is_control));
        prop_assert_eq!(LogText::path(path.as_str()), path.clone(), "tame text stays as it is");
    }
}

#[track_caller]
fn check_path(raw: &str, shown: &str) {
    assert_eq!(LogText::path(raw).as_str(), shown);
}

#[test]
fn paths_are_made_harmless() {
    check_path("/v1/models?key=secret", "/v1/models");
    check_path("/v1/models#key", "/v1/models");
    check_path("/a\u{1b}[31mb\r\n", r"/a\u{1b}[31mb\r\n");
    check_path("/a\u{202e}b", r"/a\u{202e}b");
    check_path("/modèle", "/modèle");
    check_path(&format!("/{}\u{1b}", "x".repeat(510)), &format!("/{}", "x".repeat(510)));
    check_path(&"é".repeat(300), &"é".repeat(256));
}

#[test]
fn hostile_numbers_are_capped() {
    let home = Home::new();
    let usage = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
    home.log([RequestRow { usage, latency_us: u64::MAX, request_bytes: u64::MAX, ..row(1) }]);
    let logged = &home.store().requests(&all()).unwrap()[0].request;
    assert_eq!((logged.usage.input, logged.usage.output), (1_000_000_000_000, 1_000_000_000_000));
    assert_eq!(logged.latency_us, i64::MAX.unsigned_abs());
}

fn varied() -> Vec<RequestRow> {
    vec![
        row(1),
        RequestRow {
            provider: Some("groq".parse().unwrap()),
            model: Some(LogText::model("llama-3")),
            ..row(2)
        },
        RequestRow { agent: Some("other".parse().unwrap()), status: Some(404), ..row(3) },
        RequestRow { status: Some(429), model: Some(LogText::model("gpt-4o-mini")), ..row(4) },
        RequestRow { status: None, outcome: Outcome::ClientGone, model: None, ..row(5) },
        refusal(6, "out_of_scope", "/groq/v1/models"),
    ]
}

#[track_caller]
fn check_filter(filter: LogFilter, expected: &[u64]) {
    let home = Home::new();
    home.log(varied());
    let found = home.store().requests(&filter).unwrap();
    let found: Vec<_> = found.into_iter().map(|logged| logged.request.id).collect();
    assert_eq!(found, expected.iter().map(|number| id(*number)).collect::<Vec<_>>(), "{filter:?}");
}

#[test]
fn filters_find_what_they_ask_for() {
    check_filter(LogFilter::default(), &[6, 5, 4, 3, 2, 1]);
    check_filter(LogFilter { limit: 2, ..LogFilter::default() }, &[6, 5]);
    check_filter(all(), &[1, 2, 3, 4, 5, 6]);
    check_filter(LogFilter { order: LogOrder::After(4), ..all() }, &[5, 6]);
    check_filter(LogFilter { provider: Some("groq".parse().unwrap()), ..all() }, &[2]);
    check_filter(LogFilter { model: Some("gpt-4o".parse().unwrap()), ..all() }, &[1, 3]);
    check_filter(LogFilter { model: Some("gpt-4o*".parse().unwrap()), ..all() }, &[1, 3, 4]);
    check_filter(LogFilter { agent: Some("other".parse().unwrap()), ..all() }, &[3]);
    check_filter(LogFilter { capability: Some("abcdefgh".parse().unwrap()), ..all() }, &[1, 2, 3, 4, 5]);
    check_filter(LogFilter { status: Some("4xx".parse().unwrap()), ..all() }, &[3, 4, 6]);
    check_filter(LogFilter { status: Some("429".parse().unwrap()), ..all() }, &[4]);
    check_filter(LogFilter { outcome: Some(Outcome::Refused), ..all() }, &[6]);
    check_filter(LogFilter { since: Some(2_000_000), until: Some(4_000_000), ..all() }, &[2, 3]);
    let both = LogFilter { status: Some("4xx".parse().unwrap()), outcome: Some(Outcome::Completed), ..all() };
    check_filter(both, &[3, 4]);
}

#[test]
fn a_request_is_found_by_the_beginning_of_its_id() {
    let home = Home::new();
    home.log([row(1), row(2)]);
    let store = home.store();
    let whole = id(2).to_string();
    assert_eq!(store.request(&whole).unwrap().request, row(2));
    assert_eq!(store.request(&whole.to_lowercase()).unwrap().request, row(2));
    assert!(matches!(store.request(&whole[..20]), Err(Error::AmbiguousRequest { .. })));
    for unknown in ["", "ZZZZ", "%", "0' OR 1=1 --", "\u{1b}[31m"] {
        let error = store.request(unknown).unwrap_err();
        assert!(matches!(error, Error::NoSuchRequest { .. }), "{error}");
        assert!(!error.to_string().contains('\u{1b}'));
    }
}

#[test]
fn the_last_use_of_a_provider_is_its_last_admitted_request() {
    let home = Home::new();
    let groq = |number| RequestRow { provider: Some("groq".parse().unwrap()), ..row(number) };
    let none = RequestRow { provider: None, ..row(9) };
    let refused =
        RequestRow { provider: Some("mistral".parse().unwrap()), ..refusal(8, "out_of_scope", "/mistral") };
    home.log([row(3), groq(5), row(2), groq(4), none, refused, refusal(7, "killed", "/openai")]);
    let used = home.store().last_used_by_provider().unwrap();
    let expected = [("groq".parse().unwrap(), 5_000_000), ("openai".parse().unwrap(), 3_000_000)];
    assert_eq!(used, expected.into());
    assert!(Home::new().store().last_used_by_provider().unwrap().is_empty());
}

#[test]
fn rows_are_not_edited() {
    let home = Home::new();
    home.log([row(1)]);
    let raw = rusqlite::Connection::open(home.path()).unwrap();
    assert!(raw.execute("UPDATE requests SET cost_nano_usd = 0", []).is_err());
    assert!(raw.execute("UPDATE requests SET repeats = repeats + 1", []).is_ok());
}

#[test]
fn old_rows_are_deleted_a_batch_at_a_time_and_their_numbers_stay_used() {
    let home = Home::new();
    home.log((1..=10).map(row));
    let store = home.store();
    assert_eq!(store.delete_older_than(9_000_000, 5).unwrap(), 5);
    assert_eq!(store.delete_older_than(9_000_000, 5).unwrap(), 3);
    assert_eq!(store.delete_older_than(9_000_000, 5).unwrap(), 0);
    assert_eq!(store.delete_older_than(i64::MAX, 5).unwrap(), 2);
    home.log([row(11)]);
    assert_eq!(store.latest_seq().unwrap(), 11);
}
