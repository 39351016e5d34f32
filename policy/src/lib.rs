//! Decisions about money and access, as pure functions.
//!
//! This crate knows what a request may do and what it costs. It never knows how the bytes arrived: no I/O,
//! no clocks, no randomness, no async, no HTTP types. Whatever varies is an argument, so every decision can
//! be repeated in a test. Read it in the order of the modules below.

#![cfg_attr(not(any(test, fuzzing)), warn(clippy::panic, clippy::unreachable))]

// What tests of several crates share names this one from outside.
#[cfg(test)]
extern crate self as policy;

mod money;
mod usage;
mod price;
mod id;
mod token;
mod method;
mod scope;
mod subject;
mod period;
mod budget;
mod quote;
mod rate;
mod denial;
mod canary;
mod risk;
mod rules;
mod admit;
pub mod scan;
pub mod reconcile;
mod attenuate;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub use admit::{Ask, Caller, Plan, Transport, admit};
pub use attenuate::{CHILDREN_MAX, DESCENDANTS_MAX, Narrowed, Narrowing, attenuate};
pub use budget::{Allowance, Amount, Budget, BudgetId, InvalidBudgetAmount, Shortage, Unit};
pub use canary::{
    Canary, CanaryId, CanaryKind, CanaryValue, DecoyShape, Holder, UnknownCanaryKind, UnknownDecoyShape,
    decoy, prompt_mark,
};
pub use denial::{Denial, DenialCode};
pub use id::{AgentName, CanaryName, CapabilityId, InvalidName, ProviderId, RequestId};
pub use method::{Method, UnknownMethod};
pub use money::{InvalidAmount, NanoUsd, Overflow};
pub use period::{InvalidPeriod, Period, Window};
pub use price::{
    Bill, Ladder, Line, Match, Part, Price, PriceTable, PriceTableError, Rates, Resolved, Tier, TokenPrice,
};
pub use quote::Quote;
pub use rate::{RateBook, RateKind, RateLimit, RatePermit, RateRefusal, RateUse};
pub use risk::{
    Evidence, Risk, RiskState, RiskVerdict, Signal, SignalAction, SignalCounter, Signals, SpendSlope,
    UnknownRiskState, UnknownSignal, UnknownSignalAction, YELLOW_CHILD_TTL_US, YELLOW_OUTPUT_TOKENS,
    YELLOW_REQUESTS_PER_MINUTE, YELLOW_US,
};
pub use rules::{ANCESTORS_MAX, Revocation, Rules};
pub use scope::{Capability, InvalidGlob, ModelGlob, RouteClass, Scope, UnknownRouteClass};
pub use subject::{InvalidSubject, Subject};
pub use token::{InvalidToken, MintedToken, TokenRef};
pub use usage::{Basis, Usage};

/// A map by names that owners give out. Nobody else can choose them, so a fast hash is safe.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// An instant as whole microseconds since the Unix epoch, UTC.
pub type TimestampUs = i64;
