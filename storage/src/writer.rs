//! The writer: one thread that commits the rows of many requests in one transaction, and with them what the requests
//! used of their budgets and what is borrowed next.
//!
//! It polls the queue instead of waiting on it, because a wake-up would cost every request a system call. Whatever
//! the database refuses stays in memory and is tried again; a row leaves memory only when it is committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use policy::{BudgetId, RequestId, TimestampUs};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::books::{Charge, Step, Stepped};
use crate::error::{Doing, Error};
use crate::file::{self, FileId};
use crate::fold::{Folder, Pending};
use crate::holder::{self, Alive};
use crate::leases::{self, Holder, Warning};
use crate::ledger::Ledger;
use crate::shared::{Entry, Shared, lock};
use crate::store::{Role, Store, connect};
use crate::sums::Rollup;
use crate::{retention, row};

const ROWS_PER_TRANSACTION: usize = 4_096;
/// Nobody waits for it: who needs a round at once wakes the writer.
const POLL: Duration = Duration::from_millis(20);
/// After this long without work the poll slows down, so that an idle gateway uses next to no CPU.
const IDLE_AFTER: Duration = Duration::from_secs(1);
const POLL_IDLE: Duration = Duration::from_millis(50);
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// A deletion of this many rows takes some milliseconds.
const RETENTION_ROWS: u32 = 1_000;
const RETENTION_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
const RETENTION_RETRY: Duration = Duration::from_secs(60);
/// How many rounds after the one that serves it a request that waits may find what it waited for.
const ROUNDS_KEPT: usize = 2;
/// How often the time is remembered when nothing else is written.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// How the log is written.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// Requests that may be in flight or waiting to be written, together.
    pub slots: usize,
    /// Refusals that may wait to be written.
    pub refusal_slots: usize,
    /// How long rows are kept; `None` is for ever.
    pub retention: Option<Duration>,
    /// How long a shutdown waits for requests in flight and for a database that refuses.
    pub shutdown_wait: Duration,
    /// The clock that retention goes by.
    pub clock: fn() -> TimestampUs,
}

/// The running writer. Shut it down after the last request has ended; dropping it does the same but cannot say what
/// went wrong.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            slots: 65_536,
            refusal_slots: 4_096,
            retention: Some(Duration::from_secs(90 * 24 * 60 * 60)),
            shutdown_wait: Duration::from_secs(5),
            clock: system_clock,
        }
    }
}

fn system_clock() -> TimestampUs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

impl Writer {
    /// Opens the database, making it if there is none, and starts the thread.
    ///
    /// # Errors
    /// As [`Store::open`], or that the system gives no thread.
    pub fn start(path: &Path, config: WriterConfig) -> Result<(Ledger, Self), Error> {
        let path = Store::open(path)?.path().to_owned();
        let shared = Arc::new(Shared::new(config.slots, config.refusal_slots, config.clock));
        let mut conn = connect(&path, Role::Log)?;
        let (holder, alive) = begin(&mut conn, &path, &shared)?;
        let log = Log {
            conn,
            holder,
            _alive: alive,
            clock_due: Instant::now() + CLOCK_EVERY,
            file: FileId::of(&path)?,
            path: path.clone(),
            shared: Arc::clone(&shared),
            folder: Folder::default(),
            rollup: Rollup::new(),
            retention_due: config.retention.map(|_| Instant::now()),
            config,
            worked_at: Instant::now(),
            closing_since: None,
        };
        let thread = thread::Builder::new()
            .name("tokfence-log".to_owned())
            .spawn(move || log.run())
            .map_err(|source| Error::Io { action: "start the writer of", path, source })?;
        let _ = shared.writer.set(thread.thread().clone());
        Ok((Ledger::new(Arc::clone(&shared)), Self { shared, thread: Some(thread) }))
    }

    /// Gives out no more reservations, waits for those that are out, commits everything, and ends.
    ///
    /// # Errors
    /// What is not in the log because the time was over: [`Error::Unwritten`] or [`Error::Unsettled`].
    pub fn shutdown(mut self) -> Result<(), Error> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        self.shared.wake_writer();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(Error::Stopped),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.stop(); // nobody is left to tell
    }
}

