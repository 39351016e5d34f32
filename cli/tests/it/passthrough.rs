//! Providers that get the caller's own login: it arrives as it was sent, the capability arrives nowhere, and all that
//! holds for other requests holds for these.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rustix::process::Signal;
use storage::Outcome;

use crate::sentinel::{files_of, find, forms};
use crate::support::{Gateway, Output, Received, Request, Response, Setup, eventually, json};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;
/// Without a model, for routes that have it in their path.
const PATH_BODY: &str = r#"{"messages":[]}"#;
const LOGIN: &str = "Bearer eyJhbGciOi.0LOGINSENTINEL0_a-b.c";
const CAPABILITY: &str = "X-Tokfence-Capability";

/// Every provider of the tests takes the caller's own login, although the vault holds a key of each.
fn setup() -> Setup {
    let provider =
        "auth = \"passthrough\"\npass_headers = [\"chatgpt-account-id\", \"x-codex-*\"]".to_owned();
    Setup { provider, ..Setup::default() }
}

fn gateway() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start_with(&setup()));
    &GATEWAY
}

fn post(target: &str) -> Request {
    Request::post(target, if target.contains("/models/") { PATH_BODY } else { BODY })
}

/// A request that is as it should be.
fn good(token: &str) -> Request {
    post(CHAT).field("Authorization", LOGIN).field(CAPABILITY, token)
}

/// Every field in which a credential or a capability could stand.
fn credentials(received: &Received) -> Vec<(String, String)> {
    let is_credential = |name: &str| {
        matches!(name, "authorization" | "x-api-key" | "x-goog-api-key" | "api-key" | "x-tokfence-capability")
    };
    received.fields().into_iter().filter(|(name, _)| is_credential(name)).collect()
}

#[track_caller]
fn check_forwarded(target: &str, field: &str, value: &str) {
    let gateway = gateway();
    let script = gateway.mock.plays(json("{}"));
    let request =
        Request::post(target, "{}").field(field, value).field(CAPABILITY, &gateway.token).script(&script);
    gateway.tcp().ask(&request).expect(200);
    let received = gateway.mock.the_request(&script);
    assert_eq!(credentials(&received), [(field.to_ascii_lowercase(), value.to_owned())]);
    let bytes = [&received.head[..], &received.body].concat();
    assert!(find(&[("a capability".to_owned(), forms(&gateway.token[13..]))], target, &bytes).is_empty());
    assert!(!String::from_utf8_lossy(&bytes).contains("-real-"), "the key of the vault went on as well");
}

#[test]
fn a_login_arrives_as_it_was_sent_and_the_capability_does_not() {
    check_forwarded(CHAT, "Authorization", LOGIN);
    check_forwarded(CHAT, "Authorization", "bearer  two-spaces and \"more\"");
    check_forwarded(
        "/anthropic/v1/messages?beta=true",
        "Authorization",
        "Bearer sk-ant-oat01-0LOGINSENTINEL0",
    );
    check_forwarded("/anthropic/v1/messages", "x-api-key", "sk-ant-0LOGINSENTINEL0");
    check_forwarded(
        "/google/v1beta/models/gemini-2.5-flash:generateContent?alt=sse",
        "x-goog-api-key",
        "AIza0",
    );
    check_forwarded("/azure-openai/deployments/gpt-4o-mini/chat/completions", "api-key", "az0");
}

#[test]
fn the_headers_that_a_login_needs_arrive_and_others_do_not() {
    let gateway = gateway();
    let script = gateway.mock.plays(json("{}"));
    let request = good(&gateway.token)
        .script(&script)
        .field("ChatGPT-Account-Id", "account-1")
        .field("X-Codex-Turn", "7")
        .field("originator", "codex_cli_rs")
        .field("session_id", "s-1")
        .field("OpenAI-Beta", "responses=experimental")
        .field("Cookie", "a=b")
        .field("X-Other", "x");
    gateway.tcp().ask(&request).expect(200);
    let received = gateway.mock.the_request(&script);
    for (name, value) in [
        ("chatgpt-account-id", Some("account-1")),
        ("x-codex-turn", Some("7")),
        ("originator", Some("codex_cli_rs")),
        ("session_id", Some("s-1")),
        ("openai-beta", Some("responses=experimental")),
        ("cookie", None),
        ("x-other", None),
    ] {
        assert_eq!(received.get(name).as_deref(), value, "{name}");
    }
}

