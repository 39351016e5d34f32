//! What reaches a provider: its own key in its own place, and of the caller's request only what is on the list.

use base64::Engine;

use crate::support::{Gateway, KEYS, Received, Request};

const BODY: &str = r#"{"messages":[{"role":"user","content":"hi"}]}"#;

/// How each provider takes its key, and a route of it.
const PROVIDERS: [(&str, &str, &str, &str); 5] = [
    ("openai", "/openai/v1/chat/completions", "authorization", "Bearer "),
    ("anthropic", "/anthropic/v1/messages", "x-api-key", ""),
    ("google", "/google/v1beta/models/gemini-2.5-flash:generateContent", "x-goog-api-key", ""),
    ("azure-openai", "/azure-openai/deployments/d/chat/completions", "api-key", ""),
    ("groq", "/groq/openai/v1/chat/completions", "authorization", "Bearer "),
];

fn key(provider: &str) -> &'static str {
    KEYS.iter().find(|key| key.provider == provider).unwrap().key
}

/// Every field in which a credential could stand, and its value.
fn credentials(received: &Received) -> Vec<(String, String)> {
    let is_credential = |name: &str| {
        matches!(name, "authorization" | "x-api-key" | "x-goog-api-key" | "api-key" | "x-tokfence-capability")
    };
    received.fields().into_iter().filter(|(name, _)| is_credential(name)).collect()
}

/// Sends the capability in `place` and checks that the provider got its own key and nothing of the capability.
#[track_caller]
fn check_injected(place: &str, value: &dyn Fn(&str) -> String) {
    let gateway = Gateway::shared();
    for (provider, route, field, prefix) in PROVIDERS {
        let script = gateway.mock.plays(crate::support::json("{}"));
        // The model is in the path there, and another one in the body would be refused.
        let body = if provider == "google" { r#"{"contents":[]}"# } else { BODY };
        let request = match place {
            "?key=" => Request::post(&format!("{route}?alt=sse&key={}", gateway.token), body),
            name => Request::post(route, body).field(name, &value(&gateway.token)),
        };
        gateway.tcp().ask(&request.script(&script)).expect(200);
        let received = gateway.mock.the_request(&script);
        let expected = vec![(field.to_owned(), format!("{prefix}{}", key(provider)))];
        assert_eq!(credentials(&received), expected, "{provider} from {place}");
        let bytes = [&received.head[..], &received.body].concat();
        assert!(!contains_secret(&bytes, &gateway.token), "{provider} got the capability from {place}");
        if place == "?key=" {
            assert!(received.line().ends_with("?alt=sse HTTP/1.1"), "{}", received.line());
        }
    }
}

/// Whether the secret part of a capability stands in the bytes, as it is or in base 64.
fn contains_secret(bytes: &[u8], token: &str) -> bool {
    let secret = token.split('_').next_back().unwrap();
    let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret);
    [secret, &encoded[..encoded.len() - 4]]
        .iter()
        .any(|text| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[test]
fn a_capability_as_a_bearer_token_becomes_the_key() {
    check_injected("Authorization", &|token| format!("Bearer {token}"));
}

#[test]
fn a_capability_in_x_api_key_becomes_the_key() {
    check_injected("x-api-key", &str::to_owned);
}

#[test]
fn a_capability_in_x_goog_api_key_becomes_the_key() {
    check_injected("x-goog-api-key", &str::to_owned);
}

#[test]
fn a_capability_in_api_key_becomes_the_key() {
    check_injected("api-key", &str::to_owned);
}

#[test]
fn a_capability_in_the_query_becomes_the_key_and_leaves_the_query() {
    check_injected("?key=", &str::to_owned);
}

#[test]
fn a_capability_in_its_own_header_becomes_the_key() {
    check_injected("X-Tokfence-Capability", &str::to_owned);
}

#[test]
fn two_different_credentials_are_refused_and_one_sent_twice_is_not() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(crate::support::json("{}"));
    let request =
        || Request::post("/openai/v1/chat/completions", BODY).script(&script).bearer(&gateway.token);
    gateway.tcp().ask(&request().field("x-api-key", "sk-other")).expect_refusal(400, "invalid_request");
    gateway.tcp().ask(&request().bearer("sk-other")).expect_refusal(400, "invalid_request");
    gateway.tcp().ask(&request().field("X-Tokfence-Capability", "x")).expect_refusal(400, "invalid_request");
    assert!(gateway.mock.received(&script).is_empty());
    gateway.tcp().ask(&request().field("x-api-key", &gateway.token)).expect(200);
    assert_eq!(gateway.mock.the_request(&script).get("x-api-key"), None);
}

#[test]
fn of_the_callers_headers_only_the_listed_ones_arrive() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(crate::support::json("{}"));
    let request = Request::post("/openai/v1/chat/completions", BODY)
        .bearer(&gateway.token)
        .script(&script)
        .field("Cookie", "session=1")
        .field("X-Forwarded-For", "10.0.0.1")
        .field("Forwarded", "for=10.0.0.1")
        .field("Via", "1.1 proxy")
        .field("Traceparent", "00-1-1-01")
        .field("OpenAI-Organization", "org-x")
        .field("OpenAI-Project", "proj-x")
        .field("Accept-Encoding", "gzip, br")
        .field("TE", "trailers")
        .field("Proxy-Authorization", "Basic x")
        .field("Connection", "keep-alive, X-Stainless-Hop")
        .field("X-Auth-Token", "x")
        .field("User-Agent", "agent/1")
        .field("Accept", "text/event-stream")
        .field("X-Stainless-Lang", "rust")
        .field("Idempotency-Key", "i-1")
        .field("OpenAI-Beta", "assistants=v2");
    gateway.tcp().ask(&request).expect(200);
    let received = gateway.mock.the_request(&script);
    let mut names: Vec<String> = received.fields().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let expected = [
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "openai-beta",
        "user-agent",
        "x-client-request-id",
        "x-stainless-lang",
    ];
    assert_eq!(names, expected);
    assert_eq!(received.get("accept-encoding").as_deref(), Some("identity"));
    assert_eq!(received.get("host"), Some(gateway.mock.address.to_string()));
    assert_eq!(received.get("user-agent").as_deref(), Some("agent/1"));
}

