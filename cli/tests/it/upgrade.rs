//! `tokfence upgrade`: another process serves, and nobody who asks notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use storage::Outcome;

use crate::support::{Client, Gateway, Request, Setup, eventually, json};

const CHAT: &str = "/openai/v1/chat/completions";
const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;
const STREAM: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#;
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[],
    "usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#;
const UPGRADES: usize = 5;

/// A stream of which the beginning was read.
fn begin(gateway: &Gateway, token: &str, script: &str) -> (Client, String) {
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, STREAM).script(script).bearer(token).bytes());
    let head = client.head();
    assert_eq!(head.status, 200);
    client.read_until(&mut Vec::new(), "first");
    (client, head.get("x-tokfence-request-id").unwrap().to_owned())
}

fn status(gateway: &Gateway) -> Value {
    gateway.run(["--json", "status"]).expect(0).json()
}

/// Upgrades, and answers the processes before and after.
#[track_caller]
fn upgrade(gateway: &Gateway) -> (u64, u64) {
    let document = gateway.home.command(["--json", "upgrade"]).without_passphrase().run().expect(0).json();
    let pid = |document: &Value| document["pid"].as_u64().unwrap();
    (pid(&document["predecessor"]), pid(&document))
}

fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Asks on one connection after the other until it is told to stop; answers how many requests were answered.
fn ask_on(gateway: &Gateway, is_unix: bool, script: &str, is_over: &AtomicBool) -> usize {
    let connect = || if is_unix { gateway.unix() } else { gateway.tcp() };
    let request = Request::post(CHAT, QUESTION).script(script).bearer(&gateway.token);
    let (mut client, mut answered) = (connect(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let response = client.ask(&request).expect(200);
        answered += 1;
        if response.head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            client.expect_end();
            client = connect();
        }
    }
    answered
}

#[test]
fn no_request_fails_and_every_stream_ends_whole_while_upgrades_follow_each_other() {
    let gateway = Gateway::start();
    let script = gateway.mock.plays(json(ANSWER));
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut streams = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (gateway, script, is_over, answered) = (&gateway, &script, &is_over, &answered);
            scope.spawn(move || {
                answered.fetch_add(ask_on(gateway, number % 2 == 0, script, is_over), Ordering::Relaxed);
            });
        }
        let mut pid = None;
        for _ in 0..UPGRADES {
            let (script, end) = gateway.mock.held_stream();
            streams.push((begin(&gateway, &gateway.token, &script), end));
            let (before, after) = upgrade(&gateway);
            assert!(pid.is_none_or(|pid| pid == before) && before != after);
            pid = Some(after);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 0);
    assert_eq!(status(&gateway)["in_flight"], UPGRADES, "each stream is in a process of its own");
    for ((mut client, id), end) in streams {
        end.send(()).unwrap();
        let body = String::from_utf8(client.try_body().expect("a whole stream")).unwrap();
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
        assert_eq!(gateway.row(&id).request.outcome, Outcome::Completed);
    }
    eventually("the end of those before", || status(&gateway)["predecessor"].is_null().then_some(()));
    let rows = gateway.rows();
    assert_eq!(rows.len(), answered.load(Ordering::Relaxed) + UPGRADES, "one row for each request");
    assert!(rows.iter().all(|row| row.request.status == Some(200)));
}

#[test]
fn what_the_old_process_answers_is_cut_and_ended_like_everything_else() {
    let gateway = Gateway::start();
    let (script, _end) = gateway.mock.held_stream();
    let cut = |client: &mut Client, id: &str, code: &str| {
        let since = Instant::now();
        let body = String::from_utf8(client.try_body().expect("a whole answer")).unwrap();
        assert!(since.elapsed() < Duration::from_secs(1) && body.contains("[tokfence] stopped"), "{body}");
        assert_eq!(gateway.row(id).request.error_code.as_deref(), Some(code));
    };
    let other = gateway.mint(&["other"]);
    let (mut revoked, revoked_id) = begin(&gateway, &other, &script);
    let (mut locked, locked_id) = begin(&gateway, &gateway.token, &script);
    let (old, _) = upgrade(&gateway);
    assert_eq!(status(&gateway)["predecessor"], old);
    gateway.run(["agent", "revoke", "other"]).expect(0);
    cut(&mut revoked, &revoked_id, "revoked_capability");
    assert!(is_alive(old));
    gateway.run(["lock"]).expect(0);
    cut(&mut locked, &locked_id, "vault_locked");
    eventually("the end of the old process", || (!is_alive(old)).then_some(()));
    gateway.ask(Request::post(CHAT, QUESTION)).expect_refusal(503, "vault_locked");
}

