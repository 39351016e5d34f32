//! What the owner is told, and that nobody waits for whom it is told to.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Gateway, Home, Mock, Request, Setup, answer_with, eventually};

const CHAT: &str = "/openai/v1/chat/completions";

/// A gateway that posts its notices to `path` of this listener.
fn gateway(listener: &Mock, path: &str) -> Gateway {
    let tables = format!("[notifications]\nwebhook = \"http://{}{path}\"\n", listener.address);
    Gateway::start_with(&Setup { tables, ..Setup::default() })
}

fn question(content: &str) -> Request {
    let messages = json!([{ "role": "user", "content": content }]);
    Request::post(CHAT, json!({ "model": "gpt-4o-mini", "max_tokens": 10, "messages": messages }).to_string())
}

/// The documents that were posted, once there are so many.
#[track_caller]
fn posted(listener: &Mock, count: usize) -> Vec<Value> {
    let received = eventually("a notice", || {
        let received = listener.unasked();
        (received.len() >= count).then_some(received)
    });
    received.iter().map(|received| serde_json::from_str(&received.text()).unwrap()).collect()
}

#[test]
fn budgets_and_risk_are_posted_to_the_address_of_the_owner() {
    let listener = Mock::start();
    let gateway = gateway(&listener, "/hooks/T0KEN?key=s3cret");
    gateway.run(["budget", "set", "agent:tester", "100 tokens", "daily"]).expect(0);
    gateway.ask(question("hello").script(&gateway.mock.plays(answer()))).expect(200);
    let told = posted(&listener, 1).remove(0);
    assert_eq!((&told["kind"], &told["level"]), (&json!("budget_warning"), &json!("warning")), "{told}");
    assert_eq!(told["details"]["budget"], "agent:tester/daily/tokens", "{told}");
    let request = listener.unasked().remove(0);
    assert_eq!(request.line(), "POST /hooks/T0KEN?key=s3cret HTTP/1.1");
    assert!(request.get("authorization").is_none() && request.get("cookie").is_none());

    gateway.run(["budget", "clear", "agent:tester"]).expect(0);
    let decoy =
        gateway.run(["--json", "canary", "add", "spare", "--kind", "decoy"]).expect(0).json()["value"]
            .clone();
    let decoy = decoy.as_str().unwrap();
    gateway.ask(question(decoy)).expect_refusal(403, "secret_in_request");
    let told = posted(&listener, 2).remove(1);
    assert_eq!((&told["kind"], &told["level"]), (&json!("risk"), &json!("critical")), "{told}");
    assert_eq!(told["details"]["signal"], "decoy_in_request", "{told}");
    assert!(!told.to_string().contains(decoy), "{told}");
}

/// A `notify-send` that writes down with what it was called, a line each time: a search path on which it comes first, and
/// the file.
#[cfg(target_os = "linux")]
pub(crate) fn notify_send(home: &Home) -> (OsString, PathBuf) {
    let (folder, shown) = (home.file("desktop"), home.file("shown"));
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("notify-send");
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}\n", shown.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).unwrap();
    (path, shown)
}

/// An answer of ninety tokens.
fn answer() -> Vec<u8> {
    let usage = json!({ "prompt_tokens": 80, "completion_tokens": 10, "total_tokens": 90 });
    let message = json!({ "role": "assistant", "content": "Hi" });
    let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
    let body = json!({ "id": "c", "object": "chat.completion", "model": "gpt-4o-mini", "choices": choices, "usage": usage });
    answer_with("200 OK", "Content-Type: application/json\r\n", body.to_string())
}

#[test]
fn an_address_that_never_answers_holds_up_no_request_and_no_stop() {
    // It takes connections and never says anything.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tables = format!("[notifications]\nwebhook = \"http://{}/\"\n", silent.local_addr().unwrap());
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    gateway.run(["budget", "set", "agent:tester", "100 tokens", "daily"]).expect(0);
    gateway.ask(question("hello").script(&gateway.mock.plays(answer()))).expect(200);
    drop(silent.accept().unwrap());
    gateway.run(["budget", "clear", "agent:tester"]).expect(0);
    let since = Instant::now();
    gateway.ask(question("hello")).expect(200);
    gateway.run(["stop"]).expect(0);
    assert!(since.elapsed() < Duration::from_secs(9), "{:?}", since.elapsed());
}

#[cfg(target_os = "linux")]
#[test]
fn budgets_and_risk_are_shown_on_the_desktop() {
    let tables = "[notifications]\ndesktop = true\n".to_owned();
    let mut gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    gateway.run(["stop"]).expect(0);
    let (path, shown) = notify_send(&gateway.home);
    gateway.start_again_as(|command| command.env("PATH", path));
    let notes = |count: usize| {
        eventually("a note on the desktop", || {
            let notes = std::fs::read_to_string(&shown).ok()?;
            (notes.lines().count() >= count).then_some(notes)
        })
    };
    gateway.run(["budget", "set", "agent:tester", "100 tokens", "daily"]).expect(0);
    gateway.ask(question("hello").script(&gateway.mock.plays(answer()))).expect(200);
    assert_eq!(
        notes(1),
        "--app-name tokfence --urgency normal -- tokfence: 90 % of the budget agent:tester/daily/tokens is spent \
         (90 tokens of 100 tokens)\n"
    );
    gateway.run(["budget", "clear", "agent:tester"]).expect(0);
    let decoy = gateway.run(["--json", "canary", "add", "spare", "--kind", "decoy"]).expect(0).json();
    gateway.ask(question(decoy["value"].as_str().unwrap())).expect_refusal(403, "secret_in_request");
    let notes = notes(2);
    let second = notes.lines().nth(1).unwrap();
    assert!(
        second.starts_with("--app-name tokfence --urgency critical -- tokfence: the agent `tester` is RED"),
        "{second}"
    );
}

#[test]
fn the_address_is_printed_nowhere() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tables = format!("[notifications]\nwebhook = \"http://{nobody}/hooks/T0KEN?key=s3cret\"\n");
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    gateway.run(["budget", "set", "agent:tester", "100 tokens", "daily"]).expect(0);
    gateway.ask(question("hello").script(&gateway.mock.plays(answer()))).expect(200);
    let log = eventually("the failure in the log", || {
        let log = std::fs::read_to_string(gateway.home.file("log/tokfence.log")).ok()?;
        log.contains("could not be posted").then_some(log)
    });
    let shown = gateway.run(["config", "show"]).expect(0).stdout;
    assert!(shown.contains(&format!("http://{nobody}/(hidden)")), "{shown}");
    for text in [log, shown] {
        assert!(!text.contains("T0KEN") && !text.contains("s3cret"), "{text}");
    }
}
