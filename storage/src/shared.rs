//! What requests and the writer share: the queue with its slots, the budgets' books, and who waits for what.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::Thread;
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use policy::{Denial, DenialCode, TimestampUs};

use crate::books::{Books, Charge};
use crate::error::Error;
use crate::leases::Warning;
use crate::row::RequestRow;

/// A row on its way to the writer.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Of a request that held a reservation.
    Settled(Box<RequestRow>, Vec<Charge>),
    /// The charges of a request that ended without a row, which is a fault of this program.
    Abandoned(Vec<Charge>),
    /// Of a request that was refused before it had one.
    Refused(Box<RequestRow>),
}

impl Entry {
    /// What it charges to budgets.
    pub(crate) fn take_charges(&mut self) -> Vec<Charge> {
        match self {
            Self::Settled(_, charges) | Self::Abandoned(charges) => std::mem::take(charges),
            Self::Refused(_) => Vec::new(),
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
    pub(crate) batches: AtomicU64,
    pub(crate) rows_rejected: AtomicU64,
    pub(crate) refusals_dropped: AtomicU64,
    pub(crate) leaked: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) budget_warnings: AtomicU64,
    /// Set when no new reservation is given out.
    pub(crate) is_closing: AtomicBool,
    /// Set when the writer takes nothing from the queue any more.
    pub(crate) has_ended: AtomicBool,
    pub(crate) flush_wanted: AtomicU64,
    pub(crate) flush_done: Mutex<u64>,
    pub(crate) flush_changed: Condvar,
    pub(crate) failing: Mutex<Option<Failing>>,
    /// The last commit, of rows or of anything else; `None` after a failure.
    pub(crate) committed_at: Mutex<Option<Instant>>,
    pub(crate) books: Mutex<Books>,
    /// Requests that wait for a round of the writer, by their turn.
    pub(crate) waiting: Mutex<HashMap<u64, Waker>>,
    pub(crate) turns: AtomicU64,
    pub(crate) warnings: Mutex<Vec<Warning>>,
    pub(crate) warning_percent: AtomicU64,
    /// The latest instant seen by any process.
    pub(crate) high_water: AtomicI64,
    clock: fn() -> TimestampUs,
    /// To wake the writer; requests never do, as that would cost them a system call.
    pub(crate) writer: OnceLock<Thread>,
}

/// Since when and why the database refuses.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) since: Instant,
}

impl Shared {
    pub(crate) fn new(slots: usize, refusal_slots: usize, clock: fn() -> TimestampUs) -> Self {
        Self {
            queue: ArrayQueue::new((slots + refusal_slots).max(1)),
            slots,
            slots_free: AtomicUsize::new(slots),
            refusal_slots_free: AtomicUsize::new(refusal_slots),
            rows_written: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            rows_rejected: AtomicU64::new(0),
            refusals_dropped: AtomicU64::new(0),
            leaked: AtomicU64::new(0),
            late: AtomicU64::new(0),
            budget_warnings: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            flush_wanted: AtomicU64::new(0),
            flush_done: Mutex::new(0),
            flush_changed: Condvar::new(),
            failing: Mutex::new(None),
            committed_at: Mutex::new(None),
            books: Mutex::new(Books::new()),
            waiting: Mutex::default(),
            turns: AtomicU64::new(0),
            warnings: Mutex::new(Vec::new()),
            warning_percent: AtomicU64::new(0),
            high_water: AtomicI64::new(0),
            clock,
            writer: OnceLock::new(),
        }
    }

    pub(crate) fn take_slot(&self) -> Result<Slot<'_>, Denial> {
        if self.is_closing.load(Ordering::Relaxed) || self.has_ended.load(Ordering::Relaxed) {
            return Err(shutting_down());
        }
        if !take(&self.slots_free) {
            return Err(overloaded(self.slots));
        }
        Ok(Slot(self))
    }

    pub(crate) fn now(&self) -> TimestampUs {
        let wall = (self.clock)();
        self.high_water.fetch_max(wall, Ordering::Relaxed).max(wall)
    }

    /// Whether a request waits for a round of the writer.
    pub(crate) fn has_waiting(&self) -> bool {
        !lock(&self.waiting).is_empty()
    }

    /// Lets requests that waited for a round of the writer look again.
    pub(crate) fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_values().for_each(Waker::wake);
    }

    pub(crate) fn push(&self, entry: Entry) {
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
        let done = lock(&self.flush_done);
        self.flush_changed.notify_all();
        drop(done);
        self.wake_waiting();
    }

    pub(crate) fn note_failure(&self, error: &Error) {
        let mut failing = lock(&self.failing);
        let since = failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
        let cause = std::error::Error::source(error);
        let message = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        *failing = Some(Failing { code: error.code(), message, since });
        *lock(&self.committed_at) = None;
    }

    pub(crate) fn note_success(&self) {
        *lock(&self.failing) = None;
        *lock(&self.committed_at) = Some(Instant::now());
    }
}

/// A place in the log that is given back unless it is kept.
pub(crate) struct Slot<'a>(&'a Shared);

impl Slot<'_> {
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.slots_free.fetch_add(1, Ordering::Release);
    }
}

pub(crate) fn take(free: &AtomicUsize) -> bool {
    free.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
}

pub(crate) fn shutting_down() -> Denial {
    Denial::new(DenialCode::StateUnavailable, "the gateway is shutting down")
}

fn overloaded(slots: usize) -> Denial {
    let message = format!("the request log is behind: all {slots} places for requests in flight are taken");
    Denial::new(DenialCode::Overloaded, message).with_hint("tokfence status")
}

/// A panic elsewhere leaves these plain values whole, so a poisoned lock is as good as any.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
