//! `agent`: identities and their capabilities.

use std::time::Duration;

use clap::{Args, Subcommand};
use gateway::config::parse_duration;
use policy::{AgentName, CapabilityId, MintedToken, ModelGlob, RouteClass, Scope};
use serde_json::{Value, json};
use storage::{CapabilityFilter, CapabilitySummary, NewCapability};

use crate::app::{App, now_us};
use crate::commands::stop::timestamp;
use crate::failure::{Exit, Failure};

/// A named capability that nobody limited ends after this time.
const TTL_DEFAULT: &str = "30d";

#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Make a capability for an agent; its token is shown once
    Mint(Mint),
    /// List agents
    List,
    /// Show an agent and its capabilities
    Show {
        /// The agent's name
        name: String,
    },
    /// Revoke every capability of an agent, or one by its id
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Mint {
    /// The agent's name
    name: String,
    #[command(flatten)]
    scope: ScopeArgs,
    /// When the capability ends: `90m`, `24h`, `30d`
    #[arg(long, default_value = TTL_DEFAULT, value_name = "TIME")]
    ttl: String,
    /// The capability never ends
    #[arg(long, conflicts_with = "ttl")]
    no_expiry: bool,
    /// What the agent is for; kept when the agent is new
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// What a new capability allows; shared by `agent mint` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ScopeArgs {
    /// Only this provider; may be repeated
    #[arg(long = "provider", value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// Only models that match, `*` stands for anything; may be repeated
    #[arg(long = "model", value_name = "GLOB")]
    pub(crate) models: Vec<String>,
    /// Only routes of this class (generate, embed, metadata, count, file, admin, mint); may be repeated
    #[arg(long = "route", value_name = "CLASS")]
    pub(crate) routes: Vec<String>,
    /// Only over the Unix socket
    #[arg(long)]
    pub(crate) require_uds: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The agent's name, or the id of one capability
    name_or_id: String,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "revoked by its owner", value_name = "TEXT")]
    reason: String,
}

impl Agent {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Mint(mint) => mint.run(app),
            Self::List => list(app),
            Self::Show { name } => show(app, &name),
            Self::Revoke(revoke) => revoke.run(app),
        }
    }
}

/// Makes a capability and lets a running daemon know it. The token is returned here and stored nowhere.
pub(crate) fn mint(
    app: &App,
    agent: &AgentName,
    scope: Scope,
    ttl: Option<Duration>,
    note: Option<String>,
) -> Result<(MintedToken, Option<i64>), Failure> {
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    let drawn = getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret));
    drawn.map_err(|error| Failure::failed("draw random bytes", &error))?;
    let token = MintedToken::from_random(id, secret);
    let now = now_us();
    let expires_at = ttl.map(|ttl| now.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX)));
    let new = NewCapability {
        id: token.id,
        secret_hash: token.secret_hash,
        agent: agent.clone(),
        agent_note: note,
        parent: None,
        scope,
        expires_at,
    };
    app.store()?.mint(&new, now)?;
    app.tell_daemon()?;
    Ok((token, expires_at))
}

impl ScopeArgs {
    /// The scope that was typed; every name in it must exist.
    pub(crate) fn resolve(&self, app: &App) -> Result<Scope, Failure> {
        let config = app.config()?;
        let usage = |error: String| Failure::usage(error);
        let providers = self.providers.iter().map(|name| app.provider(&config, name));
        let models = self
            .models
            .iter()
            .map(|glob| glob.parse::<ModelGlob>().map_err(|error| usage(format!("`{glob}`: {error}"))));
        let routes = self
            .routes
            .iter()
            .map(|class| class.parse::<RouteClass>().map_err(|error| usage(format!("`{class}`: {error}"))));
        Ok(Scope {
            providers: providers.collect::<Result<_, _>>()?,
            models: models.collect::<Result<_, _>>()?,
            routes: routes.collect::<Result<_, _>>()?,
            methods: Vec::new(),
            requires_unix_socket: self.require_uds,
        })
    }
}

/// A lifetime as it is typed.
pub(crate) fn parse_ttl(text: &str) -> Result<Duration, Failure> {
    let ttl = parse_duration(text).filter(|ttl| !ttl.is_zero());
    ttl.ok_or_else(|| Failure::usage(format!("`{text}` is not a time such as 90m, 24h or 30d")))
}

/// The name of an agent as it is typed.
pub(crate) fn parse_agent(text: &str) -> Result<AgentName, Failure> {
    refuse_token(text)?;
    text.parse().map_err(|error: policy::InvalidName| Failure::usage(error.to_string()))
}

/// A token that was typed where a name belongs is not shown again.
fn refuse_token(text: &str) -> Result<(), Failure> {
    if !policy::TokenRef::looks_like(text) {
        return Ok(());
    }
    let hint = "a capability's id is the part between `tfk_` and the second `_`";
    Err(Failure::usage("this is a capability, not the name of an agent").with_hint(hint))
}

impl Mint {
    fn run(self, app: &App) -> Result<(), Failure> {
        let agent = parse_agent(&self.name)?;
        let ttl = if self.no_expiry { None } else { Some(parse_ttl(&self.ttl)?) };
        let (token, expires_at) = mint(app, &agent, self.scope.resolve(app)?, ttl, self.note)?;
        let document = json!({
            "agent": agent.as_str(), "id": token.id.as_str(), "token": token.text,
            "expires_at": expires_at.map(timestamp),
        });
        app.output.data(&document, || token.text.clone());
        let end = expires_at.map_or("never ends".to_owned(), |at| format!("ends {}", timestamp(at)));
        app.output.note(&format!("the token of `{agent}` {end}; it is shown this once"));
        Ok(())
    }
}

