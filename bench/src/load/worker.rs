//! One connection's part of the load, and what it found.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::history::history;
use super::reads::{ReadCounter, Reads};
use super::request::request_with_history;
use super::source::{Source, Ticket};
use super::transcript::Transcript;
use super::{LoadArgs, Workload};
use crate::client::Connection;
use crate::clock::monotonic_ns;
use crate::mock::answer;
use crate::plan::StreamPlan;
use crate::sse::EventScanner;
use crate::stats::Latencies;

/// A load that fails this often is not going to recover.
const ERRORS_MAX: u64 = 20;
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// What every worker of a load does.
#[derive(Debug)]
pub(super) struct Job {
    /// One for each credential, sent in turn whichever connection is free.
    requests: Vec<Vec<u8>>,
    sent: AtomicUsize,
    expected: Expected,
    /// Zero unless paced.
    pub(super) gap: Duration,
}

/// What an answer has to be.
#[derive(Debug)]
enum Expected {
    Whole(String),
    Stream {
        transcript: Transcript,
        /// Events before those of content.
        opening: u64,
        content: u64,
    },
}

impl Job {
    pub(super) fn new(args: &LoadArgs) -> Result<Self> {
        let gap = match args.workload {
            Workload::Json | Workload::Sse | Workload::Whole => Duration::ZERO,
            Workload::Paced => Duration::from_millis(args.gap_ms),
        };
        let is_whole = args.workload == Workload::Whole;
        let plan = StreamPlan { events: args.events, gap, is_whole };
        let plan = (args.workload != Workload::Json).then_some(plan);
        let history = earlier_turns(args);
        let request = |credential| {
            request_with_history(args.wire, args.address, &args.prefix, credential, plan, &history)
        };
        let expected = match plan {
            None => Expected::Whole(answer::json(args.wire)),
            Some(plan) => Expected::Stream {
                transcript: Transcript::of(args.wire, plan.events)?,
                opening: args.wire.opening_events(),
                content: plan.events.into(),
            },
        };
        Ok(Self {
            requests: args.credential.split_ascii_whitespace().map(request).collect(),
            sent: AtomicUsize::new(0),
            expected,
            gap,
        })
    }

    fn next_request(&self) -> &[u8] {
        let at = self.sent.fetch_add(1, Ordering::Relaxed) % self.requests.len();
        &self.requests[at]
    }
}

fn earlier_turns(args: &LoadArgs) -> String {
    match usize::try_from(args.prompt_bytes) {
        Ok(bytes) if bytes > 0 => history(bytes),
        _ => String::new(),
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    connection: Connection,
    job: Arc<Job>,
    tally: SharedTally,
    scanner: EventScanner,
    body: Vec<u8>,
}

impl Worker {
    pub(super) async fn connect(address: SocketAddr, job: Arc<Job>, tally: SharedTally) -> Result<Self> {
        let mut connection = Connection::new(address);
        connection.connect().await?;
        Ok(Self { connection, job, tally, scanner: EventScanner::default(), body: Vec::new() })
    }

    /// Sends until `source` ends. `delay` spreads paced streams over the gap between their events: in step
    /// with each other they would measure their own queue.
    pub(super) async fn run(mut self, source: Arc<Source>, delay: Duration) {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        while let Some(ticket) = source.next().await {
            if let Err(error) = self.send(ticket).await {
                if self.tally.update(|tally| tally.add_error(&error)) >= ERRORS_MAX {
                    break;
                }
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }

    async fn send(&mut self, ticket: Ticket) -> Result<()> {
        let from_ns = ticket.due_ns.unwrap_or_else(monotonic_ns);
        let job = Arc::clone(&self.job);
        match &job.expected {
            Expected::Whole(answer) => self.receive_whole(answer).await?,
            Expected::Stream { transcript, opening, content } => {
                self.receive_stream(transcript, *opening, *content, from_ns).await?;
            }
        }
        let latency_ns = monotonic_ns().saturating_sub(from_ns);
        self.tally.update(|tally| {
            tally.requests += 1;
            tally.latency.record_ns(latency_ns);
        });
        Ok(())
    }

    async fn receive_whole(&mut self, expected: &str) -> Result<()> {
        self.body.clear();
        let body = &mut self.body;
        self.connection
            .exchange(self.job.next_request(), &mut |payload, _| body.extend_from_slice(payload))
            .await?;
        ensure!(
            self.body == expected.as_bytes(),
            "an answer that is not what was sent: {}",
            String::from_utf8_lossy(&self.body)
        );
        Ok(())
    }

    async fn receive_stream(
        &mut self,
        transcript: &Transcript,
        opening: u64,
        content: u64,
        from_ns: u64,
    ) -> Result<()> {
        self.scanner.reset();
        let is_paced = !self.job.gap.is_zero();
        let mut first_read_ns = None;
        let (scanner, tally) = (&mut self.scanner, &self.tally);
        let mut reads = ReadCounter::default();
        let mut reader = transcript.reader();
        let mut on_payload = |payload: &[u8], read_ns: u64| {
            let is_content = scanner.events() >= opening && reads.events() < content;
            let mut stamped = 0;
            scanner.feed(payload, &mut |event| {
                reader.take(event);
                stamped += u64::from(event.sent_ns.is_some());
                first_read_ns.get_or_insert(read_ns);
                if let (true, Some(sent_ns)) = (is_paced, event.sent_ns) {
                    tally.update(|tally| tally.event_delay.record_ns(read_ns.saturating_sub(sent_ns)));
                }
            });
            if is_content {
                reads.take(read_ns, stamped);
            }
        };
        self.connection.exchange(self.job.next_request(), &mut on_payload).await?;
        reader.finish()?;
        ensure!(self.scanner.is_complete(), "a stream without usage or end");
        if is_paced {
            self.tally.update(|tally| tally.reads.add(reads.seen()));
        }
        if let Some(read_ns) = first_read_ns {
            self.tally.update(|tally| tally.first_event.record_ns(read_ns.saturating_sub(from_ns)));
        }
        Ok(())
    }
}

/// What the workers found.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) latency: Latencies,
    pub(super) first_event: Latencies,
    pub(super) event_delay: Latencies,
    pub(super) reads: Reads,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            requests: 0,
            errors: 0,
            first_error: None,
            latency: Latencies::new()?,
            first_event: Latencies::new()?,
            event_delay: Latencies::new()?,
            reads: Reads::default(),
        })
    }

    /// Returns how many there are now.
    fn add_error(&mut self, error: &anyhow::Error) -> u64 {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
        self.errors
    }
}

/// One tally for all workers: they share a thread, so nobody waits for the lock, and hundreds of connections
/// do not need hundreds of histograms.
#[derive(Debug, Clone)]
pub(super) struct SharedTally(Arc<Mutex<Tally>>);

impl SharedTally {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Tally::new()?))))
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
