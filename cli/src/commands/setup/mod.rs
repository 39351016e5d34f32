//! `setup`: an agent's own files are told where the gateway is, with a capability in the place of its key. What stands
//! in them stays, and all of it can be taken back.

mod plan;
mod probe;
mod record;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use gateway::catalogue::{AuthStyle, Provider};
use gateway::config::Config;
use gateway::overview::form::timestamp;
use policy::AgentName;
use serde_json::{Value, json};

use crate::agents::{self, KNOWN, KnownAgent, Wiring};
use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::commands::agent::{parse_agent, parse_ttl};
use crate::failure::{Exit, Failure};
use crate::format::local_time;
use plan::{Plan, Token};
use record::Record;

const COLUMNS: [Column; 4] = [
    Column::Left("agent"),
    Column::SpareLeft("what it is"),
    Column::Left("installed"),
    Column::Left("set up"),
];

#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// The agent to set up; without it, those that can be are listed
    #[arg(value_name = "AGENT")]
    kind: Option<String>,
    /// Let it use this provider; may be repeated where it can use several. By default those with a key
    #[arg(long = "provider", value_name = "PROVIDER")]
    providers: Vec<String>,
    /// The agent to whom the requests are booked; what is set up by default
    #[arg(long = "agent", value_name = "NAME")]
    name: Option<String>,
    /// A model to list, for agents that have to be told which there are, and to ask with --test; may be repeated
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// When a new capability ends: `90m`, `24h`, `30d`
    #[arg(long, default_value = "30d", value_name = "TIME")]
    ttl: String,
    /// Print what belongs into its files, and write nothing
    #[arg(long)]
    print: bool,
    /// Ask for a word through the gateway as the agent would; `--test=program` has the agent's program ask
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "gateway")]
    test: Option<Test>,
    /// Put back what its files held before, and revoke its capability
    #[arg(long, conflicts_with_all = ["print", "test", "providers", "models", "name"])]
    undo: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Test {
    Gateway,
    Program,
}

/// What a setup goes by.
struct Job<'a> {
    known: &'static KnownAgent,
    address: String,
    providers: Vec<&'a Provider>,
    models: Vec<String>,
    agent: AgentName,
}

impl Job<'_> {
    fn wiring<'a>(&'a self, token: &'a str) -> Wiring<'a> {
        let providers = self.providers.clone();
        Wiring { address: &self.address, token, providers, models: self.models.clone() }
    }
}

