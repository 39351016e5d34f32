//! Hot path: what a request sees of the log. No SQL, no lock, no system call.
//!
//! A request takes a slot before anything is billed and gives it back as a row; the writer frees the slot when the
//! row is committed. There are as many places in the queue as there are slots, so a finished request always has
//! room. When the database cannot be written, slots run out and new requests are refused: nothing is lost, nothing
//! grows without bound.
//!
//! This is also the seam for budgets. The writer that commits the rows will own the budgets' leases, borrow and
//! book them in the same transactions, and [`Ledger::reserve`] will take the amount from the leases that apply.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use policy::{Denial, DenialCode, Plan};

use crate::error::Error;
use crate::row::RequestRow;

/// The way into the request log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

/// Proof that the log has room for a request's row. It is given back by [`Reservation::settle`], exactly once.
#[must_use = "a reservation is settled when its request ends"]
#[derive(Debug)]
pub struct Reservation {
    /// Taken out when settled; still here on a drop that nobody wanted.
    shared: Option<Arc<Shared>>,
}

/// How the log is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether rows are being written.
    pub state: LogState,
    /// Why rows are not being written; set while the state is [`LogState::Failing`].
    pub failure: Option<Failure>,
    /// Requests that may be in flight or waiting to be written, together.
    pub slots: usize,
    /// Slots that are free.
    pub slots_free: usize,
    /// Rows waiting in the queue.
    pub queued: usize,
    /// Rows of requests and refusals committed since the start; a folded refusal counts like any other.
    pub rows_written: u64,
    /// Refusals that were not logged because they came faster than they could be written.
    pub refusals_dropped: u64,
    /// Rows that a constraint of the schema refused. Anything but zero is a fault of this program.
    pub rows_rejected: u64,
    /// Reservations dropped without being settled. Anything but zero is a fault of this program.
    pub leaked: u64,
    /// Rows that came after the writer had ended. Anything but zero is a fault of this program.
    pub late: u64,
}

/// Whether rows are being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// Rows are written as they come.
    Writing,
    /// The database refuses; rows are kept and tried again.
    Failing,
    /// The writer has ended.
    Stopped,
}

/// The database's last refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error's code, see [`Error::code`].
    pub code: &'static str,
    /// What happened, with its cause.
    pub message: String,
    /// For how long it has been failing, in milliseconds.
    pub for_ms: u128,
}

/// A row on its way to the writer.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Of a request that held a reservation.
    Settled(Box<RequestRow>),
    /// Of a request that was refused before it had one.
    Refused(Box<RequestRow>),
}

impl Ledger {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes a slot in the log for an admitted request. Without one the request must not go upstream.
    ///
    /// # Errors
    /// The [`Denial`] to answer with: `overloaded` when the log is behind, `state_unavailable` when it has ended.
    pub fn reserve(&self, plan: Plan) -> Result<Reservation, Denial> {
        let Plan { .. } = plan;
        let shared = &self.shared;
        if shared.is_closing.load(Ordering::Relaxed) || shared.has_ended.load(Ordering::Relaxed) {
            return Err(Denial::new(DenialCode::StateUnavailable, "the gateway is shutting down"));
        }
        if !take(&shared.slots_free) {
            return Err(overloaded(shared.slots));
        }
        Ok(Reservation { shared: Some(Arc::clone(shared)) })
    }

