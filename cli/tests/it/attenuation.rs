//! Attenuation: a holder makes a narrower capability over the data port, in force at once, never wider, and gone with
//! the one it came from.

use serde_json::{Value, json};

use crate::support::{Gateway, Request, Response, Setup};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;
const ATTENUATE: &str = "/__tokfence/capabilities/attenuate";

fn chat(token: &str) -> Request {
    Request::post(CHAT, BODY).bearer(token)
}

fn attenuate(gateway: &Gateway, token: &str, body: &Value) -> Response {
    gateway.tcp().ask(&Request::post(ATTENUATE, body.to_string()).bearer(token))
}

/// A child that is made; its token and the whole answer.
#[track_caller]
fn child(gateway: &Gateway, token: &str, body: Value) -> (String, Value) {
    let response = attenuate(gateway, token, &body).expect(201);
    assert_eq!(response.head.get("cache-control"), Some("no-store"));
    let document = response.json();
    (document["token"].as_str().unwrap().to_owned(), document)
}

#[test]
fn a_child_is_good_when_it_is_answered_and_for_less() {
    let gateway = Gateway::shared();
    let parent = gateway.mint(&["parent", "--model", "gpt-*", "--ttl", "1h"]);
    for _ in 0..5 {
        let body =
            json!({ "models": ["gpt-4o*"], "providers": ["openai"], "ttl": "10m", "note": "a helper" });
        let (token, document) = child(gateway, &parent, body);
        gateway.tcp().ask(&chat(&token)).expect(200);
        let other = Request::post(CHAT, r#"{"model":"gpt-5.1","messages":[]}"#);
        gateway.tcp().ask(&other.clone().bearer(&token)).expect_refusal(403, "out_of_scope");
        gateway.tcp().ask(&other.bearer(&parent)).expect(200);
        assert_eq!(document["parent"], parent[4..12]);
        assert_eq!((&document["agent"], &document["note"]), (&"parent".into(), &"a helper".into()));
        assert_eq!((&document["models"], &document["routes"]), (&json!(["gpt-4o*"]), &json!([])));
        let row = gateway.row(&gateway.tcp().ask(&chat(&token)).expect(200).id()).request;
        assert_eq!(row.agent.unwrap().as_str(), "parent");
        assert_eq!(row.capability.unwrap().as_str(), document["id"].as_str().unwrap());
    }
    let shown = gateway.run(["--json", "agent", "show", "parent"]).expect(0).json();
    let capabilities = shown["capabilities"].as_array().unwrap();
    let root = capabilities.iter().find(|one| one["id"] == parent[4..12]).unwrap();
    assert_eq!(root["children"].as_array().unwrap().len(), 5);
    assert!(
        capabilities.iter().filter(|one| one["parent"] == parent[4..12]).all(|one| one["note"] == "a helper")
    );
    let text = gateway.run(["agent", "show", "parent"]).expect(0).stdout;
    assert!(text.contains(&parent[4..12]), "{text}");
    assert!(!text.contains(&parent[13..40]) && !shown.to_string().contains(&parent[13..40]));
}

#[test]
fn nothing_gets_wider() {
    let gateway = Gateway::start_with(&Setup::unrestricted());
    let parent = gateway.mint(&[
        "narrow",
        "--provider",
        "openai",
        "--model",
        "gpt-4o*",
        "--route",
        "generate",
        "--method",
        "post",
        "--ttl",
        "1h",
        "--rpm",
        "100",
        "--tpm",
        "100000",
        "--concurrent",
        "5",
    ]);
    let wider = json!({ "models": ["o3"] });
    let refusal = attenuate(&gateway, &parent, &wider).expect_refusal(403, "out_of_scope");
    let row = gateway.row(&refusal.id()).request;
    assert_eq!((row.error_code.as_deref(), row.agent.unwrap().as_str()), (Some("out_of_scope"), "narrow"));
    for body in [
        json!({ "providers": ["openai", "groq"] }),
        json!({ "models": ["gpt-*"] }),
        json!({ "models": ["*"] }),
        json!({ "routes": ["generate", "metadata"] }),
        json!({ "methods": ["GET"] }),
        json!({ "ttl": "2h" }),
        json!({ "ttl_seconds": 3601 }),
        json!({ "rpm": 101 }),
        json!({ "tpm": 100001 }),
        json!({ "concurrent": 6 }),
    ] {
        let refusal = attenuate(&gateway, &parent, &body).expect_refusal(403, "out_of_scope");
        assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    }
    for body in ["", "[]", "{", r#"{"modles":["gpt-4o"]}"#, r#"{"rpm":1,"rpm":2}"#, r#"{"models":[]}"#] {
        let request = Request::post(ATTENUATE, body).bearer(&parent);
        let refusal = gateway.tcp().ask(&request).expect_refusal(400, "invalid_request");
        let error = refusal.json()["error"].clone();
        assert!(
            body == r#"{"models":[]}"# || error["hint"].as_str().unwrap().contains("ttl_seconds"),
            "{error}"
        );
    }
    let shown = gateway.run(["--json", "agent", "show", "narrow"]).expect(0).json();
    assert_eq!(shown["capabilities"].as_array().unwrap().len(), 1);
    child(&gateway, &parent, json!({ "rpm": 100, "concurrent": 5, "ttl_seconds": 3000 }));
}

#[test]
fn who_may_not_ask_may_not_make_either() {
    let gateway = Gateway::start_with(&Setup::unrestricted());
    let request = || Request::post(ATTENUATE, "{}");
    gateway.tcp().ask(&request()).expect_refusal(401, "missing_capability");
    gateway.tcp().ask(&request().bearer("sk-real")).expect_refusal(401, "invalid_capability");
    gateway
        .tcp()
        .ask(&Request::get(ATTENUATE).bearer(&gateway.token))
        .expect_refusal(405, "method_not_allowed");
    let page = request().bearer(&gateway.token).field("Origin", "https://evil.example");
    gateway.tcp().ask(&page).expect_refusal(403, "origin_not_allowed");
    let form = Request::new("POST", ATTENUATE).field("Content-Type", "text/plain").body("{}");
    gateway.tcp().ask(&form.bearer(&gateway.token)).expect_refusal(415, "unsupported_media");
    let large = Request::post(ATTENUATE, format!("{}{{}}", " ".repeat(20_000)));
    gateway.tcp().ask(&large.bearer(&gateway.token)).expect_refusal(413, "request_too_large");
    let by_socket = gateway.mint(&["socket-only", "--require-uds"]);
    gateway.tcp().ask(&request().bearer(&by_socket)).expect_refusal(403, "out_of_scope");
    gateway.unix().ask(&request().bearer(&by_socket)).expect(201);

    gateway.run(["kill"]).expect(0);
    gateway.tcp().ask(&request().bearer(&gateway.token)).expect_refusal(403, "killed");
    gateway.run(["unkill"]).expect(0);
    gateway.run(["agent", "revoke", "tester"]).expect(0);
    gateway.tcp().ask(&request().bearer(&gateway.token)).expect_refusal(401, "revoked_capability");
    let open = Setup { tables: "[security]\nrequire_capability = false".to_owned(), ..Setup::default() };
    Gateway::start_with(&open).tcp().ask(&request()).expect_refusal(401, "missing_capability");
}

#[test]
fn a_subtree_ends_with_its_root_and_not_with_a_sibling() {
    let gateway = Gateway::start();
    let root = gateway.mint(&["family"]);
    let mut line = vec![root.clone()];
    for _ in 0..4 {
        line.push(child(&gateway, line.last().unwrap(), json!({})).0);
    }
    attenuate(&gateway, &line[4], &json!({})).expect_refusal(403, "out_of_scope");
    let (sibling, _) = child(&gateway, &root, json!({}));
    for token in line.iter().chain([&sibling]) {
        gateway.tcp().ask(&chat(token)).expect(200);
    }
    gateway.run(["agent", "revoke", &line[2][4..12]]).expect(0);
    for (depth, token) in line.iter().enumerate() {
        match depth < 2 {
            true => drop(gateway.tcp().ask(&chat(token)).expect(200)),
            false => drop(gateway.tcp().ask(&chat(token)).expect_refusal(401, "revoked_capability")),
        }
    }
    gateway.tcp().ask(&chat(&sibling)).expect(200);
    attenuate(&gateway, &line[3], &json!({})).expect_refusal(401, "revoked_capability");
    let done = gateway.run(["--json", "agent", "revoke", &root[4..12]]).expect(0).json();
    assert_eq!(done["revoked"], 3, "the root, its first child and the sibling");
    gateway.tcp().ask(&chat(&sibling)).expect_refusal(401, "revoked_capability");
}

#[test]
fn a_rotated_parent_takes_what_was_made_with_the_old_token_along() {
    let gateway = Gateway::shared();
    let parent = gateway.mint(&["rotated-parent"]);
    let (first, _) = child(gateway, &parent, json!({}));
    let rotated = gateway.run(["--json", "agent", "rotate", "rotated-parent"]).expect(0).json();
    assert_eq!(rotated["revoked"], 1);
    gateway.tcp().ask(&chat(&first)).expect_refusal(401, "revoked_capability");
    attenuate(gateway, &parent, &json!({})).expect_refusal(401, "invalid_capability");
    let (second, _) = child(gateway, rotated["token"].as_str().unwrap(), json!({}));
    gateway.tcp().ask(&chat(&second)).expect(200);
}

#[test]
fn a_child_spends_from_the_limits_of_its_ancestors() {
    let gateway = Gateway::start();
    let parent = gateway.mint(&["thrifty", "--rpm", "3"]);
    let (first, _) = child(&gateway, &parent, json!({ "rpm": 2 }));
    let (second, _) = child(&gateway, &parent, json!({}));
    gateway.tcp().ask(&chat(&first)).expect(200);
    gateway.tcp().ask(&chat(&first)).expect(200);
    let refusal = gateway.tcp().ask(&chat(&first)).expect_refusal(429, "rate_limited");
    assert_eq!(refusal.json()["error"]["limit"], format!("capability:{}/requests_per_minute", &first[4..12]));
    gateway.tcp().ask(&chat(&second)).expect(200);
    for token in [&second, &parent] {
        let refusal = gateway.tcp().ask(&chat(token)).expect_refusal(429, "rate_limited");
        let limit = format!("capability:{}/requests_per_minute", &parent[4..12]);
        assert_eq!(refusal.json()["error"]["limit"], limit);
    }
}

#[test]
fn a_family_grows_so_fast_and_no_faster_however_many_ask() {
    let gateway = Gateway::start();
    let parent = gateway.mint(&["fertile"]);
    let (first, _) = child(&gateway, &parent, json!({}));
    let began = std::time::Instant::now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8)
            .map(|number| {
                let (gateway, token) = (&gateway, if number % 2 == 0 { &parent } else { &first });
                scope.spawn(move || {
                    (0..12).map(|_| attenuate(gateway, token, &json!({})).status()).collect::<Vec<_>>()
                })
            })
            .collect();
        asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let made = statuses.iter().filter(|status| **status == 201).count();
    // The first was made before, and one a second refills.
    let refilled = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!((59..=59 + refilled).contains(&made), "{made} {statuses:?}");
    assert!(statuses.iter().all(|status| [201, 429].contains(status)), "{statuses:?}");
    let refusal = attenuate(&gateway, &parent, &json!({}));
    if refusal.status() == 429 {
        assert!(refusal.head.has("retry-after"));
    }
    let shown = gateway.run(["--json", "agent", "show", "fertile"]).expect(0).json();
    assert!(shown["capabilities"].as_array().unwrap().len() >= made + 2);
    gateway.tcp().ask(&chat(&first)).expect(200);
}

#[test]
fn a_child_survives_the_daemon_and_its_token_is_nowhere() {
    let mut gateway = Gateway::start();
    let parent = gateway.token.clone();
    let (token, _) = child(&gateway, &parent, json!({ "models": ["gpt-4o*"] }));
    gateway.run(["stop"]).expect(0);
    for file in ["tokfence.db", "log/tokfence.log"] {
        let bytes = std::fs::read(gateway.home.file(file)).unwrap();
        let secret = &token.as_bytes()[13..56];
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file}");
    }
    gateway.start_again();
    gateway.tcp().ask(&chat(&token)).expect(200);
    gateway.run(["agent", "revoke", &parent[4..12]]).expect(0);
    gateway.tcp().ask(&chat(&token)).expect_refusal(401, "revoked_capability");
}
