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

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use jiff::tz::TimeZone;
use policy::{Denial, DenialCode, NanoUsd, Plan, Quote, Rules, TimestampUs, Unit, Usage};

use crate::books::{Attempt, Books, Charge, Held};
use crate::error::Error;
use crate::leases::Warning;
use crate::row::RequestRow;

/// The way into the request log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

/// Proof that the log has room for a request's row and every budget for what it may cost. It is given back by
/// [`Reservation::settle`], exactly once.
#[must_use = "a reservation is settled when its request ends"]
#[derive(Debug)]
pub struct Reservation {
    /// Taken out when settled; still here on a drop that nobody wanted.
    shared: Option<Arc<Shared>>,
    quote: Quote,
    held: Vec<Held>,
    output: u64,
    /// The round of the writer after which a growth may be asked for again.
    growing: Option<u64>,
}

/// What came of asking for a longer answer to be covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It is covered.
    Covered,
    /// More is being borrowed; ask again in some milliseconds.
    Pending,
    /// A budget has no room for it: the refusal to end the answer with.
    Refused(Denial),
}

/// What a request used, to be charged to its budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// So many nano-dollars and tokens.
    Known {
        /// Its cost.
        cost: NanoUsd,
        /// All its tokens.
        tokens: u64,
    },
    /// The tokens are known and the price is not: the reservation of money is charged.
    Unpriced {
        /// All its tokens.
        tokens: u64,
    },
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
        let shared = Some(Arc::clone(&self.shared));
        Ok(Reservation { shared, quote: *plan.quote(), held, output, growing: None })
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
                    let number = turn.number();
                    lock(&shared.waiting).insert(number, cx.waker().clone());
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
            refusals_dropped: shared.refusals_dropped.load(Ordering::Relaxed),
            rows_rejected: shared.rows_rejected.load(Ordering::Relaxed),
            leaked: shared.leaked.load(Ordering::Relaxed),
            late: shared.late.load(Ordering::Relaxed),
        }
    }
}

impl Reservation {
    /// How long each answer may be, in tokens, for the budgets to cover it; `None` where no budget applies.
    pub fn covered_output(&self) -> Option<u64> {
        self.is_limited().then_some(self.output)
    }

    /// Whether a budget has to know how long the answer gets.
    pub fn is_limited(&self) -> bool {
        !self.held.is_empty()
    }

    /// What the budgets hold for the request: tokens as they would be used, and money. `None` where no budget applies.
    pub fn whole(&self) -> Option<(Usage, NanoUsd)> {
        let input = self.quote.input_tokens;
        let tokens = self.quote.amount(Unit::Tokens, self.output).cast_unsigned();
        let usage = Usage { input, output: tokens.saturating_sub(input), ..Usage::default() };
        let money = NanoUsd::from_nanos(self.quote.amount(Unit::NanoUsd, self.output));
        self.is_limited().then_some((usage, money))
    }

    /// Asks the budgets to cover answers of `output` tokens each. Never waits.
    pub fn grow(&mut self, output: u64) -> Growth {
        let Some(shared) = self.shared.as_ref().filter(|_| output > self.output) else {
            return Growth::Covered;
        };
        let mut books = lock(&shared.books);
        match books.try_grow(&mut self.held, &self.quote, output, Instant::now(), self.growing) {
            Ok(()) => {
                (self.output, self.growing) = (output, None);
                Growth::Covered
            }
            Err(Attempt::Short(shortage)) => Growth::Refused(Denial::budget_exceeded(shortage)),
            Err(Attempt::Wait(_) | Attempt::Held(..)) if shared.has_ended.load(Ordering::SeqCst) => {
                Growth::Refused(shutting_down())
            }
            Err(Attempt::Wait(round)) => {
                let is_new = self.growing.replace(round) != Some(round);
                drop(books);
                if is_new {
                    shared.wake_writer();
                }
                Growth::Pending
            }
            Err(Attempt::Held(..)) => Growth::Pending,
        }
    }

    /// Ends the request with what it used and its row, which will be in the log. Never waits.
    pub fn settle(mut self, row: RequestRow, used: Used) {
        if let Some(shared) = self.shared.take() {
            let charges = self.charges(&shared, |unit, reserved| used.of(unit, reserved));
            shared.push(Entry::Settled(Box::new(row), charges));
        }
    }

    fn charges(&self, shared: &Shared, used: impl Fn(Unit, i64) -> i64) -> Vec<Charge> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let reserved = |unit| self.quote.amount(unit, self.output);
        lock(&shared.books).settle(&self.held, |unit| used(unit, reserved(unit)), Instant::now())
    }
}

impl Used {
    fn of(self, unit: Unit, reserved: i64) -> i64 {
        let (Self::Known { tokens, .. } | Self::Unpriced { tokens }) = self;
        match (unit, self) {
            (Unit::Tokens, _) => i64::try_from(tokens).unwrap_or(i64::MAX),
            (Unit::NanoUsd, Self::Known { cost, .. }) => cost.nanos(),
            (Unit::NanoUsd, Self::Unpriced { .. }) => reserved,
        }
    }
}

impl Drop for Reservation {
    /// What nobody settled may have been spent: it is charged in full.
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.leaked.fetch_add(1, Ordering::Relaxed);
            let charges = self.charges(&shared, |_, reserved| reserved);
            shared.push(Entry::Abandoned(charges));
        }
    }
}

/// A place in the log that is given back unless it is kept.
struct Slot<'a>(&'a Shared);

impl Slot<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.slots_free.fetch_add(1, Ordering::Release);
    }
}

/// The turn of a request that may have to wait. One that gives up leaves no waker behind: with a database that is out
/// of order for long, they would be as many as the requests that came in the meantime.
struct Turn<'a> {
    shared: &'a Shared,
    /// Drawn when it has to.
    number: Option<u64>,
}

impl Turn<'_> {
    fn number(&mut self) -> u64 {
        *self.number.get_or_insert_with(|| self.shared.turns.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&self.shared.waiting).remove(&number);
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
    pub(crate) books: Mutex<Books>,
    /// Requests that wait for a round of the writer, by their turn.
    waiting: Mutex<HashMap<u64, Waker>>,
    turns: AtomicU64,
    pub(crate) warnings: Mutex<Vec<Warning>>,
    pub(crate) warning_percent: AtomicU64,
    /// The latest instant seen by any process.
    pub(crate) high_water: AtomicI64,
    clock: fn() -> TimestampUs,
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
    pub(crate) fn new(slots: usize, refusal_slots: usize, clock: fn() -> TimestampUs) -> Self {
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

    fn take_slot(&self) -> Result<Slot<'_>, Denial> {
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
    }

    pub(crate) fn note_success(&self) {
        *lock(&self.failing) = None;
    }
}

fn take(free: &AtomicUsize) -> bool {
    free.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
}

fn shutting_down() -> Denial {
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
