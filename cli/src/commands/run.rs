//! `run`: an agent with a capability of its own, from its start to its end.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread::JoinHandle;

use clap::Args;
use policy::{CapabilityId, NanoUsd};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use storage::{LogFilter, LogOrder};

use crate::app::{App, now_us};
use crate::commands::agent::{ScopeArgs, mint, parse_agent, parse_ttl};
use crate::commands::env::{Variables, served};
use crate::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent to whom the requests are booked; the command's name by default
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// When the capability ends even if the command still runs
    #[arg(long, default_value = "24h", value_name = "TIME")]
    ttl: String,
    /// The command, after `--`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Run {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        let agent = parse_agent(self.agent.as_deref().unwrap_or_else(|| self.command_name()))?;
        let scope = self.scope.resolve(app)?;
        let (address, mut providers) = served(app, None)?;
        if !scope.providers.is_empty() {
            providers.retain(|name| scope.providers.iter().any(|allowed| allowed.as_str() == name));
        }
        let (token, _) = mint(app, &agent, scope, Some(parse_ttl(&self.ttl)?), None)?;
        let config = app.config()?;
        let providers = providers.iter().filter_map(|name| config.provider(name)).map(AsRef::as_ref);
        let variables = Variables::new(providers, &address, &token.text);
        // From here on the capability is revoked whatever happens to the child.
        let outcome = self.spawn(&config, &variables).and_then(wait);
        let revoked = app
            .store()
            .and_then(|mut store| Ok(store.revoke_capability(token.id, "its run ended", now_us())?));
        let told = revoked.and_then(|_| app.tell_daemon());
        report(app, token.id);
        let status = outcome?;
        told?;
        Ok(exit_code(status))
    }

    fn command_name(&self) -> &str {
        let program = self.command.first().map_or("agent", String::as_str);
        program.rsplit('/').next().unwrap_or(program)
    }

    /// Starts the command with the gateway's variables and without any real key of a known provider.
    fn spawn(&self, config: &gateway::config::Config, variables: &Variables) -> Result<Child, Failure> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        for provider in config.providers.values() {
            let keys =
                provider.env.iter().filter(|(_, template)| *template == "{token}").map(|(name, _)| name);
            for variable in keys.chain(&provider.unset) {
                command.env_remove(variable);
            }
        }
        for variable in [crate::unlock::PASSPHRASE_VARIABLE, "TOKFENCE_VAULT_BACKEND"] {
            command.env_remove(variable);
        }
        command.envs(&variables.set);
        command.spawn().map_err(|error| {
            let message = format!("cannot run `{}`: {error}", self.command[0]);
            Failure::new(Exit::Failed, "cannot_run", message)
        })
    }
}

/// Waits for the child and passes on the signals that would end us. Those of the terminal reach the child by
/// themselves; we only must not end before it.
fn wait(mut child: Child) -> Result<ExitStatus, Failure> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let forwarding = forward_signals(pid).map_err(|error| Failure::failed("watch for signals", &error))?;
    let status = child.wait().map_err(|error| Failure::failed("wait for the command", &error));
    forwarding.0.close();
    // The thread only forwards signals; there is nothing it could report.
    let _ = forwarding.1.join();
    status
}

fn forward_signals(child: Option<Pid>) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let handle = signals.handle();
    let thread = std::thread::spawn(move || {
        for signal in signals.forever() {
            let passed = match signal {
                SIGTERM => Some(Signal::TERM),
                SIGHUP => Some(Signal::HUP),
                _ => None,
            };
            if let (Some(child), Some(signal)) = (child, passed) {
                // A child that is gone needs no signal.
                let _ = kill_process(child, signal);
            }
        }
    });
    Ok((handle, thread))
}

/// One line on what the run cost.
fn report(app: &App, capability: CapabilityId) {
    app.flush_log();
    let filter = LogFilter {
        capability: Some(capability),
        order: LogOrder::NewestFirst,
        limit: u32::MAX,
        ..LogFilter::default()
    };
    let Ok(rows) = app.store().and_then(|store| Ok(store.requests(&filter)?)) else { return };
    let known = rows.iter().filter_map(|row| row.request.cost);
    let cost = known.fold(NanoUsd::ZERO, |sum, cost| sum.checked_add(cost).unwrap_or(sum));
    let unpriced = rows.iter().filter(|row| row.request.cost.is_none()).count();
    let tokens = rows.iter().map(|row| row.request.usage.total()).fold(0, u64::saturating_add);
    let mut line = format!("{} requests, {tokens} tokens, ${cost}", rows.len());
    if unpriced > 0 {
        line.push_str(&format!(" and {unpriced} of unknown price"));
    }
    app.output.note(&line);
}

/// The child's exit code; a signal is told the way shells do.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