/// Sends a request that must be refused, and checks that the provider heard nothing of it.
#[track_caller]
fn check_refused(request: Request, status: u16, code: &str) -> Response {
    let gateway = gateway();
    let script = gateway.mock.plays(json("{}"));
    let refusal = gateway.tcp().ask(&request.script(&script)).expect_refusal(status, code);
    assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    assert!(gateway.mock.received(&script).is_empty());
    refusal
}

#[test]
fn a_capability_in_the_place_of_a_login_is_refused_and_goes_nowhere() {
    let token = &gateway().token;
    let bearer = format!("Bearer {token}");
    let fields = [
        ("Authorization", bearer.as_str()),
        ("Authorization", token),
        ("x-api-key", token),
        ("x-goog-api-key", token),
        ("api-key", token),
        ("Authorization", "Bearer tfk_of-some-other-gateway"),
    ];
    for (name, value) in fields {
        check_refused(post(CHAT).field(name, value).field(CAPABILITY, token), 400, "invalid_request");
        let refusal = check_refused(post(CHAT).field(name, value), 401, "missing_capability");
        assert!(refusal.text().contains("x-tokfence-capability"), "{}", refusal.text());
        assert!(!refusal.text().contains(&token[13..]), "{}", refusal.text());
    }
    let query = post(&format!("{CHAT}?key={token}")).field("Authorization", LOGIN);
    check_refused(query.clone(), 401, "missing_capability");
    check_refused(query.field(CAPABILITY, token), 400, "invalid_request");
}

#[test]
fn a_request_with_no_login_or_with_two_is_refused() {
    let token = &gateway().mint(&["logged-out"]);
    let refusal = check_refused(post(CHAT).field(CAPABILITY, token), 400, "invalid_request");
    assert!(refusal.text().contains("the caller's own login"), "{}", refusal.text());
    // The row says whose request it was all the same.
    let row = gateway().row(&refusal.id()).request;
    assert_eq!(row.agent.as_ref().map(policy::AgentName::as_str), Some("logged-out"));
    check_refused(post(CHAT).bearer("").field(CAPABILITY, token), 400, "invalid_request");
    check_refused(good(token).field("x-api-key", "another"), 400, "invalid_request");
    check_refused(good(token).field("Authorization", "Bearer another"), 400, "invalid_request");
    check_refused(good(token).field("Connection", "Authorization"), 400, "invalid_request");
    let in_query = post(&format!("{CHAT}?key=AIza0")).field("Authorization", LOGIN).field(CAPABILITY, token);
    check_refused(in_query, 400, "invalid_request");
}

#[test]
fn a_login_alone_opens_nothing_and_a_bad_capability_neither() {
    let gateway = gateway();
    let foreign = &Gateway::shared().token;
    check_refused(post(CHAT).field("Authorization", LOGIN), 401, "missing_capability");
    check_refused(good(foreign), 401, "invalid_capability");
    check_refused(good("x"), 401, "invalid_capability");
    check_refused(good(&gateway.token).field(CAPABILITY, foreign), 400, "invalid_request");
    let token = gateway.mint(&["short"]);
    gateway.tcp().ask(&good(&token)).expect(200);
    gateway.run(["agent", "revoke", "short"]).expect(0);
    check_refused(good(&token), 401, "revoked_capability");
    let token = gateway.mint(&["mayfly", "--ttl", "1s"]);
    let refusal = eventually("the end of the capability", || {
        Some(gateway.tcp().ask(&good(&token))).filter(|response| response.status() != 200)
    });
    refusal.expect_refusal(401, "expired_capability");
}

