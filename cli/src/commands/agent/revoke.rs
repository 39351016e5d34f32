//! `agent revoke`, `restore` and `rotate`: what was given is taken back, given back, or given anew.

use clap::Args;
use gateway::overview::form::timestamp;
use policy::{AgentName, Capability, CapabilityId, MintedToken, Rules};
use serde_json::json;
use storage::{CapabilityFilter, Store};

use super::{find_agent, random_bytes, refuse_token};
use crate::app::{App, now_us};
use crate::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The agent's name, or the id of one capability
    name_or_id: String,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "revoked by its owner", value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The agent's name
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The name of an agent with one capability, or the id of a capability
    name_or_id: String,
}

/// What a name or an id stands for.
enum Named {
    Agent(AgentName),
    Capability(CapabilityId),
}

impl Named {
    /// Looks for an agent of this name first, then for a capability of this id.
    fn find(store: &Store, text: &str) -> Result<Self, Failure> {
        refuse_token(text)?;
        match (find_agent(store, text), text.parse::<CapabilityId>()) {
            (Ok(agent), _) => Ok(Self::Agent(agent)),
            (Err(failure), Ok(id)) if failure.exit == Exit::NotFound => {
                let known = store.load_policy()?.rules.capabilities.contains_key(&id);
                if known { Ok(Self::Capability(id)) } else { Err(failure) }
            }
            (Err(failure), _) => Err(failure),
        }
    }

    /// Whether the capability is, or comes from, what is named.
    fn covers(&self, rules: &Rules, capability: &Capability) -> bool {
        match self {
            Self::Agent(name) => capability.agent == *name,
            Self::Capability(id) => rules.lineage(Some(capability)).any(|link| link.id == *id),
        }
    }
}

impl Revoke {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        let (mut store, now) = (app.store()?, now_us());
        let named = Named::find(&store, &self.name_or_id)?;
        let rules = store.load_policy()?.rules;
        let in_force = rules.capabilities.values().filter(|capability| {
            rules.check_caller(Some(capability), &capability.agent, now).is_ok()
                && named.covers(&rules, capability)
        });
        let ended = in_force.count();
        let is_new = match &named {
            Named::Agent(name) => store.revoke_agent(name, &self.reason, now)?,
            Named::Capability(id) => store.revoke_capability(*id, &self.reason, now)?,
        };
        app.tell_daemon()?;
        let document = json!({
            "agent": if let Named::Agent(name) = &named { Some(name.as_str()) } else { None },
            "capability": if let Named::Capability(id) = &named { Some(id.as_str()) } else { None },
            "status": if is_new { "revoked" } else { "unchanged" },
            "revoked": ended,
        });
        app.output.done(&document, || describe(&named, is_new, ended));
        Ok(())
    }
}

fn describe(named: &Named, is_new: bool, ended: usize) -> String {
    let count = match ended {
        0 => "none was in force".to_owned(),
        1 => "one capability".to_owned(),
        count => format!("{count} capabilities"),
    };
    match named {
        Named::Agent(name) if is_new => {
            format!("revoked `{name}`, {count}; tokfence agent restore {name}")
        }
        Named::Agent(name) => format!("`{name}` was revoked already"),
        Named::Capability(_) if is_new => format!("revoked for good: {count}"),
        Named::Capability(id) => format!("`{id}` was revoked already"),
    }
}

impl Restore {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        let mut store = app.store()?;
        let name = match Named::find(&store, &self.name)? {
            Named::Agent(name) => name,
            Named::Capability(id) => {
                let message = format!("`{id}` is a capability, and one that is revoked stays so");
                return Err(Failure::usage(message).with_hint("tokfence agent mint NAME"));
            }
        };
        let was_revoked = store.restore_agent(&name, now_us())?;
        app.tell_daemon()?;
        let filter = CapabilityFilter { agent: Some(name.clone()), active_at: Some(now_us()) };
        let in_force = store.capabilities(&filter)?.len();
        let document = json!({
            "agent": name.as_str(),
            "status": if was_revoked { "restored" } else { "unchanged" },
            "capabilities_active": in_force,
        });
        app.output.done(&document, || match was_revoked {
            true => format!("restored `{name}`; capabilities in force: {in_force}"),
            false => format!("`{name}` was not revoked"),
        });
        Ok(())
    }
}

impl Rotate {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        let mut store = app.store()?;
        let id = match Named::find(&store, &self.name_or_id)? {
            Named::Agent(name) => the_one_of(&store, name)?,
            Named::Capability(id) => id,
        };
        let token = MintedToken::for_id(id, random_bytes()?);
        let ended = store.rotate_capability(id, token.secret_hash, now_us())?;
        app.tell_daemon()?;
        let rules = store.load_policy()?.rules;
        let capability = rules.capabilities.get(&id);
        let document = json!({
            "agent": capability.map(|capability| capability.agent.as_str()),
            "id": id.as_str(),
            "token": token.text,
            "expires_at": capability.and_then(|capability| capability.expires_at).map(timestamp),
            "revoked": ended,
        });
        app.output.data(&document, || token.text.clone());
        app.output.note("this is the new token, shown this once; the old one is refused from now on");
        if ended > 0 {
            app.output.note(&format!("revoked what was made with the old one: {ended}"));
        }
        Ok(())
    }
}

/// The only capability of an agent that is in force. What was made from another one goes with that one.
fn the_one_of(store: &Store, name: AgentName) -> Result<CapabilityId, Failure> {
    let filter = CapabilityFilter { agent: Some(name.clone()), active_at: Some(now_us()) };
    let found = store.capabilities(&filter)?;
    let ids: Vec<CapabilityId> = found
        .iter()
        .map(|summary| &summary.capability)
        .filter(|capability| capability.parent.is_none())
        .map(|capability| capability.id)
        .collect();
    match ids.as_slice() {
        [id] => Ok(*id),
        [] => Err(Failure::new(
            Exit::NotFound,
            "no_such_capability",
            format!("`{name}` has no capability in force"),
        )
        .with_hint(format!("tokfence agent mint {name}"))),
        many => {
            let names: Vec<&str> = many.iter().map(CapabilityId::as_str).collect();
            let message = format!("`{name}` has {} capabilities; say which one by its id", many.len());
            Err(Failure::usage(message).with_hint(names.join(", ")))
        }
    }
}
