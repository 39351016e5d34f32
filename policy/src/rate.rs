//! Rates: how many requests and tokens a minute, and how many at once.

/// What a subject may do in a minute and at once. What is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, input and output together.
    pub tokens_per_minute: Option<u64>,
    /// Requests in flight.
    pub concurrent: Option<u32>,
}
