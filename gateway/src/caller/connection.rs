//! Hot: what is known about a caller's connection for as long as it lasts, shared between the guard, which sees its
//! bytes, and the phases, which know what they mean.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use policy::Transport;

use crate::caller::lifeline::{Lifeline, Running};
use crate::caller::progress::Progress;

/// So many wrong capabilities are answered at once. An honest caller stops after its first.
const WRONG_FREE: u32 = 3;
/// The first of the others waits this long for its answer, each next as much longer.
const WRONG_DELAY: Duration = Duration::from_millis(100);
/// With this one the connection ends: who goes on has to connect again.
const WRONG_MAX: u32 = 8;

/// What follows from a wrong capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// How long the answer waits.
    pub(crate) delay: Duration,
    /// Whether it is the connection's last.
    pub(crate) is_last: bool,
}

/// What is known about a connection for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    /// Whether the other end is on this machine.
    pub(crate) is_local: bool,
    /// The process and user at the other end; known on the Unix socket only.
    pub(crate) peer_pid: Option<u32>,
    pub(crate) peer_uid: Option<u32>,
    /// Whether the engine waits for a request. While it answers one, the next is kept back.
    awaits_request: AtomicBool,
    /// How long the provider's answer may keep the caller waiting, in milliseconds; 0 is for ever.
    first_byte_ms: AtomicU64,
    idle_ms: AtomicU64,
    is_overdue: AtomicBool,
    /// Capabilities presented on it that were none.
    wrong: AtomicU32,
    /// How the request that runs on it is cut.
    pub(crate) lifeline: Lifeline,
    /// How far that request is.
    pub(crate) progress: Progress,
}

impl Connection {
    pub(crate) fn tcp(is_local: bool) -> Self {
        Self::new(Transport::Tcp, is_local, None, None)
    }

    pub(crate) fn unix(peer_pid: Option<u32>, peer_uid: Option<u32>) -> Self {
        Self::new(Transport::Unix, true, peer_pid, peer_uid)
    }

    fn new(transport: Transport, is_local: bool, peer_pid: Option<u32>, peer_uid: Option<u32>) -> Self {
        Self {
            transport,
            is_local,
            peer_pid,
            peer_uid,
            awaits_request: AtomicBool::new(true),
            first_byte_ms: AtomicU64::new(0),
            idle_ms: AtomicU64::new(0),
            is_overdue: AtomicBool::new(false),
            wrong: AtomicU32::new(0),
            lifeline: Lifeline::new(),
            progress: Progress::default(),
        }
    }

    /// A request was admitted: from here on it can be cut, and is seen.
    pub(crate) fn begin(&self, running: Running) {
        // Before it is seen: nobody takes what was of the last one for its.
        self.progress.reset();
        self.lifeline.begin(running);
    }

    /// Lets the next request through; called when the engine starts to wait for one.
    pub(crate) fn await_request(&self) {
        self.limit_answer(Duration::ZERO, Duration::ZERO);
        self.awaits_request.store(true, Ordering::Release);
    }

    /// From here on the answer may keep the caller waiting this long, for its first byte and between its parts.
    /// The engine has one timer for both, so the guard, which sees what is written, keeps the time.
    pub(crate) fn limit_answer(&self, first_byte: Duration, idle: Duration) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.first_byte_ms.store(millis(first_byte), Ordering::Relaxed);
        self.idle_ms.store(millis(idle), Ordering::Relaxed);
    }

    /// Whether the caller was kept waiting for too long, and the request was ended for it.
    pub(crate) fn is_overdue(&self) -> bool {
        self.is_overdue.load(Ordering::Relaxed)
    }

    /// A capability was presented that is none. Others at the same address pay nothing for it: what is slowed down is
    /// this connection.
    pub(crate) fn presented_wrong(&self) -> Wrong {
        let count = self.wrong.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let delay = WRONG_DELAY * count.saturating_sub(WRONG_FREE).min(WRONG_MAX);
        Wrong { delay, is_last: count >= WRONG_MAX }
    }

    /// Whether the engine waits for a request.
    pub(crate) fn awaits_request(&self) -> bool {
        self.awaits_request.load(Ordering::Acquire)
    }

    /// A request goes through; the next one is kept back until it is awaited.
    pub(crate) fn pass_request(&self) {
        self.awaits_request.store(false, Ordering::Release);
    }

    /// How long the answer may keep the caller waiting, if there is a limit.
    pub(crate) fn answer_limit(&self, has_answered: bool) -> Option<Duration> {
        let limit = if has_answered { &self.idle_ms } else { &self.first_byte_ms };
        let millis = limit.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// The caller was kept waiting for too long.
    pub(crate) fn set_overdue(&self) {
        self.is_overdue.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_capabilities_wait_longer_and_longer_until_the_connection_ends() {
        let connection = Connection::tcp(true);
        let all: Vec<Wrong> = (0..9).map(|_| connection.presented_wrong()).collect();
        let delays: Vec<u128> = all.iter().map(|wrong| wrong.delay.as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200, 300, 400, 500, 600]);
        assert_eq!(all.iter().position(|wrong| wrong.is_last), Some(7));
    }
}
