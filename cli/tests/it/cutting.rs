//! What runs is ended within a second when what it stands on is taken back, in the shape of its provider; what does
//! not stand on it goes on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use policy::Basis;
use rusqlite::Connection;
use serde_json::Value;
use storage::{Outcome, RequestRow};

use crate::support::{
    Client, Conn, Gateway, Mock, PATIENCE, Request, Setup, Then, chunk, eventually, holds_for, json,
};

const CHAT: &str = "/openai/v1/chat/completions";
const GEMINI: &str = "/google/v1beta/models/gemini-2.5-flash:streamGenerateContent";
const STREAM: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const HELLO: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"},\"finish_reason\":null}]}\n\n";
/// The promise.
const AT_ONCE: Duration = Duration::from_secs(1);

fn head(content_type: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n")
}

/// A provider that sends these parts and then nothing more. It tells when it was left.
fn silent(mock: &Mock, content_type: &'static str, parts: &[&str]) -> (String, Receiver<Instant>) {
    let (left, is_left) = channel();
    let left = Mutex::new(left);
    let parts: Vec<Vec<u8>> = parts.iter().map(chunk).collect();
    let script = mock.script(move |_, conn| {
        conn.send(head(content_type))?;
        parts.iter().try_for_each(|part| conn.send(part))?;
        tell_when_left(conn, &left);
        Ok(Then::Close)
    });
    (script, is_left)
}

fn tell_when_left(conn: &mut Conn, left: &Mutex<Sender<Instant>>) {
    assert!(conn.is_closed_by_peer(), "the provider was not left");
    // A test that does not ask has dropped its end.
    let _ = left.lock().unwrap().send(Instant::now());
}

/// A provider that sends a part again and again until it is left.
fn endless(mock: &Mock, content_type: &'static str, first: &'static str, part: &'static str) -> String {
    mock.script(move |_, conn| {
        conn.send(head(content_type))?;
        conn.send(chunk(first))?;
        while conn.send(chunk(part)).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Then::Close)
    })
}

/// A stream that runs for an agent of its own.
struct Stream<'a> {
    gateway: &'a Gateway,
    agent: String,
    client: Client,
    id: String,
    seen: Vec<u8>,
}

impl<'a> Stream<'a> {
    /// Asks, and reads the answer until `text` was seen.
    #[track_caller]
    fn start(gateway: &'a Gateway, request: Request, text: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let agent = format!("cut-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let token = gateway.mint(&[&agent]);
        Self::start_with(gateway, agent, &token, request, text)
    }

    #[track_caller]
    fn start_with(gateway: &'a Gateway, agent: String, token: &str, request: Request, text: &str) -> Self {
        let mut client = gateway.tcp();
        client.send(&request.bearer(token).bytes());
        let head = client.head();
        assert_eq!(head.status, 200);
        let mut seen = Vec::new();
        if !text.is_empty() {
            client.read_until(&mut seen, text);
        }
        let id = head.get("x-tokfence-request-id").unwrap().to_owned();
        Self { gateway, agent, client, id, seen }
    }

    fn revoke(&self) -> Instant {
        self.gateway.run(["agent", "revoke", &self.agent]).expect(0);
        Instant::now()
    }

    /// Reads to the end, which must come at once and whole. Answers all of the body and the request's row.
    #[track_caller]
    fn ends(mut self, since: Instant) -> (String, RequestRow) {
        let rest = self.client.try_body().expect("a whole answer");
        let took = since.elapsed();
        assert!(took < AT_ONCE, "it took {took:?}");
        self.seen.extend_from_slice(&rest);
        self.client.expect_end();
        let row = self.gateway.row(&self.id).request;
        assert_eq!(row.outcome, Outcome::Cut);
        (String::from_utf8(self.seen).unwrap(), row)
    }
}

/// The data of each event but `[DONE]`, as JSON; names in front of it.
#[track_caller]
fn events(body: &str) -> Vec<(Option<String>, Value)> {
    assert!(body.ends_with("\n\n"), "an event is cut: {body}");
    let event = |text: &str| {
        let (name, data) = text.split_once("data: ").unwrap_or_else(|| panic!("no data: {text:?}"));
        let name = name.strip_prefix("event: ").map(|name| name.trim().to_owned());
        let data = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data:?}"));
        (name, data)
    };
    let texts = body.trim_end().split("\n\n").filter(|text| *text != "data: [DONE]");
    texts.map(event).collect()
}

