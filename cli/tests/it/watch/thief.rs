//! Use that did not go through the gateway: found as soon as the provider tells it, told once, and acted upon.

use serde_json::{Value, json};

use super::account::{DAY, HOUR, MINUTE, MONDAY, Use, Watched};
use crate::support::{Mock, eventually};

/// A day of work: a request each ten minutes, from eight to twenty.
fn work(day: i64) -> impl Iterator<Item = Use> {
    (0..72).map(move |number| Use::openai(MONDAY + day * DAY + 8 * HOUR + number * 10 * MINUTE))
}

fn watched() -> Watched {
    let watched = Watched::new().admin("openai");
    watched.honest((0..2).flat_map(work));
    watched
}

/// The kinds of the findings, and which are new.
fn kinds(report: &Value) -> Vec<(String, bool)> {
    let findings =
        report["providers"].as_array().unwrap().iter().flat_map(|one| one["findings"].as_array().unwrap());
    let kind =
        |found: &Value| (found["kind"].as_str().unwrap().to_owned(), found["is_new"].as_bool().unwrap());
    findings.map(kind).collect()
}

/// Looks every quarter of an hour: nothing is found before the hour of the theft is told, and these kinds right then.
#[track_caller]
fn check_found(theft: Use, expected: &[&str]) -> Watched {
    let watched = watched();
    watched.book([theft]);
    let told = theft.end.div_euclid(HOUR) * HOUR + HOUR + 15 * MINUTE;
    for now in [told - 45 * MINUTE, told - 15 * MINUTE, told - 1] {
        let report = watched.at(now).watch(&["--provider", "openai"]).expect(0).json();
        assert_eq!(report["providers"][0]["status"], "ok", "{report:#}");
    }
    let report = watched.at(told).watch(&["--provider", "openai"]).expect(6).json();
    assert_eq!(report["providers"][0]["status"], "findings");
    let expected: Vec<_> = expected.iter().map(|kind| ((*kind).to_owned(), true)).collect();
    assert_eq!(kinds(&report), expected, "{report:#}");
    let again = watched.at(told + 15 * MINUTE).watch(&["--provider", "openai"]).expect(6).json();
    assert!(kinds(&again).iter().all(|(_, is_new)| !is_new), "each is told of once: {again:#}");
    watched
}

#[test]
fn a_single_probe_of_another_model_is_found_in_the_midst_of_work() {
    let at = MONDAY + DAY + 10 * HOUR + 5 * MINUTE;
    let probe = Use { asked: "", model: "gpt-5-pro", input: 8, output: 1, ..Use::openai(at) };
    let watched = check_found(probe, &["unknown_model"]);
    let report = watched.watch(&["--provider", "openai"]).expect(6).json();
    let finding = &report["providers"][0]["findings"][0];
    assert_eq!((&finding["model"], &finding["reported"]["tokens"]), (&json!("gpt-5-pro"), &json!(9)));
    let text = watched.run(&["watch", "--once", "--provider", "openai"]).expect(6).stdout;
    assert!(text.contains("known  finding 1, unknown_model gpt-5-pro"), "{text}");
}

#[test]
fn a_burst_is_found_in_the_midst_of_work() {
    let at = MONDAY + DAY + 10 * HOUR + 5 * MINUTE;
    check_found(Use { input: 90_000, output: 8_000, ..Use::openai(at) }, &["more_use"]);
}

#[test]
fn a_single_request_at_night_is_found() {
    let at = MONDAY + DAY + 3 * HOUR;
    check_found(Use { input: 8, output: 1, ..Use::openai(at) }, &["idle_use"]);
}

#[test]
fn a_second_theft_is_told_of_again() {
    let watched = watched();
    let night = |hour| Use { input: 8, ..Use::openai(MONDAY + DAY + hour * HOUR) };
    watched.book([night(1), night(2), night(5)]);
    let look = |hour| {
        let report = watched.at(MONDAY + DAY + hour * HOUR + 20 * MINUTE).watch(&[]).expect(6).json();
        // Two requests that are not in the log are more use as well.
        kinds(&report).into_iter().filter(|(kind, _)| kind == "idle_use").collect::<Vec<_>>()
    };
    let found = |news: &[bool]| news.iter().map(|new| ("idle_use".to_owned(), *new)).collect::<Vec<_>>();
    assert_eq!(look(2), found(&[true]));
    assert_eq!(look(3), found(&[false]), "it goes on");
    assert_eq!(look(6), found(&[false, true]), "it began anew");
    watched.at(MONDAY + 5 * DAY).watch(&[]).expect(0);
}

#[test]
fn a_key_of_anthropic_is_found_by_its_tokens_and_by_its_bill() {
    let watched = Watched::new().admin("anthropic");
    let claude = |begin| Use {
        provider: "anthropic",
        asked: "claude-sonnet-4-0",
        model: "claude-sonnet-4-20250514",
        ..Use::openai(begin)
    };
    watched.honest((0..72).map(|number| claude(MONDAY + 8 * HOUR + number * 10 * MINUTE)));
    let report = watched.at(MONDAY + DAY + 7 * HOUR).watch(&[]).expect(0).json();
    let compared = &report["providers"][0]["compared"];
    assert_eq!(compared[0]["reported"]["tokens"], compared[0]["logged"]["tokens"], "{report:#}");
    assert_eq!(compared[1]["reported"]["cost_usd"], "0.720000", "cents are not dollars: {report:#}");
    watched.book([Use { input: 400_000, ..claude(MONDAY + 12 * HOUR) }]);
    let report = watched.watch(&[]).expect(6).json();
    assert_eq!(kinds(&report), [("more_use".to_owned(), true)], "{report:#}");
    let lenient = watched.watch(&["--threshold-tokens", "1000000", "--threshold-usd", "3.00"]).expect(6);
    assert_eq!(
        lenient.json()["providers"][0]["findings"][0]["reported"]["tokens"],
        Value::Null,
        "by its bill"
    );
}

