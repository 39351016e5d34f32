//! Tells the owner what he wants to hear of: a command of his own, a note on his desktop, a request to an address of his.
//!
//! Who tells never waits: threads of their own do it, one for programs and one for the network, each with a short queue.
//! What does not fit into it is counted and logged.

mod courier;
mod program;
mod webhook;

use std::time::Duration;

use policy::reconcile::FindingKind;
use policy::{ProviderId, RiskState, TimestampUs};
use serde_json::{Map, Value, json};
use storage::Warning;

use crate::config::Notifications;
use crate::risk::RiskNotice;
use crate::state::now_us;
use courier::Courier;

/// Something that an owner wants to hear of. Nothing in it is a secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Notice {
    kind: &'static str,
    level: Level,
    message: String,
    details: Map<String, Value>,
}

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// It should be known.
    Warning,
    /// Somebody should look at once.
    Critical,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Notice {
    /// Much of a budget is spent.
    pub(crate) fn budget(warning: &Warning) -> Self {
        let Warning { budget, percent, limit, spent } = warning;
        let spent = limit.unit.of(*spent);
        let message = format!("tokfence: {percent} % of the budget {budget} is spent ({spent} of {limit})");
        let details = json!({
            "budget": budget,
            "percent": percent,
            "spent": spent.to_string(),
            "limit": limit.to_string(),
        });
        Self::new("budget_warning", Level::Warning, message, details)
    }

    /// Somebody is restricted because of what was seen of him.
    pub(crate) fn risk(notice: &RiskNotice) -> Self {
        let RiskNotice { state, signal, subject, agent, event } = notice;
        let level = if *state == RiskState::Red { Level::Critical } else { Level::Warning };
        let who = agent.as_ref().map_or_else(|| subject.to_string(), |agent| format!("the agent `{agent}`"));
        let message =
            format!("tokfence: {who} is {state}: {}; tokfence risk explain {event}", signal.reason());
        let details = json!({
            "state": state.as_str(),
            "signal": signal.as_str(),
            "subject": subject.to_string(),
            "agent": agent,
            "event": event,
        });
        Self::new("risk", level, message, details)
    }

    /// A provider's account shows use that did not go through the gateway.
    fn leak(leak: &Leak) -> Self {
        let Leak { provider, kind, finding, is_revoked, .. } = leak;
        let then = if *is_revoked { "; it is revoked" } else { "" };
        let message = format!("tokfence: {provider}: {}{then}; tokfence watch --once", kind.reason());
        let details = json!({
            "provider": provider.as_str(),
            "finding": finding,
            "signal": kind.as_str(),
            "model": leak.model,
            "begin": instant(leak.begin),
            "end": instant(leak.end),
            "is_revoked": is_revoked,
        });
        Self::new("leak", Level::Critical, message, details)
    }

    fn new(kind: &'static str, level: Level, message: String, details: Value) -> Self {
        let details = if let Value::Object(details) = details { details } else { Map::new() };
        Self { kind, level, message, details }
    }

    /// What it says, in one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What is posted. Its message is under the name by which chat services look for it.
    fn document(&self, at: TimestampUs) -> Value {
        json!({
            "kind": self.kind,
            "level": self.level.as_str(),
            "text": self.message,
            "at": instant(at),
            "details": self.details,
        })
    }
}

fn instant(at: TimestampUs) -> Option<String> {
    jiff::Timestamp::from_microsecond(at).ok().map(|at| at.to_string())
}

/// Use that did not go through the gateway, as its owner is told of it.
#[derive(Clone, Debug)]
pub struct Leak {
    /// Whose account shows it.
    pub provider: ProviderId,
    /// What it is.
    pub kind: FindingKind,
    /// The number of the finding.
    pub finding: i64,
    /// The model, where it is one that nobody asked for.
    pub model: Option<String>,
    /// When it began.
    pub begin: TimestampUs,
    /// When it ended.
    pub end: TimestampUs,
    /// Whether the provider is revoked because of it.
    pub is_revoked: bool,
}

/// Tells the owner of leaks, as the configuration says, whether or not a daemon runs. Waits until that has gone out, at
/// most for so long.
pub fn tell_leaks(leaks: &[Leak], config: &Notifications, patience: Duration) {
    let notifier = Notifier::default();
    let notices: Vec<Notice> = leaks.iter().map(Notice::leak).collect();
    notifier.tell(&notices, config);
    notifier.finish(patience);
}

/// Where notices go out.
#[derive(Debug)]
pub(crate) struct Notifier {
    programs: Courier,
    network: Courier,
}

impl Default for Notifier {
    fn default() -> Self {
        Self { programs: Courier::new("notify-run"), network: Courier::new("notify-post") }
    }
}

impl Notifier {
    /// Tells, as the configuration says. Does not wait for anything.
    pub(crate) fn tell(&self, notices: &[Notice], config: &Notifications) {
        for notice in notices {
            if config.desktop {
                let notice = notice.clone();
                self.programs.send(move || program::show(&notice.message, notice.level));
            }
            if !config.command.is_empty() {
                let (command, message) = (config.command.clone(), notice.message.clone());
                self.programs.send(move || program::run(&command, &message));
            }
            if let Some(webhook) = config.webhook.clone() {
                let document = notice.document(now_us());
                self.network.send(move || webhook::post(&webhook, &document));
            }
        }
    }

    /// Waits until what was told has gone out, at most for so long.
    pub(crate) fn finish(&self, patience: Duration) {
        let since = std::time::Instant::now();
        self.programs.finish(patience);
        self.network.finish(patience.saturating_sub(since.elapsed()));
    }
}

#[cfg(test)]
mod tests;
