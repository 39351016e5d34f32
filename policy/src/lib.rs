//! Decisions about money and access, as pure functions.
//!
//! This crate knows what a request may do and what it costs. It never knows how the bytes arrived: no I/O,
//! no clocks, no randomness, no async, no HTTP types. Whatever varies is an argument, so every decision can
//! be repeated in a test. Read it in the order of the modules below.

mod money;
mod usage;
mod price;
mod id;
mod token;
mod scope;
mod denial;
mod admit;

pub use admit::{Ask, Caller, Plan, Transport, admit};
pub use denial::{Denial, DenialCode};
pub use id::{AgentName, CapabilityId, InvalidName, ProviderId, RequestId};
pub use money::{InvalidAmount, NanoUsd, Overflow};
pub use price::{Price, PriceTable, PriceTableError, Rates, Resolved, Tier, TokenPrice};
pub use scope::{Capability, InvalidGlob, ModelGlob, RouteClass, Scope, UnknownRouteClass};
pub use token::{InvalidToken, MintedToken, TokenRef};
pub use usage::{Basis, Usage};

/// An instant as whole microseconds since the Unix epoch, UTC.
pub type TimestampUs = i64;
