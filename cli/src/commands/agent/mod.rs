//! `agent`: identities and their capabilities.

mod revoke;
mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use gateway::config::parse_duration;
use gateway::overview::form::timestamp;
use policy::{AgentName, Allowance, Method, MintedToken, ModelGlob, RateLimit, RouteClass, Scope};
use serde_json::json;
use storage::{NewCapability, Store};

use crate::app::{App, closest, now_us};
use crate::failure::{Exit, Failure};
use crate::format::{local_time, plain};
use revoke::{Restore, Revoke, Rotate};
pub(crate) use show::end_dead_runs;

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
    /// Serve an agent no more, or end one capability for good by its id
    Revoke(Revoke),
    /// Serve a revoked agent again, with what it had
    Restore(Restore),
    /// Give a capability a new token; the old one is refused at once
    Rotate(Rotate),
}

#[derive(Debug, Args)]
pub(crate) struct Mint {
    /// The agent's name
    name: String,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    /// When the capability ends: `90m`, `24h`, `30d`
    #[arg(long, default_value = TTL_DEFAULT, value_name = "TIME")]
    ttl: String,
    /// The capability never ends
    #[arg(long, conflicts_with = "ttl")]
    no_expiry: bool,
    /// What it is for, in at most 200 characters
    #[arg(long, value_name = "TEXT", value_parser = parse_note)]
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
    /// Only this method (GET, HEAD, POST, PUT, PATCH, DELETE); may be repeated
    #[arg(long = "method", value_name = "METHOD")]
    pub(crate) methods: Vec<String>,
    /// Only over the Unix socket
    #[arg(long)]
    pub(crate) require_uds: bool,
}

/// How much a new capability may do in a minute and at once; shared by `agent mint` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RateArgs {
    /// At most so many requests a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rpm: Option<u32>,
    /// At most so many tokens a minute, input and output together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    tpm: Option<u64>,
    /// At most so many requests at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    concurrent: Option<u32>,
}

/// What a new capability may spend; shared by `agent mint` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BudgetArgs {
    /// At most this much: `5.00`, `5.00/daily`, `'2M tokens/5h'`; may be repeated
    #[arg(long = "budget", value_name = "AMOUNT[/PERIOD]")]
    budgets: Vec<String>,
}

/// A capability to be made for an agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    pub(crate) scope: Scope,
    /// How long it lasts; `None` is for ever.
    pub(crate) ttl: Option<Duration>,
    pub(crate) rate: RateLimit,
    pub(crate) budgets: Vec<Allowance>,
    /// What it is for; also the note of an agent that is new.
    pub(crate) note: Option<String>,
    /// Whether it is for a run, and ends with that.
    pub(crate) is_run: bool,
}

impl Agent {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Mint(mint) => mint.run(app),
            Self::List => show::list(app),
            Self::Show { name } => show::show(app, &name),
            Self::Revoke(revoke) => revoke.run(app),
            Self::Restore(restore) => restore.run(app),
            Self::Rotate(rotate) => rotate.run(app),
        }
    }
}

/// A new token, which is no capability yet.
pub(crate) fn new_token() -> Result<MintedToken, Failure> {
    Ok(MintedToken::from_random(random_bytes()?, random_bytes()?))
}

/// Makes a capability and lets a running daemon know it. The token is returned here and stored nowhere.
pub(crate) fn mint(
    app: &App,
    agent: &AgentName,
    grant: Grant,
) -> Result<(MintedToken, Option<i64>), Failure> {
    let token = new_token()?;
    let expires_at = mint_token(app, agent, grant, &token)?;
    Ok((token, expires_at))
}

/// The same with a token that is there already. Answers when the capability ends.
pub(crate) fn mint_token(
    app: &App,
    agent: &AgentName,
    grant: Grant,
    token: &MintedToken,
) -> Result<Option<i64>, Failure> {
    let now = now_us();
    let expires_at =
        grant.ttl.map(|ttl| now.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX)));
    let new = NewCapability {
        id: token.id,
        secret_hash: token.secret_hash,
        agent: agent.clone(),
        agent_note: grant.note.clone(),
        parent: None,
        scope: grant.scope,
        expires_at,
        rate: grant.rate,
        budgets: grant.budgets,
        note: grant.note,
    };
    let mut store = app.store()?;
    if grant.is_run {
        store.begin_run(&new, now)?
    } else {
        store.mint(&new, now)?
    }
    app.tell_daemon()?;
    Ok(expires_at)
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
        // Methods are written in capitals everywhere but on a keyboard.
        let methods = self.methods.iter().map(|method| {
            let parsed = method.to_ascii_uppercase().parse::<Method>();
            parsed.map_err(|error| usage(format!("`{method}`: {error}")))
        });
        Ok(Scope {
            providers: providers.collect::<Result<_, _>>()?,
            models: models.collect::<Result<_, _>>()?,
            routes: routes.collect::<Result<_, _>>()?,
            methods: methods.collect::<Result<_, _>>()?,
            requires_unix_socket: self.require_uds,
        })
    }
}

impl BudgetArgs {
    pub(crate) fn parse(&self) -> Result<Vec<Allowance>, Failure> {
        Allowance::parse_all(&self.budgets).map_err(|error| {
            Failure::usage(error).with_hint("--budget 5.00/daily, --budget '2M tokens/5h', --budget 0.50")
        })
    }
}

impl RateArgs {
    pub(crate) fn limit(&self) -> RateLimit {
        RateLimit { requests_per_minute: self.rpm, tokens_per_minute: self.tpm, concurrent: self.concurrent }
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

/// The agent of a name that somebody typed, which must exist.
pub(crate) fn find_agent(store: &Store, text: &str) -> Result<AgentName, Failure> {
    refuse_token(text)?;
    let mut names = store.agent_names()?;
    if let Some(known) = names.iter().position(|name| name.as_str() == text) {
        return Ok(names.swap_remove(known));
    }
    let message = format!("there is no agent `{}`", plain(text));
    let failure = Failure::new(Exit::NotFound, "no_such_agent", message);
    Err(match closest(text, names.iter().map(AgentName::as_str)) {
        Some(similar) => failure.with_hint(format!("did you mean `{similar}`?")),
        None => failure.with_hint("tokfence agent list"),
    })
}

pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed("draw random bytes", &error))?;
    Ok(bytes)
}

fn parse_note(text: &str) -> Result<String, String> {
    let is_short = text.chars().count() <= 200;
    if is_short { Ok(text.to_owned()) } else { Err("a note has at most 200 characters".to_owned()) }
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
        let (scope, rate) = (self.scope.resolve(app)?, self.rate.limit());
        let grant = Grant { scope, ttl, rate, budgets: self.budget.parse()?, note: self.note, is_run: false };
        let (token, expires_at) = mint(app, &agent, grant)?;
        let document = json!({
            "agent": agent.as_str(), "id": token.id.as_str(), "token": token.text,
            "expires_at": expires_at.map(timestamp),
        });
        app.output.data(&document, || token.text.clone());
        let end = expires_at.map_or("never ends".to_owned(), |at| format!("ends {}", local_time(at)));
        app.output.note(&format!("the token of `{agent}` {end}; it is shown this once"));
        Ok(())
    }
}