/// Checks that a stream of this kind is cut at once, and that it was charged.
#[track_caller]
fn check_cut(request: Request, text: &str) -> (String, RequestRow) {
    let gateway = Gateway::shared();
    let stream = Stream::start(gateway, request, text);
    let revoked = stream.revoke();
    let (body, row) = stream.ends(revoked);
    assert_eq!((row.error_code.as_deref(), row.status), (Some("revoked_capability"), Some(200)));
    assert_eq!(row.basis, Basis::Estimated);
    assert!(row.usage.input > 0 && row.usage.output > 0, "{:?}", row.usage);
    assert!(body.contains("[tokfence] stopped: the agent `cut-"), "{body}");
    (body, row)
}

#[test]
fn a_chat_is_cut_between_two_events() {
    let gateway = Gateway::shared();
    for target in [CHAT, "/ollama/v1/chat/completions", "/google/v1beta/openai/chat/completions"] {
        let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
        let (body, _) = check_cut(Request::post(target, STREAM).script(&script), "hello");
        let body = body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {body}"));
        let events = events(body);
        let (last, before) = events.split_last().unwrap();
        assert!(before.iter().all(|(_, event)| event["choices"][0]["delta"]["content"] == "hello"));
        assert_eq!(last.1["object"], "chat.completion.chunk");
        assert_eq!(last.1["choices"][0]["finish_reason"], "content_filter");
        assert_eq!(last.1["tokfence"]["code"], "revoked_capability");
    }
}

/// Chunks are cut anywhere, and come faster than they are read.
#[test]
fn a_flood_of_parts_of_events_is_cut_between_two_events() {
    let gateway = Gateway::shared();
    for size in [7, 83, 1000, 30_000] {
        let flood = HELLO.repeat(1000);
        let script = gateway.mock.script(move |_, conn| {
            conn.send(head("text/event-stream"))?;
            let chunks: Vec<u8> = flood.as_bytes().chunks(size).flat_map(chunk).collect();
            while conn.send(&chunks).is_ok() {}
            Ok(Then::Close)
        });
        let mut stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "hello");
        let body = std::thread::scope(|scope| {
            let reader = scope.spawn(|| stream.client.try_body().expect("a whole answer"));
            gateway.run(["agent", "revoke", &stream.agent]).expect(0);
            let revoked = Instant::now();
            let body = reader.join().unwrap();
            assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
            body
        });
        let seen = [stream.seen, body].concat();
        let body = String::from_utf8(seen).unwrap();
        let events = events(body.strip_suffix("data: [DONE]\n\n").unwrap());
        let (last, before) = events.split_last().unwrap();
        assert!(before.iter().all(|(_, event)| event["choices"][0]["delta"]["content"] == "hello"));
        assert_eq!(last.1["choices"][0]["finish_reason"], "content_filter");
    }
}

#[test]
fn a_completion_is_cut() {
    let part = "data: {\"choices\":[{\"index\":0,\"text\":\"hello\"}]}\n\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post("/openai/v1/completions", STREAM).script(&script), "hello");
    let body = body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {body}"));
    let last = events(body).pop().unwrap().1;
    assert_eq!(
        (&last["object"], &last["choices"][0]["finish_reason"]),
        (&"text_completion".into(), &"content_filter".into())
    );
}

#[test]
fn a_response_is_cut() {
    let part = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hello\"}\n\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post("/openai/v1/responses", STREAM).script(&script), "hello");
    let (name, last) = events(&body).pop().unwrap();
    assert_eq!(name.as_deref(), Some("response.failed"));
    assert_eq!((&last["type"], &last["response"]["status"]), (&"response.failed".into(), &"failed".into()));
    assert_eq!(last["response"]["error"]["code"], "invalid_prompt");
}

#[test]
fn a_message_is_cut() {
    let part = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post("/anthropic/v1/messages", STREAM).script(&script), "hello");
    let (name, last) = events(&body).pop().unwrap();
    assert_eq!(name.as_deref(), Some("error"));
    assert_eq!((&last["type"], &last["error"]["type"]), (&"error".into(), &"permission_error".into()));
}

#[test]
fn a_gemini_stream_is_cut() {
    let part = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hello\"}]}}]}\r\n\r\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post(&format!("{GEMINI}?alt=sse"), "{}").script(&script), "hello");
    let last = events(&body.replace("\r\n", "\n")).pop().unwrap().1;
    assert_eq!(last["candidates"][0]["finishReason"], "OTHER");
}

