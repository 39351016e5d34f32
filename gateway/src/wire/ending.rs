//! The last event of a stream that the gateway ends, in the provider's own shape.
//!
//! An agent whose stream just breaks off asks again, most of them several times. Each shape here is one after which
//! agents were seen to stop, and which the provider's own SDK reads without a complaint of its own. The cause stands
//! in it in words, for whoever reads the agent's output, and as a code.

use serde_json::{Value, json};

use super::WireFormat;
use super::seam::Seam;

/// Why a stream is ended, and what its last event names.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// The stable code of the refusal.
    pub code: &'a str,
    /// What happened, in one sentence without its full stop.
    pub message: &'a str,
    /// The id by which the log knows the request.
    pub request_id: &'a str,
    /// The model that was asked for.
    pub model: &'a str,
    /// The present second, since the epoch.
    pub now: i64,
}

/// What kind of stream a route answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Chat,
    Completion,
    Responses,
    Anthropic,
    Google,
    Ollama,
    Cohere,
    CohereV1,
    /// Any other: an error, as most SDKs look for one in every event.
    Error,
}

/// The bytes that end a stream of this format and path, after what `seam` has seen; `None` where none can.
pub fn ending(wire: WireFormat, path: &str, seam: &Seam, cause: &Cause<'_>) -> Option<Vec<u8>> {
    let joint = seam.joint()?;
    let shape = Shape::of(wire, path);
    let event = shape.event(cause);
    let text = if seam.is_sse() {
        let name = shape.event_name().map(|name| format!("event: {name}\n")).unwrap_or_default();
        let done = if shape.has_done() { "data: [DONE]\n\n" } else { "" };
        format!("{}{name}data: {event}\n\n{done}", joint.before)
    } else if seam.is_lines() {
        format!("{}{event}\n", joint.before)
    } else {
        format!("{}{event}{}", joint.before, joint.after)
    };
    Some(text.into_bytes())
}

impl Shape {
    /// The route decides before the provider: many speak the formats of others on some of their routes.
    fn of(wire: WireFormat, path: &str) -> Self {
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| path.ends_with(suffix));
        if ends(&["/chat/completions", "/fim/completions", "/agents/completions"]) {
            return Self::Chat;
        }
        if ends(&["/completions"]) {
            return Self::Completion;
        }
        if ends(&["/responses"]) || path.contains("/responses/") {
            return Self::Responses;
        }
        if ends(&["/messages"]) {
            return Self::Anthropic;
        }
        match wire {
            WireFormat::OpenAi => Self::Error,
            WireFormat::Anthropic => Self::Anthropic,
            WireFormat::Google => Self::Google,
            WireFormat::Ollama => Self::Ollama,
            WireFormat::Cohere if path.starts_with("/v1/") => Self::CohereV1,
            WireFormat::Cohere => Self::Cohere,
        }
    }

    /// What stands in the field `event` of a server-sent event.
    fn event_name(self) -> Option<&'static str> {
        match self {
            Self::Responses => Some("response.failed"),
            Self::Anthropic => Some("error"),
            Self::Cohere => Some("message-end"),
            Self::Chat | Self::Completion | Self::Google | Self::Ollama | Self::CohereV1 | Self::Error => {
                None
            }
        }
    }

    /// Whether `[DONE]` follows the last event.
    fn has_done(self) -> bool {
        match self {
            Self::Chat | Self::Completion | Self::Error => true,
            Self::Responses
            | Self::Anthropic
            | Self::Google
            | Self::Ollama
            | Self::Cohere
            | Self::CohereV1 => false,
        }
    }

    fn event(self, cause: &Cause<'_>) -> Value {
        let stopped = format!("[tokfence] stopped: {}", cause.message);
        let mut event = match self {
            Self::Chat => chat(cause, &stopped),
            Self::Completion => completion(cause, &stopped),
            Self::Responses => responses(cause, &stopped),
            Self::Anthropic => anthropic(cause, &stopped),
            Self::Google => google(cause, &stopped),
            Self::Ollama => {
                json!({ "model": cause.model, "error": stopped, "done": true, "done_reason": "stop" })
            }
            Self::Cohere => {
                json!({ "type": "message-end", "delta": { "finish_reason": "ERROR", "error": stopped } })
            }
            Self::CohereV1 => json!({
                "is_finished": true,
                "event_type": "stream-end",
                "finish_reason": "ERROR",
                "response": { "text": stopped, "finish_reason": "ERROR" },
            }),
            Self::Error => json!({
                "error": { "message": stopped, "type": "invalid_request_error", "param": null, "code": cause.code },
            }),
        };
        event["tokfence"] =
            json!({ "code": cause.code, "message": cause.message, "request_id": cause.request_id });
        event
    }
}

