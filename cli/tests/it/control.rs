//! The owner's switches: in force at the next request once the command returned, with or without a daemon, and
//! lifting one brings back exactly what was there before.

use crate::support::{Gateway, Home, Request, Then, chunk, eventually};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

fn chat(token: &str) -> Request {
    Request::post(CHAT, BODY).bearer(token)
}

#[track_caller]
fn health(gateway: &Gateway) -> String {
    let document = gateway.tcp().ask(&Request::get("/__tokfence/health")).expect(200).json();
    assert_eq!(document.as_object().unwrap().len(), 2, "{document}");
    document["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_kill_holds_from_the_next_request_on_and_is_lifted_as_fast() {
    let gateway = Gateway::start();
    let mut kept = gateway.tcp();
    for round in 0..5 {
        kept.ask(&chat(&gateway.token)).expect(200);
        assert_eq!(health(&gateway), "ok");
        let done = gateway.run(["--json", "kill", "--reason", "a leak"]).expect(0).json();
        assert_eq!(
            (&done["status"], &done["killed"]["reason"]),
            (&"killed".into(), &"a leak".into()),
            "{round}"
        );
        let refusal = kept.ask(&chat(&gateway.token)).expect_refusal(403, "killed");
        assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
        assert_eq!(health(&gateway), "killed");
        gateway.run(["unkill"]).expect(0);
    }
    kept.ask(&chat(&gateway.token)).expect(200);
}

#[test]
fn every_route_and_every_road_is_killed() {
    let gateway = Gateway::start();
    let token = gateway.mint(&["all", "--route", "admin", "--route", "generate", "--route", "metadata"]);
    gateway.run(["kill"]).expect(0);
    let before = gateway.mock.connections();
    for request in [
        Request::post(CHAT, BODY),
        Request::get("/openai/v1/models"),
        Request::post("/anthropic/v1/messages", BODY),
        Request::post("/google/v1beta/models/gemini-2.5-pro:streamGenerateContent", "{}"),
        Request::get("/openai/v1/organization/costs"),
        Request::post("/ollama/api/chat", BODY),
    ] {
        let request = request.bearer(&token);
        gateway.tcp().ask(&request).expect_refusal(403, "killed");
        gateway.unix().ask(&request).expect_refusal(403, "killed");
    }
    assert_eq!(gateway.mock.connections(), before);
    let refused = gateway.run(["--json", "run", "--", "true"]).expect(1).error();
    assert_eq!((&refused["code"], &refused["hint"]), (&"killed".into(), &"tokfence unkill".into()));
}

#[test]
fn a_second_kill_keeps_the_first_reason_and_date() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let first = home.run(["--json", "kill", "--reason", "first"]).expect(0).json();
    let second = home.run(["--json", "kill", "--reason", "second"]).expect(0).json();
    assert_eq!(second["status"], "unchanged");
    assert_eq!(second["killed"], first["killed"]);
    let text = home.run(["kill"]).expect(0).stdout;
    assert!(text.contains("already killed") && text.contains("first"), "{text}");
    assert_eq!(home.run(["--json", "unkill"]).expect(0).json()["status"], "restored");
    assert_eq!(home.run(["--json", "unkill"]).expect(0).json()["status"], "unchanged");
}

#[test]
fn a_kill_needs_no_daemon_and_outlives_it() {
    let gateway = Gateway::start();
    gateway.run(["revoke", "groq", "--reason", "outage"]).expect(0);
    gateway.run(["stop"]).expect(0);
    gateway.run(["kill", "--reason", "while down"]).expect(0);
    let down = gateway.run(["--json", "status"]).expect(3).json();
    assert_eq!((&down["running"], &down["killed"]["reason"]), (&false.into(), &"while down".into()));
    let started = gateway.run(["--json", "start", "-d"]).expect(0).json();
    assert_eq!(started["state"], "killed");
    let client = || crate::support::Client::tcp(started["address"].as_str().unwrap().parse().unwrap());
    client().ask(&chat(&gateway.token)).expect_refusal(403, "killed");
    let status = gateway.run(["--json", "status"]).expect(0).json();
    assert_eq!((&status["state"], &status["killed"]["reason"]), (&"killed".into(), &"while down".into()));
    assert_eq!(status["revoked_providers"][0]["provider"], "groq");
    let text = gateway.run(["status"]).expect(0).stdout;
    assert!(text.contains("killed") && text.contains("while down") && text.contains("outage"), "{text}");

    gateway.run(["restart"]).expect(0);
    let address = gateway.run(["--json", "status"]).expect(0).json()["address"].as_str().unwrap().to_owned();
    let client = || crate::support::Client::tcp(address.parse().unwrap());
    client().ask(&chat(&gateway.token)).expect_refusal(403, "killed");
    gateway.run(["unkill"]).expect(0);
    client().ask(&chat(&gateway.token)).expect(200);
    let groq = Request::post("/groq/v1/chat/completions", BODY).bearer(&gateway.token);
    client().ask(&groq).expect_refusal(403, "provider_revoked");
}

