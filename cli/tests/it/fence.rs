//! Secrets in traffic: a key does not reach the caller, however a provider sends it, and none is sent to a provider.

use std::io::{Read, Write};
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::GzEncoder;
use policy::NanoUsd;
use serde_json::{Value, json};
use storage::Outcome;

use crate::support::{
    Gateway, KEYS, PATIENCE, Request, Response, Setup, Then, answer, answer_with, chunk, sse,
};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

pub(crate) fn key(provider: &str) -> &'static str {
    KEYS.iter().find(|key| key.provider == provider).unwrap().key
}

fn stars(secret: &str) -> String {
    "*".repeat(secret.len())
}

pub(crate) fn ask(gateway: &Gateway, body: &str, script: &str) -> Response {
    gateway.ask(Request::post(CHAT, body).bearer(&gateway.token).script(script))
}

/// A stream of a chat whose words are these.
pub(crate) fn chat(words: &[&str]) -> Vec<u8> {
    let event = |word: &&str| {
        let delta = json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": word } }] });
        format!("data: {delta}\n\n")
    };
    let mut events: Vec<String> = words.iter().map(event).collect();
    events.push("data: [DONE]\n\n".to_owned());
    sse(&events.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The words of a stream.
pub(crate) fn words(stream: &str) -> String {
    let data = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let parse = |data: &str| serde_json::from_str::<Value>(data).ok();
    data.filter_map(parse)
        .map(|value| value["choices"][0]["delta"]["content"].as_str().unwrap_or("").to_owned())
        .collect()
}

#[test]
fn a_key_that_is_streamed_in_pieces_is_masked() {
    let gateway = Gateway::shared();
    for provider in ["openai", "groq"] {
        let secret = key(provider);
        for size in [1, 3, 7, secret.len()] {
            let letters: Vec<char> = format!("it is {secret}.").chars().collect();
            let pieces: Vec<String> = letters.chunks(size).map(|piece| piece.iter().collect()).collect();
            let script = gateway.mock.plays(chat(&pieces.iter().map(String::as_str).collect::<Vec<_>>()));
            let response = ask(gateway, BODY, &script).expect(200);
            let said = words(&response.text());
            assert!(said.starts_with("it is ") && said.ends_with("."), "{said}");
            assert!((16..secret.len()).all(|length| !said.contains(&secret[..length])), "{said}");
            assert_eq!(said.len(), letters.len());
            assert!(response.text().ends_with("data: [DONE]\n\n"));
        }
    }
}

#[test]
fn a_key_in_an_error_or_in_a_header_is_masked_at_its_length() {
    let gateway = Gateway::shared();
    let secret = key("openai");
    let error =
        json!({ "error": { "message": format!("Incorrect API key provided: {secret}") } }).to_string();
    let fields = format!("Content-Type: application/json\r\nX-Debug: key={secret}\r\nX-Debug: fine\r\n");
    let script = gateway.mock.plays(answer_with("401 Unauthorized", &fields, &error));
    let response = ask(gateway, BODY, &script).expect(401);
    assert_eq!(response.text(), error.replace(secret, &stars(secret)));
    assert_eq!(response.head.get("content-length"), Some(error.len().to_string().as_str()));
    let debug: Vec<_> = response.head.fields.iter().filter(|(name, _)| name == "x-debug").collect();
    assert_eq!(
        (debug[0].1.as_str(), debug[1].1.as_str()),
        (format!("key={}", stars(secret)).as_str(), "fine")
    );
}

#[test]
fn a_key_in_text_that_is_no_json_is_masked() {
    let gateway = Gateway::shared();
    let secret = key("mistral");
    let reversed: String = secret.chars().rev().collect();
    let text = format!("<p>{secret}</p> and backwards {reversed}");
    let script = gateway.mock.plays(answer_with("200 OK", "Content-Type: text/html\r\n", &text));
    let response = ask(gateway, BODY, &script).expect(200);
    assert_eq!(response.text(), format!("<p>{}</p> and backwards {}", stars(secret), stars(secret)));
}

#[test]
fn a_compressed_answer_is_read_and_comes_as_it_was_asked_for() {
    let gateway = Gateway::shared();
    let secret = key("anthropic");
    let body = json!({ "choices": [{ "message": { "content": secret } }] }).to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    let fields = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let script = gateway.mock.plays(answer_with("200 OK", fields, encoder.finish().unwrap()));
    let response = ask(gateway, BODY, &script).expect(200);
    assert!(!response.head.has("content-encoding"));
    assert_eq!(response.text(), body.replace(secret, &stars(secret)));
}

#[test]
fn an_answer_that_cannot_be_read_does_not_pass() {
    let gateway = Gateway::shared();
    for (coding, body) in [("compress", "x"), ("gzip, br", "x"), ("gzip", "this is no gzip")] {
        let fields = format!("Content-Type: application/json\r\nContent-Encoding: {coding}\r\n");
        let script = gateway.mock.plays(answer_with("200 OK", &fields, body));
        let mut client = gateway.tcp();
        client.send(&Request::post(CHAT, BODY).bearer(&gateway.token).script(&script).bytes());
        let is_answered = client.try_response().is_ok_and(|response| response.status() == 200);
        assert!(!is_answered, "{coding}");
    }
}

#[test]
fn a_key_in_a_trailer_is_masked() {
    let gateway = Gateway::shared();
    let secret = key("openai");
    let script = gateway.mock.script(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        conn.send(chunk("x"))?;
        conn.send(format!("0\r\nX-Trailer: {secret}\r\n\r\n"))?;
        Ok(Then::Close)
    });
    let request =
        Request::post(CHAT, BODY).bearer(&gateway.token).script(&script).field("connection", "close");
    let mut socket = TcpStream::connect(gateway.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&request.bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\r\n1\r\nx\r\n") && !answer.contains(secret), "{answer}");
}

#[test]
fn nothing_of_a_request_that_holds_a_secret_is_sent() {
    let gateway = &Gateway::start_with(&Setup::unrestricted());
    let secret = key("anthropic");
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let spread: String = secret.chars().map(|char| format!("{char}\u{200b}")).collect();
    let escaped = secret.replace('-', "\\u002d");
    for said in [secret, &hex, &spread, &escaped] {
        let body =
            format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"tool","content":"key: {said}\n"}}]}}"#);
        let script = gateway.mock.plays(answer("200 OK", "{}"));
        let refused = ask(gateway, &body, &script).expect_refusal(403, "secret_in_request");
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(message, "the request holds the key of `anthropic`, in its body; nothing of it was sent");
        assert!(gateway.mock.received(&script).is_empty());
        // Those that repeat it share its row.
        if said == secret {
            let row = gateway.row(&refused.id()).request;
            assert_eq!(row.error_code.as_deref(), Some("secret_in_request"));
            assert_eq!(row.cost.map(NanoUsd::nanos), Some(0));
        }
    }
}

