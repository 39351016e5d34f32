//! Risk: how far somebody is restricted because of what was seen of him, and for how long.
//!
//! Everybody is GREEN to begin with. A [`Signal`] is evidence of one kind and leads to one state; the state is the
//! highest that any evidence led to, so that lesser evidence never lowers it. YELLOW ends by itself after half an hour
//! without more; ORANGE and RED are lowered by an operator alone.
//!
//! Risk is kept for a [`Subject`]: for everything, for an agent, or for the capability that an owner minted, with all
//! that was made from it. What a word in a prompt says is no signal.

mod signal;
mod restrict;
mod count;
mod slope;

use std::fmt;
use std::str::FromStr;

use crate::TimestampUs;

pub use count::SignalCounter;
pub use restrict::{RiskVerdict, YELLOW_CHILD_TTL_US, YELLOW_OUTPUT_TOKENS, YELLOW_REQUESTS_PER_MINUTE};
pub use signal::{Signal, SignalAction, Signals, UnknownSignal, UnknownSignalAction};
pub use slope::SpendSlope;

const MINUTE_US: i64 = 60_000_000;
/// YELLOW ends when so long nothing was seen that leads there.
pub const YELLOW_US: i64 = 30 * MINUTE_US;
/// A secret that is sent once more within this time is no slip.
const SECOND_SECRET_US: i64 = 24 * 60 * MINUTE_US;

/// How far somebody is restricted, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RiskState {
    /// Not at all.
    #[default]
    Green,
    /// No files and no fallback models, half the rates, short answers, short-lived children.
    Yellow,
    /// Only routes that tell of models and the like.
    Orange,
    /// Nothing, and what runs is cut.
    Red,
}

/// Text that names no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a state is one of GREEN, YELLOW, ORANGE, RED")]
pub struct UnknownRiskState;

/// What is known of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Risk {
    /// The state that evidence led to. What holds at an instant is [`Risk::state_at`].
    pub state: RiskState,
    /// When it came to this state.
    pub since: TimestampUs,
    /// When something was last seen that leads to YELLOW or further.
    pub last_evidence_at: TimestampUs,
    /// What led to the state.
    pub signal: Signal,
    /// The event of that, by its number in storage.
    pub event: i64,
    /// When a secret of the vault was last found in a request. An operator who lowers the state leaves it.
    pub secret_at: Option<TimestampUs>,
}

/// Something that was seen and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Of which kind.
    pub signal: Signal,
    /// When.
    pub at: TimestampUs,
    /// Its event, by the number in storage.
    pub event: i64,
}

impl RiskState {
    /// Every state, least first.
    pub const ALL: [Self; 4] = [Self::Green, Self::Yellow, Self::Orange, Self::Red];

    /// The stable name, in capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Green => "GREEN",
            Self::Yellow => "YELLOW",
            Self::Orange => "ORANGE",
            Self::Red => "RED",
        }
    }

    /// What it takes away, in words.
    pub fn restriction(self) -> &'static str {
        match self {
            Self::Green => "nothing is restricted",
            Self::Yellow => {
                "no files and no fallback models, half the rates, short answers, short-lived capabilities made from it"
            }
            Self::Orange => "only routes that tell of models are served",
            Self::Red => "nothing is served, and what ran was cut",
        }
    }
}

impl fmt::Display for RiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RiskState {
    type Err = UnknownRiskState;

    fn from_str(text: &str) -> Result<Self, UnknownRiskState> {
        Self::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownRiskState)
    }
}

impl Risk {
    /// The state at `now`.
    pub fn state_at(&self, now: TimestampUs) -> RiskState {
        match self.state {
            RiskState::Yellow if now.saturating_sub(self.last_evidence_at) >= YELLOW_US => RiskState::Green,
            state => state,
        }
    }

    /// What is known after `evidence`, where `before` was known; `None` where the evidence leads nowhere and nothing
    /// was known.
    pub fn after(before: Option<&Self>, evidence: Evidence) -> Option<Self> {
        let Evidence { signal, at, event } = evidence;
        let Some(leads_to) = Self::leads_to(before, evidence) else { return before.copied() };
        let state = before.map_or(RiskState::Green, |before| before.state_at(at));
        let is_secret = signal == Signal::SecretInRequest;
        let secret_at = if is_secret { Some(at) } else { before.and_then(|before| before.secret_at) };
        match before.filter(|_| leads_to <= state) {
            Some(before) => {
                let last_evidence_at = before.last_evidence_at.max(at);
                Some(Self { last_evidence_at, secret_at, ..*before })
            }
            None => Some(Self { state: leads_to, since: at, last_evidence_at: at, signal, event, secret_at }),
        }
    }

    /// What is known after an operator has lowered the state.
    #[must_use]
    pub fn cleared(&self, now: TimestampUs) -> Self {
        Self { state: RiskState::Green, since: now, ..*self }
    }

    /// The state that evidence leads to: that of its kind, and for a secret that was sent before the highest.
    fn leads_to(before: Option<&Self>, evidence: Evidence) -> Option<RiskState> {
        let earlier = before.and_then(|before| before.secret_at);
        let is_second = earlier.is_some_and(|earlier| evidence.at.saturating_sub(earlier) < SECOND_SECRET_US);
        match evidence.signal {
            Signal::SecretInRequest if is_second => Some(RiskState::Red),
            signal => signal.leads_to(),
        }
    }
}

#[cfg(test)]
mod tests;
