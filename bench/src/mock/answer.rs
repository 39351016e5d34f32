//! The bytes of the mock provider's answers.

use anyhow::Result;
use memchr::memmem;

use crate::http::ResponseDecoder;
use crate::plan::Wire;
use crate::sse::{STAMP_DIGITS, STAMP_FIELD, stamp_digits, stamp_start};

pub(crate) const PROMPT_TOKENS: u32 = 120;
pub(crate) const JSON_COMPLETION_TOKENS: u32 = 240;
/// Makes a plain answer about 1.5 KB, the size of a typical chat answer.
const SENTENCE: &str = "The gateway reads each event as it passes and adds nothing to it. ";
const SENTENCES: usize = 17;

/// Tells nginx not to gather a stream, which is what whoever puts it before a provider tells it.
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
    Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n";
pub(super) const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n\
    Content-Length: 52\r\n\r\n{\"error\":{\"code\":\"invalid_api_key\",\"message\":\"key\"}}";
pub(super) const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\
    Content-Length: 47\r\n\r\n{\"error\":{\"code\":\"not_found\",\"message\":\"path\"}}";

/// Everything that does not depend on a request, of both wires.
pub(super) struct Answers {
    openai: WireAnswers,
    anthropic: WireAnswers,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { openai: WireAnswers::new(Wire::Openai), anthropic: WireAnswers::new(Wire::Anthropic) }
    }

    pub(super) fn of(&self, wire: Wire) -> &WireAnswers {
        match wire {
            Wire::Openai => &self.openai,
            Wire::Anthropic => &self.anthropic,
        }
    }
}

pub(super) struct WireAnswers {
    /// A whole answer, head and body.
    pub(super) json: Vec<u8>,
    /// A stream's head and the events before its content.
    pub(super) opening: Vec<u8>,
    /// One event of content.
    pub(super) event: StampedEvent,
}

impl WireAnswers {
    fn new(wire: Wire) -> Self {
        let body = json(wire);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut opening = STREAM_HEAD.as_bytes().to_vec();
        opening.extend_from_slice(&chunk(&match wire {
            Wire::Openai => openai_chunk(r#"{"role":"assistant","content":""}"#, "null"),
            Wire::Anthropic => anthropic_start(),
        }));
        Self { json: [head, body].concat().into_bytes(), opening, event: StampedEvent::new(wire) }
    }
}

/// An event of content as one HTTP chunk, with room for the clock.
#[derive(Clone)]
pub(super) struct StampedEvent {
    bytes: Vec<u8>,
    stamp_at: usize,
}

impl StampedEvent {
    fn new(wire: Wire) -> Self {
        let field = format!("{}{}\",", String::from_utf8_lossy(STAMP_FIELD), "0".repeat(STAMP_DIGITS));
        let event = match wire {
            Wire::Openai => openai_chunk(r#"{"content":" token"}"#, "null"),
            Wire::Anthropic => anthropic_event(
                "content_block_delta",
                r#""index":0,"delta":{"type":"text_delta","text":" token"}"#,
            ),
        };
        let bytes = chunk(&event.replacen("data: {", &format!("data: {{{field}"), 1));
        let stamp_at = stamp_start(&bytes).unwrap_or(0);
        Self { bytes, stamp_at }
    }

    /// The event as sent at `sent_ns`.
    pub(super) fn stamped(&mut self, sent_ns: u64) -> &[u8] {
        self.bytes[self.stamp_at..self.stamp_at + STAMP_DIGITS].copy_from_slice(&stamp_digits(sent_ns));
        &self.bytes
    }
}

/// What ends a stream of `events` content events, each of which counts as one token.
pub(super) fn closing(wire: Wire, events: u32, has_usage: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    match wire {
        Wire::Openai => {
            bytes.extend_from_slice(&chunk(&openai_chunk("{}", r#""stop""#)));
            if has_usage {
                bytes.extend_from_slice(&chunk(&openai_usage_chunk(events)));
            }
            bytes.extend_from_slice(&chunk("data: [DONE]\n\n"));
        }
        Wire::Anthropic => {
            let delta = format!(
                r#""delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{{"output_tokens":{events}}}"#
            );
            bytes.extend_from_slice(&chunk(&anthropic_event("content_block_stop", r#""index":0"#)));
            bytes.extend_from_slice(&chunk(&anthropic_event("message_delta", &delta)));
            bytes.extend_from_slice(&chunk("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        }
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// A whole stream as one answer of known length.
pub(super) fn whole(wire: Wire, answers: &WireAnswers, events: u32, has_usage: bool) -> Result<Vec<u8>> {
    let payload = payload(wire, answers, events, has_usage)?;
    let framing = format!("Content-Length: {}", payload.len());
    let mut answer = STREAM_HEAD.replace("Transfer-Encoding: chunked", &framing).into_bytes();
    answer.extend_from_slice(&payload);
    Ok(answer)
}

/// The events of a whole stream, with zeros for the clock.
pub(crate) fn stream(wire: Wire, events: u32) -> Result<Vec<u8>> {
    payload(wire, &WireAnswers::new(wire), events, true)
}

fn payload(wire: Wire, answers: &WireAnswers, events: u32, has_usage: bool) -> Result<Vec<u8>> {
    let mut chunked = answers.opening.clone();
    for _ in 0..events {
        chunked.extend_from_slice(&answers.event.bytes);
    }
    chunked.extend_from_slice(&closing(wire, events, has_usage));
    let mut payload = Vec::new();
    ResponseDecoder::default().feed(&chunked, &mut |bytes| payload.extend_from_slice(bytes))?;
    Ok(payload)
}

pub(super) fn asks_for_stream(body: &[u8]) -> bool {
    memmem::find(body, br#""stream":true"#).is_some()
}

/// OpenAI tells a stream's usage only to those who ask; Anthropic always does.
pub(super) fn asks_for_usage(wire: Wire, body: &[u8]) -> bool {
    wire == Wire::Anthropic || memmem::find(body, br#""include_usage":true"#).is_some()
}

fn chunk(payload: &str) -> Vec<u8> {
    format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes()
}

const OPENAI_CHUNK: &str = r#""id":"chatcmpl-bench0000000000000000000","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini-2024-07-18","system_fingerprint":"fp_bench""#;

fn openai_chunk(delta: &str, finish_reason: &str) -> String {
    format!(
        "data: {{{OPENAI_CHUNK},\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish_reason}}}]}}\n\n"
    )
}

fn openai_usage_chunk(events: u32) -> String {
    format!("data: {{{OPENAI_CHUNK},\"choices\":[],\"usage\":{}}}\n\n", openai_usage(events))
}

fn openai_usage(completion_tokens: u32) -> String {
    let total = PROMPT_TOKENS + completion_tokens;
    format!(
        r#"{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{completion_tokens},"total_tokens":{total}}}"#
    )
}

/// The body of a plain answer.
pub(crate) fn json(wire: Wire) -> String {
    match wire {
        Wire::Openai => openai_json(),
        Wire::Anthropic => anthropic_json(),
    }
}

fn openai_json() -> String {
    let text = SENTENCE.repeat(SENTENCES);
    let usage = openai_usage(JSON_COMPLETION_TOKENS);
    format!(
        r#"{{"id":"chatcmpl-bench0000000000000000000","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{usage},"system_fingerprint":"fp_bench"}}"#
    )
}

fn anthropic_event(name: &str, fields: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\",{fields}}}\n\n")
}

fn anthropic_start() -> String {
    let message = format!(
        r#""message":{{"id":"msg_bench","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{PROMPT_TOKENS},"output_tokens":1}}}}"#
    );
    let block = r#""index":0,"content_block":{"type":"text","text":""}"#;
    anthropic_event("message_start", &message) + &anthropic_event("content_block_start", block)
}

fn anthropic_json() -> String {
    let text = SENTENCE.repeat(SENTENCES);
    format!(
        r#"{{"id":"msg_bench","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":{PROMPT_TOKENS},"output_tokens":{JSON_COMPLETION_TOKENS}}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::EventScanner;
    use serde_json::Value;

    fn payload_of(wire: &[u8]) -> String {
        let mut payload = Vec::new();
        let mut decoder = ResponseDecoder::default();
        let is_done =
            decoder.feed(wire, &mut |bytes| payload.extend_from_slice(bytes)).expect("valid framing");
        assert!(is_done);
        String::from_utf8(payload).expect("text")
    }

    fn stream(wire: Wire, events: u32) -> String {
        let answers = WireAnswers::new(wire);
        let mut bytes = answers.opening.clone();
        for at in 0..events {
            bytes.extend_from_slice(answers.event.clone().stamped(at.into()));
        }
        bytes.extend_from_slice(&closing(wire, events, true));
        payload_of(&bytes)
    }

    /// The JSON of every event but `[DONE]`.
    fn documents(stream: &str) -> Vec<Value> {
        let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|text| *text != "[DONE]").map(|text| serde_json::from_str(text).expect("JSON")).collect()
    }

    #[test]
    fn plain_answers_are_json_of_about_the_promised_size() {
        for (wire, output) in
            [(Wire::Openai, "/usage/completion_tokens"), (Wire::Anthropic, "/usage/output_tokens")]
        {
            let text = payload_of(&WireAnswers::new(wire).json);
            let document: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(document.pointer(output).and_then(Value::as_u64), Some(240));
            assert!((1300..1700).contains(&text.len()), "{} bytes", text.len());
        }
    }

    #[test]
    fn streams_hold_the_promised_events_and_usage() {
        for (wire, output) in
            [(Wire::Openai, "/usage/completion_tokens"), (Wire::Anthropic, "/usage/output_tokens")]
        {
            let text = stream(wire, 5);
            let mut scanner = EventScanner::default();
            let mut stamps = Vec::new();
            scanner.feed(text.as_bytes(), &mut |event| stamps.extend(event.sent_ns));
            assert!(scanner.is_complete());
            assert_eq!(scanner.events(), 5 + wire.framing_events());
            assert_eq!(stamps, [0, 1, 2, 3, 4]);
            let usage = documents(&text).iter().rev().find_map(|d| d.pointer(output).and_then(Value::as_u64));
            assert_eq!(usage, Some(5));
        }
    }

    #[test]
    fn a_whole_stream_is_the_same_events_in_one_piece() {
        for wire in [Wire::Openai, Wire::Anthropic] {
            let answer = whole(wire, &WireAnswers::new(wire), 5, true).expect("made");
            // Only the stamps differ.
            let stamped = (0..5).fold(stream(wire, 5), |text, at| {
                text.replace(&format!("{at:020}"), &"0".repeat(STAMP_DIGITS))
            });
            assert_eq!(payload_of(&answer), stamped);
        }
    }

    #[test]
    fn usage_is_told_only_to_those_who_ask() {
        assert!(!asks_for_usage(Wire::Openai, br#"{"stream":true}"#));
        assert!(asks_for_usage(Wire::Openai, br#"{"stream_options":{"include_usage":true}}"#));
        assert!(asks_for_usage(Wire::Anthropic, b"{}"));
        let quiet = closing(Wire::Openai, 1, false);
        assert!(memmem::find(&quiet, b"usage").is_none());
    }

    #[test]
    fn refusals_are_framed_right() {
        for refusal in [UNAUTHORIZED, NOT_FOUND] {
            assert!(serde_json::from_str::<Value>(&payload_of(refusal)).is_ok());
        }
    }
}
