//! Ways around a budget, and numbers that no provider means.

use policy::Basis;

use super::{answer, gateway, question, set, standing};
use crate::support::{Client, Request, eventually, json};

const NAME: &str = "agent:tester/total";

#[test]
fn costs_beyond_reason_stop_neither_the_log_nor_the_budgets() {
    let gateway = gateway("rolling");
    set(&gateway, "agent:tester", "9000000000", "total");
    let huge = answer(10, 20).replace("\"total_tokens\"", "\"cost\":9223372036.854775807,\"total_tokens\"");
    let script = gateway.mock.plays(json(&huge));
    for _ in 0..3 {
        let response = gateway.ask(question(&script, 100)).expect(200);
        gateway.row(&response.id());
    }
    let spent = standing(&gateway, NAME).spent;
    assert_eq!(spent, 3 * 100_000_000_000_000, "each is a hundred thousand dollars");
    assert_eq!(gateway.run(["--json", "status"]).expect(0).json()["log"], "ok");
    gateway.run(["budget", "set", "global", "1", "daily"]).expect(0);
}

#[test]
fn an_answer_that_is_read_again_is_not_charged_again() {
    let gateway = gateway("strict");
    set(&gateway, "agent:tester", "1", "total");
    let stored = r#"{"id":"resp_1","object":"response","status":"completed","model":"gpt-4o","output":[],"usage":{"input_tokens":10,"output_tokens":20,"total_tokens":30}}"#;
    let script = gateway.mock.plays(json(stored));
    let response = gateway.ask(Request::get("/openai/v1/responses/resp_1").script(&script)).expect(200);
    let row = gateway.row(&response.id()).request;
    assert_eq!((row.basis, row.usage.total()), (Basis::None, 0));
    assert_eq!(standing(&gateway, NAME).spent, 0);
}

#[test]
fn a_budget_that_is_set_while_a_body_arrives_holds_for_it() {
    let gateway = gateway("rolling");
    let request = question("", 1_000).bearer(&gateway.token).bytes();
    let (begun, rest) = request.split_at(request.len() - 5);
    let begin = || -> Client {
        let mut client = gateway.tcp();
        client.send(begun);
        eventually("the gateway to wait for the body", || {
            let status = gateway.run(["--json", "status"]).expect(0).json();
            (status["in_flight"] == 1).then_some(())
        });
        client
    };
    let mut client = begin();
    set(&gateway, "agent:tester", "0", "total");
    client.send(rest);
    client.response().expect_refusal(429, "budget_exceeded");
    // Cleared and set again it is another one, of which the request knew nothing.
    set(&gateway, "agent:tester", "10", "total");
    let mut client = begin();
    gateway.run(["budget", "clear", "agent:tester"]).expect(0);
    set(&gateway, "agent:tester", "10", "total");
    client.send(rest);
    client.response().expect(200);
    eventually("the charge", || (standing(&gateway, NAME).spent > 0).then_some(()));
}

#[test]
fn a_request_that_a_strict_budget_cannot_limit_takes_nothing_of_a_rate() {
    let gateway = gateway("strict");
    set(&gateway, "global", "1M tokens", "total");
    gateway.run(["ratelimit", "set", "agent:tester", "1"]).expect(0);
    for _ in 0..3 {
        let request = Request::new("POST", "/openai/v1/audio/transcriptions")
            .field("Content-Type", "multipart/form-data; boundary=x")
            .body("--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--x--\r\n");
        gateway.ask(request).expect_refusal(429, "budget_exceeded");
    }
}