#[test]
fn a_stop_ends_both() {
    let gateway = Gateway::start();
    let (script, _end) = gateway.mock.held_stream();
    let (_client, _) = begin(&gateway, &gateway.token, &script);
    let (old, new) = upgrade(&gateway);
    assert!(is_alive(old) && is_alive(new));
    gateway.run(["stop"]).expect(0);
    eventually("the end of both", || (!is_alive(old) && !is_alive(new)).then_some(()));
    assert!(!gateway.socket().exists() && !gateway.home.file("control/control.sock").exists());
}

#[test]
fn the_new_process_outlives_the_old_one_and_is_what_it_was() {
    let gateway = Gateway::start();
    let script = gateway.mock.plays(json(ANSWER));
    let (old, new) = upgrade(&gateway);
    eventually("the end of the old process", || (!is_alive(old)).then_some(()));
    assert!(gateway.socket().exists(), "the names are the new process's");
    assert_eq!(gateway.home.daemon_pid().map(u64::from), Some(new));
    gateway.ask(Request::post(CHAT, QUESTION).script(&script)).expect(200);
    gateway.unix().ask(&Request::post(CHAT, QUESTION).script(&script).bearer(&gateway.token)).expect(200);
    gateway.run(["start", "-d"]).expect(1);
    gateway.home.signal(Signal::TERM);
    gateway.home.wait_for_end();
    assert!(!gateway.socket().exists());
}

#[test]
fn a_locked_gateway_stays_locked() {
    let gateway = Gateway::start();
    gateway.run(["lock"]).expect(0);
    upgrade(&gateway);
    assert_eq!(status(&gateway)["state"], "locked");
    gateway.run(["unlock"]).expect(0);
    let script = gateway.mock.plays(json(ANSWER));
    gateway.ask(Request::post(CHAT, QUESTION).script(&script)).expect(200);
}

/// Whatever keeps the successor from serving, the daemon goes on as if nothing had been asked.
#[test]
fn a_successor_that_cannot_serve_changes_nothing() {
    let gateway = Gateway::start();
    let script = gateway.mock.plays(json(ANSWER));
    let mut client = gateway.tcp();
    let request = Request::post(CHAT, QUESTION).script(&script).bearer(&gateway.token);
    client.ask(&request).expect(200);
    let pid = status(&gateway)["pid"].clone();
    let config = Setup::default().config(&format!("http://{}", gateway.mock.address));
    let faults = [
        (config.replace("port = 0", "port = \"x\""), "invalid_config"),
        (config.replace("port = 0", "port = 1"), "upgrade_failed"),
        (config.replace("port = 0", "port = 0\nsocket_path = \"/nowhere/tokfence.sock\""), "upgrade_failed"),
    ];
    for (config, code) in faults {
        gateway.home.write_config(&config);
        let error = gateway.run(["--json", "upgrade"]).expect(1).error();
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(status(&gateway)["pid"], pid);
        // The very connection goes on.
        client.ask(&request).expect(200);
    }
    let socket = gateway.home.file("control/control.sock");
    let command = gateway::control::Command::Upgrade { program: "/nowhere/tokfence".into() };
    let reply = gateway::control::ask(&socket, &command, crate::support::PATIENCE).unwrap();
    assert!(matches!(reply, gateway::control::Reply::Failed { code, .. } if code == "upgrade_failed"));
    client.ask(&request).expect(200);
}

#[test]
fn without_a_daemon_there_is_nothing_to_upgrade() {
    let home = crate::support::Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    home.run(["upgrade"]).expect(3);
}
