//! What is no leak: errors of a provider. And where a key must not go.

use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::account::{ADMIN_KEY, DAY, HOUR, MONDAY, Use, Watched};
use crate::support::{Authority, Mock, PATIENCE, Then, answer, answer_with, json as json_answer};

fn watched() -> Watched {
    let watched = Watched::new().admin("openai");
    watched.honest((8..20).map(|hour| Use::openai(MONDAY + hour * HOUR)));
    watched.at(MONDAY + DAY + 7 * HOUR);
    watched
}

fn openai(report: &Value) -> Value {
    let providers = report["providers"].as_array().unwrap();
    providers.iter().find(|one| one["provider"] == "openai").unwrap().clone()
}

#[track_caller]
fn check_error(instead: Vec<u8>, code: &str) {
    let watched = watched();
    watched.answers(Some(instead));
    let report = watched.watch(&["--provider", "openai", "--auto-revoke"]).expect(1).json();
    let provider = openai(&report);
    assert_eq!((&provider["status"], &report["findings"]), (&json!("error"), &json!(0)), "{report:#}");
    assert_eq!(provider["errors"][0]["code"], code, "{report:#}");
    assert!(!report.to_string().contains("0SENTINEL0"), "{report:#}");
    assert_eq!(watched.run(&["--json", "status"]).expect(3).json()["revoked_providers"], json!([]));
    watched.answers(None);
    watched.watch(&["--provider", "openai"]).expect(0);
}

#[test]
fn an_error_of_the_provider_is_no_leak() {
    check_error(
        answer("401 Unauthorized", format!("{{\"error\":\"{ADMIN_KEY} is wrong\"}}")),
        "unauthorized",
    );
    check_error(answer("429 Too Many Requests", "{}"), "rate_limited");
    check_error(answer("500 Internal Server Error", "{}"), "provider_error");
    check_error(answer("204 No Content", ""), "provider_error");
}