#[test]
fn a_growing_array_is_cut_and_closed() {
    let element = "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"he}llo\"}]}}]}";
    let next: &'static str = format!(",\r\n{element}").leak();
    let first: &'static str = format!("[{element}").leak();
    let script = endless(&Gateway::shared().mock, "application/json; charset=UTF-8", first, next);
    let (body, _) = check_cut(Request::post(GEMINI, "{}").script(&script), "llo");
    let elements: Vec<Value> = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let (last, before) = elements.split_last().unwrap();
    assert!(before.iter().all(|element| element["candidates"][0]["content"]["parts"][0]["text"] == "he}llo"));
    assert_eq!(last["candidates"][0]["finishReason"], "OTHER");
}

#[test]
fn a_stream_of_lines_is_cut() {
    let part =
        "{\"model\":\"llama3\",\"message\":{\"role\":\"assistant\",\"content\":\"hello\"},\"done\":false}\n";
    let script = endless(&Gateway::shared().mock, "application/x-ndjson", part, part);
    let body = r#"{"model":"llama3","messages":[]}"#;
    let (body, _) = check_cut(Request::post("/ollama/api/chat", body).script(&script), "hello");
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert!(last["error"].as_str().unwrap().starts_with("[tokfence] stopped"), "{last}");
    assert_eq!(last["done"], true);
}

#[test]
fn a_silent_stream_is_cut_and_its_provider_left() {
    let gateway = Gateway::shared();
    let (script, left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "\n\n");
    let revoked = stream.revoke();
    let (body, _) = stream.ends(revoked);
    assert_eq!(events(body.strip_suffix("data: [DONE]\n\n").unwrap()).len(), 2);
    assert!(left.recv_timeout(PATIENCE).unwrap().saturating_duration_since(revoked) < AT_ONCE);
}

#[test]
fn a_stream_that_has_only_begun_is_cut() {
    let gateway = Gateway::shared();
    let (script, _) = silent(&gateway.mock, "text/event-stream", &[]);
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "");
    let revoked = stream.revoke();
    let (body, row) = stream.ends(revoked);
    assert_eq!(events(body.strip_suffix("data: [DONE]\n\n").unwrap()).len(), 1);
    assert_eq!((row.basis, row.usage.output), (Basis::Estimated, 0));
}

#[test]
fn an_event_that_stays_in_the_middle_is_closed_and_then_told_about() {
    let gateway = Gateway::shared();
    let (script, _) = silent(&gateway.mock, "text/event-stream", &[HELLO, "data: {\"choices\":[{\"half"]);
    let stream = Stream::start(
        gateway,
        Request::post(CHAT, STREAM.replace("true", "true,\"stream_options\":{\"include_usage\":true}"))
            .script(&script),
        "half",
    );
    let revoked = stream.revoke();
    let (body, _) = stream.ends(revoked);
    let (before, after) = body.split_once("half\n\n").unwrap_or_else(|| panic!("not closed: {body}"));
    assert!(before.starts_with(HELLO), "{body}");
    assert_eq!(events(after.strip_suffix("data: [DONE]\n\n").unwrap()).len(), 1);
}

