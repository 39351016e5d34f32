//! The formats providers speak, and how an answer is cut into events.

use std::fmt;
use std::str::FromStr;

/// Whose names the fields of a request and an answer have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireFormat {
    /// OpenAI and the many that speak as it does: Mistral, Groq, OpenRouter, DeepSeek, xAI, …
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's Gemini.
    Google,
    /// Ollama's own format; its OpenAI-compatible routes are understood as well.
    Ollama,
    /// Cohere, version 1 and 2; its OpenAI-compatible routes are understood as well.
    Cohere,
}

/// How an answer's events are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON value a line.
    Ndjson,
    /// One JSON value, which for Gemini streams is an array that grows.
    Json,
}

/// The media types of one JSON value a line.
const NDJSON: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json"];

/// A name that is no wire format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a wire format (openai, anthropic, google, ollama, cohere)")]
pub struct UnknownWireFormat(String);

impl WireFormat {
    /// All formats, in the order they are explained.
    pub const ALL: [Self; 5] = [Self::OpenAi, Self::Anthropic, Self::Google, Self::Ollama, Self::Cohere];

    /// The stable name, as written in the provider catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Ollama => "ollama",
            Self::Cohere => "cohere",
        }
    }
}

impl FromStr for WireFormat {
    type Err = UnknownWireFormat;

    fn from_str(name: &str) -> Result<Self, UnknownWireFormat> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == name);
        found.ok_or_else(|| UnknownWireFormat(name.to_owned()))
    }
}

impl fmt::Display for WireFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Framing {
    /// The framing that a response's `Content-Type` announces; none for what holds no JSON.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let is_any_of = |names: &[&str]| names.iter().any(|name| media_type.eq_ignore_ascii_case(name));
        let has_suffix = |suffix: &[u8]| {
            let at = media_type.len().checked_sub(suffix.len());
            at.is_some_and(|at| media_type.as_bytes()[at..].eq_ignore_ascii_case(suffix))
        };
        if is_any_of(&["text/event-stream"]) {
            Some(Self::Sse)
        } else if is_any_of(&NDJSON) {
            Some(Self::Ndjson)
        } else if is_any_of(&["application/json"]) || has_suffix(b"+json") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_framing(content_type: &str, framing: Option<Framing>) {
        assert_eq!(Framing::from_content_type(content_type), framing, "{content_type}");
    }

    #[test]
    fn names_round_trip() {
        for format in WireFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("openAI".parse::<WireFormat>().is_err());
    }

    #[test]
    fn the_content_type_decides_the_framing() {
        check_framing("text/event-stream; charset=utf-8", Some(Framing::Sse));
        check_framing("Text/Event-Stream", Some(Framing::Sse));
        check_framing("application/x-ndjson", Some(Framing::Ndjson));
        check_framing("application/json ; charset=utf-8", Some(Framing::Json));
        check_framing("application/problem+json", Some(Framing::Json));
        check_framing("audio/mpeg", None);
        check_framing("", None);
    }
}