#[test]
fn scopes_limit_what_a_login_is_used_for() {
    let gateway = gateway();
    let check = |agent: &str, scope: &[&str], request: &dyn Fn(&str) -> Request, code: &str| {
        let token = gateway.mint(&[&[agent], scope].concat());
        let refusal = check_refused(request(&token), 403, code);
        let row = gateway.row(&refusal.id()).request;
        assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Refused, Some(code)));
        assert_eq!(row.agent.as_ref().map(policy::AgentName::as_str), Some(agent));
    };
    check("scoped-0", &["--provider", "anthropic"], &good, "out_of_scope");
    check("scoped-1", &["--model", "claude-*"], &good, "out_of_scope");
    check("scoped-2", &["--route", "metadata"], &good, "endpoint_denied");
    check("scoped-3", &["--require-uds"], &good, "out_of_scope");
    let admin = |token: &str| {
        Request::get("/openai/v1/organization/costs").field("Authorization", LOGIN).field(CAPABILITY, token)
    };
    check("scoped-4", &[], &admin, "endpoint_denied");
}

#[test]
fn a_request_has_a_row_with_its_agent_and_what_it_would_have_cost() {
    let gateway = gateway();
    let token = gateway.mint(&["subscriber"]);
    let id = gateway.tcp().ask(&good(&token)).expect(200).id();
    let row = gateway.row(&id).request;
    assert_eq!(row.agent.as_ref().map(policy::AgentName::as_str), Some("subscriber"));
    assert!(row.capability.is_some_and(|id| token.contains(id.as_str())));
    assert_eq!((row.usage.input, row.usage.output), (9, 2));
    // 9 × 150 + 2 × 600 nano-dollars, the price without a subscription.
    assert_eq!(row.cost.map(policy::NanoUsd::nanos), Some(2550));
}

#[test]
fn while_the_vault_is_locked_no_login_goes_out() {
    let gateway = Gateway::start_with(&Setup { is_unlocked: false, ..setup() });
    gateway.tcp().ask(&good(&gateway.token)).expect_refusal(503, "vault_locked");
    assert_eq!((gateway.mock.connections(), gateway.mock.bytes()), (0, 0));
    gateway.run(["unlock"]).expect(0);
    gateway.tcp().ask(&good(&gateway.token)).expect(200);
    gateway.run(["lock"]).expect(0);
    gateway.tcp().ask(&good(&gateway.token)).expect_refusal(503, "vault_locked");
}

/// The environment of a child, as `env` prints it.
fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn a_child_keeps_its_login_and_is_given_the_capability_in_a_header() {
    let gateway = gateway();
    let old = format!("X-Tokfence-Capability: {}", gateway.token);
    let output = gateway
        .home
        .command(["run", "--agent", "child", "--", "env"])
        .env("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-own")
        .env("ANTHROPIC_API_KEY", &gateway.token)
        .env("ANTHROPIC_CUSTOM_HEADERS", &old)
        .env("XAI_API_KEY", "sk-real")
        .run()
        .expect(0);
    let variables = variables(&output.stdout);
    assert_eq!(variables["ANTHROPIC_BASE_URL"], format!("http://{}/anthropic", gateway.address));
    let token = variables["ANTHROPIC_CUSTOM_HEADERS"].strip_prefix("X-Tokfence-Capability: ").unwrap();
    assert!(token.starts_with("tfk_") && *token != gateway.token, "{token}");
    assert_eq!(variables["TOKFENCE_CAPABILITY"], token);
    assert_eq!(variables["CLAUDE_CODE_OAUTH_TOKEN"], "sk-ant-oat01-own");
    for name in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "XAI_API_KEY"] {
        assert_eq!(variables.get(name), None, "{name}");
    }
    assert!(output.stderr.contains("`openai` takes the caller's own login"), "{}", output.stderr);
    let printed = gateway.run(["env", "--shell", "bash", "--provider", "anthropic"]).expect(0).stdout;
    assert!(printed.contains("export ANTHROPIC_CUSTOM_HEADERS='X-Tokfence-Capability: tfk_"), "{printed}");
    assert!(!printed.contains("ANTHROPIC_API_KEY"), "{printed}");
}

