//! Budgets hold: whatever comes at once, whoever dies, however a request ends.

mod concurrency;
mod crash;
mod edits;
mod endings;
mod grants;
mod hostile;
mod reserve;
mod streams;
mod walk;

use serde_json::Value;

use crate::support::{Gateway, Request, Setup};

const CHAT: &str = "/openai/v1/chat/completions";
/// What gpt-4o costs, in nano-dollars a token.
const INPUT_NANOS: i64 = 2_500;
const OUTPUT_NANOS: i64 = 10_000;

/// A gateway whose budgets reserve in this way: `rolling` or `strict`.
fn gateway(reserve: &str) -> Gateway {
    let tables = format!("[budget]\nreserve = \"{reserve}\"\n");
    Gateway::start_with(&Setup { tables, ..Setup::default() })
}

/// A question to gpt-4o with a limit on the answer, at the ordinary rates.
fn question(script: &str, max_tokens: u64) -> Request {
    let body =
        format!(r#"{{"model":"gpt-4o","max_tokens":{max_tokens},"service_tier":"default","messages":[]}}"#);
    Request::post(CHAT, body).script(script)
}

/// An answer with this usage.
fn answer(input: u64, output: u64) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}}}"#,
        input + output
    )
}

/// The nano-dollars that such an answer costs.
fn cost(input: u64, output: u64) -> i64 {
    i64::try_from(input).unwrap() * INPUT_NANOS + i64::try_from(output).unwrap() * OUTPUT_NANOS
}

/// A budget as `budget status --json` tells it, in nano-dollars or tokens.
#[derive(Debug, PartialEq)]
struct Standing {
    limit: i64,
    spent: i64,
    forfeited: i64,
    reserved: i64,
}

#[track_caller]
fn standing(gateway: &Gateway, name: &str) -> Standing {
    let document = gateway.run(["--json", "budget", "status"]).expect(0).json();
    let budgets = document["budgets"].as_array().unwrap();
    let budget = budgets.iter().find(|budget| budget["name"] == name);
    let budget = budget.unwrap_or_else(|| panic!("there is no budget {name}: {document:#}"));
    Standing {
        limit: amount(&budget["limit"]),
        spent: amount(&budget["spent"]),
        forfeited: amount(&budget["forfeited"]),
        reserved: amount(&budget["reserved"]),
    }
}

#[track_caller]
fn amount(document: &Value) -> i64 {
    match document["usd"].as_str() {
        Some(usd) => usd.parse::<policy::NanoUsd>().unwrap().nanos(),
        None => document["tokens"].as_i64().unwrap(),
    }
}

/// Sets a budget and answers what the command printed.
#[track_caller]
fn set(gateway: &Gateway, subject: &str, amount: &str, period: &str) -> String {
    gateway.run(["budget", "set", subject, amount, period]).expect(0).stdout
}

/// Nano-dollars as they are typed.
fn usd(nanos: i64) -> String {
    policy::NanoUsd::from_nanos(nanos).to_string()
}