/// A filtered answer is what agents take as final; a break or an error some of them answer by asking again.
fn chat(cause: &Cause<'_>, stopped: &str) -> Value {
    json!({
        "id": format!("chatcmpl-{}", cause.request_id),
        "object": "chat.completion.chunk",
        "created": cause.now,
        "model": cause.model,
        "choices": [{
            "index": 0,
            "delta": { "content": format!("\n\n{stopped}") },
            "logprobs": null,
            "finish_reason": "content_filter",
        }],
    })
}

fn completion(cause: &Cause<'_>, stopped: &str) -> Value {
    json!({
        "id": format!("cmpl-{}", cause.request_id),
        "object": "text_completion",
        "created": cause.now,
        "model": cause.model,
        "choices": [{
            "index": 0,
            "text": format!("\n\n{stopped}"),
            "logprobs": null,
            "finish_reason": "content_filter",
        }],
    })
}

/// `invalid_prompt` is the one code after which Codex does not try again.
fn responses(cause: &Cause<'_>, stopped: &str) -> Value {
    json!({
        "type": "response.failed",
        "sequence_number": 0,
        "response": {
            "id": format!("resp_{}", cause.request_id),
            "object": "response",
            "created_at": cause.now,
            "status": "failed",
            "error": { "code": "invalid_prompt", "message": stopped },
            "incomplete_details": null,
            "instructions": null,
            "metadata": {},
            "model": cause.model,
            "output": [],
            "parallel_tool_calls": true,
            "temperature": null,
            "tool_choice": "auto",
            "tools": [],
            "top_p": null,
            "usage": null,
        },
    })
}

/// Types of Anthropic's own after which its clients neither wait nor log in again.
fn anthropic(cause: &Cause<'_>, stopped: &str) -> Value {
    let kind = if cause.code == "budget_exceeded" { "billing_error" } else { "permission_error" };
    json!({
        "type": "error",
        "error": { "type": kind, "message": stopped },
        "request_id": cause.request_id,
    })
}

