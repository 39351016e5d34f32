//! Usage: what a provider says a request consumed, in one shape for all providers.
//!
//! Providers count differently: OpenAI's and Gemini's prompt tokens include the cached ones, Anthropic's input
//! tokens exclude cache reads and writes. Here every token is counted in exactly one of `input`, the cache fields and
//! `output`; the fields below them say what some of these tokens were.

/// What one request consumed. The input kinds are disjoint; the fields after `output` are parts of other fields.
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
    /// How many of `input` were sound.
    pub audio_input: u64,
    /// How many of `cache_read` were sound.
    pub audio_cache_read: u64,
    /// How many of the output tokens were sound.
    pub audio_output: u64,
    /// How many of `input` were images.
    pub image_input: u64,
    /// How many of `cache_read` were images.
    pub image_cache_read: u64,
    /// How many of the output tokens were images.
    pub image_output: u64,
    /// Searches of the web that the provider made, which are no tokens.
    pub searches: u64,
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
    /// Nothing.
    pub const NONE: Self = Self {
        input: 0,
        cache_read: 0,
        cache_write_5m: 0,
        cache_write_1h: 0,
        output: 0,
        reasoning: 0,
        audio_input: 0,
        audio_cache_read: 0,
        audio_output: 0,
        image_input: 0,
        image_cache_read: 0,
        image_output: 0,
        searches: 0,
    };

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