#[test]
fn a_counter_has_a_base_at_first_and_is_found_when_it_moves_by_itself() {
    let watched = Watched::new();
    let use_at = |begin| Use { provider: "openrouter", asked: "x/y", model: "x/y", ..Use::openai(begin) };
    watched.book([use_at(MONDAY)]);
    let look = |now| watched.at(now).watch(&["--provider", "openrouter"]);
    let report = look(MONDAY + HOUR).expect(0).json();
    assert_eq!(
        report["providers"][0]["status"], "baseline",
        "what was spent before says nothing: {report:#}"
    );
    watched.honest([use_at(MONDAY + 2 * HOUR)]);
    look(MONDAY + 2 * HOUR + 15 * MINUTE).expect(0);
    watched.book([use_at(MONDAY + 5 * HOUR)]);
    look(MONDAY + 5 * HOUR).expect(0);
    let report = look(MONDAY + 5 * HOUR + 30 * MINUTE).expect(6).json();
    assert_eq!(kinds(&report), [("idle_use".to_owned(), true)], "{report:#}");
    assert_eq!(report["providers"][0]["findings"][0]["reported"]["cost_usd"], "0.010000");
    look(MONDAY + 2 * DAY).expect(0);
}

#[test]
fn only_use_of_the_keys_that_are_ours_is_compared() {
    let watched = Watched::with("[watch.openai]\napi_key_ids = [\"key_ours\"]\n").admin("openai");
    watched.honest(work(0));
    watched.book(work(0).map(|one| Use { key: "key_theirs", input: 90_000, model: "gpt-5", ..one }));
    let report = watched.at(MONDAY + DAY + 7 * HOUR).watch(&["--provider", "openai"]).expect(0).json();
    assert_eq!(
        (&report["providers"][0]["scope"], &report["providers"][0]["status"]),
        (&json!("api_keys"), &json!("ok"))
    );
    let asked = watched.mock.unasked();
    let usage = asked.iter().find(|received| received.line().contains("/usage/completions")).unwrap().line();
    assert!(usage.contains("group_by=model&group_by=api_key_id&api_key_ids=key_ours"), "{usage}");
    assert!(asked.iter().all(|received| !received.line().contains("/costs")), "they are not told by key");
    watched.book([Use { input: 90_000, ..Use::openai(MONDAY + 12 * HOUR) }]);
    watched.watch(&["--provider", "openai"]).expect(6);

    let watched = Watched::with("[watch.openai]\nmodels = [\"gpt-5\"]\n").admin("openai");
    watched.honest(work(0));
    watched.book([Use { model: "gpt-5", input: 1, output: 1, ..Use::openai(MONDAY + 12 * HOUR) }]);
    let report = watched.at(MONDAY + 20 * HOUR).watch(&[]).expect(0).json();
    assert_eq!(report["providers"][1]["scope"], "key", "{report:#}");
    assert!(report["providers"][0]["notes"].to_string().contains("the whole account"), "{report:#}");
}

#[test]
fn a_provider_is_revoked_and_its_owner_told_where_that_is_asked_for() {
    let listener = Mock::start();
    let tables = format!("[notifications]\nwebhook = \"http://{}/hook\"\n", listener.address);
    let watched = Watched::with(&tables).admin("openai");
    watched.honest(work(0));
    watched.book([Use { input: 8, ..Use::openai(MONDAY + 3 * HOUR) }]);
    let look = |args: &[&str]| watched.at(MONDAY + 20 * HOUR).watch(args).expect(6).json();
    let report = look(&["--auto-revoke", "--provider", "openai"]);
    assert_eq!(report["providers"][0]["revoked"], true, "{report:#}");
    let refused = watched.run(&["--json", "status"]).expect(3).json();
    let revoked = &refused["revoked_providers"][0];
    assert_eq!(revoked["provider"], "openai");
    assert_eq!(
        revoked["reason"],
        "watch: the provider reports use while nothing went through this gateway (finding 1)"
    );
    let changes = watched.run(&["--json", "audit", "--action", "provider_revoke"]).expect(0).json();
    let change = &changes["changes"][0];
    assert_eq!((&change["command"], &change["subject"]), (&json!("watch"), &json!("openai")), "{changes:#}");
    assert_eq!(
        change["detail"],
        json!({ "before": "served", "after": "revoked", "reason": revoked["reason"] })
    );
    let told = eventually("the notice", || listener.unasked().pop());
    let told: Value = serde_json::from_str(&told.text()).unwrap();
    assert_eq!((&told["kind"], &told["level"]), (&json!("leak"), &json!("critical")), "{told}");
    assert_eq!(told["details"]["is_revoked"], true);

    watched.run(&["restore", "openai"]).expect(0);
    let report = look(&["--auto-revoke", "--provider", "openai"]);
    assert_eq!(report["providers"][0]["revoked"], false, "what the owner knows of does not undo what he did");
    assert_eq!(listener.unasked().len(), 1);
}

#[test]
fn a_running_daemon_knows_of_a_revocation_at_once() {
    let watched = watched();
    watched.book([Use { input: 8, ..Use::openai(MONDAY + 3 * HOUR) }]);
    watched.run(&["start", "-d"]).expect(0);
    watched.at(MONDAY + 20 * HOUR).watch(&["--auto-revoke", "--provider", "openai"]).expect(6);
    let status = watched.run(&["--json", "status"]).expect(0).json();
    assert_eq!(status["revoked_providers"][0]["provider"], "openai", "{status:#}");
}
