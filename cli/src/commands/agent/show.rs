//! `agent list` and `agent show`: who may ask, and for what.

use gateway::DEAD_RUN;
use gateway::overview::form::timestamp;
use policy::{Capability, Denial, DenialCode, ModelGlob, Revocation, Rules, Subject};
use serde_json::{Value, json};
use storage::{CapabilityFilter, CapabilitySummary, Store};

use super::{find_agent, parse_agent};
use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::commands::ratelimit::limit_document;
use crate::failure::Failure;
use crate::format::{field, local_time, plain};

const AGENTS: [Column; 6] = [
    Column::Left("agent"),
    Column::Right("active"),
    Column::Right("requests"),
    Column::Right("spent"),
    Column::SpareLeft("last used"),
    Column::SpareLeft("note"),
];

const CAPABILITIES: [Column; 6] = [
    Column::Left("id"),
    Column::Left("state"),
    Column::Left("ends"),
    Column::SpareLeft("last used"),
    Column::SpareLeft("parent"),
    Column::Left("allows"),
];

/// Ends what runs left behind that died, so that it is not shown as in force. A running daemon does that by itself
/// within a moment.
pub(crate) fn end_dead_runs(app: &App, store: &mut Store) {
    // What cannot be ended now is found again.
    let _ = gateway::end_dead_runs(&app.home, |id| match store.end_run(id, DEAD_RUN, now_us()) {
        Ok(_) | Err(storage::Error::NoSuchCapability { .. }) => Ok(()),
        Err(error) => Err(error),
    });
}

pub(super) fn list(app: &App) -> Result<(), Failure> {
    app.flush_log();
    let mut store = app.store()?;
    end_dead_runs(app, &mut store);
    let agents = store.agents(now_us())?;
    let document = json!({ "agents": agents.iter().map(|agent| json!({
        "name": agent.name.as_str(),
        "note": agent.note,
        "created_at": timestamp(agent.created_at),
        "revoked_at": agent.revoked.as_ref().map(|revoked| timestamp(revoked.at)),
        "revoke_reason": agent.revoked.as_ref().map(|revoked| &revoked.reason),
        "capabilities": agent.capabilities,
        "capabilities_active": agent.capabilities_active,
        "last_used_at": agent.last_used_at.map(timestamp),
        "requests": agent.requests,
        "spent_usd": agent.spent.to_string(),
        "unpriced": agent.unpriced,
    })).collect::<Vec<_>>() });
    app.output.data(&document, || {
        let rows = agents.iter().map(|agent| {
            let active = || agent.capabilities_active.to_string();
            vec![
                agent.name.to_string(),
                agent.revoked.as_ref().map_or_else(active, |_| "revoked".to_owned()),
                agent.requests.to_string(),
                format!("${}", agent.spent),
                agent.last_used_at.map_or("never".to_owned(), timestamp),
                plain(agent.note.as_deref().unwrap_or_default()),
            ]
        });
        let when_empty = "no agents; make one with `tokfence agent mint NAME`";
        Columns::table(&AGENTS, &rows.collect::<Vec<_>>(), when_empty)
    });
    Ok(())
}

pub(super) fn show(app: &App, name: &str) -> Result<(), Failure> {
    let name = parse_agent(name)?;
    app.flush_log();
    let mut store = app.store()?;
    end_dead_runs(app, &mut store);
    let agent = find_agent(&store, name.as_str())?;
    let capabilities =
        store.capabilities(&CapabilityFilter { agent: Some(agent.clone()), active_at: None })?;
    let (rules, now) = (store.load_policy()?.rules, now_us());
    let revoked = rules.revoked_agents.get(&agent);
    let document = json!({
        "name": agent.as_str(),
        "revoked_at": revoked.map(|revoked| timestamp(revoked.at)),
        "revoke_reason": revoked.map(|revoked| &revoked.reason),
        "capabilities": capabilities
            .iter()
            .map(|summary| capability_document(summary, &rules, now))
            .collect::<Vec<_>>(),
    });
    app.output.data(&document, || table(revoked, &document["capabilities"]));
    Ok(())
}

fn table(revoked: Option<&Revocation>, capabilities: &Value) -> String {
    let rows = capabilities.as_array().into_iter().flatten().map(|capability| {
        let text = |key: &str| field(key, &capability[key]);
        vec![
            text("id"),
            text("state"),
            text("expires_at"),
            text("last_used_at"),
            text("parent"),
            allowed_text(capability),
        ]
    });
    let table = Columns::table(&CAPABILITIES, &rows.collect::<Vec<_>>(), "no capabilities");
    match revoked {
        Some(revoked) => {
            format!("revoked since {} ({})\n{table}", local_time(revoked.at), plain(&revoked.reason))
        }
        None => table,
    }
}

fn capability_document(summary: &CapabilitySummary, rules: &Rules, now: i64) -> Value {
    let capability = &summary.capability;
    let scope = &capability.scope;
    let mut children: Vec<&str> = rules
        .capabilities
        .values()
        .filter(|other| other.parent == Some(capability.id))
        .map(|child| child.id.as_str())
        .collect();
    children.sort_unstable();
    json!({
        "id": capability.id.as_str(),
        "state": state(rules, capability, now),
        "parent": capability.parent.as_ref().map(|id| id.as_str()),
        "children": children,
        "note": summary.note,
        "created_at": timestamp(capability.created_at),
        "expires_at": capability.expires_at.map(timestamp),
        "revoked_at": capability.revoked_at.map(timestamp),
        "revoke_reason": summary.revoke_reason,
        "last_used_at": summary.last_used_at.map(timestamp),
        "scope": {
            "providers": scope.providers.iter().map(policy::ProviderId::as_str).collect::<Vec<_>>(),
            "models": scope.models.iter().map(ModelGlob::as_str).collect::<Vec<_>>(),
            "routes": scope.routes.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
            "methods": scope.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
            "requires_unix_socket": scope.requires_unix_socket,
        },
        "budgets": rules
            .budgets
            .get(&Subject::Capability(capability.id))
            .into_iter()
            .flatten()
            .map(|budget| format!("{}/{}", budget.limit, budget.period))
            .collect::<Vec<_>>(),
        "rate": rules.rate_limits.get(&Subject::Capability(capability.id)).map(limit_document),
    })
}

/// Whether it is in force, all that it stands on included.
fn state(rules: &Rules, capability: &Capability, now: i64) -> &'static str {
    let standing = rules.check_caller(Some(capability), &capability.agent, now);
    match standing.map_err(|denial: Denial| denial.code()) {
        Ok(()) => "active",
        Err(DenialCode::ExpiredCapability) => "expired",
        Err(_) => "revoked",
    }
}

fn allowed_text(capability: &Value) -> String {
    let scope = &capability["scope"];
    let list = |object: &Value, key: &str| {
        let names: Vec<&str> =
            object[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        (!names.is_empty()).then(|| format!("{key}: {}", names.join(", ")))
    };
    let socket =
        scope["requires_unix_socket"].as_bool().unwrap_or_default().then(|| "socket only".to_owned());
    let limits = ["providers", "models", "routes", "methods"].map(|key| list(scope, key));
    let parts: Vec<String> =
        limits.into_iter().chain([socket, list(capability, "budgets")]).flatten().collect();
    if parts.is_empty() { "everything but file, admin and mint".to_owned() } else { parts.join("; ") }
}
