//! Requests and answers as the APIs have them, saying any text.

use serde_json::{Value, json};

use super::{BASE62, Draw, HEX, text};

/// Whose API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    Responses,
    Anthropic,
    Gemini,
    /// Which streams lines and not events.
    Ollama,
}

/// What was asked and what was answered.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) api: Api,
    pub(crate) request: String,
    pub(crate) is_stream: bool,
    pub(crate) answer: String,
}

impl Api {
    pub(crate) const ALL: [Self; 5] =
        [Self::Chat, Self::Responses, Self::Anthropic, Self::Gemini, Self::Ollama];

    /// What its answers say of their framing.
    pub(crate) fn content_type(self, is_stream: bool) -> &'static str {
        match (self, is_stream) {
            (_, false) => "application/json",
            (Self::Ollama, true) => "application/x-ndjson",
            (_, true) => "text/event-stream",
        }
    }

    fn request(self, is_stream: bool, turns: &[String], draw: &mut Draw) -> Value {
        let role = |at: usize| if at.is_multiple_of(2) { "user" } else { "assistant" };
        let each = |turn: &dyn Fn(usize, &String) -> Value| -> Value {
            turns.iter().enumerate().map(|(at, text)| turn(at, text)).collect()
        };
        let messages = each(&|at, text| json!({ "role": role(at), "content": text }));
        match self {
            Self::Chat => json!({
                "model": "gpt-4o-mini", "stream": is_stream, "max_tokens": 1_000, "messages": messages,
                "tools": [{ "type": "function", "function": { "name": "run", "description": text(draw),
                    "parameters": { "type": "object", "properties": { "command": { "type": "string" } } } } }],
            }),
            Self::Responses => json!({
                "model": "gpt-4o-mini", "stream": is_stream, "max_output_tokens": 1_000, "instructions": text(draw),
                "input": messages,
            }),
            Self::Anthropic => json!({
                "model": "claude-sonnet-4-5", "stream": is_stream, "max_tokens": 1_000, "system": text(draw),
                "messages": each(&|at, text| json!({ "role": role(at), "content": [{ "type": "text", "text": text }] })),
            }),
            Self::Gemini => json!({
                "contents": each(&|at, text| json!({ "role": role(at).replace("assistant", "model"), "parts": [{ "text": text }] })),
                "generationConfig": { "maxOutputTokens": 1_000 },
            }),
            Self::Ollama => json!({
                "model": "llama3.2", "stream": is_stream, "messages": messages, "options": { "num_predict": 1_000 }
            }),
        }
    }

    fn document(self, said: &str, draw: &mut Draw) -> Value {
        let id = draw.of(BASE62, 24);
        match self {
            Self::Chat => json!({
                "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": 1_764_000_000,
                "choices": [{ "index": 0, "message": { "role": "assistant", "content": said }, "finish_reason": "stop" }],
                "usage": { "prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21 },
            }),
            Self::Responses => json!({
                "id": format!("resp_{id}"), "status": "completed",
                "output": [{ "type": "message", "id": format!("msg_{id}"), "content": [{ "type": "output_text", "text": said }] }],
                "usage": { "input_tokens": 9, "output_tokens": 12, "total_tokens": 21 },
            }),
            Self::Anthropic => json!({
                "id": format!("msg_{id}"), "type": "message", "content": [{ "type": "text", "text": said }],
                "stop_reason": "end_turn", "usage": { "input_tokens": 9, "output_tokens": 12 },
            }),
            Self::Gemini => json!({
                "candidates": [{ "content": { "role": "model", "parts": [{ "text": said }] }, "finishReason": "STOP", "index": 0 }],
                "usageMetadata": { "promptTokenCount": 9, "candidatesTokenCount": 12, "totalTokenCount": 21 },
            }),
            Self::Ollama => json!({
                "model": "llama3.2", "message": { "role": "assistant", "content": said }, "done": true,
                "prompt_eval_count": 9, "eval_count": 12,
            }),
        }
    }

    /// The events or lines of a stream that says these pieces; the arguments of a tool call come in between.
    fn stream(self, pieces: &[String], draw: &mut Draw) -> String {
        let id = draw.of(BASE62, 24);
        let obfuscation = draw.of(BASE62, 9);
        let event = |name: &str, data: Value| match name {
            "" => format!("data: {data}\n\n"),
            name => format!("event: {name}\ndata: {data}\n\n"),
        };
        let piece = |(at, piece): (usize, &String)| match self {
            Self::Chat if at % 5 == 4 => event(
                "",
                json!({ "id": id, "choices": [{ "index": 0, "delta": {
                "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] }, "finish_reason": null }] }),
            ),
            Self::Chat => event(
                "",
                json!({ "id": id, "object": "chat.completion.chunk", "obfuscation": obfuscation,
                "choices": [{ "index": 0, "delta": { "content": piece }, "logprobs": null, "finish_reason": null }] }),
            ),
            Self::Responses => event(
                "response.output_text.delta",
                json!({ "type": "response.output_text.delta",
                "sequence_number": at, "item_id": id, "output_index": 0, "content_index": 0, "delta": piece }),
            ),
            Self::Anthropic if at % 7 == 6 => event(
                "content_block_delta",
                json!({ "type": "content_block_delta", "index": 1,
                "delta": { "type": "input_json_delta", "partial_json": piece } }),
            ),
            Self::Anthropic => event(
                "content_block_delta",
                json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": piece } }),
            ),
            Self::Gemini => event(
                "",
                json!({ "candidates": [{ "content": { "role": "model", "parts": [{ "text": piece }] }, "index": 0 }] }),
            ),
            Self::Ollama => format!(
                "{}\n",
                json!({ "model": "llama3.2", "message": { "role": "assistant", "content": piece }, "done": false })
            ),
        };
        let body: String = pieces.iter().enumerate().map(piece).collect();
        body + &self.stream_end(&id)
    }

    fn stream_end(self, id: &str) -> String {
        match self {
            Self::Chat => {
                let usage = json!({ "id": id, "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }],
                    "usage": { "prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21 } });
                format!("data: {usage}\n\ndata: [DONE]\n\n")
            }
            Self::Responses => {
                let done = json!({ "type": "response.completed", "response": { "id": id, "status": "completed",
                    "usage": { "input_tokens": 9, "output_tokens": 12, "total_tokens": 21 } } });
                format!("event: response.completed\ndata: {done}\n\n")
            }
            Self::Anthropic => "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":12}}\n\n\
                 : ping\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
                .to_owned(),
            Self::Gemini => {
                let end = json!({ "candidates": [{ "finishReason": "STOP", "index": 0 }],
                    "usageMetadata": { "promptTokenCount": 9, "candidatesTokenCount": 12, "totalTokenCount": 21 } });
                format!("data: {end}\r\n\r\n")
            }
            Self::Ollama => {
                format!("{}\n", json!({ "model": "llama3.2", "message": { "content": "" }, "done": true, "eval_count": 12, "prompt_eval_count": 9 }))
            }
        }
    }
}

/// The case of this seed.
pub(crate) fn case(seed: u64) -> Case {
    let mut draw = Draw::new(seed);
    let api = *draw.pick(&Api::ALL);
    let is_stream = draw.below(4) > 0;
    let turns: Vec<String> = (0..draw.between(1, 4)).map(|_| text(&mut draw)).collect();
    let request = api.request(is_stream, &turns, &mut draw).to_string();
    let said = text(&mut draw);
    let answer = if is_stream {
        let longest = *draw.pick(&[6, 20, 80]);
        let pieces = draw.pieces(&said, longest);
        api.stream(&pieces, &mut draw)
    } else {
        api.document(&said, &mut draw).to_string()
    };
    // Some encoders escape all that is not ASCII.
    let is_ascii = draw.below(3) == 0;
    let written = |text: String| if is_ascii { escaped(&text) } else { text };
    Case { api, request: written(request), is_stream, answer: written(answer) }
}

fn escaped(json: &str) -> String {
    let mut units = [0; 2];
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut units) {
                out.push_str("\\u");
                (0..4)
                    .rev()
                    .for_each(|at| out.push(char::from(HEX.as_bytes()[usize::from(*unit >> (4 * at) & 15)])));
            }
        }
    }
    out
}
