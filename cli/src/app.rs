//! Where everything of this run is: the home, the configuration, the database, the daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gateway::Home;
use gateway::config::Config;
use gateway::control::{self, Command, ControlError, DaemonStatus, Reply};
use policy::{AgentName, CapabilityId, InvalidSubject, ProviderId, Subject, TimestampUs};
use serde_json::Value;
use storage::{Actor, AuditAction, AuditNote, Store};

use crate::failure::{Exit, Failure, from_reply};
use crate::output::{Color, Output};

/// How long the daemon may take to answer; opening a vault takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where everything is kept
    #[arg(long, global = true, env = "TOKFENCE_HOME", value_name = "DIR", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// The configuration file, instead of the home's config.toml
    #[arg(long, global = true, env = "TOKFENCE_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON document instead of text, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
}

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) home: Home,
    pub(crate) config_path: PathBuf,
    pub(crate) output: Output,
    /// The name of the command that runs, for the audit log.
    pub(crate) command: String,
}

impl App {
    pub(crate) fn new(global: &Global, command: String) -> Self {
        let user_home = || std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(".tokfence");
        let dir = global.home.clone().unwrap_or_else(user_home);
        let home = Home::new(std::path::absolute(&dir).unwrap_or(dir));
        Self {
            config_path: global.config.clone().unwrap_or_else(|| home.config()),
            home,
            output: Output { is_json: global.json, is_quiet: global.quiet, color: global.color },
            command,
        }
    }

    /// The same, which says nothing beside its results: for who has the screen to itself.
    pub(crate) fn quiet(&self) -> Self {
        Self { output: Output { is_quiet: true, ..self.output }, ..self.clone() }
    }