#[test]
fn a_secret_in_the_target_or_in_a_header_is_one_in_the_request() {
    let gateway = Gateway::shared();
    let secret = key("mistral");
    let target = format!("/openai/v1/models/{secret}");
    let request = || Request::get(&target).bearer(&gateway.token);
    let refused = gateway.ask(request()).expect_refusal(403, "secret_in_request");
    assert!(!refused.text().contains(secret));
    assert_eq!(gateway.row(&refused.id()).request.path.as_str(), format!("/v1/models/{}", stars(secret)));
    let request = Request::post(CHAT, BODY).bearer(&gateway.token).field("user-agent", secret);
    gateway.ask(request).expect_refusal(403, "secret_in_request");
    let query = Request::get(&format!("/openai/v1/models?after={secret}")).bearer(&gateway.token);
    gateway.ask(query).expect_refusal(403, "secret_in_request");
}

#[test]
fn what_is_only_watched_passes_and_what_is_off_is_not_even_seen() {
    for mode in ["detect", "off"] {
        let setup = Setup {
            tables: format!("[security]\nscan_responses = \"{mode}\"\nscan_requests = \"{mode}\"\n"),
            ..Setup::default()
        };
        let gateway = Gateway::start_with(&setup);
        let secret = key("anthropic");
        let script = gateway.mock.plays(chat(&["so ", secret]));
        let body = BODY.replace("hi", secret);
        let response = ask(&gateway, &body, &script).expect(200);
        assert_eq!(words(&response.text()), format!("so {secret}"));
        let log = std::fs::read_to_string(gateway.home.file("log/tokfence.log")).unwrap_or_default();
        assert_eq!(log.contains("a key of the vault was in a request"), mode == "detect", "{log}");
        assert!(!log.contains(secret));
    }
}