/// The provider goes on in the middle of an event after the cut: the caller gets the rest of that event, and of
/// the next one nothing.
#[test]
fn an_event_that_goes_on_is_passed_to_its_end_and_not_further() {
    let gateway = Gateway::start();
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let (start, rest) = HELLO.split_at(20);
    let script = gateway.mock.script(move |_, conn| {
        conn.send(head("text/event-stream"))?;
        conn.send(chunk(start))?;
        gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        conn.send(chunk(format!("{rest}data: {{\"never\":1}}\n\n")))?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let body = STREAM.replace("true", "true,\"stream_options\":{\"include_usage\":true}");
    let stream = Stream::start(&gateway, Request::post(CHAT, body).script(&script), start);
    let database = database(&gateway);
    database.execute("UPDATE capabilities SET revoked_at_us = 1, revoke_reason = 'x'", []).unwrap();
    reload(&gateway);
    go.send(()).unwrap();
    let (body, _) = stream.ends(Instant::now());
    let rest = body.strip_prefix(HELLO).unwrap_or_else(|| panic!("the event was not ended: {body}"));
    let events = events(rest.strip_suffix("data: [DONE]\n\n").unwrap());
    assert_eq!(events.len(), 1, "{rest}");
    assert_eq!(events[0].1["tokfence"]["message"], "the capability was revoked");
}

#[test]
fn who_waits_for_the_first_byte_is_refused() {
    let gateway = Gateway::shared();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let script = gateway.mock.script(move |_, conn| {
        tell.lock().unwrap().send(Instant::now()).unwrap();
        tell_when_left(conn, &tell.lock().unwrap().clone().into());
        Ok(Then::Close)
    });
    let request = Request::post(CHAT, STREAM).script(&script);
    for (agent, request) in
        [("waits", request.clone()), ("waits-on", request.field("Expect", "100-continue"))]
    {
        let mut client = gateway.tcp();
        client.send(&request.bearer(&gateway.mint(&[agent])).bytes());
        told.recv_timeout(PATIENCE).unwrap();
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        let refusal = client.response().expect_refusal(401, "revoked_capability");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
        client.expect_end();
        assert!(told.recv_timeout(PATIENCE).unwrap().saturating_duration_since(revoked) < AT_ONCE);
        let row = gateway.row(&refusal.id()).request;
        assert_eq!((row.outcome, row.status), (Outcome::Cut, Some(401)));
        // The provider had the whole request, so it may bill it.
        assert_eq!(row.basis, Basis::Estimated);
        assert!(row.usage.input > 0);
    }
}

/// Requests without a body may be sent again by the engine, and the guard sees no end of one that is sent in chunks.
#[test]
fn other_ways_to_ask_are_refused_as_well() {
    let gateway = Gateway::shared();
    for (agent, request, body) in [
        ("asks-only", Request::get("/openai/v1/models"), ""),
        (
            "asks-in-chunks",
            Request::new("POST", CHAT)
                .field("Content-Type", "application/json")
                .field("Transfer-Encoding", "chunked"),
            "2\r\n{}\r\n0\r\n\r\n",
        ),
    ] {
        let script = gateway.mock.script(|_, conn| {
            conn.is_closed_by_peer();
            Ok(Then::Close)
        });
        let mut client = gateway.unix();
        client.send(&request.bearer(&gateway.mint(&[agent])).script(&script).bytes());
        client.send(body.as_bytes());
        gateway.mock.the_request(&script);
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        let refusal = client.response().expect_refusal(401, "revoked_capability");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        assert_eq!(gateway.row(&refusal.id()).request.outcome, Outcome::Cut);
        assert_eq!(gateway.mock.received(&script).len(), 1, "it is sent once");
    }
}

#[test]
fn a_caller_that_does_not_read_is_cut() {
    let gateway = Gateway::shared();
    let sent = Arc::new(AtomicUsize::new(0));
    let (left, is_left) = channel();
    let (left, count) = (Mutex::new(left), sent.clone());
    let large: &'static [u8] = HELLO.repeat(600).leak().as_bytes();
    let script = gateway.mock.script(move |_, conn| {
        conn.send(head("text/event-stream"))?;
        while conn.send(chunk(large)).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let _ = left.lock().unwrap().send(Instant::now());
        Ok(Then::Close)
    });
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    eventually("a provider that waits", || {
        let before = sent.load(Ordering::SeqCst);
        (before > 0 && holds_for(Duration::from_millis(300), || sent.load(Ordering::SeqCst) == before))
            .then_some(())
    });
    let revoked = stream.revoke();
    let took = is_left.recv_timeout(PATIENCE).unwrap().saturating_duration_since(revoked);
    assert!(took < AT_ONCE, "{took:?}");
    let row = gateway.row(&stream.id).request;
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Cut, Some("revoked_capability")));
    assert!(row.usage.output > 0);
    assert!(revoked.elapsed() < AT_ONCE * 2, "{:?}", revoked.elapsed());
}

