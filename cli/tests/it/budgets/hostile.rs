//! Ways around a budget, and numbers that no provider means.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use policy::Basis;

use super::{CHAT, OUTPUT_NANOS, answer, cost, gateway, question, set, standing, usd};
use crate::support::{Client, Gateway, Request, Setup, Then, chunk, eventually, json};

const NAME: &str = "agent:tester/total";

#[test]
fn costs_beyond_reason_stop_neither_the_log_nor_the_budgets() {
    let gateway = gateway("rolling");
    set(&gateway, "agent:tester", "100000000", "total");
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
fn what_is_made_in_the_background_is_refused_where_a_budget_applies() {
    let body = r#"{"model":"gpt-4o","background":true,"input":"x"}"#;
    for reserve in ["rolling", "strict"] {
        let gateway = gateway(reserve);
        let ask = || gateway.ask(Request::post("/openai/v1/responses", body));
        ask().expect(200);
        set(&gateway, "agent:tester", "10", "total");
        ask().expect_refusal(429, "budget_exceeded");
    }
}

/// The body that the provider gets in a strict budget that affords five hundred tokens of gpt-4o, or the code of the
/// refusal.
#[track_caller]
fn sent(gateway: &Gateway, target: &str, body: &str) -> Result<serde_json::Value, String> {
    let script = gateway.mock.plays(json(answer(1, 1)));
    let response = gateway.ask(Request::post(target, body).script(&script));
    if response.status() != 200 {
        return Err(response.code().to_owned());
    }
    Ok(serde_json::from_slice(&gateway.mock.the_request(&script).body).unwrap())
}

#[test]
fn a_limit_that_the_provider_passes_over_is_none() {
    let gateway = gateway("strict");
    set(&gateway, "global", "0.005", "total");
    set(&gateway, "ollama", "700 tokens", "total");
    let limit = |target: &str, body: &str, pointer: &str| {
        let sent = sent(&gateway, target, body).unwrap_or_else(|code| panic!("{target} {body}: {code}"));
        let limit = sent.pointer(pointer).and_then(serde_json::Value::as_u64);
        assert!(limit.is_some_and(|limit| (256..700).contains(&limit)), "{target}: {sent}");
    };
    let openrouter = "/openrouter/v1/chat/completions";
    limit(openrouter, r#"{"model":"openai/gpt-4o","max_output_tokens":1,"messages":[]}"#, "/max_tokens");
    limit("/openai/v1/responses", r#"{"model":"gpt-4o","max_tokens":1,"input":"x"}"#, "/max_output_tokens");
    limit("/ollama/api/chat", r#"{"model":"m","max_tokens":1,"messages":[]}"#, "/options/num_predict");
    let unlimited = r#"{"model":"m","options":{"num_predict":0},"messages":[]}"#;
    limit("/ollama/api/chat", unlimited, "/options/num_predict");
    let null = r#"{"model":"gpt-4o","max_tokens":null,"messages":[]}"#;
    limit(CHAT, null, "/max_completion_tokens");
}

#[test]
fn an_answer_that_cannot_be_limited_is_refused_by_a_strict_budget() {
    let gateway = gateway("strict");
    set(&gateway, "agent:tester", "3000 tokens", "total");
    for (target, body) in [
        ("/openai/v1/images/generations", r#"{"model":"gpt-image-1","max_tokens":1,"prompt":"x"}"#),
        ("/openai/v1/audio/speech", r#"{"model":"gpt-4o-mini-tts","max_tokens":1,"input":"x"}"#),
        ("/mistral/v1/conversations", r#"{"model":"mistral-large-latest","max_tokens":1,"inputs":"x"}"#),
    ] {
        assert_eq!(sent(&gateway, target, body).unwrap_err(), "budget_exceeded", "{target}");
    }
}

#[test]
fn each_prompt_of_a_list_gets_an_answer_and_each_is_reserved() {
    let gateway = gateway("strict");
    let body = |prompts: usize| {
        let prompts = vec!["x"; prompts];
        serde_json::json!({"model": "gpt-3.5-turbo-instruct", "max_tokens": 300, "prompt": prompts})
            .to_string()
    };
    // Two dollars for a million tokens of output.
    let room = 4 * 300 * 2_000;
    set(&gateway, "agent:tester", &usd(room), "total");
    let target = "/openai/v1/completions";
    let limit = sent(&gateway, target, &body(4)).unwrap()["max_tokens"].as_i64().unwrap();
    assert!((256..300).contains(&limit) && 4 * limit * 2_000 < room, "{limit}");
    assert_eq!(sent(&gateway, target, &body(5)).unwrap_err(), "budget_exceeded");
}

/// A provider that is left may go on, and bill all that it was asked for.
#[test]
fn a_caller_that_leaves_does_not_pass_a_strict_budget() {
    let gateway = gateway("strict");
    let limit = 3 * cost(100, 1_000);
    set(&gateway, "agent:tester", &usd(limit), "total");
    let ended = || gateway.rows().iter().map(|row| row.repeats).sum::<u64>();
    let mut asked = 0;
    for number in 1..=6 {
        let script = gateway.mock.script(|_, conn| {
            conn.is_closed_by_peer();
            Ok(Then::Close)
        });
        let mut client = gateway.tcp();
        client.send(&question(&script, 1_000).bearer(&gateway.token).bytes());
        asked += eventually("the request to be sent or refused", || {
            let is_sent = !gateway.mock.received(&script).is_empty();
            (is_sent || ended() == number).then_some(i64::from(is_sent))
        });
        drop(client);
        eventually("its row", || (ended() == number).then_some(()));
    }
    let billed = asked * cost(10, 1_000);
    assert!(asked >= 2 && billed <= limit, "{billed} billed of {limit}");
    let now = standing(&gateway, NAME);
    assert!(now.spent >= billed && now.spent <= limit && now.reserved == 0, "{now:?}");
    let rows = gateway.rows();
    let logged: i64 = rows.iter().filter_map(|row| row.request.cost).map(policy::NanoUsd::nanos).sum();
    assert_eq!(logged, now.spent, "the log says the same");
}

#[test]
fn a_stream_is_not_cut_below_its_own_limit_where_the_budget_affords_that() {
    let tables = "[budget]\nslice_tokens = 1000\n".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    let body = r#"{"model":"gpt-4o","stream":true,"max_tokens":1300,"messages":[]}"#;
    set(&gateway, "agent:tester", &usd(1_350 * OUTPUT_NANOS), "total");
    let script = gateway.mock.script(|_, conn| {
        conn.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        for number in 0..12 {
            let text = format!("{number:_<300}");
            let choice = format!(r#"{{"index":0,"delta":{{"content":"{text}"}}}}"#);
            conn.send(chunk(format!("data: {{\"id\":\"c\",\"choices\":[{choice}]}}\n\n")))?;
            std::thread::sleep(Duration::from_millis(30));
        }
        conn.send(chunk("data: [DONE]\n\n"))?;
        conn.send(b"0\r\n\r\n").map(|()| Then::Keep)
    });
    let response = gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    let text = response.text();
    assert!(text.matches("delta").count() == 12 && !text.contains("tokfence"), "{text}");
}

/// A limit of another API's name is no reason to let a stream run uncovered.
#[test]
fn a_stream_whose_limit_does_not_count_is_cut() {
    let tables = "[budget]\nslice_tokens = 1000\n".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    let body = r#"{"model":"openai/gpt-4o","stream":true,"max_output_tokens":1,"messages":[]}"#;
    set(&gateway, "agent:tester", &usd(1_500 * OUTPUT_NANOS), "total");
    let script = gateway.mock.script(|_, conn| {
        conn.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        let choice = format!(r#"{{"index":0,"delta":{{"content":"{:_<300}"}}}}"#, "");
        for _ in 0..3_000 {
            if conn.send(chunk(format!("data: {{\"id\":\"c\",\"choices\":[{choice}]}}\n\n"))).is_err() {
                return Ok(Then::Close);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        conn.send(b"0\r\n\r\n").map(|()| Then::Keep)
    });
    let request = Request::post("/openrouter/v1/chat/completions", body).script(&script);
    let response = gateway.ask(request).expect(200);
    assert!(response.text().contains("budget_exceeded"), "it was let through to its end");
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

#[test]
fn a_database_that_is_replaced_is_noticed_and_no_command_says_that_it_holds() {
    let gateway = gateway("rolling");
    let ask = || gateway.ask(question("", 10));
    ask().expect(200);
    gateway.rest();
    let files = ["tokfence.db", "tokfence.db-wal", "tokfence.db-shm"].map(|name| gateway.home.file(name));
    let aside = files.each_ref().map(|file| {
        file.with_extension("aside")
            .with_file_name(format!("aside-{}", file.file_name().unwrap().to_str().unwrap()))
    });
    for (file, aside) in files.iter().zip(&aside) {
        fs::rename(file, aside).unwrap();
        fs::copy(aside, file).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let set = gateway.run(["budget", "set", "openai", "0", "daily"]);
    assert!(set.code != Some(0) && set.stderr.contains("keeps its old state"), "{set:?}");
    eventually("requests to be refused", || (ask().status() != 200).then_some(()));
    ask().expect_refusal(503, "state_unavailable");
    for (file, aside) in files.iter().zip(&aside) {
        fs::rename(aside, file).unwrap();
    }
    eventually("requests to be served again", || (ask().status() == 200).then_some(()));
}

/// The limit of an embedding model is one for each text, and there may be two thousand of them.
#[test]
fn many_texts_to_embed_are_reserved_by_their_bytes() {
    let gateway = gateway("strict");
    set(&gateway, "agent:tester", "10k tokens", "total");
    let texts = vec!["word ".repeat(200); 20];
    let body = serde_json::json!({"model": "text-embedding-3-small", "input": texts}).to_string();
    assert_eq!(sent(&gateway, "/openai/v1/embeddings", &body).unwrap_err(), "budget_exceeded");
}

#[test]
fn a_fallback_that_answers_is_charged_its_own_price() {
    let tables = "[budget]\nunknown_model = \"charge_max\"\n".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    set(&gateway, "agent:tester", "100", "total");
    let answer = answer(0, 1_000).replace("gpt-4o", "openai/gpt-4o");
    let script = gateway.mock.plays(json(&answer));
    let body = r#"{"model":"openai/gpt-4o-mini","models":["openai/gpt-4o"],"messages":[]}"#;
    let request = Request::post("/openrouter/v1/chat/completions", body).script(&script);
    let row = gateway.row(&gateway.ask(request).expect(200).id()).request;
    assert_eq!(row.cost.map(policy::NanoUsd::nanos), Some(cost(0, 1_000)));
}