    /// The configuration as it is on disk now.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config_path, self.home.dir())?)
    }

    /// The database, which need not exist yet.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        self.home.prepare()?;
        Ok(Store::open(&self.config()?.logging.db_path)?.acting_as(self.actor()))
    }

    /// Writes a change into the audit log that is in no table, once it is done. Where that fails the change stands all
    /// the same, and the owner is told; without a database there is no such log.
    pub(crate) fn record(&self, action: AuditAction, subject: impl ToString, detail: Value) {
        if let Err(failure) = self.try_record(&AuditNote::new(action, subject, detail)) {
            self.output.warn(&format!("the audit log does not tell of this: {}", failure.message));
        }
    }

    /// As [`App::record`], for whoever tells of a failure in another way.
    pub(crate) fn try_record(&self, note: &AuditNote) -> Result<(), Failure> {
        match Store::open_existing(&self.config()?.logging.db_path) {
            Err(storage::Error::NotFound { .. }) => Ok(()),
            store => Ok(store?.acting_as(self.actor()).record(note, now_us())?),
        }
    }

    fn actor(&self) -> Actor {
        Actor::new(self.command.as_str())
    }

    /// Asks the daemon.
    pub(crate) fn ask(&self, command: &Command) -> Result<Reply, Failure> {
        match self.ask_within(PATIENCE, command)? {
            reply @ Reply::Failed { .. } => Err(from_reply(reply)),
            reply => Ok(reply),
        }
    }

    /// Asks the daemon, and takes whatever it answers.
    pub(crate) fn ask_within(&self, patience: Duration, command: &Command) -> Result<Reply, ControlError> {
        self.output.during("waiting for the gateway", || {
            control::ask(&self.home.control_socket(), command, patience)
        })
    }

    /// How the daemon is.
    pub(crate) fn daemon_status(&self) -> Result<DaemonStatus, Failure> {
        match self.ask(&Command::Status)? {
            Reply::Status(status) => Ok(*status),
            other => Err(from_reply(other)),
        }
    }

    /// Makes a running daemon see what was just changed, before the command returns. Without a daemon there is
    /// nothing to tell: the next one reads it at its start.
    pub(crate) fn tell_daemon(&self) -> Result<(), Failure> {
        match self.ask_within(PATIENCE, &Command::Reload) {
            Ok(Reply::Done { notes }) => {
                notes.iter().for_each(|note| self.output.note(note));
                Ok(())
            }
            Ok(other) => {
                let failure = from_reply(other);
                let message =
                    format!("saved, but the running daemon keeps its old state: {}", failure.message);
                Err(Failure { message, ..failure })
            }
            Err(ControlError::NotRunning) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that rows of finished requests are in the database before they are read.
    pub(crate) fn flush_log(&self) {
        // Without a daemon there is nothing to flush; a slow one only makes the newest rows come later.
        let _ = self.ask_within(PATIENCE, &Command::Flush);
    }

    /// The provider of a name that somebody typed.
    pub(crate) fn provider(&self, config: &Config, name: &str) -> Result<ProviderId, Failure> {
        if let Some(provider) = config.provider(&name.to_ascii_lowercase()) {
            return Ok(provider.id.clone());
        }
        let failure =
            Failure::new(Exit::NotFound, "unknown_provider", format!("there is no provider `{name}`"));
        let known = config.providers.keys().map(ProviderId::as_str);
        Err(match closest(name, known) {
            Some(similar) => failure.with_hint(format!("did you mean `{similar}`?")),
            None => failure.with_hint("tokfence provider list"),
        })
    }
}

impl App {
    /// The subject of a limit that somebody typed; its provider, agent or capability must exist.
    pub(crate) fn subject(&self, config: &Config, text: &str) -> Result<Subject, Failure> {
        if !text.contains(':') && text != "global" {
            let provider = self.provider(config, text).map(Subject::Provider);
            return provider.map_err(|failure| self.hint_at_agent(text, failure));
        }
        let subject: Subject = text.parse().map_err(|error: InvalidSubject| {
            Failure::usage(error.to_string()).with_hint("global, openai, agent:ci")
        })?;
        match &subject {
            Subject::Global => {}
            Subject::Provider(name) => return self.provider(config, name.as_str()).map(Subject::Provider),
            Subject::Agent(name) => self.require_agent(name)?,
            Subject::Capability(id) => self.require_capability(*id)?,
        }
        Ok(subject)
    }

    /// Who types an agent's name where a subject belongs has left out what kind it is.
    fn hint_at_agent(&self, text: &str, failure: Failure) -> Failure {
        let agents = self.store().and_then(|store| Ok(store.agent_names()?)).unwrap_or_default();
        if !agents.iter().any(|name| name.as_str() == text) {
            return failure;
        }
        failure.with_hint(format!("did you mean `agent:{text}`?"))
    }

    fn require_agent(&self, name: &AgentName) -> Result<(), Failure> {
        let agents = self.store()?.agent_names()?;
        // Requests without a capability are booked to a name for which none need have been minted.
        if agents.contains(name) || name.as_str() == "anonymous" {
            return Ok(());
        }
        let message = format!("there is no agent `{}`", name.as_str());
        let failure = Failure::new(Exit::NotFound, "no_such_agent", message);
        Err(match closest(name.as_str(), agents.iter().map(AgentName::as_str)) {
            Some(similar) => failure.with_hint(format!("did you mean `agent:{similar}`?")),
            None => failure.with_hint("tokfence agent list, or make it with `tokfence agent mint NAME`"),
        })
    }

    fn require_capability(&self, id: CapabilityId) -> Result<(), Failure> {
        if self.store()?.load_policy()?.rules.capabilities.contains_key(&id) {
            return Ok(());
        }
        Err(storage::Error::NoSuchCapability { id }.into())
    }
}

/// The wall clock, in microseconds since the epoch.
pub(crate) fn now_us() -> TimestampUs {
    let machine = || jiff::Timestamp::now().as_microsecond();
    // Only in a build for tests, which cannot wait for a week: a clock that stands at what they say.
    if !cfg!(debug_assertions) {
        return machine();
    }
    let set = std::env::var("TOKFENCE_TEST_NOW_US").ok().and_then(|text| text.parse().ok());
    set.unwrap_or_else(machine)
}

/// The known name that is most like what was typed, if one is.
pub(crate) fn closest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| edit_distance(typed, name);
    known.min_by_key(|name| (distance(name), name.len())).filter(|name| distance(name) <= 2)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        let known = ["openai", "openrouter", "groq"];
        assert_eq!(closest("opneai", known.into_iter()), Some("openai"));
        assert_eq!(closest("grok", known.into_iter()), Some("groq"));
        assert_eq!(closest("anthropic", known.into_iter()), None);
    }
}
