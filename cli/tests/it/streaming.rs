//! Streams: each event reaches the caller when the provider sends it, and the bytes are the provider's own.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use policy::{Basis, Usage};

use crate::support::{Gateway, Mock, PATIENCE, Request, Then, chunk, sse};

const CHAT: &str = "/openai/v1/chat/completions";
const ASKED: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
const UNASKED: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#;

const EVENTS: [&str; 4] = [
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}],\"usage\":null}\n\n",
    ": keep-alive\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
];
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":5,\"total_tokens\":25,\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const REPORTED: Usage = Usage { input: 12, cache_read: 8, output: 5, ..Usage::NONE };

/// A script that sends each part when it is told to, and not before.
fn gated(mock: &Mock, content_type: &'static str, parts: Vec<String>) -> (String, Sender<()>) {
    let (go, gate) = channel();
    let gate = Mutex::new(gate);
    let script = mock.script(move |_, conn| {
        let gate = gate.lock().unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        conn.send(head)?;
        for part in &parts {
            gate.recv_timeout(PATIENCE).unwrap();
            conn.send(chunk(part))?;
        }
        gate.recv_timeout(PATIENCE).unwrap();
        conn.send(b"0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    (script, go)
}

/// Checks that the caller sees each part before the provider sends the next, and in the end exactly `shown`.
#[track_caller]
fn check_live(
    target: &str,
    body: &str,
    content_type: &'static str,
    parts: &[&str],
    shown: &[&str],
) -> String {
    let gateway = Gateway::shared();
    let owned = parts.iter().map(|part| (*part).to_owned()).collect();
    let (script, go) = gated(&gateway.mock, content_type, owned);
    let mut client = gateway.tcp();
    client.send(&Request::post(target, body).bearer(&gateway.token).script(&script).bytes());
    let head = client.head();
    assert_eq!((head.status, head.get("content-type")), (200, Some(content_type)));
    let mut seen = Vec::new();
    for part in parts {
        go.send(()).unwrap();
        if shown.contains(part) {
            client.read_until(&mut seen, part);
        }
    }
    go.send(()).unwrap();
    while let Some(part) = client.part() {
        seen.extend_from_slice(&part);
    }
    assert_eq!(String::from_utf8(seen).unwrap(), shown.concat());
    head.get("x-tokfence-request-id").unwrap().to_owned()
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let parts = [&EVENTS[..], &[USAGE, DONE]].concat();
    let id = check_live(CHAT, ASKED, "text/event-stream", &parts, &parts);
    let row = Gateway::shared().row(&id).request;
    assert!(row.is_streaming);
    assert_eq!((row.basis, row.usage), (Basis::Reported, REPORTED));
    assert!(row.first_byte_us.is_some_and(|first| first <= row.latency_us));
    assert_eq!(row.response_bytes, parts.concat().len() as u64);
}

#[test]
fn events_arrive_one_by_one_while_the_usage_that_nobody_asked_for_is_left_out() {
    let parts = [&EVENTS[..], &[USAGE, DONE]].concat();
    let shown = [&EVENTS[..], &[DONE]].concat();
    let id = check_live(CHAT, UNASKED, "text/event-stream", &parts, &shown);
    let row = Gateway::shared().row(&id).request;
    assert_eq!((row.basis, row.usage), (Basis::Reported, REPORTED));
}

#[test]
fn lines_of_json_arrive_one_by_one() {
    let parts = [
        "{\"model\":\"llama3\",\"message\":{\"role\":\"assistant\",\"content\":\"Hel\"},\"done\":false}\n",
        "{\"model\":\"llama3\",\"message\":{\"role\":\"assistant\",\"content\":\"lo\"},\"done\":false}\n",
        "{\"model\":\"llama3\",\"done\":true,\"prompt_eval_count\":26,\"eval_count\":3}\n",
    ];
    let body = r#"{"model":"llama3","messages":[]}"#;
    let id = check_live("/ollama/api/chat", body, "application/x-ndjson", &parts, &parts);
    let row = Gateway::shared().row(&id).request;
    assert!(row.is_streaming);
    assert_eq!(row.usage, Usage { input: 26, output: 3, ..Usage::default() });
    assert_eq!(row.cost.map(policy::NanoUsd::nanos), Some(0));
}

#[test]
fn elements_of_a_growing_array_arrive_one_by_one() {
    let parts = [
        "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hel\"}]}}],\"usageMetadata\":{\"promptTokenCount\":4}}",
        ",\r\n{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"lo\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":2,\"totalTokenCount\":6}}",
        "\n]",
    ];
    let target = "/google/v1beta/models/gemini-2.5-flash:streamGenerateContent";
    let id = check_live(target, r#"{"contents":[]}"#, "application/json; charset=UTF-8", &parts, &parts);
    let row = Gateway::shared().row(&id).request;
    assert!(row.is_streaming);
    assert_eq!(row.model.unwrap().as_str(), "gemini-2.5-flash");
    assert_eq!(row.usage, Usage { input: 4, output: 2, ..Usage::default() });
}

#[test]
fn a_stream_that_is_not_asked_for_its_usage_is_asked_on_the_way() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(sse(&EVENTS));
    gateway.ask(Request::post(CHAT, UNASKED).script(&script)).expect(200);
    let sent: serde_json::Value = serde_json::from_slice(&gateway.mock.the_request(&script).body).unwrap();
    assert_eq!(sent["stream_options"]["include_usage"], true);
    assert_eq!((&sent["model"], &sent["stream"]), (&"gpt-4o-mini".into(), &true.into()));
}

#[test]
fn a_body_that_asks_already_is_not_touched() {
    let gateway = Gateway::shared();
    let not_streamed = r#"{"model":"gpt-4o-mini","stream":false,"messages":[]}"#;
    for (target, body) in [
        (CHAT, ASKED),
        (CHAT, not_streamed),
        ("/openai/v1/responses", UNASKED),
        ("/anthropic/v1/messages", UNASKED),
        ("/mistral/v1/chat/completions", UNASKED),
    ] {
        let script = gateway.mock.plays(sse(&EVENTS));
        gateway.ask(Request::post(target, body).script(&script)).expect(200);
        assert_eq!(gateway.mock.the_request(&script).text(), body, "{target}");
    }
}

#[test]
fn a_caller_that_wants_no_usage_gets_none_and_the_log_has_it() {
    let gateway = Gateway::shared();
    let body =
        r#"{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":false},"messages":[]}"#;
    let script = gateway.mock.plays(sse(&[EVENTS[1], USAGE, DONE]));
    let answer = gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    assert_eq!(answer.text(), [EVENTS[1], DONE].concat());
    assert_eq!(gateway.row(&answer.id()).request.usage, REPORTED);
}

#[test]
fn where_a_stream_is_cut_into_pieces_changes_nothing() {
    let gateway = Gateway::shared();
    let whole = [&EVENTS[..], &[USAGE, DONE]].concat().concat();
    let shown = [&EVENTS[..], &[DONE]].concat().concat();
    for size in [1, 7, 64, 333, 100_000] {
        let pieces: Vec<String> =
            whole.as_bytes().chunks(size).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let script = gateway.mock.plays(sse(&pieces));
        let answer = gateway.ask(Request::post(CHAT, UNASKED).script(&script)).expect(200);
        assert_eq!(answer.text(), shown, "in pieces of {size}");
        assert_eq!(gateway.row(&answer.id()).request.usage, REPORTED, "in pieces of {size}");
    }
}

#[test]
fn a_stream_that_ends_with_its_connection_is_whole() {
    let gateway = Gateway::shared();
    let script = gateway.mock.script(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
        conn.send([&EVENTS[..], &[USAGE, DONE]].concat().concat())?;
        Ok(Then::Close)
    });
    let answer = gateway.ask(Request::post(CHAT, UNASKED).script(&script)).expect(200);
    assert_eq!(answer.text(), [&EVENTS[..], &[DONE]].concat().concat());
    assert_eq!(gateway.row(&answer.id()).request.usage, REPORTED);
}

#[test]
fn a_stream_with_a_length_stays_readable_when_its_usage_is_left_out() {
    let gateway = Gateway::shared();
    let body = [&EVENTS[..], &[USAGE, DONE]].concat().concat();
    let script = gateway.mock.plays(crate::support::answer_with(
        "200 OK",
        "Content-Type: text/event-stream\r\n",
        body,
    ));
    let mut client = gateway.tcp();
    for _ in 0..2 {
        let answer =
            client.ask(&Request::post(CHAT, UNASKED).bearer(&gateway.token).script(&script)).expect(200);
        assert_eq!(answer.text(), [&EVENTS[..], &[DONE]].concat().concat());
    }
}

#[test]
fn an_error_instead_of_a_stream_is_passed_on() {
    let gateway = Gateway::shared();
    let error = r#"{"error":{"message":"no","type":"invalid_request_error","code":"x"},"usage":{}}"#;
    let script = gateway.mock.plays(crate::support::answer("400 Bad Request", error));
    let answer = gateway.ask(Request::post(CHAT, UNASKED).script(&script)).expect(400);
    assert_eq!(answer.text(), error);
    let row = gateway.row(&answer.id()).request;
    assert_eq!((row.status, row.error_code.as_deref()), (Some(400), Some("upstream_error")));
    assert_eq!((row.basis, row.cost.map(policy::NanoUsd::nanos)), (Basis::None, Some(0)));
}
