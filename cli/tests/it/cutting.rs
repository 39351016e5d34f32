//! What runs is ended within a second when what it stands on is taken back, in the shape of its provider; what does
//! not stand on it goes on.

mod shapes;
mod stages;
mod causes;

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

    /// Reads to the end, which must come whole, and answers how long that took. What never ends is not waited for.
    #[track_caller]
    fn read_to_end(&mut self, since: Instant) -> Duration {
        while let Some(part) = self.client.try_part().expect("a whole answer") {
            self.seen.extend_from_slice(&part);
            assert!(since.elapsed() < PATIENCE, "it does not end");
        }
        since.elapsed()
    }

    /// Reads to the end, which must come at once and whole. Answers all of the body and the request's row.
    #[track_caller]
    fn ends(mut self, since: Instant) -> (String, RequestRow) {
        let took = self.read_to_end(since);
        assert!(took < AT_ONCE, "it took {took:?}");
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