/// A provider that accepts and then says nothing, so that no secure connection to it ever comes about.
#[test]
fn who_waits_for_a_connection_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tables = format!(
        "[providers.mute]\nupstream = \"https://{}\"\nlocal = true\nauth = \"none\"",
        listener.local_addr().unwrap()
    );
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    for client in [gateway.tcp(), gateway.unix()] {
        let mut client = client;
        let agent = if gateway.rows().is_empty() { "connects" } else { "connects-too" };
        client.send(
            &Request::post("/mute/v1/chat/completions", STREAM).bearer(&gateway.mint(&[agent])).bytes(),
        );
        let (mut connection, _) = listener.accept().unwrap();
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        let refusal = client.response().expect_refusal(401, "revoked_capability");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        client.expect_end();
        connection.set_read_timeout(Some(AT_ONCE)).unwrap();
        std::io::copy(&mut connection, &mut std::io::sink()).expect("the provider is left at once");
        let row = gateway.row(&refusal.id()).request;
        assert_eq!((row.outcome, row.status), (Outcome::Cut, Some(401)));
        assert_eq!((row.basis, row.cost.map(policy::NanoUsd::nanos)), (Basis::None, Some(0)));
    }
    assert_eq!(in_flight(&gateway), 0);
}

#[test]
fn an_answer_that_is_no_stream_breaks_off() {
    let gateway = Gateway::shared();
    // More than the gateway keeps back of an answer whose length is known.
    let start = format!("{{\"hello\":\"{}", "x".repeat(10_000));
    for (agent, fields, part) in [
        ("breaks-sized", "Content-Length: 20000", start.clone().into_bytes()),
        ("breaks-chunked", "Transfer-Encoding: chunked", chunk(&start)),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}\r\n\r\n");
        let script = gateway.mock.script(move |_, conn| {
            conn.send(&head)?;
            conn.send(&part)?;
            conn.is_closed_by_peer();
            Ok(Then::Close)
        });
        let mut client = gateway.tcp();
        client.send(&Request::post(CHAT, STREAM).bearer(&gateway.mint(&[agent])).script(&script).bytes());
        let id = client.head().get("x-tokfence-request-id").unwrap().to_owned();
        client.read_until(&mut Vec::new(), "hello");
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        assert!(client.try_body().is_err(), "the caller must see that the answer is not whole");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        assert_eq!(gateway.row(&id).request.outcome, Outcome::Cut);
    }
}

#[test]
fn other_agents_go_on() {
    let gateway = Gateway::shared();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let request = Request::post(CHAT, STREAM).script(&script);
    let mut other = Stream::start(gateway, request.clone(), "hello");
    for _ in 0..3 {
        let stream = Stream::start(gateway, request.clone(), "hello");
        let revoked = stream.revoke();
        stream.ends(revoked);
        let mut seen = Vec::new();
        while seen.len() < HELLO.len() * 20 {
            seen.extend_from_slice(&other.client.part().expect("the other stream goes on"));
        }
        assert!(!String::from_utf8(seen).unwrap().contains("tokfence"));
    }
}