#[test]
fn a_header_that_connection_names_does_not_arrive() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(crate::support::json("{}"));
    let request = Request::post("/openai/v1/chat/completions", BODY)
        .bearer(&gateway.token)
        .script(&script)
        .field("X-Stainless-Hop", "1")
        .field("Connection", "X-Stainless-Hop");
    gateway.tcp().ask(&request).expect(200);
    assert_eq!(gateway.mock.the_request(&script).get("x-stainless-hop"), None);
}

#[test]
fn a_provider_gets_its_own_listed_headers_and_others_do_not() {
    let gateway = Gateway::shared();
    for (route, arrives) in [("/anthropic/v1/messages", true), ("/openai/v1/chat/completions", false)] {
        let script = gateway.mock.plays(crate::support::json("{}"));
        let request = Request::post(route, BODY).script(&script).field("anthropic-version", "2023-06-01");
        gateway.ask(request).expect(200);
        assert_eq!(gateway.mock.the_request(&script).get("anthropic-version").is_some(), arrives, "{route}");
    }
}

#[test]
fn the_path_that_was_decided_on_is_the_path_that_is_sent() {
    let gateway = Gateway::shared();
    for (asked, sent) in [
        ("/openai/v1/models?limit=2&key=&after=a%2Fb", "GET /v1/models?limit=2&after=a%2Fb HTTP/1.1"),
        ("/openai/v1/models/gpt%2d4o", "GET /v1/models/gpt-4o HTTP/1.1"),
        ("/groq/v1/models", "GET /openai/v1/models HTTP/1.1"),
        ("/groq/openai/v1/models", "GET /openai/v1/models HTTP/1.1"),
        ("/gemini/v1beta/models", "GET /v1beta/models HTTP/1.1"),
    ] {
        let script = gateway.mock.plays(crate::support::json("{}"));
        gateway.ask(Request::get(asked).script(&script)).expect(200);
        assert_eq!(gateway.mock.the_request(&script).line(), sent);
    }
}

#[test]
fn a_provider_without_a_key_gets_no_credential_at_all() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(crate::support::json("{}"));
    let body = r#"{"model":"llama3","messages":[],"stream":false}"#;
    gateway.ask(Request::post("/ollama/api/chat", body).script(&script)).expect(200);
    assert_eq!(credentials(&gateway.mock.the_request(&script)), []);
}