/// Without text or without a reason Gemini's clients take the answer for a broken one and ask again.
fn google(cause: &Cause<'_>, stopped: &str) -> Value {
    json!({
        "candidates": [{
            "content": { "role": "model", "parts": [{ "text": format!("\n\n{stopped}") }] },
            "finishReason": "OTHER",
            "index": 0,
        }],
        "modelVersion": cause.model,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Framing;

    const CAUSE: Cause<'_> = Cause {
        code: "revoked_capability",
        message: "the agent `a\"b` was revoked",
        request_id: "01J00000000000000000000000",
        model: "some-model",
        now: 1_750_000_000,
    };
    const STOPPED: &str = "[tokfence] stopped: the agent `a\"b` was revoked";

    fn text(wire: WireFormat, path: &str, framing: Framing, seen: &str) -> String {
        let mut seam = Seam::new(framing, true).unwrap();
        seam.follow(seen.as_bytes());
        String::from_utf8(ending(wire, path, &seam, &CAUSE).unwrap()).unwrap()
    }

    /// Names and data of the events that end this stream. Checks that `done` comes last where it is expected.
    #[track_caller]
    fn events(wire: WireFormat, path: &str, is_done: bool) -> Vec<(Option<String>, Value)> {
        let text = text(wire, path, Framing::Sse, "data: x\n\n");
        assert!(text.ends_with("\n\n"), "{text}");
        let (text, done) =
            text.strip_suffix("data: [DONE]\n\n").map_or((text.as_str(), false), |rest| (rest, true));
        assert_eq!(done, is_done, "{text}");
        let parse = |event: &str| {
            let (name, data) = event.split_once("data: ").unwrap();
            let name = name.strip_prefix("event: ").map(|name| name.trim_end().to_owned());
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["tokfence"]["code"], "revoked_capability");
            assert_eq!(data["tokfence"]["request_id"], CAUSE.request_id);
            (name, data)
        };
        text.trim_end().split("\n\n").map(parse).collect()
    }

    #[track_caller]
    fn event(wire: WireFormat, path: &str, name: Option<&str>, is_done: bool) -> Value {
        let mut events = events(wire, path, is_done);
        let (found, data) = events.pop().unwrap();
        assert_eq!((found.as_deref(), events.len()), (name, 0));
        data
    }

    #[test]
    fn a_chat_ends_as_if_it_were_filtered() {
        for (wire, path) in [
            (WireFormat::OpenAi, "/v1/chat/completions"),
            (WireFormat::Anthropic, "/v1/chat/completions"),
            (WireFormat::Google, "/v1beta/openai/chat/completions"),
            (WireFormat::Ollama, "/v1/chat/completions"),
            (WireFormat::Cohere, "/compatibility/v1/chat/completions"),
            (WireFormat::OpenAi, "/v1/fim/completions"),
        ] {
            let chunk = event(wire, path, None, true);
            assert_eq!(chunk["object"], "chat.completion.chunk", "{path}");
            assert_eq!(chunk["choices"][0]["finish_reason"], "content_filter");
            assert_eq!(chunk["choices"][0]["delta"]["content"], format!("\n\n{STOPPED}"));
            assert_eq!(chunk["model"], "some-model");
        }
    }

    #[test]
    fn a_completion_ends_as_if_it_were_filtered() {
        let chunk = event(WireFormat::OpenAi, "/v1/completions", None, true);
        assert_eq!(
            (&chunk["object"], &chunk["choices"][0]["text"]),
            (&json!("text_completion"), &json!(format!("\n\n{STOPPED}")))
        );
        assert_eq!(chunk["choices"][0]["finish_reason"], "content_filter");
    }

    #[test]
    fn a_response_fails() {
        for path in ["/v1/responses", "/responses", "/v1/responses/resp_1"] {
            let failed = event(WireFormat::OpenAi, path, Some("response.failed"), false);
            assert_eq!(failed["type"], "response.failed");
            assert_eq!(failed["response"]["status"], "failed");
            assert_eq!(failed["response"]["error"], json!({ "code": "invalid_prompt", "message": STOPPED }));
        }
    }

    #[test]
    fn a_message_ends_with_an_error() {
        for (wire, path) in [
            (WireFormat::Anthropic, "/v1/messages"),
            (WireFormat::Anthropic, "/v1/complete"),
            (WireFormat::OpenAi, "/anthropic/v1/messages"),
        ] {
            let error = event(wire, path, Some("error"), false);
            assert_eq!(error["type"], "error");
            assert_eq!(error["error"], json!({ "type": "permission_error", "message": STOPPED }));
            assert_eq!(error["request_id"], CAUSE.request_id);
        }
        let cause = Cause { code: "budget_exceeded", ..CAUSE };
        assert_eq!(Shape::Anthropic.event(&cause)["error"]["type"], "billing_error");
    }

    #[track_caller]
    fn check_candidate(chunk: &Value) {
        assert_eq!(chunk["candidates"][0]["finishReason"], "OTHER");
        assert_eq!(chunk["candidates"][0]["content"]["parts"][0]["text"], format!("\n\n{STOPPED}"));
    }

    #[test]
    fn a_gemini_stream_ends_with_a_reason_in_either_framing() {
        let path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
        check_candidate(&event(WireFormat::Google, path, None, false));
        for seen in ["", "[", "[{\"a\":1}", "[{\"a\":1}\n", "[{\"a\":1},\r\n"] {
            let whole = format!("{seen}{}", text(WireFormat::Google, path, Framing::Json, seen));
            let elements: Vec<Value> =
                serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{error}: {whole}"));
            check_candidate(elements.last().unwrap());
        }
    }

    #[test]
    fn lines_end_with_a_line() {
        for (seen, line_start) in [("{}\n", ""), ("{\"half", "\n")] {
            let text = text(WireFormat::Ollama, "/api/chat", Framing::Ndjson, seen);
            let line = text.strip_prefix(line_start).unwrap().strip_suffix('\n').unwrap();
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["error"], &line["done"]), (&json!(STOPPED), &json!(true)));
        }
        let text = text(WireFormat::Cohere, "/v1/chat", Framing::Ndjson, "");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["event_type"], &line["finish_reason"]), (&json!("stream-end"), &json!("ERROR")));
    }

    #[test]
    fn a_cohere_message_ends() {
        let end = event(WireFormat::Cohere, "/v2/chat", Some("message-end"), false);
        assert_eq!((&end["type"], &end["delta"]["finish_reason"]), (&json!("message-end"), &json!("ERROR")));
        assert_eq!(end["delta"]["error"], STOPPED);
    }

    #[test]
    fn any_other_stream_ends_with_an_error() {
        let error = event(WireFormat::OpenAi, "/v1/audio/speech", None, true);
        assert_eq!(
            (&error["error"]["code"], &error["error"]["message"]),
            (&json!("revoked_capability"), &json!(STOPPED))
        );
    }

    #[test]
    fn an_event_that_was_under_way_is_closed_first() {
        let text = text(WireFormat::OpenAi, "/v1/chat/completions", Framing::Sse, "data: {\"half");
        assert!(text.starts_with("\n\ndata: {"), "{text}");
    }
}
