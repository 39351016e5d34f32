//! What is reserved before a request is sent, and how a strict budget limits the answer.

use policy::NanoUsd;
use serde_json::Value;

use super::{CHAT, OUTPUT_NANOS, answer, cost, gateway, set, standing, usd};
use crate::support::{Gateway, Request, json};

fn sent(gateway: &Gateway, script: &str) -> Value {
    serde_json::from_slice(&gateway.mock.the_request(script).body).unwrap()
}

#[test]
fn a_strict_budget_lowers_the_limit_of_an_answer_to_what_it_affords() {
    let gateway = gateway("strict");
    set(&gateway, "agent:tester", &usd(500 * OUTPUT_NANOS), "total");
    let script = gateway.mock.plays(json(answer(10, 300)));
    let body = r#"{"model":"gpt-4o","max_tokens":4000,"service_tier":"default","messages":[]}"#;
    let response = gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    let limit = sent(&gateway, &script)["max_tokens"].as_u64().unwrap();
    // The body's bytes are reserved as input, each as a token of 2500 nano-dollars.
    let input = i64::try_from(body.len()).unwrap() * 2_500;
    assert_eq!(i64::try_from(limit).unwrap(), (500 * OUTPUT_NANOS - input) / OUTPUT_NANOS);
    let row = gateway.row(&response.id()).request;
    assert_eq!(row.output_limit, Some(limit));
    let told = gateway.run(["log", &response.id()]).expect(0).stdout;
    assert!(told.contains(&format!("{limit} (set by a strict budget)")), "{told}");
    assert_eq!(row.cost, Some(NanoUsd::from_nanos(cost(10, 300))));
}

#[test]
fn a_strict_budget_sets_a_limit_where_there_is_none_and_it_does_not_afford_the_longest_answer() {
    let gateway = gateway("strict");
    set(&gateway, "agent:tester", "100", "total");
    let body = r#"{"model":"gpt-4o","messages":[]}"#;
    let script = gateway.mock.plays(json(answer(10, 300)));
    gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    assert_eq!(gateway.mock.the_request(&script).text(), body, "it affords the longest answer of the model");
    set(&gateway, "agent:tester", "0.05", "total");
    for (target, body, field) in [
        (CHAT, body, "max_completion_tokens"),
        ("/openai/v1/responses", r#"{"model":"gpt-4o","input":"x"}"#, "max_output_tokens"),
    ] {
        let script = gateway.mock.plays(json(answer(10, 30)));
        let id = gateway.ask(Request::post(target, body).script(&script)).expect(200).id();
        // A request is settled a moment after its answer.
        gateway.row(&id);
        let limit = sent(&gateway, &script)[field].as_u64().unwrap_or_else(|| panic!("no {field}"));
        assert!((256..5_000).contains(&limit), "{target}: {limit}");
    }
}

#[test]
fn a_stream_in_a_strict_budget_is_limited_and_still_asked_for_its_usage() {
    let gateway = gateway("strict");
    set(&gateway, "agent:tester", "0.01", "total");
    let script = gateway.mock.plays(crate::support::sse(&["data: [DONE]\n\n"]));
    let body = r#"{"model":"gpt-4o","stream":true,"messages":[]}"#;
    gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    let sent = sent(&gateway, &script);
    assert!(sent["max_completion_tokens"].is_u64(), "{sent}");
    assert_eq!(sent["stream_options"]["include_usage"], true);
}

#[test]
fn below_256_tokens_a_strict_budget_refuses() {
    let gateway = gateway("strict");
    let body = r#"{"model":"gpt-4o","max_tokens":4000,"service_tier":"default","messages":[]}"#;
    let input = i64::try_from(body.len()).unwrap() * 2_500;
    set(&gateway, "agent:tester", &usd(input + 255 * OUTPUT_NANOS), "total");
    gateway.ask(Request::post(CHAT, body)).expect_refusal(429, "budget_exceeded");
    set(&gateway, "agent:tester", &usd(input + 256 * OUTPUT_NANOS), "total");
    gateway.ask(Request::post(CHAT, body)).expect(200);
}

/// OpenAI leaves it to the account in which tier a request without a word about it is served; what the response says
/// is charged, and priority costs $4.25 and $17.
#[test]
fn a_strict_budget_covers_the_dearest_service_tier_that_may_answer() {
    let gateway = gateway("strict");
    let script = gateway.mock.plays(json(answer(10, 300).replacen('{', r#"{"service_tier":"priority","#, 1)));
    set(&gateway, "agent:tester", &usd(500 * OUTPUT_NANOS), "total");
    let body = r#"{"model":"gpt-4o","max_tokens":4000,"messages":[]}"#;
    let id = gateway.ask(Request::post(CHAT, body).script(&script)).expect(200).id();
    let limit = sent(&gateway, &script)["max_tokens"].as_i64().unwrap();
    let input = i64::try_from(body.len()).unwrap() * 4_250;
    assert_eq!(limit, (500 * OUTPUT_NANOS - input) / 17_000);
    assert_eq!(gateway.row(&id).request.cost, Some(NanoUsd::from_nanos(10 * 4_250 + 300 * 17_000)));
}

#[test]
fn a_rolling_budget_learns_how_long_answers_are() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json(answer(10, 10_000)));
    let body = r#"{"model":"gpt-4o","messages":[]}"#;
    let ask = || gateway.ask(Request::post(CHAT, body).script(&script));
    set(&gateway, "agent:tester", &usd(15_000 * OUTPUT_NANOS), "total");
    ask().expect(200);
    // There is room for a slice, but not for an answer like the last one.
    ask().expect_refusal(429, "budget_exceeded");
    assert_eq!(standing(&gateway, "agent:tester/total").reserved, 0);
}

#[test]
fn embeddings_and_lists_need_no_room_for_an_answer() {
    let gateway = gateway("strict");
    set(&gateway, "agent:tester", "0.0001", "total");
    let body = r#"{"model":"text-embedding-3-small","input":"x"}"#;
    gateway.ask(Request::post("/openai/v1/embeddings", body)).expect(200);
    gateway.ask(Request::get("/openai/v1/models")).expect(200);
}
