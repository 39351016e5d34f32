//! What the page shows, what it changes, and what it leaves as it was.

use super::*;

#[test]
fn what_is_live_is_told_to_who_is_in() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let (script, go) = gateway.mock.held_stream();
    let mut caller = gateway.hold(&gateway.token, &script);
    let mut client = Client::tcp(browser.address);
    client.send(&browser.request("GET", "/dashboard/events").bytes());
    assert_eq!(client.head().status, 200);
    let seen = eventually("the stream", || {
        let told = next_event(&mut client);
        (told["requests"][0]["output_tokens"].as_u64() > Some(0)).then_some(told)
    });
    assert_eq!((&seen["state"], &seen["requests"][0]["agent"]), (&json!("ok"), &json!("tester")));
    let overview = serde_json::to_value(gateway.overview()).unwrap();
    let names = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&seen), names(&overview), "it is the one document for views");
    go.send(()).unwrap();
    caller.try_body().unwrap();
    eventually("its end", || {
        next_event(&mut client)["requests"].as_array().unwrap().is_empty().then_some(())
    });

    // Who looks is let out with all others, and his stream ends.
    assert_eq!(gateway.run(["--json", "dashboard", "--logout"]).expect(0).json(), json!({ "logged_out": 1 }));
    client.try_body().unwrap();
    assert_eq!(code(browser.get("/dashboard/history"), 401), "no_session");
}

