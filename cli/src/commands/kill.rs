//! `kill`, `unkill`, `revoke`, `restore`: everything or one provider, taken back at once and given back.
//!
//! The switches are rows of the database, so they need no daemon and outlive it. A running one knows of a change
//! before the command returns.

use clap::Args;
use gateway::control::{Command, DaemonStatus, Revoked};
use gateway::overview::form::timestamp;
use policy::{ProviderId, Revocation};
use serde_json::{Value, json};
use storage::Store;

use crate::app::{App, now_us};
use crate::failure::Failure;
use crate::format::{local_time, plain};

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "killed by its owner", value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The provider
    provider: String,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "revoked by its owner", value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The provider
    provider: String,
}

/// What is not served, whoever tells it: the daemon, or the database while there is none.
#[derive(Debug, Default)]
pub(crate) struct TakenBack {
    killed: Option<Revoked>,
    providers: Vec<Revoked>,
}

impl Kill {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        let Killed { is_new, killed } = kill(app, &self.reason)?;
        let document = json!({
            "status": if is_new { "killed" } else { "unchanged" },
            "killed": killed.as_ref().map(without_name),
        });
        app.output.done(&document, || match killed.filter(|_| !is_new) {
            Some(killed) => format!("already killed {}", since(&killed)),
            None => "killed: nothing is served until `tokfence unkill`".to_owned(),
        });
        Ok(())
    }
}

/// What came of a kill.
#[derive(Debug)]
pub(crate) struct Killed {
    pub(crate) is_new: bool,
    killed: Option<Revoked>,
}

/// Turns the kill switch on, and says nothing.
pub(crate) fn kill(app: &App, reason: &str) -> Result<Killed, Failure> {
    let mut store = match app.store() {
        Ok(store) => store,
        // A slip in the configuration hides where the database is. A running daemon knows, and who wants to kill is in
        // a hurry.
        Err(failure) => {
            app.ask(&Command::Kill { reason: reason.to_owned() }).map_err(|_| failure)?;
            return Ok(Killed { is_new: true, killed: None });
        }
    };
    let is_new = store.kill(reason, now_us())?;
    app.tell_daemon()?;
    let killed = store.controls()?.killed.map(|killed| revoked("", &killed));
    Ok(Killed { is_new, killed })
}

/// Turns it off, and says nothing. Answers whether it was on.
pub(crate) fn lift_kill(app: &App) -> Result<bool, Failure> {
    let was_killed = app.store()?.unkill(now_us())?;
    app.tell_daemon()?;
    Ok(was_killed)
}

/// Serves again what was served before the kill.
pub(crate) fn unkill(app: &App) -> Result<(), Failure> {
    let was_killed = lift_kill(app)?;
    let still_revoked = TakenBack::of_store(&app.store()?);
    let document = json!({
        "status": if was_killed { "restored" } else { "unchanged" },
        "revoked_providers": still_revoked.providers_document(),
    });
    app.output.done(&document, || {
        let text = if was_killed { "served again" } else { "it was not killed" };
        [vec![text.to_owned()], still_revoked.lines()].concat().join("\n")
    });
    Ok(())
}

impl Revoke {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        let mut store = app.store()?;
        let provider = app
            .provider(&app.config()?, &self.provider)
            .map_err(|failure| hint_at_agent(&store, &self.provider, failure))?;
        let is_new = store.revoke_provider(&provider, &self.reason, now_us())?;
        app.tell_daemon()?;
        let revocation = TakenBack::of_store(&store).of(&provider);
        let document = json!({
            "provider": provider.as_str(),
            "status": if is_new { "revoked" } else { "unchanged" },
            "revoked": revocation.as_ref().map(without_name),
        });
        app.output.done(&document, || match revocation.filter(|_| !is_new) {
            Some(revocation) => format!("`{provider}` is already revoked {}", since(&revocation)),
            None => format!("revoked `{provider}`; tokfence restore {provider}"),
        });
        Ok(())
    }
}

