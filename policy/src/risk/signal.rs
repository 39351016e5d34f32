//! The kinds of evidence, and what an owner wants done about each.

use std::fmt;
use std::str::FromStr;

use super::{MINUTE_US, RiskState};

/// A kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// The canary of the vault, anywhere: who has it has read the vault.
    VaultCanary,
    /// A key of the vault in a request, to whatever provider.
    SecretInRequest,
    /// A planted key in a request: it was read and is being sent away.
    DecoyInRequest,
    /// A planted key where a caller's own belongs: it was stolen and is being used.
    DecoyAsCredential,
    /// A planted key in an answer.
    DecoyInResponse,
    /// The mark of a prompt in an answer: the prompt was told.
    PromptMarkInResponse,
    /// A key of the vault in an answer: the provider's fault, not the caller's.
    KeyEcho,
    /// A route that makes credentials, asked for without the right to it.
    MintingAttempt,
    /// Several different things asked for that the capability does not allow.
    ScopeDenials,
    /// A capability that has ended, used again and again.
    DeadCapability,
    /// A valid capability from a web page.
    BrowserRequest,
    /// A capability that is bound to the socket, over TCP.
    WrongTransport,
    /// Spending that rises as it never did.
    SpendSlope,
    /// Text in a request that looks like a secret and is none that is known.
    SecretShaped,
    /// An answer that could not be read, and so not be searched.
    Unscannable,
}

/// What is done about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignalAction {
    /// Nothing; nothing is written either.
    Off,
    /// An event is written.
    Log,
    /// An event is written, and the state follows.
    Enforce,
}

/// What is done about each signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals([SignalAction; Signal::ALL.len()]);

/// Text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signal is one of {}", Signal::ALL.map(Signal::as_str).join(", "))]
pub struct UnknownSignal;

/// Text that names no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be off, log or enforce")]
pub struct UnknownSignalAction;

impl Signal {
    /// Every signal, the gravest first.
    pub const ALL: [Self; 15] = [
        Self::VaultCanary,
        Self::DecoyAsCredential,
        Self::DecoyInRequest,
        Self::DecoyInResponse,
        Self::SecretInRequest,
        Self::MintingAttempt,
        Self::WrongTransport,
        Self::PromptMarkInResponse,
        Self::ScopeDenials,
        Self::DeadCapability,
        Self::BrowserRequest,
        Self::SpendSlope,
        Self::KeyEcho,
        Self::SecretShaped,
        Self::Unscannable,
    ];

    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VaultCanary => "vault_canary",
            Self::SecretInRequest => "secret_in_request",
            Self::DecoyInRequest => "decoy_in_request",
            Self::DecoyAsCredential => "decoy_as_credential",
            Self::DecoyInResponse => "decoy_in_response",
            Self::PromptMarkInResponse => "prompt_mark_in_response",
            Self::KeyEcho => "key_echo",
            Self::MintingAttempt => "minting_attempt",
            Self::ScopeDenials => "scope_denials",
            Self::DeadCapability => "dead_capability",
            Self::BrowserRequest => "browser_request",
            Self::WrongTransport => "wrong_transport",
            Self::SpendSlope => "spend_slope",
            Self::SecretShaped => "secret_shaped",
            Self::Unscannable => "unscannable",
        }
    }

    /// What was seen, in words, to come after `because`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::VaultCanary => "a canary of the vault was seen in traffic",
            Self::SecretInRequest => "a key of the vault was in a request",
            Self::DecoyInRequest => "a planted key was in a request",
            Self::DecoyAsCredential => "a planted key was used as a credential",
            Self::DecoyInResponse => "a planted key was in an answer",
            Self::PromptMarkInResponse => "the mark of a prompt was in an answer",
            Self::KeyEcho => "a key of the vault was in an answer",
            Self::MintingAttempt => "a route that makes credentials was asked for",
            Self::ScopeDenials => "several things were asked for that the capability does not allow",
            Self::DeadCapability => "a capability that has ended was used again and again",
            Self::BrowserRequest => "a capability came from a web page",
            Self::WrongTransport => "a capability that is bound to the socket came over TCP",
            Self::SpendSlope => "spending rose as it never did",
            Self::SecretShaped => "text that looks like a secret was in a request",
            Self::Unscannable => "an answer could not be read",
        }
    }

    /// The state that one piece of this evidence leads to; `None` where it leads nowhere.
    pub fn leads_to(self) -> Option<RiskState> {
        match self {
            Self::VaultCanary | Self::DecoyInRequest | Self::DecoyAsCredential | Self::DecoyInResponse => {
                Some(RiskState::Red)
            }
            Self::SecretInRequest | Self::MintingAttempt | Self::WrongTransport => Some(RiskState::Orange),
            Self::PromptMarkInResponse
            | Self::ScopeDenials
            | Self::DeadCapability
            | Self::BrowserRequest
            | Self::SpendSlope => Some(RiskState::Yellow),
            Self::KeyEcho | Self::SecretShaped | Self::Unscannable => None,
        }
    }

    /// What is seen again within this time, in microseconds, is no further evidence: a caller repeats what failed. Where
    /// nothing follows it is longer, because each turn of a conversation says the former ones again.
    pub fn repeat_us(self) -> i64 {
        if self.leads_to().is_some() { MINUTE_US } else { 60 * MINUTE_US }
    }

    /// Whether it is evidence against everybody: nobody knows who took it.
    pub fn is_everybodys(self) -> bool {
        self == Self::VaultCanary
    }

    /// What is done about it unless an owner says otherwise.
    pub fn default_action(self) -> SignalAction {
        if self.leads_to().is_some() { SignalAction::Enforce } else { SignalAction::Log }
    }

    /// Its place in [`Signal::ALL`].
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|signal| *signal == self).unwrap_or_default()
    }
}

impl SignalAction {
    /// Every action, the least first.
    pub const ALL: [Self; 3] = [Self::Off, Self::Log, Self::Enforce];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Log => "log",
            Self::Enforce => "enforce",
        }
    }
}

impl Signals {
    /// What is done about a signal.
    pub fn action(&self, signal: Signal) -> SignalAction {
        self.0[signal.index()]
    }

    /// The same with another action for one signal.
    #[must_use]
    pub fn with(mut self, signal: Signal, action: SignalAction) -> Self {
        self.0[signal.index()] = action;
        self
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self(Signal::ALL.map(Signal::default_action))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for SignalAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == text).ok_or(UnknownSignal)
    }
}

impl FromStr for SignalAction {
    type Err = UnknownSignalAction;

    fn from_str(text: &str) -> Result<Self, UnknownSignalAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(UnknownSignalAction)
    }
}
