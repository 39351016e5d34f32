//! What the load asks of the mock provider. It travels in the prompt, the one part of a request that every
//! proxy and every wire format hands on unchanged.

use std::time::Duration;

use memchr::memmem;

/// A provider's API format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wire {
    Openai,
    Anthropic,
}

impl Wire {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Openai => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
        }
    }

    /// The events that frame a stream's content: role, finish, usage and `[DONE]`; or the starts and stops of
    /// message and content block, and the message delta.
    pub(crate) fn framing_events(self) -> u64 {
        match self {
            Self::Openai => 4,
            Self::Anthropic => 5,
        }
    }

    /// Those of them that come before the content.
    pub(crate) fn opening_events(self) -> u64 {
        match self {
            Self::Openai => 1,
            Self::Anthropic => 2,
        }
    }
}

/// How many content events a stream has, and how it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamPlan {
    pub(crate) events: u32,
    /// Between events; zero: as fast as they can be written.
    pub(crate) gap: Duration,
    /// In one piece of known length, as a file server would send a stream that was recorded.
    pub(crate) is_whole: bool,
}

impl Default for StreamPlan {
    fn default() -> Self {
        Self { events: 200, gap: Duration::ZERO, is_whole: false }
    }
}

const EVENTS: &[u8] = b"[events=";
const GAP: &[u8] = b"[gap_us=";
const WHOLE: &[u8] = b"[whole=";

impl StreamPlan {
    pub(crate) fn to_prompt(self) -> String {
        let whole = u8::from(self.is_whole);
        format!("[events={}][gap_us={}][whole={whole}]", self.events, self.gap.as_micros())
    }

    /// The plan in a request's body, with the default for what it does not say.
    pub(crate) fn from_body(body: &[u8]) -> Self {
        let default = Self::default();
        Self {
            events: number_after(body, EVENTS).unwrap_or(default.events),
            gap: number_after(body, GAP).map_or(default.gap, |us| Duration::from_micros(us.into())),
            is_whole: number_after(body, WHOLE).map_or(default.is_whole, |whole| whole == 1),
        }
    }
}

fn number_after(body: &[u8], marker: &[u8]) -> Option<u32> {
    let rest = &body[memmem::find(body, marker)? + marker.len()..];
    let digits = &rest[..memchr::memchr(b']', rest)?];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_prompt() {
        let plan = StreamPlan { events: 7, gap: Duration::from_millis(5), is_whole: true };
        let body = format!(r#"{{"messages":[{{"role":"user","content":"Hi {}"}}]}}"#, plan.to_prompt());
        assert_eq!(StreamPlan::from_body(body.as_bytes()), plan);
    }

    #[test]
    fn a_request_without_a_plan_gets_the_default() {
        for body in ["", "{}", "[events=", "[events=many][gap_us=]"] {
            assert_eq!(StreamPlan::from_body(body.as_bytes()), StreamPlan::default(), "{body:?}");
        }
    }
}
