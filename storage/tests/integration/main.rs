//! The database as its users see it: one binary, one temporary directory for each test, no sleeping.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod common;
mod policy_rows;
mod controls;
mod audit;
mod canaries;
mod rates;
mod risk;
mod log;
mod watch;
mod writer;
mod ledger;
mod stats;