impl Restore {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        let mut store = app.store()?;
        let provider = self.find(app, &store)?;
        let was_revoked = store.restore_provider(&provider, now_us())?;
        app.tell_daemon()?;
        let document = json!({
            "provider": provider.as_str(),
            "status": if was_revoked { "restored" } else { "unchanged" },
        });
        app.output.done(&document, || match was_revoked {
            true => format!("restored `{provider}`"),
            false => format!("`{provider}` was not revoked"),
        });
        if TakenBack::of_store(&store).killed.is_some() {
            app.output.warn("the kill switch is on; nothing is served until `tokfence unkill`");
        }
        Ok(())
    }

    /// The provider that was typed. One that is revoked may be gone from the configuration.
    fn find(&self, app: &App, store: &Store) -> Result<ProviderId, Failure> {
        let typed = self.provider.parse::<ProviderId>().ok();
        if let Some(provider) = typed.filter(|provider| TakenBack::of_store(store).of(provider).is_some()) {
            return Ok(provider);
        }
        app.provider(&app.config()?, &self.provider)
            .map_err(|failure| hint_at_agent(store, &self.provider, failure))
    }
}

/// Who types an agent's name here means the command of the same name for agents.
fn hint_at_agent(store: &Store, typed: &str, failure: Failure) -> Failure {
    let agents = store.agent_names().unwrap_or_default();
    if !agents.iter().any(|name| name.as_str() == typed) {
        return failure;
    }
    failure.with_hint(format!("for the agent: tokfence agent revoke {typed}, tokfence agent restore {typed}"))
}

impl TakenBack {
    pub(crate) fn of_daemon(status: &DaemonStatus) -> Self {
        Self { killed: status.killed.clone(), providers: status.revoked_providers.clone() }
    }

    /// What the next daemon will not serve. A database that is not there or cannot be read has a command of its own
    /// to say so.
    pub(crate) fn on_disk(app: &App) -> Self {
        let config = app.config().ok();
        let store = config.and_then(|config| Store::open_existing(&config.logging.db_path).ok());
        store.map(|store| Self::of_store(&store)).unwrap_or_default()
    }

    fn of_store(store: &Store) -> Self {
        let Ok(controls) = store.controls() else { return Self::default() };
        let providers = controls.revoked_providers.iter();
        Self {
            killed: controls.killed.map(|killed| revoked("", &killed)),
            providers: providers.map(|(id, revocation)| revoked(id.as_str(), revocation)).collect(),
        }
    }

    fn of(&self, provider: &ProviderId) -> Option<Revoked> {
        self.providers.iter().find(|revoked| revoked.name == provider.as_str()).cloned()
    }

    pub(crate) fn killed_document(&self) -> Option<Value> {
        self.killed.as_ref().map(without_name)
    }

    pub(crate) fn providers_document(&self) -> Vec<Value> {
        let document =
            |one: &Revoked| json!({ "provider": one.name, "at": timestamp(one.at_us), "reason": one.reason });
        self.providers.iter().map(document).collect()
    }

    /// A line for the kill switch and one for each provider, if there are any.
    pub(crate) fn lines(&self) -> Vec<String> {
        let killed =
            self.killed.iter().map(|killed| format!("killed     {}; tokfence unkill", since(killed)));
        let providers = self
            .providers
            .iter()
            .map(|one| format!("revoked    {} {}; tokfence restore {}", one.name, since(one), one.name));
        killed.chain(providers).collect()
    }
}

fn revoked(name: &str, revocation: &Revocation) -> Revoked {
    Revoked { name: name.to_owned(), at_us: revocation.at, reason: revocation.reason.clone() }
}

fn without_name(revoked: &Revoked) -> Value {
    json!({ "at": timestamp(revoked.at_us), "reason": revoked.reason })
}

fn since(revoked: &Revoked) -> String {
    format!("since {} ({})", local_time(revoked.at_us), plain(&revoked.reason))
}
