//! Capabilities: good from the moment they are minted, refused from the moment they are revoked, and never good
//! for more than they say.

use std::sync::LazyLock;

use storage::Outcome;

use crate::support::{Gateway, Request, Response, Setup, eventually, json};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

/// A gateway whose provider is never to hear anything.
fn silent() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);
    &GATEWAY
}

#[track_caller]
fn ask_with(gateway: &Gateway, token: &str, request: &Request) -> Response {
    gateway.tcp().ask(&request.clone().bearer(token))
}

#[test]
fn a_capability_is_good_when_the_command_returns_and_refused_when_it_is_revoked() {
    let gateway = Gateway::shared();
    let request = Request::post(CHAT, BODY);
    for round in 0..10 {
        let name = format!("short-lived-{round}");
        let token = gateway.mint(&[&name]);
        ask_with(gateway, &token, &request).expect(200);
        gateway.run(["agent", "revoke", &name]).expect(0);
        let refusal = ask_with(gateway, &token, &request).expect_refusal(401, "revoked_capability");
        assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    }
}

#[test]
fn one_capability_is_revoked_by_its_id_and_the_others_of_its_agent_stay() {
    let gateway = Gateway::shared();
    let minted = gateway.run(["--json", "agent", "mint", "twins"]).expect(0).json();
    let (id, first) = (minted["id"].as_str().unwrap(), minted["token"].as_str().unwrap());
    let second = gateway.mint(&["twins"]);
    gateway.run(["agent", "revoke", id]).expect(0);
    ask_with(gateway, first, &Request::post(CHAT, BODY)).expect_refusal(401, "revoked_capability");
    ask_with(gateway, &second, &Request::post(CHAT, BODY)).expect(200);
    gateway.run(["agent", "revoke", "nobody"]).expect(5);
}

#[test]
fn a_kept_connection_does_not_keep_a_revoked_capability() {
    let gateway = Gateway::shared();
    let token = gateway.mint(&["on-a-connection"]);
    let request = Request::post(CHAT, BODY).bearer(&token);
    let mut client = gateway.tcp();
    client.ask(&request).expect(200);
    gateway.run(["agent", "revoke", "on-a-connection"]).expect(0);
    client.ask(&request).expect_refusal(401, "revoked_capability");
}

#[test]
fn a_capability_ends_with_its_time() {
    let gateway = Gateway::shared();
    let token = gateway.mint(&["mayfly", "--ttl", "1s"]);
    let refusal = eventually("the end of the capability", || {
        Some(ask_with(gateway, &token, &Request::post(CHAT, BODY)))
            .filter(|response| response.status() != 200)
    });
    refusal.expect_refusal(401, "expired_capability");
}

#[test]
fn a_capability_of_another_home_or_with_a_slip_in_it_is_unknown() {
    let gateway = silent();
    let foreign = Gateway::shared().token.clone();
    let mut slipped = gateway.token.clone().into_bytes();
    slipped[20] = if slipped[20] == b'a' { b'b' } else { b'a' };
    let slipped = String::from_utf8(slipped).unwrap();
    let cut = &gateway.token[..gateway.token.len() - 1];
    for token in [foreign.as_str(), &slipped, cut, "tfk_", "sk-real"] {
        ask_with(gateway, token, &Request::post(CHAT, BODY)).expect_refusal(401, "invalid_capability");
    }
    assert_eq!(gateway.mock.connections(), 0);
}

/// Checks that a capability with this scope is refused a request, and that the row says to whom it was refused.
#[track_caller]
fn check_refused(agent: &str, scope: &[&str], request: &Request, code: &str) {
    let gateway = silent();
    let token = gateway.mint(&[&[agent], scope].concat());
    let refusal = ask_with(gateway, &token, request).expect_refusal(403, code);
    assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    let row = gateway.row(&refusal.id()).request;
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Refused, Some(code)));
    assert_eq!(row.agent.as_ref().map(policy::AgentName::as_str), Some(agent));
    assert!(row.capability.is_some_and(|id| token.contains(id.as_str())));
    assert_eq!((gateway.mock.connections(), gateway.mock.bytes()), (0, 0));
}

#[test]
fn another_provider_is_out_of_scope() {
    let request = Request::post("/anthropic/v1/messages", BODY);
    check_refused("one-provider", &["--provider", "openai"], &request, "out_of_scope");
}

