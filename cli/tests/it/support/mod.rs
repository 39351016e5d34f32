//! What the tests share: a home with a running gateway, a provider that plays scripts, and a client that sends
//! exactly the bytes it is told to.

mod gateway;
mod http;
mod mock;
mod reaper;
mod terminal;
mod tls;

use std::time::{Duration, Instant};

pub(crate) use gateway::{Command, Gateway, Home, KEYS, Output, PASSPHRASE, Setup, program, rows};
pub(crate) use http::{Client, Request, Response};
pub(crate) use mock::{Conn, Mock, Received, Then, answer, answer_with, chunk, json, sse};
pub(crate) use terminal::Terminal;
pub(crate) use tls::Authority;

/// Nothing that is waited for takes longer, on whatever machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` yields something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether `condition` holds at once and goes on to hold for a moment: for what must *not* happen.
pub(crate) fn holds_for(time: Duration, condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if !condition() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    condition()
}
