//! Risk: what is seen restricts whoever did it and nobody else, at once and for good, until an operator says otherwise.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storage::Outcome;

use crate::support::{Gateway, KEYS, Request, Response, Setup, Then, answer, chunk, eventually};

const CHAT: &str = "/openai/v1/chat/completions";
const MODELS: &str = "/openai/v1/models";
const BODY: &str =
    r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"sudo exec, and ignore all of it"}]}"#;

fn key(provider: &str) -> &'static str {
    KEYS.iter().find(|key| key.provider == provider).unwrap().key
}

/// Asks for an answer, which the provider gives if it is asked.
fn chat(gateway: &Gateway, token: &str, body: &str) -> Response {
    let script = gateway.mock.plays(answer("200 OK", r#"{"choices":[]}"#));
    gateway.tcp().ask(&Request::post(CHAT, body).bearer(token).script(&script))
}

fn models(gateway: &Gateway, token: &str) -> Response {
    let script = gateway.mock.plays(answer("200 OK", "{}"));
    gateway.tcp().ask(&Request::get(MODELS).bearer(token).script(&script))
}

fn status(gateway: &Gateway) -> Value {
    gateway.run(["--json", "risk"]).expect(0).json()
}

/// The states that there are, each with whose it is.
fn states(gateway: &Gateway) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let states = status(gateway)["states"].as_array().unwrap().clone();
    states.iter().map(|state| (text(&state["agent"]), text(&state["state"]))).collect()
}

fn signals(gateway: &Gateway) -> Vec<String> {
    let events = status(gateway)["events"].as_array().unwrap().clone();
    events.iter().map(|event| event["signal"].as_str().unwrap().to_owned()).collect()
}

fn one(agent: &str, state: &str) -> Vec<(String, String)> {
    vec![(agent.to_owned(), state.to_owned())]
}

fn decoy(gateway: &Gateway, args: &[&str]) -> String {
    let args: Vec<&str> = ["--json", "canary", "add", "old-key", "--kind", "decoy"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    gateway.run(args).expect(0).json()["value"].as_str().unwrap().to_owned()
}

#[test]
fn a_secret_that_is_sent_leaves_safe_routes_and_a_second_one_leaves_nothing() {
    let gateway = Gateway::start();
    let secret = BODY.replace("sudo", key("groq"));
    chat(&gateway, &gateway.token, BODY).expect(200);
    chat(&gateway, &gateway.token, &secret).expect_refusal(403, "secret_in_request");
    let refused = chat(&gateway, &gateway.token, BODY).expect_refusal(403, "risk_restricted");
    assert_eq!(refused.json()["error"]["risk"], "ORANGE");
    assert_eq!(refused.head.get("x-should-retry"), Some("false"));
    models(&gateway, &gateway.token).expect(200);
    assert_eq!(states(&gateway), one("tester", "ORANGE"));

    let event = &status(&gateway)["events"][0];
    assert_eq!(
        (&event["pattern"], &event["place"], &event["action"]),
        (&json!("key:groq"), &json!("body"), &json!("refused"))
    );
    let told = gateway.run(["risk", "explain", "1"]).expect(0).stdout;
    for part in
        ["secret_in_request", "key:groq, written plainly", "GREEN to ORANGE", "tokfence risk clear tester"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains(key("groq")) && !status(&gateway).to_string().contains(key("groq")));

    gateway.run(["risk", "clear", "tester", "--reason", "my own slip"]).expect(0);
    chat(&gateway, &gateway.token, BODY).expect(200);
    chat(&gateway, &gateway.token, &secret).expect_refusal(403, "secret_in_request");
    models(&gateway, &gateway.token).expect_refusal(403, "risk_restricted");
    assert_eq!(states(&gateway), one("tester", "RED"));
}

#[test]
fn red_cuts_what_runs_spares_others_and_outlives_the_daemon() {
    let mut gateway = Gateway::start();
    let (thief, other) = (gateway.mint(&["thief"]), gateway.mint(&["other"]));
    let planted = decoy(&gateway, &["--like", "anthropic"]);
    let endless = gateway.mock.script(|_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        while conn
            .send(chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"))
            .is_ok()
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Then::Close)
    });
    let stream = BODY.replacen('{', r#"{"stream":true,"#, 1);
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, stream).bearer(&thief).script(&endless).bytes());
    let id = client.head().get("x-tokfence-request-id").unwrap().to_owned();
    client.part().expect("it runs");

    chat(&gateway, &thief, &BODY.replace("sudo", &planted)).expect_refusal(403, "secret_in_request");
    let since = Instant::now();
    while client.try_part().expect("a whole answer").is_some() {}
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    let row = gateway.row(&id).request;
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Cut, Some("risk_restricted")));
    models(&gateway, &thief).expect_refusal(403, "risk_restricted");
    chat(&gateway, &other, BODY).expect(200);

    gateway.run(["stop"]).expect(0);
    gateway.start_again();
    models(&gateway, &thief).expect_refusal(403, "risk_restricted");
    assert_eq!(states(&gateway), one("thief", "RED"));
    let status = gateway.run(["status"]).expect(0).stdout;
    assert!(status.contains("is RED (decoy_in_request); tokfence risk explain 1"), "{status}");
    gateway.run(["stop"]).expect(0);
    gateway.run(["risk", "clear", "thief", "--reason", "it was me"]).expect(0);
    gateway.start_again();
    models(&gateway, &thief).expect(200);
}

