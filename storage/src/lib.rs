//! All SQL of the project: who may ask for what, and what was asked.
//!
//! One SQLite file holds the policy rows (agents, capabilities), the log of their changes, and the request log. A [`Store`] is one
//! connection: it reads everything and writes policy. The log is written by one thread only, the [`Writer`];
//! requests talk to it through the [`Ledger`], which never touches the database. The invariant: a request that
//! holds a [`Reservation`] always has room for its row, so nothing that was billed is missing from the log.
//!
//! This crate sees no credential in plain text and knows no HTTP.

#![cfg_attr(not(any(test, fuzzing)), warn(clippy::panic, clippy::unreachable))]

mod error;
mod file;
mod migrations;
mod store;
mod audit;
mod change;
mod capabilities;
mod agents;
mod controls;
mod canaries;
mod risk;
mod rules;
mod budgets;
mod rates;
mod row;
mod pot;
mod books;
mod leases;
mod holder;
mod shared;
mod reservation;
mod ledger;
mod fold;
mod writer;
mod retention;
mod query;
mod sums;
mod watch;

pub use agents::{AgentSummary, AgentUses};
pub use audit::{
    Actor, AuditAction, AuditFault, AuditFilter, AuditHead, AuditNote, AuditReport, AuditRow, InvalidHead,
    NotedHead, UnknownAction, anchor_path,
};
pub use budgets::{BudgetSet, BudgetStatus};
pub use canaries::{CanarySummary, NewCanary, Plant, PlantId, PlantManner, UnknownManner};
pub use capabilities::{CapabilityFilter, CapabilitySummary, NewCapability};
pub use change::{ChangeMark, Moved};
pub use controls::Controls;
pub use error::{Error, FileFault};
pub use leases::Warning;
pub use ledger::{Failure, Health, Ledger, LogState};
pub use query::{InvalidStatus, LogFilter, LogOrder, StatusFilter};
pub use reservation::{Growth, Reservation, Used};
pub use risk::{Recorded, RiskAction, RiskClear, RiskEvent, RiskSeen, Spot, UnknownRiskAction};
pub use row::{LogText, LoggedRequest, Outcome, RequestRow, UnknownOutcome};
pub use rules::PolicyRows;
pub use store::Store;
pub use sums::{Stats, StatsBy, StatsGroup, StatsQuery, StatsRow};
pub use watch::{Asked, CounterSample, RaisedFinding};
pub use writer::{Writer, WriterConfig};
