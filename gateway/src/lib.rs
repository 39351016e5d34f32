//! The gateway: what stands between callers and providers.
//!
//! Read it along a request: `caller` looks at raw bytes and holds the connection, `request` is a request's life phase by
//! phase, `provider` is where it goes, `wire` and `meter` understand what is said, and `fence` looks for
//! secrets in it; what is seen of that and of refusals is evidence, and goes to `risk`; `metrics`
//! counts, `overview` tells how everything stands, and `dashboard` shows it to the owner's browser. `config` and `state` are what a
//! request finds in place; `process` is how a daemon is started, changed and stopped.
//!
//! This crate knows no SQL, derives no keys and never prints.

#![cfg_attr(not(any(test, fuzzing)), warn(clippy::panic, clippy::unreachable))]

pub mod config;
mod state;
mod rules_watch;

mod caller;
mod request;
mod provider;
pub mod wire;
pub mod meter;
mod fence;
mod risk;
mod metrics;
mod dashboard;
pub mod overview;
mod process;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub use caller::listen::ListenError;
pub use config::embedded_prices;
pub use process::control;

pub use process::daemon::DaemonError;
pub use process::home::{self, Home};
pub use process::notify::{Leak, tell_leaks};
pub use process::outbound;
pub use process::runs::{DEAD_RUN, RunLock, end_dead_runs};
pub use process::server::{ServeError, ServeOptions, Serving, serve};
pub use provider::catalogue;
pub use provider::upstream::UpstreamError;
