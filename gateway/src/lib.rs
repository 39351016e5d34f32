//! The gateway: what stands between callers and providers.
//!
//! Read it along a request: `guard` and `framing` look at raw bytes, `proxy` is the request's life phase by
//! phase, and the modules after it are what the phases call. `config`, `catalogue` and `state` are what a
//! request finds in place; `server`, `daemon` and `control` are how a process is started, changed and stopped.
//!
//! This crate knows no SQL, derives no keys and never prints.

pub mod home;
pub mod config;
pub mod catalogue;
mod pattern;
mod credentials;
mod state;
mod rules_watch;

mod framing;
mod connection;
mod lifeline;
mod live;
mod guard;
mod socket;
mod listen;

mod proxy;
mod context;
mod facts;
mod boundary;
mod route;
mod authenticate;
mod rates;
mod attenuate;
mod passthrough;
mod body;
mod headers;
mod upstream;
mod quote;
mod cover;
mod respond;
mod cutting;

pub mod wire;
pub mod meter;

pub mod control;
mod runs;
mod notify;
mod daemon;
mod server;

pub use daemon::{DaemonError, embedded_prices};
pub use home::Home;
pub use listen::ListenError;
pub use runs::{DEAD_RUN, RunLock, end_dead_runs};
pub use server::{ServeError, ServeOptions, Serving, serve};
pub use upstream::UpstreamError;
