//! Ways around a budget, and numbers that no provider means.

use policy::Basis;

use super::{answer, gateway, question, set, standing};
use crate::support::{Request, json};

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
