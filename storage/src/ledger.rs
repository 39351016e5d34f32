//! Hot path: what a request sees of the log and the budgets. No SQL and no system call; where budgets apply, a lock
//! that is held for some arithmetic.
//!
//! A request takes a slot before anything is billed and gives it back as a row; the writer frees the slot when the
//! row is committed. There are as many places in the queue as there are slots, so a finished request always has
//! room. When the database cannot be written, slots run out and new requests are refused: nothing is lost, nothing
//! grows without bound.
//!
//! With the slot it takes what it may cost from what is borrowed of each budget that applies (see `books`). Only when
//! too little is borrowed does it wait, for one round of the writer.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use policy::{BudgetId, Denial, DenialCode, Plan, Rules, TimestampUs};

use crate::books::{Attempt, Held};
use crate::error::Error;
use crate::leases::Warning;
use crate::reservation::Reservation;
use crate::row::RequestRow;
use crate::shared::{Entry, Shared, lock, shutting_down, take};

/// For how long a commit proves that the next one will succeed as well.
const PROOF_LASTS: Duration = Duration::from_secs(1);

/// The way into the request log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
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
    /// Transactions in which they were.
    pub batches: u64,
    /// Refusals that were not logged because they came faster than they could be written.
    pub refusals_dropped: u64,
    /// Rows that a constraint of the schema refused. Anything but zero is a fault of this program.
    pub rows_rejected: u64,
    /// Reservations dropped without being settled. Anything but zero is a fault of this program.
    pub leaked: u64,
    /// Rows that came after the writer had ended. Anything but zero is a fault of this program.
    pub late: u64,
    /// Budgets that were found to have much spent of them; see [`Warning`].
    pub budget_warnings: u64,
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

impl Health {
    /// `ok`, or why rows do not reach the database.
    pub fn in_words(&self) -> String {
        match (self.state, &self.failure) {
            (LogState::Writing, _) => "ok".to_owned(),
            (LogState::Failing, failure) => {
                failure.as_ref().map_or("failing".to_owned(), |failure| failure.message.clone())
            }
            (LogState::Stopped, _) => "stopped".to_owned(),
        }
    }
}

impl Ledger {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes a slot in the log for an admitted request, and what it may cost from every budget that applies. Without
    /// that the request must not go upstream. Waits only while more has to be borrowed; the caller sets the limit of
    /// its patience.
    ///
    /// # Errors
    /// The [`Denial`] to answer with: `budget_exceeded`, `overloaded` when the log is behind, `state_unavailable` when
    /// it has ended.
    pub async fn reserve(&self, plan: Plan) -> Result<Reservation, Denial> {
        let slot = self.shared.take_slot()?;
        let (held, output) = if plan.budgets().is_empty() {
            (Vec::new(), plan.quote().most_output)
        } else {
            self.hold(&plan).await?
        };
        slot.keep();
        let shared = Arc::clone(&self.shared);
        Ok(Reservation::new(shared, *plan.quote(), held, output))
    }

    /// Waits until it is certain that rows can be written: something was committed within the last second, or is now.
    /// For whoever wants no request without a row; the caller sets the limit of its patience.
    ///
    /// # Errors
    /// `state_unavailable` while the database refuses, and when the writer has ended.
    pub async fn prove_writing(&self) -> Result<(), Denial> {
        let shared = &self.shared;
        let is_proven = || lock(&shared.committed_at).is_some_and(|at| at.elapsed() < PROOF_LASTS);
        let mut turn = Turn { shared, number: None };
        poll_fn(|cx| {
            if shared.has_ended.load(Ordering::SeqCst) {
                return Poll::Ready(Err(shutting_down()));
            }
            if is_proven() {
                return Poll::Ready(Ok(()));
            }
            if lock(&shared.failing).is_some() {
                return Poll::Ready(Err(unwritable()));
            }
            turn.wait(cx.waker());
            // A commit that ended before that woke nobody.
            if is_proven() {
                return Poll::Ready(Ok(()));
            }
            shared.wake_writer();
            Poll::Pending
        })
        .await
    }

    async fn hold(&self, plan: &Plan) -> Result<(Vec<Held>, u64), Denial> {
        let (shared, now) = (&self.shared, self.now());
        let mut waits_for = None;
        let mut turn = Turn { shared, number: None };
        poll_fn(|cx| {
            if shared.has_ended.load(Ordering::SeqCst) {
                return Poll::Ready(Err(shutting_down()));
            }
            let mut books = lock(&shared.books);
            match books.try_reserve(plan, now, Instant::now(), waits_for) {
                Attempt::Held(held, output) => Poll::Ready(Ok((held, output))),
                Attempt::Short(shortage) => Poll::Ready(Err(Denial::budget_exceeded(shortage))),
                Attempt::Wait(round) => {
                    waits_for = Some(round);
                    // Under the lock: a round that ends in between finds the waker.
                    turn.wait(cx.waker());
                    drop(books);
                    shared.wake_writer();
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Takes over the budgets as they are now, for the next reservation on. Periods begin at midnight in `zone`; once
    /// `warning_percent` of a limit is spent, a [`Warning`] says so (0: never).
    pub fn set_budgets(&self, rules: &Rules, zone: &TimeZone, warning_percent: u64) {
        self.shared.warning_percent.store(warning_percent, Ordering::Relaxed);
        let now = self.now();
        lock(&self.shared.books).set_budgets(rules.budgets.values().flatten(), zone, now);
    }

    /// What budgets have to tell since the last call.
    pub fn take_warnings(&self) -> Vec<Warning> {
        std::mem::take(&mut *lock(&self.shared.warnings))
    }

    /// What this process has borrowed of each budget and no request holds: it is ready for the next.
    pub fn kept_ready(&self) -> BTreeMap<BudgetId, i64> {
        lock(&self.shared.books).kept_ready()
    }

    /// The present instant, which is never before one that was seen earlier, by this process or another. Periods and
    /// lifetimes go by it, so that a clock that is set back re-opens nothing.
    pub fn now(&self) -> TimestampUs {
        self.shared.now()
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
            batches: shared.batches.load(Ordering::Relaxed),
            refusals_dropped: shared.refusals_dropped.load(Ordering::Relaxed),
            rows_rejected: shared.rows_rejected.load(Ordering::Relaxed),
            leaked: shared.leaked.load(Ordering::Relaxed),
            late: shared.late.load(Ordering::Relaxed),
            budget_warnings: shared.budget_warnings.load(Ordering::Relaxed),
        }
    }
}

fn unwritable() -> Denial {
    let message = "the request log cannot be written at the moment, and `logging.required` is set";
    Denial::new(DenialCode::StateUnavailable, message).with_hint("tokfence status")
}

/// The turn of a request that may have to wait. One that gives up leaves no waker behind: with a database that is out
/// of order for long, they would be as many as the requests that came in the meantime.
struct Turn<'a> {
    shared: &'a Shared,
    /// Drawn when it has to.
    number: Option<u64>,
}

impl Turn<'_> {
    /// Has the next round of the writer wake `waker`.
    fn wait(&mut self, waker: &Waker) {
        let turns = &self.shared.turns;
        let number = *self.number.get_or_insert_with(|| turns.fetch_add(1, Ordering::Relaxed));
        lock(&self.shared.waiting).insert(number, waker.clone());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&self.shared.waiting).remove(&number);
        }
    }
}