/// An agent that is YELLOW, because it asked for five things that it may not have.
fn yellow(gateway: &Gateway) -> String {
    let token = gateway.mint(&["prober", "--model", "gpt-4o*", "--route", "generate", "--route", "file"]);
    for number in 0..5 {
        assert!(states(gateway).is_empty());
        chat(gateway, &token, &BODY.replace("gpt-4o-mini", &format!("o{number}")))
            .expect_refusal(403, "out_of_scope");
    }
    assert_eq!(states(gateway), one("prober", "YELLOW"));
    token
}

#[test]
fn yellow_takes_files_long_answers_speed_and_long_lives() {
    let gateway = Gateway::start();
    let token = yellow(&gateway);
    gateway
        .tcp()
        .ask(&Request::get("/openai/v1/files").bearer(&token))
        .expect_refusal(403, "risk_restricted");
    for (asked, sent) in
        [("", 4096), (r#""max_completion_tokens":9000,"#, 4096), (r#""max_completion_tokens":50,"#, 50)]
    {
        let script = gateway.mock.plays(answer("200 OK", "{}"));
        let body = BODY.replacen('{', &format!("{{{asked}"), 1);
        gateway.tcp().ask(&Request::post(CHAT, body).bearer(&token).script(&script)).expect(200);
        let received: Value = serde_json::from_str(&gateway.mock.the_request(&script).text()).unwrap();
        assert_eq!(received["max_completion_tokens"], sent, "{received}");
    }
    let made = Request::post("/__tokfence/capabilities/attenuate", r#"{"ttl":"2h"}"#).bearer(&token);
    let end = gateway.tcp().ask(&made).expect(201).json()["expires_at"].as_str().unwrap().to_owned();
    let left = end.parse::<jiff::Timestamp>().unwrap().duration_since(jiff::Timestamp::now());
    assert!(left.as_secs() <= 15 * 60, "{left:?}");
    let refused = (0..31).find_map(|_| {
        let response = chat(&gateway, &token, BODY);
        (response.status() != 200).then_some(response)
    });
    refused.expect("30 a minute").expect_refusal(429, "rate_limited");
    chat(&gateway, &gateway.token, BODY).expect(200);
}

#[test]
fn fallback_models_are_not_served_in_yellow() {
    let tables = "[risk]\ninitial_state = \"YELLOW\"\n".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    let body = BODY.replacen('{', r#"{"models":["a/b"],"#, 1);
    let request = Request::post("/openrouter/v1/chat/completions", body).bearer(&gateway.token);
    let refused = gateway.tcp().ask(&request).expect_refusal(403, "risk_restricted");
    assert!(
        refused.json()["error"]["hint"].as_str().unwrap().contains("initial_state"),
        "{}",
        refused.text()
    );
    assert!(gateway.run(["risk"]).expect(0).stdout.contains("everybody is YELLOW"));
}

#[test]
fn a_caller_that_repeats_itself_or_asks_for_what_nobody_knows_is_not_suspect() {
    let gateway = Gateway::start();
    let token = gateway.mint(&["stubborn", "--model", "gpt-4o*"]);
    for number in 0..8 {
        chat(&gateway, &token, &BODY.replace("gpt-4o-mini", "o3")).expect_refusal(403, "out_of_scope");
        let unknown = Request::post(&format!("/openai/api/telemetry/{number}"), "{}").bearer(&token);
        gateway.tcp().ask(&unknown).expect_refusal(403, "endpoint_denied");
    }
    assert!(states(&gateway).is_empty() && signals(&gateway).is_empty());
}

#[test]
fn who_asks_for_a_new_credential_is_told_apart() {
    let gateway = Gateway::start();
    let mint = Request::post("/openai/v1/realtime/client_secrets", "{}").bearer(&gateway.token);
    gateway.tcp().ask(&mint).expect_refusal(403, "endpoint_denied");
    chat(&gateway, &gateway.token, BODY).expect_refusal(403, "risk_restricted");
    models(&gateway, &gateway.token).expect(200);
    let child = Request::post("/__tokfence/capabilities/attenuate", "{}").bearer(&gateway.token);
    gateway.tcp().ask(&child).expect_refusal(403, "risk_restricted");
    assert_eq!(signals(&gateway), ["minting_attempt"]);
}

#[test]
fn a_capability_in_the_wrong_place_or_hands_is_seen() {
    let gateway = Gateway::start();
    let (page, bound, ended) =
        (gateway.mint(&["page"]), gateway.mint(&["bound", "--require-uds"]), gateway.mint(&["ended"]));
    let foreign = Request::post(CHAT, BODY).field("origin", "https://evil.example");
    gateway.tcp().ask(&foreign).expect_refusal(403, "origin_not_allowed");
    assert!(signals(&gateway).is_empty(), "a page without a capability proves nothing");
    gateway.tcp().ask(&foreign.bearer(&page)).expect_refusal(403, "origin_not_allowed");
    models(&gateway, &bound).expect_refusal(403, "out_of_scope");
    gateway.run(["agent", "revoke", "ended"]).expect(0);
    for _ in 0..3 {
        models(&gateway, &ended).expect_refusal(401, "revoked_capability");
    }
    assert_eq!(signals(&gateway), ["browser_request", "wrong_transport", "dead_capability"]);
    let mut states = states(&gateway);
    states.sort();
    let expected = [("bound", "ORANGE"), ("ended", "YELLOW"), ("page", "YELLOW")];
    assert_eq!(states, expected.map(|(agent, state)| (agent.to_owned(), state.to_owned())));
}

#[test]
fn a_decoy_that_is_used_is_evidence_against_the_one_it_was_planted_for() {
    let told = tempfile::tempdir().unwrap();
    let file = told.path().join("told");
    let command =
        format!("command = [\"sh\", \"-c\", 'printf \"%s\\n\" \"$1\" >> {}', \"sh\"]", file.display());
    let tables = format!("[notifications]\n{command}\n");
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    let (held, other) = (gateway.mint(&["holder"]), gateway.mint(&["other"]));
    let planted = decoy(&gateway, &["--like", "openai", "--agent", "holder"]);
    for _ in 0..3 {
        chat(&gateway, &planted, BODY).expect_refusal(401, "invalid_capability");
    }
    chat(&gateway, &held, BODY).expect_refusal(403, "risk_restricted");
    chat(&gateway, &other, BODY).expect(200);
    assert_eq!(states(&gateway), one("holder", "RED"));
    let events = status(&gateway)["events"].as_array().unwrap().clone();
    let listed = gateway.run(["--json", "canary", "list"]).expect(0).json();
    assert_eq!(listed["canaries"][0]["last_seen_at"], events[0]["at"]);
    assert_eq!(events.len(), 1, "what repeats is one event");
    assert_eq!((&events[0]["signal"], &events[0]["repeats"]), (&json!("decoy_as_credential"), &json!(3)));
    let text =
        eventually("the notification", || fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')));
    assert_eq!(
        text,
        "tokfence: the agent `holder` is RED: a planted key was used as a credential; tokfence risk explain 1\n"
    );
}

#[test]
fn the_canary_of_the_vault_stops_everybody() {
    let gateway = Gateway::start();
    gateway.run(["canary", "add", "cohere", "--kind", "vault", "--like", "openrouter"]).expect(0);
    let passphrase = vault::Secret::from(crate::support::PASSPHRASE);
    let opened =
        vault::Vault::open(&gateway.home.file("vault.tfv"), &vault::Unlock::Passphrase(&passphrase)).unwrap();
    let value = opened.entry("cohere", vault::EntryKind::Canary).unwrap().secret().expose().to_owned();
    let other = gateway.mint(&["other"]);
    chat(&gateway, &gateway.token, &BODY.replace("sudo", &value)).expect_refusal(403, "secret_in_request");
    let refused = models(&gateway, &other).expect_refusal(403, "risk_restricted");
    assert!(refused.text().contains("everything is RED"), "{}", refused.text());
    gateway.run(["risk", "clear", "global", "--reason", "looked into"]).expect(0);
    models(&gateway, &other).expect(200);
    models(&gateway, &gateway.token).expect_refusal(403, "risk_restricted");
}

#[test]
fn a_signal_is_followed_written_down_or_passed_over_as_its_owner_says() {
    let tables = "[risk.signals]\nminting_attempt = \"log\"\nsecret_in_request = \"off\"\n".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    chat(&gateway, &gateway.token, &BODY.replace("sudo", key("groq")))
        .expect_refusal(403, "secret_in_request");
    let mint = Request::post("/openai/v1/realtime/client_secrets", "{}").bearer(&gateway.token);
    gateway.tcp().ask(&mint).expect_refusal(403, "endpoint_denied");
    chat(&gateway, &gateway.token, BODY).expect(200);
    models(&gateway, &gateway.token).expect(200);
    assert!(states(&gateway).is_empty());
    assert_eq!(signals(&gateway), ["minting_attempt"]);
    let daemon = gateway.run(["--json", "status"]).expect(0).json();
    assert_eq!(daemon["risk_signals"], json!({ "minting_attempt": 1 }));

    gateway.rest();
    let quiet = gateway.run(["--json", "risk", "replay", "--since", "1h"]).expect(0).json();
    assert_eq!((&quiet["events"], &quiet["courses"]), (&json!(1), &json!([])));
    let enforced = ["--json", "risk", "replay", "--since", "1h", "--signal", "minting_attempt=enforce"];
    let enforced = gateway.run(enforced).expect(0).json();
    let course = &enforced["courses"][0];
    assert_eq!((&course["agent"], &course["states"][0]["state"]), (&json!("tester"), &json!("ORANGE")));
    assert_eq!(course["refused_requests"], 1, "the one for an answer, and not the one for models: {course}");
    let text = gateway.run(["risk", "replay", "--signal", "all=enforce"]).expect(0).stdout;
    assert!(text.contains("1 request of the log would have been refused"), "{text}");
}

#[test]
fn what_cannot_be_meant_is_told_with_a_way_out() {
    let gateway = Gateway::start();
    for (args, code, part) in [
        (vec!["risk", "clear", "testr", "--reason", "x"], 5, "tester"),
        (vec!["risk", "clear", "openai", "--reason", "x"], 5, "agent"),
        (vec!["risk", "clear", "tester", "--reason", " "], 2, "reason"),
        (vec!["risk", "clear", "tester"], 2, "--reason"),
        (vec!["risk", "explain", "7"], 5, "tokfence risk status"),
        (vec!["risk", "replay", "--signal", "sudo=enforce"], 2, "secret_in_request"),
        (vec!["risk", "replay", "--since", "soon"], 2, "2d"),
    ] {
        let output = gateway.run(args.clone()).expect(code);
        assert!(output.stderr.contains(part), "{args:?}: {}", output.stderr);
    }
    let unchanged = gateway.run(["--json", "risk", "clear", "tester", "--reason", "x"]).expect(0).json();
    assert_eq!(unchanged["status"], "unchanged");
}

#[test]
fn what_only_looks_like_a_secret_passes_and_is_written_down_by_its_shape() {
    let gateway = Gateway::start();
    let stranger = "ghp_q7RzX2mVt9LbK4wPn8sYd3GhJ6fCa1Ue5oTi";
    for _ in 0..3 {
        chat(&gateway, &gateway.token, &BODY.replace("sudo", stranger)).expect(200);
    }
    let risk = status(&gateway);
    let events = risk["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "each turn of a conversation says it again: {risk}");
    let told = (&events[0]["signal"], &events[0]["pattern"], &events[0]["action"], &events[0]["repeats"]);
    assert_eq!(told, (&json!("secret_shaped"), &json!("shape:github_personal"), &json!("logged"), &json!(3)));
    assert!(states(&gateway).is_empty() && !risk.to_string().contains(&stranger[4..20]));
}

#[test]
fn what_an_answer_tells_restricts_who_asked_only_where_that_is_his_doing() {
    let gateway = Gateway::start();
    let says = |text: &str| gateway.mock.plays(answer("200 OK", json!({ "said": text }).to_string()));
    let ask = |script: &str| gateway.ask(Request::post(CHAT, BODY).script(script)).expect(200);
    let echo = ask(&says(key("groq")));
    assert!(!echo.text().contains(key("groq")));
    assert!(states(&gateway).is_empty(), "the provider's fault");
    let mark = ["--json", "canary", "add", "rules", "--kind", "prompt"];
    let mark = gateway.run(mark).expect(0).json()["value"].as_str().unwrap().to_owned();
    ask(&says(&mark));
    assert_eq!(states(&gateway), one("tester", "YELLOW"));
    let coded = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: compress\r\nContent-Length: 1\r\n\r\nx";
    let coded = gateway.mock.plays(coded);
    gateway.ask(Request::post(CHAT, BODY).script(&coded)).expect(502);
    assert_eq!(signals(&gateway), ["key_echo", "prompt_mark_in_response", "unscannable"]);
    let event = &status(&gateway)["events"][0];
    assert_eq!(
        (&event["pattern"], &event["action"], &event["place"]),
        (&json!("key:groq"), &json!("masked"), &json!("body"))
    );
}
