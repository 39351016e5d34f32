//! The load generator. Closed loop: each connection sends its next request when the last is answered, which
//! finds the highest rate. Open loop (`--rate`): requests are due at fixed times and latency counts from
//! then, so a proxy that stalls is charged for the requests that it kept from being sent (coordinated
//! omission).

mod history;
mod reads;
mod request;
mod source;
mod transcript;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::child::ensure_loopback;
use crate::clock::monotonic_ns;
use crate::plan::{StreamPlan, Wire};
use crate::stats::{CURVE, Quantiles};
pub(crate) use request::request_bytes;
use source::Source;
use worker::{Job, SharedTally, Tally, Worker};

/// The credential travels by environment: arguments are visible to every user of the machine.
pub(crate) const CREDENTIAL_ENV: &str = "BENCH_CREDENTIAL";

/// A day.
const SECONDS_MAX: f64 = 86_400.0;
/// Past the planned time, a load that has not ended is stuck.
const GRACE: Duration = Duration::from_secs(60);
/// Of many paced streams so many begin in each gap between events: more at once would be a load of beginnings.
const STARTS_PER_GAP: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// A chat request and its whole answer
    Json,
    /// A stream written as fast as it can be
    Sse,
    /// A stream that comes in one piece of known length
    Whole,
    /// A stream with a pause before each event
    Paced,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Loopback address of what to load
    #[arg(long)]
    address: SocketAddr,
    /// Path before the provider's own, such as /openai
    #[arg(long, default_value = "")]
    prefix: String,
    #[arg(long, value_enum, default_value = "json")]
    workload: Workload,
    #[arg(long, value_enum, default_value = "openai")]
    wire: Wire,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=2000))]
    connections: u32,
    /// How long to send
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Send so many requests instead, however long they take
    #[arg(long, conflicts_with = "rate")]
    requests: Option<u64>,
    /// Open loop: so many requests a second, whether or not the last ones are answered
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: Option<u32>,
    /// Content events of each stream
    #[arg(long, default_value_t = StreamPlan::default().events)]
    events: u32,
    /// Milliseconds before each event of a paced stream
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    gap_ms: u64,
    /// Put so many bytes of earlier turns before the question
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=16 << 20))]
    prompt_bytes: u32,
    /// What to present as the API key; several, with spaces between, are presented in turn
    #[arg(long, env = CREDENTIAL_ENV, hide_env_values = true, default_value = "none")]
    credential: String,
}

/// What a load found, printed as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) requests_per_s: f64,
    /// Of whole answers; in open loop from when the request was due.
    pub(crate) latency: Option<Quantiles>,
    /// Streams: from the request to the first event.
    pub(crate) first_event: Option<Quantiles>,
    /// Paced streams: from the provider's write of an event to our read of its end.
    pub(crate) event_delay: Option<Quantiles>,
    /// Paced streams: 1 if each event came by itself and whole.
    pub(crate) events_per_read: Option<f64>,
    /// The latency at each of `CURVE`, in microseconds.
    pub(crate) curve_us: Vec<f64>,
}

#[expect(clippy::print_stdout, reason = "the report is this command's output")]
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    ensure_loopback(args.address)?;
    ensure!((0.0..=SECONDS_MAX).contains(&args.seconds), "--seconds must be between 0 and {SECONDS_MAX}");
    ensure!(!args.credential.trim().is_empty(), "--credential must not be empty");
    // One thread: with the provider and the proxy on the same machine, a second one would take their CPU.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let report = runtime.block_on(generate(args))?;
    println!("{}", serde_json::to_string(&report).context("cannot write the report")?);
    Ok(())
}

async fn generate(args: &LoadArgs) -> Result<LoadReport> {
    let job = Arc::new(Job::new(args)?);
    let tally = SharedTally::new()?;
    // All connections are made before the first request is sent.
    let mut workers = Vec::new();
    for _ in 0..args.connections {
        workers.push(Worker::connect(args.address, Arc::clone(&job), tally.clone()).await?);
    }
    let source = Arc::new(Source::start(args));
    let started_ns = monotonic_ns();
    let mut tasks = JoinSet::new();
    for (worker, at) in workers.into_iter().zip(0..) {
        let gaps_before = at % args.connections.div_ceil(STARTS_PER_GAP);
        let delay = job.gap * at / args.connections + job.gap * gaps_before;
        tasks.spawn(worker.run(Arc::clone(&source), delay));
    }
    let planned = Duration::from_secs_f64(args.seconds) + GRACE;
    tokio::time::timeout(planned, tasks.join_all())
        .await
        .with_context(|| format!("the load did not end in {planned:?}"))?;
    let elapsed = Duration::from_nanos(monotonic_ns() - started_ns);
    Ok(tally.update(|tally| report(tally, elapsed)))
}

fn report(tally: &Tally, elapsed: Duration) -> LoadReport {
    LoadReport {
        requests: tally.requests,
        errors: tally.errors,
        first_error: tally.first_error.clone(),
        seconds: elapsed.as_secs_f64(),
        requests_per_s: tally.requests as f64 / elapsed.as_secs_f64(),
        latency: tally.latency.quantiles(),
        first_event: tally.first_event.quantiles(),
        event_delay: tally.event_delay.quantiles(),
        events_per_read: tally.reads.events_per_read(),
        curve_us: tally.latency.at(&CURVE),
    }
}
