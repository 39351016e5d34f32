//! The model of a request, in its path or in its body: what is decided on is what the provider is asked for.

use std::sync::LazyLock;

use crate::support::{Gateway, Request, json};

/// A gateway with a provider that has its models in the path, and a capability for one family of models.
fn gateway() -> &'static (Gateway, String) {
    static GATEWAY: LazyLock<(Gateway, String)> = LazyLock::new(|| {
        let gateway = Gateway::start();
        let url = format!("http://{}", gateway.mock.address);
        gateway.run(["provider", "set", "bedrock", &url, "--auth", "none", "--local"]).expect(0);
        let token = gateway.mint(&["claude-only", "--model", "anthropic.claude-3*"]);
        (gateway, token)
    });
    &GATEWAY
}

#[track_caller]
fn check_asked(target: &str, body: &str, sent: &str, model: &str) {
    let (gateway, _) = gateway();
    let script = gateway.mock.plays(json("{}"));
    let id = gateway.ask(Request::post(target, body).script(&script)).expect(200).id();
    let received = gateway.mock.the_request(&script);
    assert_eq!((received.line(), received.text()), (format!("POST {sent} HTTP/1.1"), body.to_owned()));
    assert_eq!(gateway.row(&id).request.model.as_ref().map(storage::LogText::as_str), Some(model));
}

#[track_caller]
fn check_refused(token: &str, target: &str, body: &str, status: u16, code: &str) {
    let (gateway, _) = gateway();
    let script = gateway.mock.plays(json("{}"));
    let request = Request::post(target, body).bearer(token).script(&script);
    gateway.tcp().ask(&request).expect_refusal(status, code);
    assert!(gateway.mock.received(&script).is_empty(), "{target}");
}

#[test]
fn a_model_is_taken_from_the_path_in_the_form_that_is_sent_on() {
    check_asked(
        "/bedrock/model/anthropic.claude-3%3A0/invoke",
        r#"{"max_tokens":1}"#,
        "/model/anthropic.claude-3:0/invoke",
        "anthropic.claude-3:0",
    );
    check_asked("/bedrock/model/a%20b/converse", "{}", "/model/a%20b/converse", "a%20b");
    check_asked(
        "/google/v1beta/models/gemini-2.5-pro%3AgenerateContent",
        r#"{"model":"models/gemini-2.5-pro"}"#,
        "/v1beta/models/gemini-2.5-pro:generateContent",
        "gemini-2.5-pro",
    );
    check_asked(
        "/azure-openai/openai/deployments/my-gpt/chat/completions?api-version=1",
        r#"{"model":"gpt-4o"}"#,
        "/openai/deployments/my-gpt/chat/completions?api-version=1",
        "my-gpt",
    );
}

#[test]
fn a_scope_holds_for_the_model_of_the_path() {
    let (gateway, token) = gateway();
    let script = gateway.mock.plays(json("{}"));
    let good = Request::post("/bedrock/model/anthropic.claude-3%3a0/invoke-with-response-stream", "{}");
    gateway.tcp().ask(&good.bearer(token).script(&script)).expect(200);
    for route in ["invoke", "converse", "converse-stream", "invoke-with-response-stream"] {
        check_refused(token, &format!("/bedrock/model/meta.llama/{route}"), "{}", 403, "out_of_scope");
    }
    let allowed = r#"{"model":"anthropic.claude-3"}"#;
    check_refused(token, "/azure-openai/deployments/gpt/chat/completions", allowed, 403, "out_of_scope");
}

#[test]
fn two_models_in_one_request_are_refused() {
    let (gateway, _) = gateway();
    let token = &gateway.token;
    let body = r#"{"model":"anthropic.claude-3"}"#;
    for target in [
        "/bedrock/model/meta.llama/invoke",
        "/bedrock/openai/deployments/meta/chat/completions",
        "/google/v1beta/models/gemini-2.5-pro:streamGenerateContent",
    ] {
        check_refused(token, target, body, 400, "invalid_request");
    }
    check_refused(token, "/bedrock/model/a%2Fb/invoke", "{}", 400, "invalid_request");
    check_refused(token, "/bedrock/model/a%253A0/invoke", "{}", 400, "invalid_request");
}