    /// Logs a request that was refused before it had a reservation. Never waits: when refusals come faster than
    /// they can be written they are counted and dropped, so that a flood of them cannot take room from real
    /// requests. Equal ones (provider, agent, code, path) share a row for some seconds.
    pub fn record_refusal(&self, row: RequestRow) {
        if take(&self.shared.refusal_slots_free) {
            self.shared.push(Entry::Refused(Box::new(row)));
        } else {
            self.shared.refusals_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was settled or recorded before this call is committed. Blocks the thread; not
    /// for the hot path.
    ///
    /// # Errors
    /// [`Error::Behind`] after `timeout`, [`Error::Stopped`] when the writer ended with rows unwritten.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        let shared = &self.shared;
        let ticket = shared.flush_wanted.fetch_add(1, Ordering::SeqCst) + 1;
        shared.wake_writer();
        let deadline = Instant::now() + timeout;
        let mut done = lock(&shared.flush_done);
        while *done < ticket {
            if shared.has_ended.load(Ordering::SeqCst) {
                return Err(Error::Stopped);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Behind { waited_ms: timeout.as_millis() });
            }
            let waited = shared.flush_changed.wait_timeout(done, left);
            done = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// How the log is doing; for `status` and metrics.
    pub fn health(&self) -> Health {
        let shared = &self.shared;
        let failing = lock(&shared.failing).clone();
        let state = match &failing {
            _ if shared.has_ended.load(Ordering::SeqCst) => LogState::Stopped,
            Some(_) => LogState::Failing,
            None => LogState::Writing,
        };
        Health {
            state,
            failure: failing.map(|failing| Failure {
                code: failing.code,
                message: failing.message,
                for_ms: failing.since.elapsed().as_millis(),
            }),
            slots: shared.slots,
            slots_free: shared.slots_free.load(Ordering::Relaxed),
            queued: shared.queue.len(),
            rows_written: shared.rows_written.load(Ordering::Relaxed),
            refusals_dropped: shared.refusals_dropped.load(Ordering::Relaxed),
            rows_rejected: shared.rows_rejected.load(Ordering::Relaxed),
            leaked: shared.leaked.load(Ordering::Relaxed),
            late: shared.late.load(Ordering::Relaxed),
        }
    }
}

impl Reservation {
    /// Ends the request with its row, which will be in the log. Never waits.
    pub fn settle(mut self, row: RequestRow) {
        if let Some(shared) = self.shared.take() {
            shared.push(Entry::Settled(Box::new(row)));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.leaked.fetch_add(1, Ordering::Relaxed);
            shared.slots_free.fetch_add(1, Ordering::Release);
        }
    }
}

/// What requests and the writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) queue: ArrayQueue<Entry>,
    pub(crate) slots: usize,
    pub(crate) slots_free: AtomicUsize,
    pub(crate) refusal_slots_free: AtomicUsize,
    pub(crate) rows_written: AtomicU64,
    pub(crate) rows_rejected: AtomicU64,
    refusals_dropped: AtomicU64,
    leaked: AtomicU64,
    late: AtomicU64,
    /// Set when no new reservation is given out.
    pub(crate) is_closing: AtomicBool,
    /// Set when the writer takes nothing from the queue any more.
    pub(crate) has_ended: AtomicBool,
    pub(crate) flush_wanted: AtomicU64,
    flush_done: Mutex<u64>,
    flush_changed: Condvar,
    failing: Mutex<Option<Failing>>,
    /// To wake the writer; requests never do, as that would cost them a system call.
    pub(crate) writer: OnceLock<Thread>,
}

#[derive(Clone, Debug)]
struct Failing {
    code: &'static str,
    message: String,
    since: Instant,
}

impl Shared {
    pub(crate) fn new(slots: usize, refusal_slots: usize) -> Self {
        Self {
            queue: ArrayQueue::new((slots + refusal_slots).max(1)),
            slots,
            slots_free: AtomicUsize::new(slots),
            refusal_slots_free: AtomicUsize::new(refusal_slots),
            rows_written: AtomicU64::new(0),
            rows_rejected: AtomicU64::new(0),
            refusals_dropped: AtomicU64::new(0),
            leaked: AtomicU64::new(0),
            late: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            flush_wanted: AtomicU64::new(0),
            flush_done: Mutex::new(0),
            flush_changed: Condvar::new(),
            failing: Mutex::new(None),
            writer: OnceLock::new(),
        }
    }

    fn push(&self, entry: Entry) {
        // A slot was taken for it, and the queue has a place for every slot.
        if self.queue.push(entry).is_err() {
            debug_assert!(false, "an entry without a slot");
            self.rows_rejected.fetch_add(1, Ordering::Relaxed);
        }
        // Pushed first, asked second; the writer does it the other way round, so one of the two sees the other.
        if self.has_ended.load(Ordering::SeqCst) {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn wake_writer(&self) {
        if let Some(thread) = self.writer.get() {
            thread.unpark();
        }
    }

    pub(crate) fn flushed(&self, ticket: u64) {
        let mut done = lock(&self.flush_done);
        if *done < ticket {
            *done = ticket;
            self.flush_changed.notify_all();
        }
    }

    /// Says that nothing is taken from the queue any more, and wakes whoever waits for that.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        let _done = lock(&self.flush_done);
        self.flush_changed.notify_all();
    }

    pub(crate) fn note_failure(&self, error: &Error) {
        let mut failing = lock(&self.failing);
        let since = failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
        let cause = std::error::Error::source(error);
        let message = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        *failing = Some(Failing { code: error.code(), message, since });
    }

    pub(crate) fn note_success(&self) {
        *lock(&self.failing) = None;
    }
}

fn take(free: &AtomicUsize) -> bool {
    free.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
}

fn overloaded(slots: usize) -> Denial {
    let message = format!("the request log is behind: all {slots} places for requests in flight are taken");
    Denial::new(DenialCode::Overloaded, message).with_hint("tokfence status")
}

/// A panic elsewhere leaves these plain values whole, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