impl Setup {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        let Some(kind) = &self.kind else { return list(app).map(|()| ExitCode::SUCCESS) };
        let known = agents::find(kind)?;
        if self.undo {
            return undo(app, known).map(|()| ExitCode::SUCCESS);
        }
        let config = app.config()?;
        let job = self.job(app, &config, known)?;
        let record = Record::load(app, known.name)?;
        let plan = Plan::of(&job, record)?;
        let token = plan.token(app, &job, parse_ttl(&self.ttl)?)?;
        let mut document = json!({
            "agent": known.name, "booked_to": job.agent.as_str(), "capability": token.id.as_str(),
            "expires_at": token.expires_at.map(timestamp), "address": job.address,
            "providers": job.providers.iter().map(|provider| provider.id.as_str()).collect::<Vec<_>>(),
        });
        let is_done = if self.print || known.program.is_none() {
            plan.print(app, &job, &token, &mut document)
        } else {
            plan.write(app, &job, &token, &mut document)?
        };
        let mut code = if is_done { ExitCode::SUCCESS } else { ExitCode::from(Exit::Failed as u8) };
        let tested = match self.test {
            Some(how) => {
                let test = || probe::test(app, &job, &token, how, &mut document);
                Some(app.output.during("waiting for an answer", test)?)
            }
            None => None,
        };
        if tested.as_ref().is_some_and(|tested| !tested.is_good) {
            code = ExitCode::from(Exit::Failed as u8);
        }
        app.output.data(&document, || text(&document));
        self.tell(app, &job, &token, is_done);
        Ok(code)
    }

    fn job<'a>(&self, app: &App, config: &'a Config, known: &'static KnownAgent) -> Result<Job<'a>, Failure> {
        let agent = parse_agent(self.name.as_deref().unwrap_or(known.name))?;
        let status = match app.daemon_status() {
            Ok(status) => Some(status),
            Err(failure) if failure.exit == Exit::NotRunning => None,
            Err(failure) => return Err(failure),
        };
        let address = match &status {
            Some(status) => status.address.clone(),
            None if config.daemon.listen.port() == 0 => {
                let message = "the system chooses the gateway's port, so only a running one has an address";
                return Err(Failure::new(Exit::NotRunning, "not_running", message)
                    .with_hint("tokfence start -d, or set `daemon.port`"));
            }
            None => config.daemon.listen.to_string(),
        };
        let providers = if self.providers.is_empty() {
            let is_served = |provider: &Provider| match &status {
                Some(status) if !status.is_locked => {
                    status.providers.iter().chain(&status.passthrough).any(|id| *id == provider.id.as_str())
                }
                // Nobody knows yet; what the agent was made for is meant.
                _ => agents::is_namesake(provider),
            };
            known.choose(distinct(config).filter(|provider| is_served(provider)))
        } else {
            self.named(app, config, known)?
        };
        if providers.is_empty() {
            let message = format!("the vault holds no key of a provider that {} can use", known.title);
            let usual = known.choose(distinct(config).filter(|provider| agents::is_namesake(provider)));
            let usual = usual.first().map_or("PROVIDER", |provider| provider.id.as_str());
            return Err(Failure::new(Exit::NotFound, "no_such_entry", message)
                .with_hint(format!("tokfence vault add {usual}")));
        }
        Ok(Job { known, address, providers, models: self.models.clone(), agent })
    }

    /// The providers that were named, which must all be for this agent.
    fn named<'a>(
        &self,
        app: &App,
        config: &'a Config,
        known: &'static KnownAgent,
    ) -> Result<Vec<&'a Provider>, Failure> {
        let mut named = Vec::new();
        for name in &self.providers {
            let id = app.provider(config, name)?;
            let provider = config.provider(id.as_str()).expect("the name was just resolved");
            if !known.speaks_to(provider) {
                let message = format!("{} does not speak the format of `{id}`", known.title);
                return Err(Failure::usage(message).with_hint(format!("tokfence provider show {id}")));
            }
            named.push(provider.as_ref());
        }
        let chosen = known.choose(named.iter().copied());
        if chosen.len() < named.len() {
            return Err(Failure::usage(format!("{} uses one provider at a time", known.title)));
        }
        Ok(chosen)
    }

    /// What a person should know beside what was done.
    fn tell(&self, app: &App, job: &Job<'_>, token: &Token, is_done: bool) {
        let end = token.expires_at.map_or("never".to_owned(), local_time);
        let is_printed = self.print || job.known.program.is_none() || !is_done;
        let place = match (is_printed, token.is_new) {
            (true, true) => "what was printed holds a new capability, which is nowhere else",
            (true, false) => "what was printed holds the capability that its file has",
            (false, true) => "the file, which only you can read, holds a new capability",
            (false, false) => "the capability is the one that was there",
        };
        app.output.note(&format!("{place}; agent `{}`, ends {end}", job.agent.as_str()));
        for provider in plan::left_out(job) {
            app.output.note(&format!(
                "`{provider}` is left out: {} has to be told its models; name them with --provider {provider} --model",
                job.known.title
            ));
        }
        for line in plan::overrides(job, &token.text) {
            app.output.warn(&line);
        }
        if job.providers.iter().any(|provider| provider.auth == AuthStyle::Passthrough) {
            app.output.note(&format!("log in with {} itself; its login goes on as it is", job.known.title));
        }
        let name = job.known.name;
        let can_ask = || job.known.program.and_then(probe::installed).is_some() && !job.known.ask.is_empty();
        match self.test {
            None => app.output.note(&format!("try it: tokfence setup {name} --test")),
            Some(Test::Gateway) if can_ask() => {
                let program = job.known.program.unwrap_or_default();
                app.output
                    .note(&format!("have `{program}` ask itself: tokfence setup {name} --test=program"));
            }
            Some(Test::Gateway | Test::Program) => {}
        }
    }
}

