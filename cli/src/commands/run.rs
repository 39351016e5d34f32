//! `run`: an agent with a capability of its own, from its start to its end.

use std::fmt;
use std::process::{Command, ExitCode};

use clap::Args;
use gateway::RunLock;
use gateway::catalogue::Provider;
use gateway::config::Config;
use gateway::home::make_private_dir;
use policy::{AgentName, CapabilityId, NanoUsd};
use signal_hook::iterator::Signals;
use storage::{LogFilter, LogOrder, LoggedRequest, Store};

use crate::agents::{self, CLAUDE_HEADERS, Wiring};
use crate::app::{App, now_us};
use crate::child;
use crate::commands::agent::{
    BudgetArgs, Grant, RateArgs, ScopeArgs, mint_token, new_token, parse_agent, parse_ttl,
};
use crate::commands::canary;
use crate::commands::env::{Variables, served};
use crate::commands::inside;
use crate::failure::Failure;
use crate::sandbox::{self, Sandbox, SandboxArgs};

/// How many rows of the log are read at a time.
const BATCH: u32 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent to whom the requests are booked; the command's name by default
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    /// When the capability ends even if the command still runs
    #[arg(long, default_value = "24h", value_name = "TIME")]
    ttl: String,
    /// Put a key into the command's environment that opens nothing, to see whether somebody takes it; a harmless agent
    /// that prints its environment shows it too
    #[arg(long)]
    decoy: bool,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// The command, after `--`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Run {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        let agent = parse_agent(self.agent.as_deref().unwrap_or_else(|| self.command_name()))?;
        let scope = self.scope.resolve(app)?;
        let ttl = parse_ttl(&self.ttl)?;
        let config = app.config()?;
        let (address, mut providers) = served(app, None)?;
        if !scope.providers.is_empty() {
            providers.retain(|name| scope.providers.iter().any(|allowed| allowed.as_str() == name));
        }
        let providers: Vec<&Provider> =
            providers.iter().filter_map(|name| config.provider(name)).map(AsRef::as_ref).collect();
        let sandbox = self.sandbox.prepare(app, &address)?;
        let address = sandbox.as_ref().map_or(address, Sandbox::address);
        let begin = app.store()?.latest_seq()?;
        // Before there is a capability: from here on no signal ends us before it is revoked.
        let signals = child::signals()?;
        let (rate, budgets) = (self.rate.limit(), self.budget.parse()?);
        let grant = Grant { scope, ttl: Some(ttl), rate, budgets, note: None, is_run: true };
        let token = new_token()?;
        // Before there is a capability: should we be killed, whoever finds the lock free ends what we leave behind.
        app.home.prepare()?;
        make_private_dir(&app.home.control_dir())?;
        let lock =
            RunLock::take(&app.home, token.id).map_err(|error| Failure::failed("lock the run", &error))?;
        mint_token(app, &agent, grant, &token)?;
        let mut variables = Variables::new(providers.iter().copied(), &address, &token.text);
        let arguments = self.tell_agent(app, &mut variables, &address, &token.text, &providers);
        variables.keep_headers(std::env::var(CLAUDE_HEADERS).ok().as_deref());
        variables.note_rest(app);
        let decoy = self.add_decoy(app, &agent, token.id, &mut variables);
        let sandbox = sandbox.map(|sandbox| (sandbox, token.id));
        let command = self.command(&config, &variables, &arguments);
        let outcome = decoy.and_then(|()| run_child(app, command, sandbox, signals));
        let revoked =
            app.store().and_then(|mut store| Ok(store.end_run(token.id, "its run ended", now_us())?));
        if revoked.is_ok() {
            // A file that stays is found later, and its capability has ended then.
            let _ = lock.release();
        }
        let told = revoked.and_then(|_| app.tell_daemon());
        // What could not be started has asked for nothing.
        let code = outcome?;
        report(app, token.id, begin);
        told?;
        Ok(code)
    }

    /// Adds a decoy to the variables, if one was asked for. It ends with the run, as the capability does.
    fn add_decoy(
        &self,
        app: &App,
        agent: &AgentName,
        capability: CapabilityId,
        variables: &mut Variables,
    ) -> Result<(), Failure> {
        if self.decoy {
            let (name, value) = canary::for_run(app, agent, capability)?;
            variables.set.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// Tells an agent that is known what it reads beside the variables of its SDK. Answers the arguments that this takes.
    fn tell_agent(
        &self,
        app: &App,
        variables: &mut Variables,
        address: &str,
        token: &str,
        providers: &[&Provider],
    ) -> Vec<String> {
        let Some(known) = agents::by_program(self.command_name()) else { return Vec::new() };
        let providers = known.choose(providers.iter().copied());
        let started = known.started(&Wiring { address, token, providers, models: Vec::new() });
        variables.set.extend(started.variables);
        started.notes.iter().for_each(|note| app.output.note(note));
        started.arguments
    }

    fn command_name(&self) -> &str {
        let program = self.command.first().map_or("agent", String::as_str);
        program.rsplit('/').next().unwrap_or(program)
    }

    /// The command with the gateway's variables and without any real key of a known provider.
    fn command(&self, config: &Config, variables: &Variables, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(arguments).args(&self.command[1..]);
        for variable in variables.real_keys(config) {
            command.env_remove(variable);
        }
        for variable in [crate::unlock::PASSPHRASE_VARIABLE, "TOKFENCE_VAULT_BACKEND"] {
            command.env_remove(variable);
        }
        command.envs(&variables.set);
        command
    }
}

/// The command from its start to its end.
fn run_child(
    app: &App,
    mut command: Command,
    sandbox: Option<(Sandbox, CapabilityId)>,
    mut signals: Signals,
) -> Result<ExitCode, Failure> {
    if let Some(code) = child::ended_before(&mut signals) {
        // The signal came before there was a child to pass it to.
        return Ok(code);
    }
    let Some((sandbox, run)) = sandbox else {
        return child::wait(inside::spawn(&mut command)?, signals, child::to_child);
    };
    let (child, _door) = sandbox.spawn(app, run, &command)?;
    child::wait(child, signals, sandbox::pass)
}

/// One line on what the run cost.
fn report(app: &App, capability: CapabilityId, begin: i64) {
    app.flush_log();
    // The run is over and went as it went; a sum that cannot be read does not make it fail.
    if let Ok(sums) = app.store().and_then(|store| Sums::of(&store, capability, begin)) {
        app.output.note(&sums.to_string());
    }
}

/// What the requests of one capability come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    requests: u64,
    tokens: u64,
    cost: NanoUsd,
    unpriced: u64,
}

