//! What was seen and is evidence against somebody: every signal goes through [`Shared::report`], which writes it down,
//! lets the state follow and tells the owner.
//!
//! What repeats soon is counted in memory, so that whoever makes noise makes no load.

mod denials;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::{RiskState, Signal, SignalAction, SignalCounter, SpendSlope, Subject, TimestampUs};
use storage::{Recorded, RiskSeen};

use crate::state::Shared;

/// What repeats is remembered of so many things; more than that begin anew.
const FOLDED_MAX: usize = 1_024;
/// What the owner was not told of yet; what comes on top is in the log.
const NOTICES_MAX: usize = 64;

/// What is remembered of signals while the daemon runs.
#[derive(Debug, Default)]
pub(crate) struct RiskDesk {
    counts: [AtomicU64; Signal::ALL.len()],
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    counter: SignalCounter,
    slope: SpendSlope,
    folded: HashMap<Folding, Folded>,
    notices: Vec<RiskNotice>,
}

/// What is the same as something that was seen before.
type Folding = (Signal, Subject, String, &'static str);

/// An event that stands for what was seen again.
#[derive(Debug)]
struct Folded {
    seq: i64,
    at: TimestampUs,
    /// Repetitions that are not in the database yet.
    repeats: u64,
}

/// What an owner wants to hear of at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RiskNotice {
    pub(crate) state: RiskState,
    pub(crate) signal: Signal,
    pub(crate) subject: Subject,
    pub(crate) agent: Option<String>,
    /// The number of the event.
    pub(crate) event: i64,
}

impl RiskDesk {
    /// How often each signal was seen since the start, those that were.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Signal, u64)> + '_ {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Signal::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// What the owner is to be told, once.
    pub(crate) fn take_notices(&self) -> Vec<RiskNotice> {
        std::mem::take(&mut self.books().notices)
    }

    /// A panic under the lock leaves counts that are off by one at most.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Something was seen. When this returns, the state has followed, unless the signal or the one who saw it says that
    /// it shall not: the next request meets it, and what runs and no longer stands is cut.
    pub(crate) fn report(&self, mut seen: RiskSeen) {
        let signal = seen.signal;
        let action = self.snapshot.load().config.risk.signals.action(signal);
        if action == SignalAction::Off {
            return;
        }
        self.risk.counts[signal.index()].fetch_add(1, Ordering::Relaxed);
        seen.is_enforced &= action == SignalAction::Enforce;
        seen.at = self.ledger.now();
        if self.fold(&seen) {
            return;
        }
        let is_followed = seen.is_enforced && signal.leads_to().is_some();
        let reported = match is_followed {
            true => self.change_rules(|store| store.report_risk(&seen)),
            false => self.with_store(|store| store.report_risk(&seen)),
        };
        match reported {
            Ok(recorded) => self.reported(&seen, recorded),
            Err(error) => tracing::error!(%error, %signal, "a signal of risk could not be written down"),
        }
    }

    /// Counts what was seen a moment ago as seen again. Where a state should stand because of it and does not, since
    /// an operator has lowered it, it is seen anew.
    fn fold(&self, seen: &RiskSeen) -> bool {
        let state = self.snapshot.load().rules.risks.get(&seen.subject).map(|risk| risk.state_at(seen.at));
        let should_stand = seen.signal.leads_to().filter(|_| seen.is_enforced).unwrap_or_default();
        if state.unwrap_or_default() < should_stand {
            return false;
        }
        let mut books = self.risk.books();
        let Some(folded) = books.folded.get_mut(&folding(seen)) else { return false };
        let is_repetition = seen.at.saturating_sub(folded.at) < seen.signal.repeat_us();
        folded.repeats += u64::from(is_repetition);
        is_repetition
    }

    fn reported(&self, seen: &RiskSeen, recorded: Recorded) {
        let Recorded { seq, is_new, before, after } = recorded;
        let mut books = self.risk.books();
        if books.folded.len() >= FOLDED_MAX {
            books.folded.clear();
        }
        books.folded.insert(folding(seen), Folded { seq, at: seen.at, repeats: 0 });
        if !is_new {
            return;
        }
        let (signal, subject) = (seen.signal, &seen.subject);
        tracing::warn!(event = seq, %signal, %subject, %before, %after, pattern = seen.pattern, action = %seen.action,
            "risk: {}", signal.reason());
        let is_grave = seen.is_enforced && signal.leads_to() >= Some(RiskState::Orange);
        if is_grave && books.notices.len() < NOTICES_MAX {
            let agent = seen.agent.as_ref().map(ToString::to_string);
            books.notices.push(RiskNotice {
                state: after,
                signal,
                subject: subject.clone(),
                agent,
                event: seq,
            });
        }
    }

    /// Writes down what was repeated, once it counts as seen anew, or all of it.
    pub(crate) fn write_repeats(&self, is_all: bool) -> Result<(), storage::Error> {
        let now = self.ledger.now();
        let mut rested: Vec<(i64, u64)> = Vec::new();
        self.risk.books().folded.retain(|(signal, ..), folded| {
            let is_resting = now.saturating_sub(folded.at) >= signal.repeat_us();
            if (is_resting || is_all) && folded.repeats > 0 {
                rested.push((folded.seq, std::mem::take(&mut folded.repeats)));
            }
            !is_resting
        });
        rested.into_iter().try_for_each(|(seq, times)| self.with_store(|store| store.repeat_risk(seq, times)))
    }
}

fn folding(seen: &RiskSeen) -> Folding {
    (seen.signal, seen.subject.clone(), seen.pattern.clone(), seen.action.as_str())
}
