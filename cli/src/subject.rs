//! Whom a limit is for, as it is typed: `global`, a provider, `agent:NAME`, `capability:ID`.

use gateway::config::Config;
use policy::{AgentName, Subject};
use storage::Store;

use crate::app::App;
use crate::commands::agent::find_agent;
use crate::failure::{Exit, Failure};

/// The agent to whom requests without a capability are booked; it need not have been minted for.
const ANONYMOUS: &str = "anonymous";

/// The subject that was typed, which must exist.
pub(crate) fn find(app: &App, config: &Config, store: &Store, text: &str) -> Result<Subject, Failure> {
    match text.split_once(':') {
        Some(("agent", name)) if name == ANONYMOUS => parsed(text),
        Some(("agent", name)) => find_agent(store, name).map(Subject::Agent),
        Some(("capability", _)) => find_capability(store, text),
        Some(("provider", name)) => app.provider(config, name).map(Subject::Provider),
        Some(_) => parsed(text),
        None if text == "global" => Ok(Subject::Global),
        None => app.provider(config, text).map(Subject::Provider).map_err(|failure| {
            let is_agent = |name: &AgentName| name.as_str() == text;
            match store.agent_names().unwrap_or_default().iter().any(is_agent) {
                true => failure.with_hint(format!("did you mean `agent:{text}`?")),
                false => failure,
            }
        }),
    }
}

fn parsed(text: &str) -> Result<Subject, Failure> {
    text.parse().map_err(|error: policy::InvalidSubject| Failure::usage(error.to_string()))
}

fn find_capability(store: &Store, text: &str) -> Result<Subject, Failure> {
    let subject = parsed(text)?;
    let Subject::Capability(id) = &subject else { return Ok(subject) };
    if store.load_policy()?.rules.capabilities.contains_key(id) {
        return Ok(subject);
    }
    let message = format!("there is no capability `{id}`");
    Err(Failure::new(Exit::NotFound, "no_such_capability", message).with_hint("tokfence agent list"))
}
