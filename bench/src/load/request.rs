//! The request of a load, made once and sent as it is.

use std::net::SocketAddr;

use crate::plan::{StreamPlan, Wire};

/// Brings the body to about 500 bytes, the size of a short chat request.
const SYSTEM_PROMPT: &str = "You are a helpful assistant that answers questions about software in short, plain \
    sentences. If you do not know the answer, say so. Never invent the name of a function, an option or a file, \
    and prefer an example of three lines to an explanation of thirty.";

/// A whole HTTP request for `wire`; with `plan` it asks for a stream.
pub(crate) fn request_bytes(
    wire: Wire,
    address: SocketAddr,
    prefix: &str,
    credential: &str,
    plan: Option<StreamPlan>,
) -> Vec<u8> {
    request_with_history(wire, address, prefix, credential, plan, "")
}

/// The same, with `history` before the question: messages as JSON, each with a comma after it.
pub(super) fn request_with_history(
    wire: Wire,
    address: SocketAddr,
    prefix: &str,
    credential: &str,
    plan: Option<StreamPlan>,
    history: &str,
) -> Vec<u8> {
    let body = body(wire, plan, history);
    let authorization = match wire {
        Wire::Openai => format!("Authorization: Bearer {credential}"),
        Wire::Anthropic => format!("x-api-key: {credential}\r\nanthropic-version: 2023-06-01"),
    };
    let accept = if plan.is_some() { "text/event-stream" } else { "application/json" };
    format!(
        "POST {prefix}{path} HTTP/1.1\r\nHost: {address}\r\n{authorization}\r\nContent-Type: application/json\r\n\
         Accept: {accept}\r\nUser-Agent: bench\r\nContent-Length: {length}\r\n\r\n{body}",
        path = wire.path(),
        length = body.len(),
    )
    .into_bytes()
}

fn body(wire: Wire, plan: Option<StreamPlan>, history: &str) -> String {
    let marker = plan.map(StreamPlan::to_prompt).unwrap_or_default();
    let question = format!("How do I read a file line by line? {marker}");
    let stream = match (wire, plan) {
        (_, None) => "",
        (Wire::Openai, Some(_)) => r#","stream":true,"stream_options":{"include_usage":true}"#,
        (Wire::Anthropic, Some(_)) => r#","stream":true"#,
    };
    match wire {
        Wire::Openai => format!(
            r#"{{"model":"gpt-4o-mini","max_tokens":512,"temperature":0.2{stream},"messages":[{{"role":"system","content":"{SYSTEM_PROMPT}"}},{history}{{"role":"user","content":"{question}"}}]}}"#
        ),
        Wire::Anthropic => format!(
            r#"{{"model":"claude-sonnet-4-5","max_tokens":512,"temperature":0.2{stream},"system":"{SYSTEM_PROMPT}","messages":[{history}{{"role":"user","content":"{question}"}}]}}"#
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_about_500_bytes() {
        for wire in [Wire::Openai, Wire::Anthropic] {
            for plan in [None, Some(StreamPlan::default())] {
                let body = body(wire, plan, "");
                let document: serde_json::Value = serde_json::from_str(&body).expect("JSON");
                assert_eq!(document.get("stream").is_some(), plan.is_some());
                assert!((380..620).contains(&body.len()), "{} bytes", body.len());
            }
        }
    }

    #[test]
    fn a_request_states_its_length_and_credential() {
        let bytes = request_bytes(Wire::Openai, ([127, 0, 0, 1], 9).into(), "/openai", "tfk_1", None);
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("POST /openai/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:9\r\n"));
        assert!(head.contains("Authorization: Bearer tfk_1\r\n"));
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
    }

    #[test]
    fn a_history_goes_before_the_question() {
        for wire in [Wire::Openai, Wire::Anthropic] {
            let text = body(wire, None, &super::super::history::history(50_000));
            let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let messages = document["messages"].as_array().expect("messages");
            assert!(messages.len() > 10, "{} messages", messages.len());
            assert_eq!(messages.last().expect("one")["role"], "user");
            assert!((50_000..56_000).contains(&text.len()), "{} bytes", text.len());
        }
    }
}
