//! Changes of the rules as their owner makes them, by commands, to the rules of an agent that nobody uses.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};

use crate::stats::Latencies;
use crate::tokfence::Tokfence;

const AGENT: &str = "visitor";
const SUBJECT: &str = "agent:visitor";

/// What became of them.
#[derive(Debug)]
pub(super) struct Edits {
    pub(super) made: u32,
    pub(super) failed: u32,
    pub(super) first_failure: Option<String>,
    pub(super) took: Latencies,
}

/// Makes so many changes a minute, for `length`. One that fails is counted, and the others go on.
pub(super) async fn make(tokfence: &Tokfence, per_minute: u32, length: Duration) -> Result<Edits> {
    let mut edits = Edits { made: 0, failed: 0, first_failure: None, took: Latencies::new()? };
    if per_minute == 0 {
        return Ok(edits);
    }
    let started = Instant::now();
    let mut visitor = Visitor::default();
    let mut ticks = interval(Duration::from_secs(60) / per_minute);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if started.elapsed() >= length {
            return Ok(edits);
        }
        let began = Instant::now();
        match visitor.change(tokfence).await {
            Ok(()) => edits.made += 1,
            Err(error) => {
                edits.failed += 1;
                edits.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
        edits.took.record_ns(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Comes, gets limits, and goes, again and again, with a new capability each time.
#[derive(Debug, Default)]
struct Visitor {
    changes: u32,
    capability: String,
}

impl Visitor {
    async fn change(&mut self, tokfence: &Tokfence) -> Result<()> {
        let at = self.changes;
        self.changes += 1;
        // Another amount each time, so that each sets something.
        let amount = (1000 + at).to_string();
        let arguments: &[&str] = match at % 6 {
            0 => {
                self.capability = tokfence.mint(AGENT, &["--note", "a visit"]).await?.id;
                return Ok(());
            }
            1 => &["ratelimit", "set", SUBJECT, &amount],
            2 => &["budget", "set", SUBJECT, &amount, "daily"],
            3 => &["agent", "revoke", &self.capability],
            4 => &["budget", "clear", SUBJECT],
            _ => &["ratelimit", "clear", SUBJECT],
        };
        tokfence.run(arguments, None).await.map(drop)
    }
}