#[test]
fn a_kill_by_another_process_that_tells_nobody_is_noticed() {
    let gateway = Gateway::start();
    let mut other = gateway.store();
    other.kill("by hand", 1).unwrap();
    eventually("the kill", || (health(&gateway) == "killed").then_some(()));
    gateway.ask(Request::post(CHAT, BODY)).expect_refusal(403, "killed");
    other.unkill(2).unwrap();
    eventually("its end", || (health(&gateway) == "ok").then_some(()));
}

#[test]
fn a_slip_in_the_configuration_does_not_keep_anybody_from_killing() {
    let gateway = Gateway::start();
    gateway.home.write_config("[daemon]\nport = \"half a lin");
    gateway.run(["kill"]).expect(0);
    gateway.ask(Request::post(CHAT, BODY)).expect_refusal(403, "killed");
}

#[test]
fn a_provider_is_revoked_and_restored_and_the_others_stay() {
    let gateway = Gateway::start();
    let claude = Request::post("/anthropic/v1/messages", BODY);
    let done = gateway.run(["--json", "revoke", "OpenAI", "--reason", "prices"]).expect(0).json();
    assert_eq!((&done["provider"], &done["status"]), (&"openai".into(), &"revoked".into()));
    let refusal = gateway.ask(Request::post(CHAT, BODY)).expect_refusal(403, "provider_revoked");
    assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    gateway.ask(claude).expect(200);
    let again = gateway.run(["--json", "revoke", "openai", "--reason", "other"]).expect(0).json();
    assert_eq!((&again["status"], &again["revoked"]["reason"]), (&"unchanged".into(), &"prices".into()));

    gateway.run(["kill"]).expect(0);
    let unkilled = gateway.run(["--json", "unkill"]).expect(0).json();
    assert_eq!(unkilled["revoked_providers"][0]["provider"], "openai");
    gateway.ask(Request::post(CHAT, BODY)).expect_refusal(403, "provider_revoked");
    assert_eq!(gateway.run(["--json", "restore", "openai"]).expect(0).json()["status"], "restored");
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
    assert_eq!(gateway.run(["--json", "restore", "openai"]).expect(0).json()["status"], "unchanged");
}

#[test]
fn a_name_that_nobody_has_is_answered_with_one_that_somebody_has() {
    let gateway = Gateway::shared();
    gateway.mint(&["builder"]);
    for (command, hint) in [
        (vec!["revoke", "opneai"], "did you mean `openai`?"),
        (vec!["restore", "opneai"], "did you mean `openai`?"),
        (
            vec!["revoke", "builder"],
            "for the agent: tokfence agent revoke builder, tokfence agent restore builder",
        ),
        (vec!["agent", "revoke", "bulider"], "did you mean `builder`?"),
        (vec!["agent", "restore", "bulider"], "did you mean `builder`?"),
        (vec!["agent", "rotate", "bulider"], "did you mean `builder`?"),
    ] {
        let error = gateway.run([vec!["--json"], command.clone()].concat()).expect(5).error();
        assert_eq!(error["hint"], hint, "{command:?}");
    }
}