#[test]
fn what_is_malformed_is_refused_and_changes_nothing() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let ask = |body: &str| browser.ask(&browser.request("POST", "/dashboard/change").body(body));
    for body in [
        "",
        "[]",
        r#"{"do":"kill"}"#,
        r#"{"do":"kill","reason":1}"#,
        r#"{"do":"kill","reason":"","more":1}"#,
        r#"{"do":"stop"}"#,
        r#"{"do":"revoke_agent","reason":""}"#,
    ] {
        assert_eq!(code(ask(body), 400), "not_understood", "{body}");
    }
    let long = json!({ "do": "kill", "reason": "x".repeat(20_000) }).to_string();
    assert_eq!(code(ask(&long), 413), "request_too_large");
    let change = |what: Value| browser.change(&what);
    let unknown = json!({ "do": "revoke_agent", "agent": "nobody", "reason": "" });
    assert_eq!(code(change(unknown), 404), "no_such_agent");
    assert_eq!(code(change(json!({ "do": "restore_agent", "agent": "../x" })), 404), "no_such_agent");
    let unknown = json!({ "do": "revoke_provider", "provider": "opneai", "reason": "" });
    assert_eq!(code(change(unknown), 404), "unknown_provider");
    assert_eq!(code(browser.get("/dashboard/nothing"), 404), "not_found");
    assert_eq!(code(browser.get("/dashboard/risk/77"), 404), "no_such_event");
    browser.get("/dashboard/change").expect(405);
    let rows = gateway.run(["--json", "audit"]).expect(0).json();
    assert!(!rows.to_string().contains(r#""dashboard""#), "{rows}");
}

#[test]
fn a_change_holds_at_once_and_is_in_the_audit_log() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let ask = || gateway.ask(Request::post(CHAT, BODY));
    let change = |what: Value, status: &str| {
        assert_eq!(browser.change(&what).expect(200).json(), json!({ "status": status }), "{what}");
    };
    ask().expect(200);
    let (script, _go) = gateway.mock.held_stream();
    let mut caller = gateway.hold(&gateway.token, &script);
    change(json!({ "do": "kill", "reason": " odd " }), "killed");
    ask().expect_refusal(403, "killed");
    caller.try_body().unwrap();
    change(json!({ "do": "kill", "reason": "again" }), "unchanged");
    assert_eq!(browser.event()["killed"]["reason"], "odd");
    change(json!({ "do": "unkill" }), "restored");
    ask().expect(200);
    change(json!({ "do": "revoke_provider", "provider": "openai", "reason": "" }), "revoked");
    ask().expect_refusal(403, "provider_revoked");
    change(json!({ "do": "restore_provider", "provider": "openai" }), "restored");
    change(json!({ "do": "revoke_agent", "agent": "tester", "reason": "loops" }), "revoked");
    ask().expect_refusal(401, "revoked_capability");
    change(json!({ "do": "restore_agent", "agent": "tester" }), "restored");
    ask().expect(200);

    let rows = gateway.run(["--json", "audit"]).expect(0).json();
    let told: Vec<_> = rows["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["command"] == "dashboard")
        .map(|row| {
            (
                row["action"].as_str().unwrap(),
                row["subject"].as_str().unwrap(),
                row["detail"]["reason"].clone(),
            )
        })
        .collect();
    let revoked = json!("revoked on the dashboard");
    assert_eq!(
        told,
        [
            ("kill", "global", json!("odd")),
            ("unkill", "global", Value::Null),
            ("provider_revoke", "openai", revoked),
            ("provider_restore", "openai", Value::Null),
            ("agent_revoke", "agent:tester", json!("loops")),
            ("agent_restore", "agent:tester", Value::Null),
        ]
    );
    gateway.run(["audit", "verify"]).expect(0);
}

#[test]
fn what_was_is_told_as_the_commands_tell_it() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let secret = KEYS[0].key;
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
    let leak = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{secret}"}}]}}"#);
    gateway.ask(Request::post(CHAT, leak)).expect_refusal(403, "secret_in_request");
    // A row is written when its request has ended, which is after its answer.
    eventually("both rows", || (gateway.rows().len() == 2).then_some(()));
    let past = browser.get("/dashboard/history").expect(200).json();
    let stats = |by: &str| gateway.run(["--json", "stats", "--by", by]).expect(0).json()["rows"].clone();
    for (spans, by, count) in [("hours", "hour", 24), ("days", "day", 30)] {
        assert_eq!(
            (&past[spans]["count"], past[spans]["rows"].as_array().unwrap().len()),
            (&json!(count), 1)
        );
        let (told, sums) = (&past[spans]["rows"][0], &stats(by)[0]);
        assert_eq!(told["at"], sums["group"]);
        for name in ["requests", "refused", "input_tokens", "output_tokens", "cost_usd", "unpriced"] {
            assert_eq!(told[name], sums[name], "{by} {name}");
        }
    }
    let providers = past["providers"].as_array().unwrap();
    assert_eq!(providers.len(), KEYS.len(), "those with a key, used or not");
    let openai = providers.iter().find(|provider| provider["provider"] == "openai").unwrap();
    assert_eq!((&openai["requests"], &openai["has_key"]), (&json!(2), &json!(true)));

    let event = eventually("the event", || browser.event()["risk_events"][0]["event"].as_i64());
    let told = browser.get(&format!("/dashboard/risk/{event}")).expect(200).json();
    let explained = gateway.run(["risk", "explain", &event.to_string()]).expect(0).stdout;
    let mut lines = explained.lines();
    for fact in told["facts"].as_array().unwrap() {
        let (name, text) = (fact[0].as_str().unwrap(), fact[1].as_str().unwrap());
        // A person is told the time of his own clock, which in these tests is that of UTC.
        let text = if name == "at" { text[..19].replace('T', " ") } else { text.to_owned() };
        let line = lines.next().unwrap();
        assert_eq!(line.strip_prefix(name).map(str::trim_start), Some(&*text));
    }
    assert_eq!(lines.next(), Some(""));
    let consequences = told["consequences"].as_array().unwrap().iter();
    assert_eq!(
        lines.collect::<Vec<_>>(),
        consequences.map(|text| text.as_str().unwrap()).collect::<Vec<_>>()
    );
}

#[test]
fn who_looks_keeps_no_daemon_from_ending_and_leaves_no_trace() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let watch = || {
        let mut client = Client::tcp(browser.address);
        client.send(&browser.request("GET", DATA[0]).bytes());
        assert_eq!(client.head().status, 200);
        next_event(&mut client);
        client
    };
    let mut viewers: Vec<Client> = (0..16).map(|_| watch()).collect();
    assert_eq!(code(browser.get(DATA[0]), 503), "too_many_viewers");
    drop(viewers.pop());
    eventually("a place", || {
        let mut client = Client::tcp(browser.address);
        client.send(&browser.request("GET", DATA[0]).bytes());
        (client.head().status == 200).then_some(())
    });
    // After an upgrade another process serves, and knows no browser.
    gateway.run(["upgrade"]).expect(0);
    for viewer in &mut viewers {
        viewer.try_body().unwrap();
    }
    assert_eq!(code(browser.get(DATA[1]), 401), "no_session");
    let browser = Browser::of(&gateway);
    let mut viewer = Client::tcp(browser.address);
    viewer.send(&browser.request("GET", DATA[0]).bytes());
    viewer.head();
    next_event(&mut viewer);
    gateway.run(["stop"]).expect(0);
    viewer.try_body().unwrap();
}
