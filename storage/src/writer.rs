//! The writer: one thread that commits the rows of many requests in one transaction.
//!
//! It polls the queue instead of waiting on it, because a wake-up would cost every request a system call. Whatever
//! the database refuses stays in memory and is tried again; a row leaves memory only when it is committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use policy::TimestampUs;
use rusqlite::{Connection, TransactionBehavior, params};

use crate::error::{Doing, Error};
use crate::file::{self, FileId};
use crate::fold::{Folder, Pending};
use crate::ledger::{Entry, Ledger, Shared};
use crate::store::{Role, Store, connect};
use crate::{retention, row};

const ROWS_PER_TRANSACTION: usize = 4_096;
const POLL: Duration = Duration::from_millis(5);
/// After this long without work the poll slows down, so that an idle gateway uses next to no CPU.
const IDLE_AFTER: Duration = Duration::from_secs(1);
const POLL_IDLE: Duration = Duration::from_millis(50);
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// A deletion of this many rows takes some milliseconds.
const RETENTION_ROWS: u32 = 1_000;
const RETENTION_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
const RETENTION_RETRY: Duration = Duration::from_secs(60);

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
        let shared = Arc::new(Shared::new(config.slots, config.refusal_slots));
        let log = Log {
            conn: connect(&path, Role::Log)?,
            file: FileId::of(&path)?,
            path: path.clone(),
            shared: Arc::clone(&shared),
            folder: Folder::default(),
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

/// What the thread owns.
struct Log {
    conn: Connection,
    path: PathBuf,
    file: FileId,
    shared: Arc<Shared>,
    folder: Folder,
    config: WriterConfig,
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
        while !self.is_done() {
            // First the ticket, then the length: what was pushed before the ticket was asked for is counted.
            let ticket = self.shared.flush_wanted.load(Ordering::SeqCst);
            let due = self.shared.queue.len();
            self.write(due)?;
            self.shared.flushed(ticket);
            if due == 0 && !self.retain() {
                self.rest();
            }
        }
        drop(guard);
        // Whoever pushed before it was said that we ended relies on this.
        self.write(self.shared.queue.len())?;
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

    /// Takes `due` entries from the queue and commits them, in as many transactions as that needs.
    fn write(&mut self, mut due: usize) -> Result<(), Error> {
        while due > 0 {
            let wanted = due.min(ROWS_PER_TRANSACTION);
            let entries: Vec<Entry> = std::iter::from_fn(|| self.shared.queue.pop()).take(wanted).collect();
            due = if entries.len() < wanted { 0 } else { due - wanted };
            let settled = entries.iter().filter(|entry| matches!(entry, Entry::Settled(_))).count();
            let refused = entries.len() - settled;
            let rows = self.folder.fold(entries);
            let rejected = self.persist(rows)?;
            self.shared.rows_rejected.fetch_add(rejected, Ordering::Relaxed);
            self.shared.rows_written.fetch_add(count(settled + refused) - rejected, Ordering::Relaxed);
            self.shared.slots_free.fetch_add(settled, Ordering::Release);
            self.shared.refusal_slots_free.fetch_add(refused, Ordering::Release);
            self.worked_at = Instant::now();
        }
        Ok(())
    }

    /// Commits the rows, however often it takes, and answers how many the schema refused. Gives up only when a
    /// shutdown has no time left.
    fn persist(&mut self, rows: Vec<Pending>) -> Result<u64, Error> {
        let mut pause = RETRY_FIRST;
        let seqs = loop {
            match self.commit(&rows) {
                Ok(seqs) => break seqs,
                Err(error) => {
                    self.shared.note_failure(&error);
                    if self.is_out_of_time() {
                        let rows = rows.len() + self.shared.queue.len();
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
        let mut rejected = 0;
        for (row, seq) in rows.into_iter().zip(seqs) {
            match seq {
                Some(seq) => self.folder.committed(row, seq),
                None => rejected += row.repeats,
            }
        }
        Ok(rejected)
    }

    /// Writes all rows in one transaction. Answers where each of them went; `None` was refused by the schema.
    fn commit(&mut self, rows: &[Pending]) -> Result<Vec<Option<i64>>, Error> {
        if FileId::of(&self.path)? != self.file {
            // Rows written to a file that has no name any more would be lost with it.
            return Err(Error::Replaced { path: self.path.clone() });
        }
        let doing = "write the request log";
        let write = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let mut seqs = Vec::with_capacity(rows.len());
        for pending in rows {
            match write_one(&write, pending).doing(doing) {
                Ok(seq) => seqs.push(Some(seq)),
                // Trying it again cannot help, and the rows behind it must not wait for ever.
                Err(error) if error.is_constraint() => seqs.push(None),
                Err(error) => return Err(error),
            }
        }
        write.commit().doing(doing)?;
        Ok(seqs)
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
        let (has_more, pause) = match retention::delete_older_than(&self.conn, cutoff, RETENTION_ROWS) {
            Ok(deleted) if deleted >= u64::from(RETENTION_ROWS) => (true, Duration::ZERO),
            Ok(_) => (false, RETENTION_EVERY),
            // Old rows can wait, and a row that is written next will say what is wrong with the database.
            Err(_) => (false, RETENTION_RETRY),
        };
        self.retention_due = Some(now + pause);
        has_more
    }

    fn rest(&self) {
        let is_idle = self.worked_at.elapsed() > IDLE_AFTER;
        let is_closing = self.shared.is_closing.load(Ordering::SeqCst);
        thread::park_timeout(if is_idle && !is_closing { POLL_IDLE } else { POLL });
    }
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

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
