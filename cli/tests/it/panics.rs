//! A panic within one request: that one is told so, and everything else goes on.

use std::path::Path;

use storage::Outcome;

use crate::support::{Client, Gateway, Request, Setup, eventually, json};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str =
    r#"{"model":"gpt-4o-mini","max_tokens":100,"messages":[{"role":"user","content":"0SENTINEL0"}]}"#;

/// A gateway that panics where a request asks it to, with a budget that a panic could leave in disorder.
fn gateway() -> Gateway {
    let mut gateway = Gateway::start_with(&Setup { is_unlocked: true, ..Setup::default() });
    gateway.run(["stop"]).expect(0);
    let start = gateway.home.command(["--json", "start", "-d"]).env("TOKFENCE_TEST_PANIC", "1");
    let serving = start.run().expect(0).json();
    gateway.address = serving["address"].as_str().unwrap().parse().unwrap();
    gateway.run(["budget", "set", "agent:tester", "10", "total"]).expect(0);
    gateway
}

fn request(gateway: &Gateway, stage: &str) -> Request {
    let script = gateway.mock.plays(json("{\"choices\":[]}"));
    Request::post(CHAT, BODY).bearer(&gateway.token).script(&script).field("x-tokfence-test-panic", stage)
}

fn stream(gateway: &Gateway, script: &str) -> Request {
    Request::post(CHAT, r#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#)
        .bearer(&gateway.token)
        .script(script)
}

#[track_caller]
fn check_nothing_is_held(gateway: &Gateway) {
    let status = || gateway.run(["--json", "status"]).expect(0).json();
    eventually("nothing in flight", || (status()["in_flight"] == 0).then_some(()));
    let budgets = gateway.run(["--json", "budget", "status"]).expect(0).json();
    assert_eq!(budgets["budgets"][0]["reserved"]["usd"], "0.000000", "{budgets}");
}

/// The log tells where a panic was, and nothing of the request.
#[track_caller]
fn check_log(path: &Path, panics: usize) {
    let log = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a request ended in a panic")).collect();
    assert_eq!(lines.len(), panics, "{log}");
    assert!(lines.iter().all(|line| line.contains("panics.rs:")), "{log}");
    for secret in ["SENTINEL", "tfk_", "x-tokfence-test-panic", CHAT] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn a_request_that_panics_is_answered_and_has_its_row() {
    let gateway = gateway();
    for (stage, mut client) in
        [("request", gateway.tcp()), ("answer", gateway.unix()), ("answer", gateway.tcp())]
    {
        let refusal = client.ask(&request(&gateway, stage)).expect_refusal(500, "internal_error");
        assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
        client.expect_end();
        let row = gateway.row(&refusal.id()).request;
        assert_eq!((row.outcome, row.status), (Outcome::Unfinished, Some(500)), "{stage}");
        // What the provider was asked it may bill.
        assert_eq!(
            row.cost.map(policy::NanoUsd::nanos) > Some(0),
            stage == "answer",
            "{stage}: {:?}",
            row.cost
        );
    }
    check_nothing_is_held(&gateway);
    check_log(&gateway.home.file("log/tokfence.log"), 3);
}

#[test]
fn an_answer_that_has_begun_breaks_off_in_a_panic() {
    let gateway = gateway();
    let (script, go) = gateway.mock.held_stream();
    let mut client = gateway.tcp();
    client.send(&stream(&gateway, &script).field("x-tokfence-test-panic", "end").bytes());
    client.head();
    let mut seen = Vec::new();
    client.read_until(&mut seen, "first");
    go.send(()).unwrap();
    assert!(client.try_body().is_err(), "the caller must see that the answer is not whole");
    check_nothing_is_held(&gateway);
    let rows = gateway.rows();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].request.cost.map(policy::NanoUsd::nanos) > Some(0), "it may be billed");
    check_log(&gateway.home.file("log/tokfence.log"), 1);
}

#[test]
fn a_panic_takes_nothing_else_with_it() {
    let gateway = gateway();
    let (script, go) = gateway.mock.held_stream();
    let mut other: Client = gateway.tcp();
    other.send(&stream(&gateway, &script).bytes());
    other.head();
    let mut seen = Vec::new();
    other.read_until(&mut seen, "first");
    for stage in ["request", "answer"] {
        for _ in 0..8 {
            gateway.tcp().ask(&request(&gateway, stage)).expect_refusal(500, "internal_error");
            gateway.ask(Request::post(CHAT, BODY).script(&gateway.mock.plays(json("{}")))).expect(200);
        }
    }
    go.send(()).unwrap();
    other.read_until(&mut seen, "[DONE]");
    check_nothing_is_held(&gateway);
}
