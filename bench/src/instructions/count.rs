//! How the instructions of a request and of an event are found: the count of many, less what the same time costs when
//! nobody asks. Under valgrind everything takes long, and what a thread does by the clock would weigh too much.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::sleep;

use super::InstructionsArgs;
use super::caller::Caller;
use super::callgrind::{Callgrind, Counts};
use crate::stats::median;
use crate::subject::{Name, Subject};

/// Connections, pools and caches are made, and code is where it stays.
const WARM_UP_REQUESTS: u32 = 300;
const WARM_UP_COUNTED: u32 = 20;
const IDLE: Duration = Duration::from_secs(2);
/// What is done for a request after its answer, such as its row in the log, belongs to it.
const SETTLE: Duration = Duration::from_millis(150);
/// An event costs what a long stream costs more than a short one.
const STREAMS: u32 = 2;
const EVENTS_SHORT: u32 = 20;
const EVENTS_LONG: u32 = 220;

/// The threads that read requests and write answers.
const SERVING: [&str; 2] = ["Pingora HTTP Pr", "gateway"];
/// The thread that writes the log and keeps the books. How many rows it writes at once depends on the machine.
const WRITING: &str = "tokfence-log";

/// Instructions by who executed them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Instructions {
    pub(super) serving: f64,
    pub(super) writing: f64,
    pub(super) other: f64,
}

impl Instructions {
    fn of(counts: &Counts) -> Self {
        let mut this = Self::default();
        for (name, count) in counts {
            let count = *count as f64;
            match name.as_str() {
                name if SERVING.contains(&name) => this.serving += count,
                WRITING => this.writing += count,
                _ => this.other += count,
            }
        }
        this
    }

    pub(super) fn all(self) -> f64 {
        self.serving + self.writing + self.other
    }

    fn combine(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            serving: with(self.serving, other.serving),
            writing: with(self.writing, other.writing),
            other: with(self.other, other.other),
        }
    }

    fn less(self, other: Self) -> Self {
        self.combine(other, |left, right| left - right)
    }

    fn times(self, factor: f64) -> Self {
        self.combine(self, |left, _| left * factor)
    }
}

/// What was found of one subject, each round by itself.
#[derive(Debug, Serialize)]
pub(super) struct Counted {
    pub(super) name: Name,
    /// For each second in which nobody asks.
    pub(super) idle_s: Instructions,
    pub(super) request: Vec<Instructions>,
    pub(super) event: Vec<Instructions>,
}

/// The median of the rounds.
pub(super) fn typical(rounds: &[Instructions]) -> Instructions {
    let of = |part: fn(&Instructions) -> f64| {
        median(&rounds.iter().map(part).collect::<Vec<_>>()).unwrap_or_default()
    };
    Instructions {
        serving: of(|round| round.serving),
        writing: of(|round| round.writing),
        other: of(|round| round.other),
    }
}

/// How far apart the rounds are on the serving threads, as a part of their median.
pub(super) fn spread(rounds: &[Instructions]) -> f64 {
    let serving = || rounds.iter().map(|round| round.serving);
    let (least, most) = (serving().fold(f64::INFINITY, f64::min), serving().fold(0.0, f64::max));
    (most - least) / typical(rounds).serving
}

/// Counts `subject`, which runs under `callgrind`.
pub(super) async fn count(
    args: &InstructionsArgs,
    callgrind: &Callgrind,
    subject: &mut Subject,
) -> Result<Counted> {
    let (name, pid) = (subject.name, subject.pid.context("a subject under valgrind is a process")?);
    let mut caller = Caller::new(subject);
    caller.ask(WARM_UP_REQUESTS).await?;
    caller.stream(1, EVENTS_SHORT).await?;
    callgrind.begin(pid).await?;
    caller.ask(WARM_UP_COUNTED).await?;
    caller.stream(1, EVENTS_SHORT).await?;
    sleep(SETTLE).await;
    callgrind.take(pid).await?;
    let mut meter = Meter { callgrind, pid, since: Instant::now(), idle_s: Instructions::default() };
    sleep(IDLE).await;
    meter.idle_s = meter.take().await?.times(1.0 / IDLE.as_secs_f64());
    let mut counted = Counted { name, idle_s: meter.idle_s, request: Vec::new(), event: Vec::new() };
    for _ in 0..args.rounds {
        caller.ask(args.requests).await?;
        counted.request.push(meter.settled().await?.times(1.0 / f64::from(args.requests)));
        caller.stream(STREAMS, EVENTS_SHORT).await?;
        let short = meter.settled().await?;
        caller.stream(STREAMS, EVENTS_LONG).await?;
        let events = f64::from(STREAMS * (EVENTS_LONG - EVENTS_SHORT));
        counted.event.push(meter.settled().await?.less(short).times(1.0 / events));
    }
    Ok(counted)
}

/// The counts of a process from one reading to the next.
struct Meter<'a> {
    callgrind: &'a Callgrind,
    pid: u32,
    since: Instant,
    idle_s: Instructions,
}

impl Meter<'_> {
    async fn settled(&mut self) -> Result<Instructions> {
        sleep(SETTLE).await;
        self.take().await
    }

    async fn take(&mut self) -> Result<Instructions> {
        let counts = self.callgrind.take(self.pid).await?;
        let passed = self.since.elapsed();
        self.since = Instant::now();
        let idle = self.idle_s.times(passed.as_secs_f64());
        // A busy process sleeps less often than an idle one, and by the clock alone does less.
        Ok(Instructions::of(&counts).combine(idle, |found, idle| (found - idle).max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(serving: f64) -> Instructions {
        Instructions { serving, ..Instructions::default() }
    }

    #[test]
    fn threads_count_by_what_they_do() {
        let counts = [("gateway", 70), ("tokfence-log", 20), ("Timer thread", 3), ("ended", 1)];
        let counts = counts.map(|(name, count)| (name.to_owned(), count)).into();
        let found = Instructions::of(&counts);
        assert_eq!(found, Instructions { serving: 70.0, writing: 20.0, other: 4.0 });
        assert_eq!(found.all(), 94.0);
    }

    #[test]
    fn rounds_are_told_by_their_median_and_spread() {
        let rounds = [100.0, 90.0, 110.0].map(serving);
        assert_eq!(typical(&rounds), serving(100.0));
        assert_eq!(spread(&rounds), 0.2);
    }
}