#[test]
fn an_answer_that_cannot_be_meant_is_no_leak() {
    check_error(json_answer("<html>"), "not_understood");
    check_error(json_answer(r#"{"data":[{"start_time":"soon"}]}"#), "not_understood");
    check_error(json_answer(r#"{"data":[],"has_more":true}"#), "not_understood");
    check_error(json_answer(r#"{"data":[],"has_more":true,"next_page":"same"}"#), "not_understood");
    let day = r#"{"data":[{"start_time":1793577600,"end_time":1793577601,"results":[]}]}"#;
    check_error(json_answer(day), "not_understood");
    check_error(json_answer(format!("{{\"data\":[\"{}\"]}}", "x".repeat(5 << 20))), "unreachable");
    check_error(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(), "unreachable");
    check_error(b"no HTTP\r\n\r\n".to_vec(), "unreachable");
}

#[test]
fn a_redirect_is_not_followed_and_takes_no_key_along() {
    let elsewhere = Mock::start();
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let to = format!("Location: http://{}/v1/organization/costs\r\n", elsewhere.address);
        check_error(answer_with(status, &to, ""), "redirected");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn a_key_goes_only_where_it_was_stored_for() {
    let watched = watched();
    let elsewhere = Mock::start();
    let config = std::fs::read_to_string(watched.home.file("config.toml")).unwrap();
    watched
        .home
        .write_config(&config.replace(&watched.mock.address.to_string(), &elsewhere.address.to_string()));
    let report = watched.watch(&["--provider", "openai"]).expect(1).json();
    assert_eq!(openai(&report)["errors"][0]["code"], "other_origin", "{report:#}");
    assert_eq!(elsewhere.connections(), 0);
    watched.home.write_config(&config);

    // An endpoint is another address: it gets no key, neither this nor the one of callers.
    let line = json!({ "start": "2026-11-02T08:00:00Z", "end": "2026-11-02T09:00:00Z", "model": "gpt-4o", "requests": 1, "input_tokens": 900, "output_tokens": 100 });
    let body = json!({ "data": [line] }).to_string();
    elsewhere.always(move |_, conn| conn.send(json_answer(&body)).map(|()| Then::Close));
    let endpoint = format!("openai=http://{}/usage?team=a", elsewhere.address);
    let report = watched.watch(&["--provider", "openai", "--usage-endpoint", &endpoint]).expect(0).json();
    assert_eq!(openai(&report)["scope"], "endpoint", "{report:#}");
    let asked = elsewhere.unasked().remove(0);
    assert!(
        asked.line().starts_with("GET /usage?team=a&start=2026-11-02T06%3A00%3A00Z&end="),
        "{}",
        asked.line()
    );
    assert!(!String::from_utf8_lossy(&asked.head).to_lowercase().contains("sk-"), "{:?}", asked.fields());
    for received in watched.mock.unasked() {
        assert_eq!(received.get("authorization").as_deref(), Some(format!("Bearer {ADMIN_KEY}").as_str()));
    }
}

#[test]
fn a_key_is_in_no_file_and_in_no_output() {
    let watched = watched();
    watched.book([Use { input: 8, ..Use::openai(MONDAY + DAY + 3 * HOUR) }]);
    for args in [vec!["watch", "--once"], vec!["--json", "watch", "--once", "--auto-revoke"]] {
        let output = watched.run(&args).expect(6);
        assert!(!format!("{}{}", output.stdout, output.stderr).contains("0SENTINEL0"));
    }
    for file in std::fs::read_dir(watched.home.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(10).any(|part| part == b"0SENTINEL0"), "{}", path.display());
        }
    }
}

#[test]
fn a_certificate_that_nobody_trusts_gets_no_key() {
    let authority = Authority::for_server("localhost");
    let provider = Mock::start_tls(authority.server.clone());
    provider.always(|_, conn| conn.send(json_answer(r#"{"data":[]}"#)).map(|()| Then::Close));
    let watched = Watched::new();
    let ca_file = watched.home.file("ca.pem");
    std::fs::write(&ca_file, &authority.pem).unwrap();
    let upstream = format!("https://localhost:{}", provider.address.port());
    let config = |ca_file: &str| {
        format!("[providers.openai]\nupstream = \"{upstream}\"\nlocal = true\nca_file = \"{ca_file}\"\n")
    };
    watched.home.write_config(&config(""));
    let watched = watched.admin("openai");
    watched.at(MONDAY + DAY);
    // A variable of the environment is not whom the owner trusts.
    let look = || {
        let command = watched.command(&["--json", "watch", "--once", "--provider", "openai"]);
        command.env("SSL_CERT_FILE", &ca_file).env("HTTPS_PROXY", "http://127.0.0.1:1").run()
    };
    let report = look().expect(1).json();
    assert_eq!(openai(&report)["errors"][0]["code"], "unreachable", "{report:#}");
    assert!(provider.unasked().is_empty());
    watched.home.write_config(&config(ca_file.to_str().unwrap()));
    look().expect(0);
    assert_eq!(provider.unasked()[0].get("authorization"), Some(format!("Bearer {ADMIN_KEY}")));
}

#[test]
fn an_endpoint_finds_what_a_provider_without_one_does_not_tell() {
    let watched = Watched::new();
    watched.honest([Use { provider: "groq", asked: "llama", ..Use::openai(MONDAY + 8 * HOUR) }]);
    watched.at(MONDAY + 12 * HOUR);
    let report = watched.watch(&["--provider", "groq"]).expect(1).json();
    assert_eq!(report["providers"][0]["errors"][0]["code"], "no_usage_endpoint");
    let body = |requests: u64, cost: &str| {
        let (start, end) = ("2026-11-02T08:00:00Z", "2026-11-02T09:00:00Z");
        json!({ "data": [{ "start": start, "end": end, "model": "llama", "requests": requests, "cost_usd": cost }] }).to_string()
    };
    let endpoint = format!("groq=http://{}/groq", watched.mock.address);
    let look = |answer: String| {
        watched.answers(Some(json_answer(answer)));
        watched.watch(&["--provider", "groq", "--usage-endpoint", &endpoint])
    };
    look(body(2, "0.0100")).expect(0);
    look(body(1, "1.5e0")).expect(6);
    look(body(9, "0.01")).expect(6);
    look(body(1, "a dollar")).expect(1);
}

#[test]
fn a_provider_that_never_answers_is_waited_for_no_longer_than_a_page_may_take() {
    let watched = watched();
    let ((asked, is_asked), (end, ended)) = (channel(), channel::<()>());
    let ended = Mutex::new(ended);
    watched.mock.always(move |_, conn| {
        // Whoever asks again after the test is not waited for.
        let _ = asked.send(());
        let _ = ended.lock().unwrap().recv();
        conn.send("").map(|()| Then::Close)
    });
    let child = watched.command(&["--json", "watch", "--provider", "openai", "--interval", "10s"]).spawn();
    is_asked.recv_timeout(PATIENCE).unwrap();
    // Whoever interrupts it does not wait for the further pages.
    let since = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
    drop(end);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(openai(&report)["errors"][0]["code"], "unreachable", "{report}");
    assert_eq!(openai(&report)["errors"][1]["code"], "interrupted", "{report}");
}

#[test]
fn a_watch_prints_one_line_a_look_and_ends_in_order() {
    let watched = watched();
    watched.book([Use { input: 8, ..Use::openai(MONDAY + DAY + 3 * HOUR) }]);
    let mut child =
        watched.command(&["--json", "watch", "--provider", "openai", "--interval", "10s"]).spawn();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines: Vec<Value> =
        told.by_ref().take(2).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    lines.extend(told.map(|line| serde_json::from_str(&line.unwrap()).unwrap()));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    let news: Vec<_> = lines.iter().map(|report| openai(report)["findings"][0]["is_new"].clone()).collect();
    assert_eq!(news, [true, false]);
}

#[test]
fn what_cannot_be_meant_is_told() {
    let watched = Watched::new();
    for (args, code, part) in [
        (vec!["--interval", "1s"], 2, "from 10s"),
        (vec!["--period", "5m"], 2, "from 3600s"),
        (vec!["--threshold-usd", "-1"], 2, "-1"),
        (vec!["--usage-endpoint", "groq"], 2, "P=URL"),
        (vec!["--usage-endpoint", "groq=http://usage.example.com/"], 2, "https://"),
        (vec!["--provider", "opnai"], 5, "openai"),
    ] {
        let output = watched.run(&[vec!["watch", "--once"], args.clone()].concat()).expect(code);
        assert!(output.stderr.contains(part), "{args:?}: {}", output.stderr);
    }
    let report = watched.watch(&["--provider", "openai"]).expect(1).json();
    assert_eq!(openai(&report)["errors"][0]["code"], "no_admin_key");
    watched.run(&["vault", "remove", "openrouter"]).expect(0);
    let output = watched.run(&["watch", "--once"]).expect(5);
    assert!(output.stderr.contains("tokfence vault add openai --admin"), "{}", output.stderr);
}