#[test]
fn another_model_is_out_of_scope_wherever_it_is_named() {
    let scope = ["--model", "gpt-4o*", "--model", "gemini-2.5-flash"];
    let google = |model: &str| format!("/google/v1beta/models/{model}:generateContent");
    for (agent, request) in [
        ("model-in-body", Request::post(CHAT, r#"{"messages":[],"model":"gpt-5.1"}"#)),
        ("model-escaped", Request::post(CHAT, r#"{"messages":[],"model":"\u0067pt-5.1"}"#)),
        ("model-missing", Request::post(CHAT, r#"{"messages":[]}"#)),
        ("model-in-path", Request::post(&google("gemini-2.5-pro"), "{\"contents\":[]}")),
        (
            "model-in-path-stream",
            Request::post(&google("gemini-2.5-pro").replace("generate", "streamGenerate"), "{}"),
        ),
        (
            "model-in-a-form",
            Request::new("POST", "/openai/v1/audio/transcriptions")
                .field("Content-Type", "multipart/form-data; boundary=b")
                .body("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-5.1\r\n--b--\r\n"),
        ),
    ] {
        check_refused(agent, &scope, &request, "out_of_scope");
    }
}

#[test]
fn what_lets_more_than_it_seems_is_refused_by_default() {
    for (agent, request) in [
        ("mints-a-key", Request::post("/openai/v1/realtime/client_secrets", "{}")),
        ("asks-the-organisation", Request::get("/openai/v1/organization/admin_api_keys")),
        ("asks-for-a-new-thing", Request::post("/openai/v1/something/new", "{}")),
        ("makes-a-router-key", Request::post("/openrouter/v1/keys", "{}")),
        ("makes-a-google-token", Request::post("/google/v1beta/auth_tokens", "{}")),
        ("gets-what-is-posted", Request::get(CHAT)),
        ("lists-files", Request::get("/openai/v1/files")),
        ("starts-a-batch", Request::post("/openai/v1/batches", "{}")),
    ] {
        check_refused(agent, &[], &request, "endpoint_denied");
    }
}

#[test]
fn another_class_of_route_is_refused() {
    let request = Request::post(CHAT, BODY);
    check_refused("only-looks", &["--route", "metadata"], &request, "endpoint_denied");
}

#[test]
fn a_capability_for_the_socket_is_refused_on_tcp() {
    check_refused("by-tcp", &["--require-uds"], &Request::post(CHAT, BODY), "out_of_scope");
    let gateway = Gateway::shared();
    let token = gateway.mint(&["by-socket", "--require-uds"]);
    gateway.unix().ask(&Request::post(CHAT, BODY).bearer(&token)).expect(200);
}

#[test]
fn what_is_in_scope_is_served() {
    let gateway = Gateway::shared();
    let token =
        gateway.mint(&["scoped", "--provider", "openai", "--model", "gpt-4o*", "--route", "generate"]);
    ask_with(gateway, &token, &Request::post(CHAT, BODY)).expect(200);
    let token = gateway.mint(&["scoped-admin", "--route", "admin"]);
    let script = gateway.mock.plays(json("{}"));
    let request = Request::get("/openai/v1/organization/costs").script(&script);
    ask_with(gateway, &token, &request).expect(200);
    assert_eq!(gateway.mock.the_request(&script).line(), "GET /v1/organization/costs HTTP/1.1");
}

#[test]
fn a_scope_of_names_that_do_not_exist_is_not_minted() {
    let gateway = silent();
    gateway.run(["agent", "mint", "x", "--provider", "opneai"]).expect(5);
    gateway.run(["agent", "mint", "x", "--route", "everything"]).expect(2);
    gateway.run(["agent", "mint", "x", "--ttl", "soon"]).expect(2);
    gateway.run(["agent", "mint", "../x"]).expect(2);
}

#[test]
fn without_a_capability_callers_are_anonymous_only_where_that_is_set() {
    let tables = "[security]\nrequire_capability = false".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    for request in [Request::post(CHAT, BODY), Request::post(CHAT, BODY).bearer("sk-anything")] {
        let script = gateway.mock.plays(json("{}"));
        let id = gateway.tcp().ask(&request.script(&script)).expect(200).id();
        let row = gateway.row(&id).request;
        assert_eq!(row.agent.as_ref().map(policy::AgentName::as_str), Some("anonymous"));
        assert_eq!(row.capability, None);
        let sent = gateway.mock.the_request(&script).get("authorization").unwrap();
        assert!(sent.starts_with("Bearer sk-real-openai-"), "the caller's own credential went on: {sent}");
    }
    let bad = Request::post(CHAT, BODY).bearer("tfk_no");
    gateway.tcp().ask(&bad).expect_refusal(401, "invalid_capability");
    Gateway::shared().tcp().ask(&Request::post(CHAT, BODY)).expect_refusal(401, "missing_capability");
}
