//! A process from its start to its end: its home, how it is told things, how it reloads, and how it stops.

pub mod home;
pub mod control;
pub(crate) mod runs;
pub(crate) mod notify;
pub mod outbound;
pub(crate) mod daemon;
mod accounts;
mod bound;
mod service;
mod control_server;
mod handover;
mod running;
mod open_files;
pub(crate) mod server;
