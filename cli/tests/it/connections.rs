//! What one connection, or one long upload, could get past: the guard after a chunked request, a revocation while
//! a body arrives, a limit on models by way of another model.

use crate::support::{Gateway, Request};

const CHAT: &str = "/openai/v1/chat/completions";

#[test]
fn nothing_follows_a_chunked_request_on_its_connection() {
    let gateway = Gateway::shared();
    let chunked =
        "POST /__tokfence/health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let refused =
        "POST /openai/v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let loose = format!("GET /openai/v1/models HTTP/1.1\nHost: localhost\nx-api-key: {}\n\n", gateway.token);
    for first in [chunked, refused] {
        let mut client = gateway.tcp();
        client.send(first.as_bytes());
        assert_eq!(client.response().head.get("connection"), Some("close"));
        // What is written to a connection that is being closed may fail or vanish; it must not be answered.
        let _ = client.try_send(loose.as_bytes());
        client.expect_end();
    }
}

#[test]
fn what_is_revoked_while_its_body_arrives_does_not_go_on() {
    let gateway = Gateway::shared();
    let token = gateway.mint(&["slow-uploader"]);
    let script = gateway.mock.plays(crate::support::json("{}"));
    let request =
        Request::post(CHAT, r#"{"model":"gpt-4o-mini","messages":[]}"#).bearer(&token).script(&script);
    let bytes = request.bytes();
    let (most, last) = bytes.split_at(bytes.len() - 5);
    let mut client = gateway.tcp();
    client.send(most);
    gateway.run(["agent", "revoke", "slow-uploader"]).expect(0);
    client.send(last);
    client.response().expect_refusal(401, "revoked_capability");
    assert!(gateway.mock.received(&script).is_empty());
}

#[test]
fn a_limit_on_models_has_no_way_around_it() {
    let gateway = Gateway::shared();
    let token = gateway.mint(&["limited", "--model", "gpt-4o-mini"]);
    let fallback = r#"{"model":"gpt-4o-mini","models":["openai/o3-pro"],"messages":[]}"#;
    let batch = r#"{"requests":[{"params":{"model":"claude-opus-4"}}]}"#;
    let cases = [
        ("/openrouter/v1/chat/completions", fallback, "out_of_scope"),
        ("/openai/v1/embeddings", r#"{"model":"text-embedding-3-large","input":"a"}"#, "out_of_scope"),
        ("/anthropic/v1/messages/batches", batch, "endpoint_denied"),
    ];
    for (target, body, code) in cases {
        let request = Request::post(target, body).bearer(&token);
        gateway.tcp().ask(&request).expect_refusal(403, code);
    }
    let files = gateway.mint(&["filer", "--model", "gpt-4o-mini", "--route", "file"]);
    let request = Request::post("/anthropic/v1/messages/batches", batch).bearer(&files);
    gateway.tcp().ask(&request).expect_refusal(403, "out_of_scope");
}