#[test]
fn a_provider_that_is_set_to_take_logins_is_served_at_once_and_shown_as_such() {
    let gateway = Gateway::start();
    let url = format!("http://{}/backend-api/codex", gateway.mock.address);
    let set = ["provider", "set", "chatgpt", &url, "--auth", "passthrough", "--local"];
    gateway.run(set).expect(0);
    let script = gateway.mock.plays(json("{}"));
    let request = post("/chatgpt/responses").field("Authorization", LOGIN).script(&script);
    gateway.tcp().ask(&request.field(CAPABILITY, &gateway.token)).expect(200);
    let received = gateway.mock.the_request(&script);
    assert_eq!(received.line(), "POST /backend-api/codex/responses HTTP/1.1");
    assert_eq!(received.get("authorization").as_deref(), Some(LOGIN));

    let shown = gateway.run(["--json", "provider", "show", "chatgpt"]).expect(0).json();
    assert_eq!((shown["auth"].as_str(), shown["has_key"].as_bool()), (Some("passthrough"), Some(false)));
    let listed = gateway.run(["provider", "list"]).expect(0).stdout;
    assert!(listed.lines().any(|line| line.starts_with("chatgpt") && line.ends_with("caller's")), "{listed}");
    let status = gateway.run(["--json", "status"]).expect(0).json();
    assert_eq!(status["passthrough"], serde_json::json!(["chatgpt"]));
    let online = gateway.run(["doctor", "--online"]).stdout;
    assert!(online.contains("chatgpt is reached"), "{online}");
    let bad = gateway.run(["provider", "set", "chatgpt", &url, "--auth", "passthru", "--local"]).expect(1);
    assert!(bad.stderr.contains("passthrough"), "{}", bad.stderr);
}

/// Sends requests of every kind, good and bad, with the login in every place.
fn make_requests(gateway: &Gateway, login: &str) {
    let send = |request: Request| {
        let mut client = gateway.tcp();
        let _ = client.try_send(&request.bytes());
        client.finish_sending();
        // Whatever the answer is: what is kept of the request is the question.
        let _ = client.try_response();
    };
    let token = &gateway.token;
    for field in ["Authorization", "x-api-key", "x-goog-api-key", "api-key", CAPABILITY, "Cookie", "X-Other"]
    {
        send(post(CHAT).field(field, login).field(CAPABILITY, token));
        send(post(CHAT).field(field, login));
        send(post(CHAT).field(field, login).field("x-api-key", "another").field(CAPABILITY, token));
    }
    send(post(&format!("{CHAT}?key={login}")).field(CAPABILITY, token));
    send(post("/openai/v1/organization/keys").field("Authorization", login).field(CAPABILITY, token));
    send(post(CHAT).field("Authorization", login).field(CAPABILITY, token).body("{\"model\":"));
    let echo = format!("{{\"error\":{{\"message\":\"bad token {login}\"}}}}");
    for script in [
        gateway.mock.plays(crate::support::answer("401 Unauthorized", &echo)),
        gateway.mock.plays(format!("HTTP/1.1 {login}\r\n\r\n")),
        gateway.mock.script(|_, _| Ok(crate::support::Then::Reset)),
    ] {
        send(post(CHAT).field("Authorization", login).field(CAPABILITY, token).script(&script));
    }
}

#[test]
fn a_login_is_in_no_file_and_in_no_output() {
    const SECRET: &str = "sk-ant-oat01-0LOGINSENTINEL0-mnop";
    let gateway = Gateway::start_with(&setup());
    make_requests(&gateway, SECRET);
    make_requests(&gateway, &format!("Bearer {SECRET}"));
    let commands: [&[&str]; 5] =
        [&["log", "--limit", "1000"], &["stats"], &["status"], &["doctor"], &["provider", "list"]];
    let printed: Vec<Output> = commands.iter().map(|args| gateway.run(args.iter().copied())).collect();
    let files = files_of(gateway.home.path());
    gateway.home.signal(Signal::TERM);
    gateway.home.wait_for_end();
    let secrets = [("the login".to_owned(), forms(SECRET))];
    let mut found = Vec::new();
    for output in &printed {
        found.extend(find(&secrets, "an output", output.stdout.as_bytes()));
        found.extend(find(&secrets, "an output", output.stderr.as_bytes()));
    }
    for path in files.into_iter().chain(files_of(gateway.home.path())) {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        found.extend(find(&secrets, &path.display().to_string(), &bytes));
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(!find(&secrets, "a probe", SECRET.as_bytes()).is_empty());
}