/// Each provider once, whatever names it has.
fn distinct(config: &Config) -> impl Iterator<Item = &Provider> {
    let by_id = config.providers.iter().filter(|(name, provider)| **name == provider.id);
    by_id.map(|(_, provider)| provider.as_ref())
}

/// The lines that say what came of each file, and of the test.
fn text(document: &Value) -> String {
    let lines = |name: &str| document[name].as_array().into_iter().flatten();
    let mut text: Vec<String> = lines("files").map(plan::describe).collect();
    text.extend(
        document["variables"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())),
    );
    if !document["test"].is_null() {
        text.push(probe::describe(&document["test"]));
    }
    text.join("\n")
}

/// What can be set up, and what is.
fn list(app: &App) -> Result<(), Failure> {
    let mut found = Vec::new();
    for known in &KNOWN {
        let record = Record::load(app, known.name)?;
        let files = record.iter().flat_map(|record| &record.files);
        let files: Vec<String> = files.map(|written| written.path.display().to_string()).collect();
        found.push(json!({
            "name": known.name, "title": known.title, "program": known.program,
            "is_installed": known.program.is_some_and(|program| probe::installed(program).is_some()),
            "is_set_up": record.is_some(), "files": files,
        }));
    }
    let document = json!({ "agents": found });
    app.output.data(&document, || {
        let text = |agent: &Value, name: &str| agent[name].as_str().unwrap_or("-").to_owned();
        let yes = |agent: &Value, name: &str| if agent[name] == true { "yes" } else { "-" }.to_owned();
        let rows = document["agents"].as_array().into_iter().flatten().map(|agent| {
            let files = agent["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let files = files.collect::<Vec<_>>().join(", ");
            vec![
                text(agent, "name"),
                text(agent, "title"),
                yes(agent, "is_installed"),
                if files.is_empty() { yes(agent, "is_set_up") } else { files },
            ]
        });
        Columns::table(&COLUMNS, &rows.collect::<Vec<_>>(), "none")
    });
    Ok(())
}

/// Puts everything back, or changes nothing.
fn undo(app: &App, known: &KnownAgent) -> Result<(), Failure> {
    let Some(record) = Record::load(app, known.name)? else {
        let message = format!("{} was not set up by tokfence", known.title);
        return Err(Failure::new(Exit::NotFound, "no_such_setup", message).with_hint("tokfence setup"));
    };
    let changed: Vec<bool> =
        record.files.iter().map(record::Written::check_undo).collect::<Result<_, _>>()?;
    for (written, is_changed) in record.files.iter().zip(&changed) {
        if *is_changed { written.undo()? } else { written.clear() }
    }
    let revoked = match record.capability.parse() {
        Ok(id) => match app.store()?.revoke_capability(id, "its setup was undone", now_us()) {
            Err(storage::Error::NoSuchCapability { .. }) => false,
            revoked => revoked?,
        },
        Err(_) => false,
    };
    Record::forget(app, known.name)?;
    app.tell_daemon()?;
    let files: Vec<Value> = record
        .files
        .iter()
        .map(|written| {
            let status = if written.backup.is_some() { "restored" } else { "removed" };
            json!({ "path": written.path.display().to_string(), "status": status })
        })
        .collect();
    let document = json!({ "agent": known.name, "files": files, "revoked": revoked });
    app.output.done(&document, || {
        let lines = files.iter().map(plan::describe);
        lines.chain(revoked.then(|| "revoked its capability".to_owned())).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}