/// Charges what dead processes had borrowed, and makes this one known before it borrows anything.
fn begin(conn: &mut Connection, path: &Path, shared: &Shared) -> Result<(Holder, Alive), Error> {
    let doing = "charge what a dead process had borrowed";
    let dead: Vec<Holder> = leases::holders(conn)
        .doing(doing)?
        .into_iter()
        .filter(|holder| holder::is_dead(path, holder))
        .collect();
    let write = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    shared.high_water.store(leases::high_water(&write).doing(doing)?, Ordering::SeqCst);
    for holder in &dead {
        leases::forfeit(&write, holder, shared.now()).doing(doing)?;
    }
    leases::forget_old(&write, shared.now()).doing(doing)?;
    let random: i64 = write.query_row("SELECT random()", [], |row| row.get(0)).doing(doing)?;
    write.commit().doing(doing)?;
    let unix_ms = u64::try_from(shared.now() / 1_000).unwrap_or(0);
    let id = RequestId::from_parts(unix_ms, u128::from(random.cast_unsigned()) << 16);
    let holder = id.to_string();
    let alive = Alive::claim(path, &holder)?;
    Ok((holder, alive))
}

/// What is written in one transaction.
struct Batch {
    rows: Vec<Pending>,
    charges: Vec<Charge>,
    steps: Vec<Step>,
}

/// What came of a batch: where each row went (`None` was refused by the schema), and each step.
struct Committed {
    seqs: Vec<Option<i64>>,
    steps: Vec<(Step, Option<Stepped>)>,
    warned: Vec<(BudgetId, u64, i64)>,
}

/// What the thread owns.
struct Log {
    conn: Connection,
    /// This process, as it is called where it borrows.
    holder: Holder,
    _alive: Alive,
    clock_due: Instant,
    path: PathBuf,
    file: FileId,
    shared: Arc<Shared>,
    folder: Folder,
    config: WriterConfig,
    rollup: Rollup,
    retention_due: Option<Instant>,
    worked_at: Instant,
    closing_since: Option<Instant>,
}

