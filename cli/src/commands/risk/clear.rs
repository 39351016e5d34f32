//! `risk clear`: an operator says that somebody is to be served again.

use clap::Args;
use policy::{Rules, Subject};
use serde_json::json;
use storage::Store;

use super::{find_agent, subjects_of, who};
use crate::app::{App, now_us};
use crate::failure::Failure;

const REASON_CHARS_MAX: usize = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Clear {
    /// The agent, `capability:ID`, or `global`
    who: String,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Clear {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        let reason = self.reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
            return Err(Failure::usage(format!("a reason has 1 to {REASON_CHARS_MAX} characters")));
        }
        let mut store = app.store()?;
        let rules = store.load_policy()?.rules;
        let subjects = self.subjects(app, &store, &rules)?;
        let cleared = store.clear_risk(&subjects, reason, now_us())?;
        app.tell_daemon()?;
        let document = json!({
            "status": if cleared.is_empty() { "unchanged" } else { "cleared" },
            "cleared": cleared.iter().map(|clear| json!({
                "subject": clear.subject.to_string(), "was": clear.before.as_str(), "reason": clear.reason,
            })).collect::<Vec<_>>(),
        });
        app.output.done(&document, || {
            let line = |clear: &storage::RiskClear| {
                format!("{} was {} and is GREEN", who(&rules, &clear.subject), clear.before)
            };
            match cleared.as_slice() {
                [] => format!("`{}` is GREEN already", self.who),
                cleared => cleared.iter().map(line).collect::<Vec<_>>().join("\n"),
            }
        });
        Ok(())
    }

    fn subjects(&self, app: &App, store: &Store, rules: &Rules) -> Result<Vec<Subject>, Failure> {
        if self.who != "global" && !self.who.contains(':') {
            return Ok(subjects_of(rules, &find_agent(store, &self.who)?));
        }
        match app.subject(&app.config()?, &self.who)? {
            Subject::Agent(name) => Ok(subjects_of(rules, &name)),
            // What is known of a child is known of the one that was minted.
            Subject::Capability(id) => {
                let root = rules.capabilities.get(&id).map_or(id, |capability| rules.root(capability).id);
                Ok(vec![Subject::Capability(root)])
            }
            Subject::Provider(name) => {
                Err(Failure::usage(format!("`{name}` is a provider, and risk is that of agents")))
            }
            Subject::Global => Ok(vec![Subject::Global]),
        }
    }
}