#[test]
fn the_next_request_of_a_kept_connection_is_not_cut_for_the_one_before() {
    let gateway = Gateway::shared();
    let (first, second) = (gateway.mint(&["kept-1"]), gateway.mint(&["kept-2"]));
    let mut client = gateway.tcp();
    let script = gateway.mock.plays(json("{}"));
    client.ask(&Request::post(CHAT, STREAM).bearer(&first).script(&script)).expect(200);
    let (script, _left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    client.send(&Request::post(CHAT, STREAM).bearer(&second).script(&script).bytes());
    client.head();
    client.read_until(&mut Vec::new(), "hello");
    gateway.run(["agent", "revoke", "kept-1"]).expect(0);
    gateway.run(["agent", "revoke", "kept-2"]).expect(0);
    let body = String::from_utf8(client.try_body().unwrap()).unwrap();
    assert!(body.contains("[tokfence] stopped: the agent `kept-2` was revoked"), "{body}");
    client.expect_end();
}

/// The database, as another process sees it.
fn database(gateway: &Gateway) -> Connection {
    let connection = Connection::open(gateway.home.file("tokfence.db")).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection
}

#[track_caller]
fn reload(gateway: &Gateway) {
    let socket = gateway.home.file("control/control.sock");
    gateway::control::ask(&socket, &gateway::control::Command::Reload, PATIENCE).unwrap();
}

fn in_flight(gateway: &Gateway) -> u64 {
    gateway.run(["--json", "status"]).expect(0).json()["in_flight"].as_u64().unwrap()
}

#[test]
fn an_edit_of_the_database_is_noticed() {
    let gateway = Gateway::shared();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    let sql = "UPDATE capabilities SET revoked_at_us = 1, revoke_reason = 'x' WHERE agent = ?1";
    assert_eq!(database(gateway).execute(sql, [&stream.agent]).unwrap(), 1);
    let (body, row) = stream.ends(Instant::now());
    assert_eq!(row.error_code.as_deref(), Some("revoked_capability"));
    assert!(body.contains("[tokfence] stopped: the capability was revoked"), "{body}");
}

#[test]
fn a_capability_that_ends_ends_its_streams() {
    let gateway = Gateway::shared();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let minted = Instant::now();
    let token = gateway.mint(&["ends", "--ttl", "2s"]);
    let request = Request::post(CHAT, STREAM).script(&script);
    let stream = Stream::start_with(gateway, "ends".to_owned(), &token, request, "hello");
    let (body, row) = stream.ends(minted + Duration::from_secs(2));
    assert!(minted.elapsed() > Duration::from_millis(1900), "{:?}", minted.elapsed());
    assert_eq!(row.error_code.as_deref(), Some("expired_capability"));
    assert!(body.contains("[tokfence] stopped: the capability has expired"), "{body}");
}

#[test]
fn a_provider_that_is_revoked_is_left_and_others_are_not() {
    let gateway = Gateway::start();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let cut = Stream::start(&gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    let other = Request::post("/mistral/v1/chat/completions", STREAM).script(&script);
    let mut kept = Stream::start(&gateway, other, "hello");
    database(&gateway).execute("INSERT INTO revoked_providers VALUES ('openai', 1, 'x')", []).unwrap();
    let (body, row) = cut.ends(Instant::now());
    assert_eq!(row.error_code.as_deref(), Some("provider_revoked"));
    assert!(body.contains("the provider `openai` was revoked"), "{body}");
    let mut seen = Vec::new();
    while seen.len() < HELLO.len() * 20 {
        seen.extend_from_slice(&kept.client.part().expect("the other stream goes on"));
    }
}

/// Everything at once: streams, a caller that waits, and one whose provider does not answer its hello.
#[test]
fn the_kill_switch_ends_everything_and_leaves_nothing() {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);
    let gateway = &*GATEWAY;
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let (mute, left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    let ask = |script: &str| {
        let request = Request::post(CHAT, STREAM).script(script);
        Stream::start_with(gateway, String::new(), &gateway.token, request, "hello")
    };
    let streams: Vec<Stream<'_>> = (0..30).map(|n| ask(if n % 2 == 0 { &script } else { &mute })).collect();
    database(gateway).execute("INSERT INTO kill_switch VALUES (1, 1, 'x')", []).unwrap();
    let killed = Instant::now();
    let (slowest, rows) = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .into_iter()
            .map(|stream| {
                scope.spawn(move || {
                    let row = stream.ends(killed).1;
                    (killed.elapsed(), row)
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        (ended.iter().map(|(took, _)| *took).max(), ended.into_iter().map(|(_, row)| row).collect::<Vec<_>>())
    });
    assert!(slowest < Some(AT_ONCE * 3), "{slowest:?}");
    assert!(rows.iter().all(|row| row.error_code.as_deref() == Some("killed") && row.usage.output > 0));
    assert!(left.recv_timeout(PATIENCE).is_ok());
    gateway.ask(Request::post(CHAT, STREAM)).expect_refusal(403, "killed");
    eventually("the end of all requests", || (in_flight(gateway) == 0).then_some(()));
    database(gateway).execute("DELETE FROM kill_switch", []).unwrap();
    reload(gateway);
    gateway.ask(Request::post(CHAT, STREAM)).expect(200);
}

#[test]
fn locking_cuts_what_runs_unless_it_may_finish() {
    let gateway = Gateway::start();
    let (script, _left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    let start = || Stream::start(&gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    let stream = start();
    gateway.run(["lock"]).expect(0);
    let (_, row) = stream.ends(Instant::now());
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Cut, Some("vault_locked")));
    gateway.ask(Request::post(CHAT, STREAM)).expect_refusal(503, "vault_locked");
    gateway.run(["unlock"]).expect(0);
    let gated = gateway.mock.plays(crate::support::sse(&[HELLO, "data: [DONE]\n\n"]));
    gateway.ask(Request::post(CHAT, STREAM).script(&gated)).expect(200);
    let stream = start();
    gateway.run(["lock", "--let-finish"]).expect(0);
    assert!(holds_for(Duration::from_millis(400), || in_flight(&gateway) == 1), "it goes on");
    drop(stream);
}