/// However the thread ends, a panic included, the ledger hears of it and refuses requests.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Log {
    fn run(mut self) -> Result<(), Error> {
        let guard = EndGuard(Arc::clone(&self.shared));
        let mut flushed = 0;
        while !self.is_done() {
            // First the ticket, then the length: what was pushed before the ticket was asked for is counted.
            let ticket = self.shared.flush_wanted.load(Ordering::SeqCst);
            let due = self.shared.queue.len();
            self.write(due, ticket != flushed)?;
            if ticket != flushed {
                // Who asks for a flush wants to read what is spent and held, not what is borrowed. What was kept for
                // a request that waited is given back in the last of these rounds, if it was not taken.
                for _ in 0..ROUNDS_KEPT {
                    self.write(0, true)?;
                }
            }
            flushed = ticket;
            self.shared.flushed(ticket);
            // Rows gather meanwhile: a commit costs as much as a dozen of them, and the more share one, the fewer pages are
            // written twice.
            if due < ROWS_PER_TRANSACTION && !self.retain() && !self.sum_up() {
                self.rest();
            }
        }
        drop(guard);
        lock(&self.shared.books).forget_waiting();
        // Whoever pushed before it was said that we ended relies on this.
        self.write(self.shared.queue.len(), true)?;
        self.shared.flushed(u64::MAX);
        // A reader may hold the checkpoint up; the rows are safe in the write-ahead log, which is read at the next start.
        let _ = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        match self.shared.slots - self.shared.slots_free.load(Ordering::Acquire) {
            0 => Ok(()),
            requests => Err(Error::Unsettled { requests }),
        }
    }

    /// Whether a shutdown was asked for and nothing is left to wait for, or no time to do so.
    fn is_done(&mut self) -> bool {
        if !self.shared.is_closing.load(Ordering::SeqCst) {
            return false;
        }
        let all_settled = self.shared.slots_free.load(Ordering::Acquire) == self.shared.slots;
        (all_settled && self.shared.queue.is_empty()) || self.is_out_of_time()
    }

    fn is_out_of_time(&mut self) -> bool {
        if !self.shared.is_closing.load(Ordering::SeqCst) {
            return false;
        }
        let since = *self.closing_since.get_or_insert_with(Instant::now);
        since.elapsed() >= self.config.shutdown_wait
    }

    /// Takes `due` entries from the queue and commits them, in as many transactions as that needs; at least one where
    /// budgets want something.
    fn write(&mut self, mut due: usize, gives_all_back: bool) -> Result<(), Error> {
        loop {
            let wanted = due.min(ROWS_PER_TRANSACTION);
            let entries: Vec<Entry> = std::iter::from_fn(|| self.shared.queue.pop()).take(wanted).collect();
            due = if entries.len() < wanted { 0 } else { due - wanted };
            let refused = entries.iter().filter(|entry| matches!(entry, Entry::Refused(_))).count();
            let (settled, any) = (entries.len() - refused, !entries.is_empty());
            let batch = self.batch(entries, gives_all_back);
            let is_wanted = any || !batch.steps.is_empty() || self.shared.has_waiting();
            if is_wanted || Instant::now() >= self.clock_due {
                let rows: u64 = batch.rows.iter().map(|row| row.repeats).sum();
                let rejected = self.persist(batch)?;
                self.shared.rows_rejected.fetch_add(rejected, Ordering::Relaxed);
                self.shared.rows_written.fetch_add(rows - rejected, Ordering::Relaxed);
                self.shared.batches.fetch_add(u64::from(any), Ordering::Relaxed);
                self.shared.slots_free.fetch_add(settled, Ordering::Release);
                self.shared.refusal_slots_free.fetch_add(refused, Ordering::Release);
            }
            if any {
                self.worked_at = Instant::now();
            }
            if due == 0 {
                return Ok(());
            }
        }
    }

    fn batch(&mut self, mut entries: Vec<Entry>, gives_all_back: bool) -> Batch {
        let charges: Vec<Charge> = entries.iter_mut().flat_map(Entry::take_charges).collect();
        let (now, at) = (self.shared.now(), Instant::now());
        let mut books = lock(&self.shared.books);
        // Asked under the lock, under which requests begin to wait: what one has just wished for is not taken back.
        let gives_all_back = gives_all_back && !self.shared.has_waiting();
        let steps = books.plan_round(charges.iter(), now, at, gives_all_back);
        drop(books);
        Batch { rows: self.folder.fold(entries), charges, steps }
    }

    /// Commits a batch, however often it takes, and answers how many rows the schema refused. Gives up only when a
    /// shutdown has no time left.
    fn persist(&mut self, batch: Batch) -> Result<u64, Error> {
        let mut pause = RETRY_FIRST;
        let committed = loop {
            match self.commit(&batch) {
                Ok(committed) => break committed,
                Err(error) => {
                    self.shared.note_failure(&error);
                    if self.is_out_of_time() {
                        let rows = batch.rows.len() + self.shared.queue.len();
                        return Err(Error::Unwritten { rows, source: Some(Box::new(error)) });
                    }
                    thread::park_timeout(pause);
                    pause = (pause * 2).min(RETRY_LAST);
                    if !error.is_passing() {
                        self.reconnect();
                    }
                }
            }
        };
        self.shared.note_success();
        self.clock_due = Instant::now() + CLOCK_EVERY;
        self.finish_round(committed.steps, committed.warned);
        let mut rejected = 0;
        for (row, seq) in batch.rows.into_iter().zip(committed.seqs) {
            match seq {
                Some(seq) => self.folder.committed(row, seq),
                None => rejected += row.repeats,
            }
        }
        Ok(rejected)
    }

    /// What was borrowed may be used; what has to be told about a budget waits to be fetched.
    fn finish_round(&self, steps: Vec<(Step, Option<Stepped>)>, warned: Vec<(BudgetId, u64, i64)>) {
        self.shared.budget_warnings.fetch_add(warned.len() as u64, Ordering::Relaxed);
        let mut books = lock(&self.shared.books);
        books.finish_round(steps.into_iter(), Instant::now());
        let budget = |id| books.budget(id).map(|budget| (budget.name(), budget.limit));
        let warnings = warned.into_iter().filter_map(|(id, percent, spent)| {
            budget(id).map(|(budget, limit)| Warning { budget, percent, limit, spent })
        });
        lock(&self.shared.warnings).extend(warnings);
        drop(books);
        self.shared.wake_waiting();
    }

    /// Writes a whole batch in one transaction.
    fn commit(&mut self, batch: &Batch) -> Result<Committed, Error> {
        if FileId::of(&self.path)? != self.file {
            // Rows written to a file that has no name any more would be lost with it.
            return Err(Error::Replaced { path: self.path.clone() });
        }
        let doing = "write the request log";
        let write = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let mut seqs = Vec::with_capacity(batch.rows.len());
        for pending in &batch.rows {
            match write_one(&write, pending).doing(doing) {
                Ok(seq) => seqs.push(Some(seq)),
                // Trying it again cannot help, and the rows behind it must not wait for ever.
                Err(error) if error.is_constraint() => seqs.push(None),
                Err(error) => return Err(error),
            }
        }
        let percent = self.shared.warning_percent.load(Ordering::Relaxed);
        let (steps, warned) = write_ledger(&write, &self.holder, batch, percent).doing("write the ledger")?;
        let seen = leases::raise_high_water(&write, self.shared.now()).doing("write the ledger")?;
        self.shared.high_water.fetch_max(seen, Ordering::Relaxed);
        write.commit().doing(doing)?;
        Ok(Committed { seqs, steps, warned })
    }

    /// Opens the same file anew after a failure that is more than a lock or a full disk: what a connection believes
    /// after a failed sync is not to be trusted. Never makes a new file.
    fn reconnect(&mut self) {
        let reopened = file::check(&self.path).and_then(|exists| {
            let same = exists && FileId::of(&self.path)? == self.file;
            if same {
                connect(&self.path, Role::Log)
            } else {
                Err(Error::Replaced { path: self.path.clone() })
            }
        });
        match reopened {
            Ok(conn) => self.conn = conn,
            Err(error) => self.shared.note_failure(&error),
        }
    }

    /// Deletes some old rows if it is time to. Answers whether there may be more.
    fn retain(&mut self) -> bool {
        let now = Instant::now();
        let (Some(keep), Some(due)) = (self.config.retention, self.retention_due) else { return false };
        if now < due || self.shared.is_closing.load(Ordering::Relaxed) {
            return false;
        }
        let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let cutoff = (self.config.clock)().saturating_sub(keep_us);
        // What is forgotten late takes up a little room.
        let _ = leases::forget_old(&self.conn, self.shared.now());
        let (has_more, pause) = match retention::delete_older_than(&self.conn, cutoff, RETENTION_ROWS) {
            Ok(deleted) if deleted >= u64::from(RETENTION_ROWS) => (true, Duration::ZERO),
            Ok(_) => (false, RETENTION_EVERY),
            // Old rows can wait, and a row that is written next will say what is wrong with the database.
            Err(_) => (false, RETENTION_RETRY),
        };
        self.retention_due = Some(now + pause);
        has_more
    }

    /// Sums up some rows if it is time to. Answers whether there may be more.
    fn sum_up(&mut self) -> bool {
        // What could not be summed up is in the log, from which it is read meanwhile.
        !self.shared.is_closing.load(Ordering::Relaxed)
            && self.rollup.step(&mut self.conn, Instant::now()).unwrap_or(false)
    }

    fn rest(&self) {
        let is_idle = self.worked_at.elapsed() > IDLE_AFTER;
        let is_closing = self.shared.is_closing.load(Ordering::SeqCst);
        thread::park_timeout(if is_idle && !is_closing { POLL_IDLE } else { POLL });
    }
}

