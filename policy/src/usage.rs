//! Usage: what a provider says a request consumed, in one shape for all providers.
//!
//! Providers count differently: OpenAI's and Gemini's prompt tokens include the cached ones, Anthropic's input
//! tokens exclude cache reads and writes. Here every token is counted in exactly one of the fields, except
//! `reasoning`, which says how much of `output` it was.

/// Tokens of one request. The input kinds are disjoint; `reasoning` is a part of `output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens that were neither read from nor written to a cache.
    pub input: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens written to the cache for five minutes (or for the provider's only lifetime).
    pub cache_write_5m: u64,
    /// Input tokens written to the cache for one hour.
    pub cache_write_1h: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// How many of the output tokens were reasoning.
    pub reasoning: u64,
}

/// Where the numbers of a finished request come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The provider reported its usage.
    Reported,
    /// Nothing was reported; the numbers are estimated from the bytes that went by.
    Estimated,
    /// Nothing was consumed: refused, failed before any output, or a route without usage.
    None,
}

impl Usage {
    /// All input tokens, cached or not.
    pub fn input_total(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write())
    }

    /// Input tokens written to a cache of any lifetime.
    pub fn cache_write(&self) -> u64 {
        self.cache_write_5m.saturating_add(self.cache_write_1h)
    }

    /// All tokens of the request.
    pub fn total(&self) -> u64 {
        self.input_total().saturating_add(self.output)
    }
}

impl Basis {
    /// The stable name: `reported`, `estimated` or `none`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::None => "none",
        }
    }
}