impl Sums {
    /// Sums up the rows after `begin`, so many at a time: a run may last for weeks.
    fn of(store: &Store, capability: CapabilityId, begin: i64) -> Result<Self, Failure> {
        let mut sums = Self::default();
        let mut order = LogOrder::After(begin);
        loop {
            let filter =
                LogFilter { capability: Some(capability), order, limit: BATCH, ..LogFilter::default() };
            let rows = store.requests(&filter)?;
            rows.iter().for_each(|row| sums.add(row));
            match rows.last() {
                Some(last) if rows.len() == BATCH as usize => order = LogOrder::After(last.seq),
                _ => return Ok(sums),
            }
        }
    }

    fn add(&mut self, row: &LoggedRequest) {
        self.requests = self.requests.saturating_add(row.repeats);
        self.tokens = self.tokens.saturating_add(row.request.usage.total());
        match row.request.cost {
            Some(cost) => self.cost = self.cost.checked_add(cost).unwrap_or(self.cost),
            None => self.unpriced = self.unpriced.saturating_add(row.repeats),
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.requests == 1 { "" } else { "s" };
        write!(f, "{} request{plural}, {} tokens, ${}", self.requests, self.tokens, self.cost)?;
        if self.unpriced > 0 {
            write!(f, " and {} of unknown price", self.unpriced)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::log::rows_for_tests::{log, row};

    #[test]
    fn the_sums_are_those_of_the_run_however_many_rows_it_has() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokfence.db");
        let (mine, other) = ("abcdefgh".parse().unwrap(), "ijklmnop".parse().unwrap());
        let of = |capability, number| storage::RequestRow { capability: Some(capability), ..row(number) };
        log(&path, (0..10).map(|number| of(mine, number)));
        let store = Store::open(&path).unwrap();
        let begin = store.latest_seq().unwrap();
        let many = u64::from(BATCH) * 2;
        log(&path, (10..10 + many).map(|number| of(mine, number)));
        log(&path, (10 + many..20 + many).map(|number| of(other, number)));
        let sums = Sums::of(&store, mine, begin).unwrap();
        assert_eq!(sums.requests, many);
        assert_eq!(Sums::of(&store, other, begin).unwrap().requests, 10);
        assert_eq!(Sums::of(&store, mine, store.latest_seq().unwrap()).unwrap(), Sums::default());
    }
}