type LedgerWritten = (Vec<(Step, Option<Stepped>)>, Vec<(BudgetId, u64, i64)>);

fn write_ledger(
    conn: &Connection,
    holder: &str,
    batch: &Batch,
    warning_percent: u64,
) -> rusqlite::Result<LedgerWritten> {
    leases::book(conn, &batch.charges)?;
    let (mut steps, mut warned) = (Vec::with_capacity(batch.steps.len()), Vec::new());
    for step in &batch.steps {
        let stepped = leases::take_step(conn, holder, step)?;
        if let Some(stepped) = &stepped
            && let Some(percent) = leases::mark_warned(conn, step, stepped, warning_percent)?
        {
            warned.push((step.budget, percent, stepped.spent));
        }
        steps.push((*step, stepped));
    }
    Ok((steps, warned))
}

fn write_one(conn: &Connection, pending: &Pending) -> rusqlite::Result<i64> {
    if let Some(seq) = pending.fold_into {
        let mut statement =
            conn.prepare_cached("UPDATE requests SET repeats = repeats + ?2 WHERE seq = ?1")?;
        let repeats = i64::try_from(pending.repeats).unwrap_or(i64::MAX);
        if statement.execute(params![seq, repeats])? == 1 {
            return Ok(seq);
        }
        // The row it was to be folded into was deleted meanwhile.
    }
    row::insert(conn, &pending.row, pending.repeats)
}