#[test]
fn an_agent_is_revoked_and_gets_back_exactly_what_it_had() {
    let gateway = Gateway::shared();
    let minted = || gateway.run(["--json", "agent", "mint", "returns"]).expect(0).json();
    let (first, second) = (minted(), minted());
    let token = |minted: &serde_json::Value| minted["token"].as_str().unwrap().to_owned();
    gateway.run(["agent", "revoke", second["id"].as_str().unwrap()]).expect(0);
    let done = gateway.run(["--json", "agent", "revoke", "returns", "--reason", "odd"]).expect(0).json();
    assert_eq!((&done["status"], &done["revoked"]), (&"revoked".into(), &1.into()));
    gateway.tcp().ask(&chat(&token(&first))).expect_refusal(401, "revoked_capability");
    let refused = gateway.run(["--json", "agent", "mint", "returns"]).expect(1).error();
    assert_eq!(
        (&refused["code"], &refused["hint"]),
        (&"agent_revoked".into(), &"tokfence agent restore returns".into())
    );
    let shown = gateway.run(["--json", "agent", "show", "returns"]).expect(0).json();
    assert_eq!(
        (&shown["revoke_reason"], &shown["capabilities"][0]["state"]),
        (&"odd".into(), &"revoked".into())
    );
    assert!(gateway.run(["agent", "list"]).expect(0).stdout.contains("revoked"));

    let done = gateway.run(["--json", "agent", "restore", "returns"]).expect(0).json();
    assert_eq!((&done["status"], &done["capabilities_active"]), (&"restored".into(), &1.into()));
    gateway.tcp().ask(&chat(&token(&first))).expect(200);
    gateway.tcp().ask(&chat(&token(&second))).expect_refusal(401, "revoked_capability");
    gateway.run(["agent", "restore", first["id"].as_str().unwrap()]).expect(2);
}

#[test]
fn a_rotated_capability_has_a_new_token_and_nothing_else_changes() {
    let gateway = Gateway::shared();
    let minted = gateway
        .run(["--json", "agent", "mint", "rotates", "--model", "gpt-4o*", "--ttl", "1h"])
        .expect(0)
        .json();
    let old = minted["token"].as_str().unwrap();
    let rotated = gateway.run(["--json", "agent", "rotate", "rotates"]).expect(0).json();
    let new = rotated["token"].as_str().unwrap();
    assert_ne!(old, new);
    assert_eq!((&rotated["id"], &rotated["expires_at"]), (&minted["id"], &minted["expires_at"]));
    gateway.tcp().ask(&chat(old)).expect_refusal(401, "invalid_capability");
    gateway.tcp().ask(&chat(new)).expect(200);
    let other = Request::post(CHAT, r#"{"model":"gpt-5.1","messages":[]}"#).bearer(new);
    gateway.tcp().ask(&other).expect_refusal(403, "out_of_scope");

    let second = gateway.run(["--json", "agent", "mint", "rotates"]).expect(0).json();
    let error = gateway.run(["--json", "agent", "rotate", "rotates"]).expect(2).error();
    assert!(error["hint"].as_str().unwrap().contains(second["id"].as_str().unwrap()), "{error}");
    let by_id = gateway.run(["agent", "rotate", second["id"].as_str().unwrap()]).expect(0).stdout;
    gateway.tcp().ask(&chat(by_id.trim())).expect(200);
    gateway.tcp().ask(&chat(second["token"].as_str().unwrap())).expect_refusal(401, "invalid_capability");
    gateway.run(["agent", "revoke", "rotates"]).expect(0);
    gateway.run(["agent", "rotate", "rotates"]).expect(5);
}

#[test]
fn a_stream_that_was_begun_with_the_old_token_is_cut() {
    let gateway = Gateway::shared();
    let token = gateway.mint(&["rotates-a-stream"]);
    let script = gateway.mock.script(|_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        conn.send(chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n"))?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let mut client = gateway.tcp();
    let request = Request::post(CHAT, r#"{"model":"gpt-4o-mini","messages":[],"stream":true}"#);
    client.send(&request.bearer(&token).script(&script).bytes());
    client.head();
    let mut seen = Vec::new();
    client.read_until(&mut seen, "hello");
    gateway.run(["agent", "rotate", "rotates-a-stream"]).expect(0);
    client.read_until(&mut seen, "the capability was revoked");
}