fn list(app: &App) -> Result<(), Failure> {
    app.flush_log();
    let agents = app.store()?.agents(now_us())?;
    let document = json!({ "agents": agents.iter().map(|agent| json!({
        "name": agent.name.as_str(),
        "note": agent.note,
        "created_at": timestamp(agent.created_at),
        "capabilities": agent.capabilities,
        "capabilities_active": agent.capabilities_active,
        "last_used_at": agent.last_used_at.map(timestamp),
        "requests": agent.requests,
        "spent_usd": agent.spent.to_string(),
        "unpriced": agent.unpriced,
    })).collect::<Vec<_>>() });
    app.output.data(&document, || {
        let rows = agents.iter().map(|agent| {
            vec![
                agent.name.to_string(),
                agent.capabilities_active.to_string(),
                agent.requests.to_string(),
                format!("${}", agent.spent),
                agent.last_used_at.map_or("never".to_owned(), timestamp),
                agent.note.clone().unwrap_or_default(),
            ]
        });
        let headers = ["agent", "active", "requests", "spent", "last used", "note"];
        app.output.table(&headers, rows.collect(), "no agents; make one with `tokfence agent mint NAME`")
    });
    Ok(())
}

fn show(app: &App, name: &str) -> Result<(), Failure> {
    let agent = parse_agent(name)?;
    app.flush_log();
    let filter = CapabilityFilter { agent: Some(agent.clone()), active_at: None };
    let capabilities = app.store()?.capabilities(&filter)?;
    let now = now_us();
    let document = json!({
        "name": agent.as_str(),
        "capabilities": capabilities.iter().map(|summary| capability_document(summary, now)).collect::<Vec<_>>(),
    });
    app.output.data(&document, || {
        let rows = document["capabilities"].as_array().into_iter().flatten().map(|capability| {
            let text = |key: &str| capability[key].as_str().unwrap_or("-").to_owned();
            vec![
                text("id"),
                text("state"),
                text("expires_at"),
                text("last_used_at"),
                scope_text(&capability["scope"]),
            ]
        });
        app.output.table(&["id", "state", "ends", "last used", "allows"], rows.collect(), "no capabilities")
    });
    Ok(())
}

fn capability_document(summary: &CapabilitySummary, now: i64) -> Value {
    let capability = &summary.capability;
    let state = match (capability.revoked_at, capability.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        (None, _) => "active",
    };
    let scope = &capability.scope;
    json!({
        "id": capability.id.as_str(),
        "state": state,
        "created_at": timestamp(capability.created_at),
        "expires_at": capability.expires_at.map(timestamp),
        "revoked_at": capability.revoked_at.map(timestamp),
        "revoke_reason": summary.revoke_reason,
        "last_used_at": summary.last_used_at.map(timestamp),
        "scope": {
            "providers": scope.providers.iter().map(policy::ProviderId::as_str).collect::<Vec<_>>(),
            "models": scope.models.iter().map(ModelGlob::as_str).collect::<Vec<_>>(),
            "routes": scope.routes.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
            "requires_unix_socket": scope.requires_unix_socket,
        },
    })
}

fn scope_text(scope: &Value) -> String {
    let list = |key: &str| {
        let names: Vec<&str> =
            scope[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        (!names.is_empty()).then(|| format!("{key}: {}", names.join(", ")))
    };
    let socket =
        scope["requires_unix_socket"].as_bool().unwrap_or_default().then(|| "socket only".to_owned());
    let parts: Vec<String> =
        [list("providers"), list("models"), list("routes"), socket].into_iter().flatten().collect();
    if parts.is_empty() { "everything but file, admin and mint".to_owned() } else { parts.join("; ") }
}

impl Revoke {
    fn run(self, app: &App) -> Result<(), Failure> {
        let mut store = app.store()?;
        let (name, now) = (&self.name_or_id, now_us());
        refuse_token(name)?;
        // What cannot be a name is the name of nobody.
        let nobody = |_| {
            Failure::new(
                Exit::NotFound,
                "no_such_agent",
                format!("there is no agent `{}`", name.escape_debug()),
            )
        };
        let agent = name.parse::<AgentName>().map_err(nobody);
        let agent = agent.and_then(|agent| Ok(store.revoke_agent(&agent, &self.reason, now)?));
        let revoked = match (agent, name.parse::<CapabilityId>()) {
            (Ok(count), _) => count,
            (Err(failure), Ok(id)) if failure.exit == Exit::NotFound => {
                u64::from(store.revoke_capability(id, &self.reason, now)?)
            }
            (Err(failure), _) => return Err(self.with_suggestion(app, failure)),
        };
        app.tell_daemon()?;
        app.output.done(&json!({ "revoked": revoked }), || match revoked {
            0 => "nothing was left to revoke".to_owned(),
            1 => "revoked one capability".to_owned(),
            count => format!("revoked {count} capabilities"),
        });
        Ok(())
    }

    fn with_suggestion(&self, app: &App, failure: Failure) -> Failure {
        let agents = app.store().and_then(|store| Ok(store.agents(now_us())?)).unwrap_or_default();
        let names = agents.iter().map(|agent| agent.name.as_str());
        match crate::app::closest(&self.name_or_id, names) {
            Some(similar) => failure.with_hint(format!("did you mean `{similar}`?")),
            None => failure.with_hint("tokfence agent list"),
        }
    }
}
