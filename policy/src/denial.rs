//! Refusals: one closed list of codes, used alike in answers, log rows and metrics.

use std::borrow::Cow;
use std::fmt;

use crate::Shortage;

/// Why the gateway answered a request itself. The order is the precedence where several apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "each is named for what it says; `product` documentation lists them with their status"
)]
pub enum DenialCode {
    InvalidRequest,
    HeaderTooLarge,
    RequestTimeout,
    HostNotAllowed,
    OriginNotAllowed,
    MethodNotAllowed,
    UpgradeUnsupported,
    InvalidRoute,
    UnknownProvider,
    MissingCapability,
    InvalidCapability,
    RevokedCapability,
    ExpiredCapability,
    Killed,
    ProviderRevoked,
    RiskRestricted,
    RateLimited,
    TooManyConcurrent,
    EndpointDenied,
    OutOfScope,
    RequestTooLarge,
    UnsupportedMedia,
    SecretInRequest,
    ModelPriceUnknown,
    BudgetExceeded,
    VaultLocked,
    MissingKey,
    StateUnavailable,
    Overloaded,
    UpstreamUnreachable,
    UpstreamTls,
    UpstreamReset,
    UpstreamTimeout,
    InternalError,
}

/// A refusal: a code, a sentence for whoever reads it, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    code: DenialCode,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    shortage: Option<Box<Shortage>>,
    retry_after: Option<u32>,
    details: Vec<(&'static str, String)>,
}

impl DenialCode {
    /// Every code, in order of precedence.
    pub const ALL: [Self; 34] = [
        Self::InvalidRequest,
        Self::HeaderTooLarge,
        Self::RequestTimeout,
        Self::HostNotAllowed,
        Self::OriginNotAllowed,
        Self::MethodNotAllowed,
        Self::UpgradeUnsupported,
        Self::InvalidRoute,
        Self::UnknownProvider,
        Self::MissingCapability,
        Self::InvalidCapability,
        Self::RevokedCapability,
        Self::ExpiredCapability,
        Self::Killed,
        Self::ProviderRevoked,
        Self::RiskRestricted,
        Self::RateLimited,
        Self::TooManyConcurrent,
        Self::EndpointDenied,
        Self::OutOfScope,
        Self::RequestTooLarge,
        Self::UnsupportedMedia,
        Self::SecretInRequest,
        Self::ModelPriceUnknown,
        Self::BudgetExceeded,
        Self::VaultLocked,
        Self::MissingKey,
        Self::StateUnavailable,
        Self::Overloaded,
        Self::UpstreamUnreachable,
        Self::UpstreamTls,
        Self::UpstreamReset,
        Self::UpstreamTimeout,
        Self::InternalError,
    ];

    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UpgradeUnsupported => "upgrade_unsupported",
            Self::InvalidRoute => "invalid_route",
            Self::UnknownProvider => "unknown_provider",
            Self::MissingCapability => "missing_capability",
            Self::InvalidCapability => "invalid_capability",
            Self::RevokedCapability => "revoked_capability",
            Self::ExpiredCapability => "expired_capability",
            Self::Killed => "killed",
            Self::ProviderRevoked => "provider_revoked",
            Self::RiskRestricted => "risk_restricted",
            Self::RateLimited => "rate_limited",
            Self::TooManyConcurrent => "too_many_concurrent",
            Self::EndpointDenied => "endpoint_denied",
            Self::OutOfScope => "out_of_scope",
            Self::RequestTooLarge => "request_too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::SecretInRequest => "secret_in_request",
            Self::ModelPriceUnknown => "model_price_unknown",
            Self::BudgetExceeded => "budget_exceeded",
            Self::VaultLocked => "vault_locked",
            Self::MissingKey => "missing_key",
            Self::StateUnavailable => "state_unavailable",
            Self::Overloaded => "overloaded",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::InternalError => "internal_error",
        }
    }
}

impl DenialCode {
    /// What it says, for whoever reads of it afterwards.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::InvalidRequest => "the request is not well-formed",
            Self::HeaderTooLarge => "the head of the request is too long",
            Self::RequestTimeout => "the request took too long to arrive",
            Self::HostNotAllowed => "it named a host that is not ours",
            Self::OriginNotAllowed => "it came from a web page",
            Self::MethodNotAllowed => "the method is not served",
            Self::UpgradeUnsupported => "it asked for another protocol",
            Self::InvalidRoute => "there is no such route",
            Self::UnknownProvider => "there is no such provider",
            Self::MissingCapability => "it presented no capability",
            Self::InvalidCapability => "what it presented is no capability",
            Self::RevokedCapability => "the capability or its agent was revoked",
            Self::ExpiredCapability => "the capability has ended",
            Self::Killed => "the kill switch is on",
            Self::ProviderRevoked => "the provider was revoked",
            Self::RiskRestricted => "the caller is restricted because of what was seen",
            Self::RateLimited => "a limit on requests or tokens a minute was reached",
            Self::TooManyConcurrent => "a limit on requests at once was reached",
            Self::EndpointDenied => "the route is never served",
            Self::OutOfScope => "the capability does not allow it",
            Self::RequestTooLarge => "the body is too large",
            Self::UnsupportedMedia => "the body is of a type that is not read",
            Self::SecretInRequest => "it held a key or a canary",
            Self::ModelPriceUnknown => "a budget applies and the model's price is unknown",
            Self::BudgetExceeded => "a budget had no room",
            Self::VaultLocked => "the vault is locked",
            Self::MissingKey => "there is no key for the provider",
            Self::StateUnavailable => "rules, budgets or log could not be read or written",
            Self::Overloaded => "the gateway had no room",
            Self::UpstreamUnreachable => "the provider could not be reached",
            Self::UpstreamTls => "there was no secure connection to the provider",
            Self::UpstreamReset => "the provider broke off",
            Self::UpstreamTimeout => "the provider took too long",
            Self::InternalError => "the gateway itself failed",
        }
    }
}

impl fmt::Display for DenialCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Denial {
    /// A refusal. The message must hold nothing secret: it goes to the caller and into the log.
    pub fn new(code: DenialCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            shortage: None,
            retry_after: None,
            details: Vec::new(),
        }
    }

    /// The refusal of a request for which a budget has no room.
    pub fn budget_exceeded(shortage: Shortage) -> Self {
        let denial = Self::new(DenialCode::BudgetExceeded, shortage.to_string());
        Self { shortage: Some(Box::new(shortage)), ..denial.with_hint("tokfence budget status") }
    }

    /// The same refusal with a command or a sentence that helps.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same refusal, for a request that passes after so many seconds.
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The same refusal with a fact that a program can read. The name becomes a member of the answer's JSON, beside
    /// `code` and `message`.
    #[must_use]
    pub fn with_detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// The stable code.
    pub fn code(&self) -> DenialCode {
        self.code
    }

    /// What happened, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The budget that has no room, with its numbers.
    pub fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_deref()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// After how many seconds the request passes, where that is known.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// Facts that a program can read, each with its name.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.details
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Denial {}
