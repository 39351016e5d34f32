//! `risk explain`: one event, whole.

use clap::Args;
use gateway::overview::explain::{Explanation, present};
use policy::{Rules, TimestampUs};
use serde_json::json;
use storage::RiskEvent;

use super::{event_document, state_document};
use crate::app::{App, now_us};
use crate::failure::{Exit, Failure};
use crate::format::{field, lines};

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The number of the event
    #[arg(value_parser = number)]
    event: i64,
}

fn number(text: &str) -> Result<i64, &'static str> {
    text.parse().map_err(|_| "an event is a number; `tokfence risk status` shows those of the last ones")
}

impl Explain {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        app.flush_log();
        let store = app.store()?;
        let rules = store.load_policy()?.rules;
        let event = store.risk_event(self.event)?.ok_or_else(|| {
            let message = format!("there is no event {}", self.event);
            Failure::new(Exit::NotFound, "no_such_event", message).with_hint("tokfence risk status")
        })?;
        let now = now_us();
        let document = json!({
            "event": event_document(&event),
            "reason": event.seen.signal.reason(),
            "state": present(&rules, &event, now).map(|risk| state_document(&rules, &event.seen.subject, &risk)),
        });
        app.output.data(&document, || describe(&rules, &event, now).join("\n"));
        Ok(())
    }
}

fn describe(rules: &Rules, event: &RiskEvent, now: TimestampUs) -> Vec<String> {
    let Explanation { facts, consequences } = Explanation::of(rules, event, now);
    let shown = |(name, text): (&str, String)| (name.to_owned(), field(name, &text.into()));
    let facts: Vec<(String, String)> = facts.into_iter().map(shown).collect();
    [lines(&facts), String::new()].into_iter().chain(consequences).collect()
}