#[test]
fn what_only_looks_like_a_secret_is_sent_and_told_of_once() {
    let gateway = Gateway::start();
    let (token, other) = ("aB3cD5eF7gH9iJ1kL3mN5oP7qR9sT1uV3wX5", "T1uV3wX5kL3mN5oP7aB3cD5eF7gH9iJ1qR9s");
    let said = format!("ghp_{token}\n and \"ghp_{other}\", for sk-xxxxxxxxxxxxxxxx");
    let body =
        json!({ "model": "gpt-4o-mini", "messages": [{ "role": "tool", "content": said }] }).to_string();
    let script = gateway.mock.plays(answer("200 OK", "{}"));
    ask(&gateway, &body, &script).expect(200);
    assert_eq!(gateway.mock.the_request(&script).text(), body);
    let log = std::fs::read_to_string(gateway.home.file("log/tokfence.log")).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("looks like a secret")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("github_personal") && !log.contains(token) && !log.contains(other), "{log}");
}

/// Adds a canary and answers its text.
pub(crate) fn canary(gateway: &Gateway, args: &[&str]) -> String {
    let args: Vec<&str> = ["--json", "canary", "add"].iter().chain(args).copied().collect();
    gateway.run(args).expect(0).json()["value"].as_str().unwrap().to_owned()
}

#[test]
fn a_prompt_mark_may_be_said_to_a_provider_and_ends_the_stream_that_tells_it() {
    let gateway = Gateway::start();
    let mark = canary(&gateway, &["house-rules", "--kind", "prompt"]);
    let (left, right) = mark.split_at(mark.len() / 2);
    let script = gateway.mock.plays(chat(&["My rules: ", left, right, " and so on"]));
    let body = BODY.replace("hi", &mark);
    let response = ask(&gateway, &body, &script).expect(200);
    assert_eq!(gateway.mock.the_request(&script).text().matches(&mark).count(), 1);
    let text = response.text();
    assert!(
        words(&text).starts_with("My rules: ") && !text.contains(left) && !text.contains(right),
        "{text}"
    );
    assert!(
        text.contains(r#""finish_reason":"content_filter""#) && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
    let row = gateway.row(&response.id()).request;
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Cut, Some("risk_restricted")));
}

#[test]
fn a_prompt_mark_in_an_answer_that_is_not_streamed_is_masked() {
    let gateway = Gateway::start();
    let mark = canary(&gateway, &["house-rules", "--kind", "prompt"]);
    let said = json!({ "choices": [{ "message": { "content": format!("They are: {mark}") } }] }).to_string();
    let script = gateway.mock.plays(answer("200 OK", &said));
    let response = ask(&gateway, BODY, &script).expect(200);
    assert_eq!(response.text(), said.replace(&mark, &stars(&mark)));
}

#[test]
fn a_decoy_is_not_sent_and_whoever_tries_is_not_told_what_it_is() {
    let gateway = Gateway::start();
    let decoy = canary(&gateway, &["old-key", "--kind", "decoy", "--like", "anthropic"]);
    let script = gateway.mock.plays(answer("200 OK", "{}"));
    let refused =
        ask(&gateway, &BODY.replace("hi", &decoy), &script).expect_refusal(403, "secret_in_request");
    assert!(gateway.mock.received(&script).is_empty());
    let text = refused.text();
    assert!(!text.contains("old-key") && !text.contains("decoy") && !text.contains("canary"), "{text}");
    let presented = gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(&decoy));
    presented.expect_refusal(401, "invalid_capability");
}

#[test]
fn a_canary_of_the_vault_stands_in_its_list_and_its_text_is_told_to_nobody() {
    let gateway = Gateway::start();
    let added = gateway.run(["--json", "canary", "add", "spare", "--kind", "vault"]).expect(0);
    assert!(added.json()["value"].is_null(), "{}", added.stdout);
    let listed = gateway.run(["vault", "list"]).expect(0).stdout;
    assert!(listed.contains("spare") && listed.contains("canary"), "{listed}");
}
