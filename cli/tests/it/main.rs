//! The program as it is: started in a home of its own, between a client that sends raw bytes and a provider that
//! records them. No network, no fixed ports; nothing is left running.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

mod injection;
mod boundary;
mod connections;
mod bodies;
mod budgets;
mod metrics;
mod overview;
mod pricing;
mod models;
mod streaming;
mod sums;
mod upstream;
mod vault;
mod capabilities;
mod attenuation;
mod cutting;
mod dashboard;
mod exhaustion;
mod fence;
mod benign;
mod control;
mod cors;
mod audit;
mod ratelimits;
mod risk;
mod passthrough;
mod log;
mod process;
mod upgrade;
mod service;
mod panics;
mod run;
mod setup;
mod scan;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod launch;
mod canary;
mod notifications;
mod watch;
mod sentinel;
mod not_promised;
mod prompts;
mod spinner;
mod lists;
mod top;
mod transcripts;
mod widget;
mod cli_faults;
mod demo;
