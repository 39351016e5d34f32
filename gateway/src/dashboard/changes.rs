//! What the page may change: what is taken back at once, and given back. It is the storage's work as for the command line,
//! with its row in the audit log, which says that it was the dashboard.

use policy::{AgentName, ProviderId};
use serde::Deserialize;
use serde_json::{Value, json};
use storage::{Actor, Store};

use super::failure::Failure;
use crate::state::{Shared, now_us};

/// How the audit log names the page.
const ACTOR: &str = "dashboard";

/// A change that somebody asks for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Change {
    /// Serve nothing.
    Kill { reason: String },
    /// Serve again what was served before.
    Unkill {},
    /// Serve a provider no more.
    RevokeProvider { provider: String, reason: String },
    /// Serve it again.
    RestoreProvider { provider: String },
    /// Serve an agent no more.
    RevokeAgent { agent: String, reason: String },
    /// Serve it again.
    RestoreAgent { agent: String },
}

impl Change {
    /// Makes it. From when this returns requests see it.
    pub(super) fn make(self, shared: &Shared) -> Result<Value, Failure> {
        let mut store = Store::open_existing(&shared.database())?.acting_as(Actor::new(ACTOR));
        let now = now_us();
        let (status, is_new) = match self {
            Self::Kill { reason } => ("killed", store.kill(or(&reason, "killed on the dashboard"), now)?),
            Self::Unkill {} => ("restored", store.unkill(now)?),
            Self::RevokeProvider { provider, reason } => {
                let id = provider_of(shared, &store, provider)?;
                ("revoked", store.revoke_provider(&id, or(&reason, REVOKED), now)?)
            }
            Self::RestoreProvider { provider } => {
                let id = provider_of(shared, &store, provider)?;
                ("restored", store.restore_provider(&id, now)?)
            }
            Self::RevokeAgent { agent, reason } => {
                ("revoked", store.revoke_agent(&agent_of(agent)?, or(&reason, REVOKED), now)?)
            }
            Self::RestoreAgent { agent } => ("restored", store.restore_agent(&agent_of(agent)?, now)?),
        };
        shared.reload_rules()?;
        Ok(json!({ "status": if is_new { status } else { "unchanged" } }))
    }
}

const REVOKED: &str = "revoked on the dashboard";

fn or<'a>(reason: &'a str, otherwise: &'a str) -> &'a str {
    let reason = reason.trim();
    if reason.is_empty() { otherwise } else { reason }
}

fn agent_of(name: String) -> Result<AgentName, Failure> {
    name.parse().map_err(|_| Failure::not_found("no_such_agent", format!("there is no agent `{name}`")))
}

/// A provider of the configuration, or one that is revoked and is there no more.
fn provider_of(shared: &Shared, store: &Store, name: String) -> Result<ProviderId, Failure> {
    if let Some(provider) = shared.snapshot.load().config.provider(&name) {
        return Ok(provider.id.clone());
    }
    let mut revoked = store.controls()?.revoked_providers.into_iter().map(|(id, _)| id);
    revoked
        .find(|id| id.as_str() == name)
        .ok_or_else(|| Failure::not_found("unknown_provider", format!("there is no provider `{name}`")))
}
