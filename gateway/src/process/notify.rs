//! Tells the owner what he wants to hear of: a line in the daemon's log, and a command of his own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use storage::Warning;

use crate::config::Notifications;
use crate::risk::RiskNotice;

/// A command that takes longer is ended.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Tells of budgets of which much is spent. Blocks for as long as the command runs.
pub(crate) fn tell(warnings: &[Warning], config: &Notifications) {
    for warning in warnings {
        let message = message(warning);
        tracing::warn!(budget = warning.budget, percent = warning.percent, "{message}");
        if let Some((program, arguments)) = config.command.split_first()
            && let Err(error) = run(program, arguments, &message)
        {
            tracing::error!(%error, program, "the command for notifications failed");
        }
    }
}

/// Tells of what was seen and is grave. Blocks for as long as the command runs.
pub(crate) fn tell_risks(notices: &[RiskNotice], config: &Notifications) {
    for notice in notices {
        let message = risk_message(notice);
        if let Some((program, arguments)) = config.command.split_first()
            && let Err(error) = run(program, arguments, &message)
        {
            tracing::error!(%error, program, "the command for notifications failed");
        }
    }
}

fn risk_message(notice: &RiskNotice) -> String {
    let RiskNotice { state, signal, subject, agent, event } = notice;
    let who = agent.as_ref().map_or_else(|| subject.to_string(), |agent| format!("the agent `{agent}`"));
    format!("tokfence: {who} is {state}: {}; tokfence risk explain {event}", signal.reason())
}

fn message(warning: &Warning) -> String {
    let spent = warning.limit.unit.of(warning.spent);
    format!(
        "tokfence: {} % of the budget {} is spent ({spent} of {})",
        warning.percent, warning.budget, warning.limit
    )
}

/// Runs the command with the message as its last argument. There is no shell between.
fn run(program: &str, arguments: &[String], message: &str) -> std::io::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).arg(message);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + COMMAND_PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            let failed = || std::io::Error::other(format!("it ended with {status}"));
            return if status.success() { Ok(()) } else { Err(failed()) };
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Err(std::io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Unit;

    #[test]
    fn the_message_is_the_last_argument_and_no_shell_reads_it() {
        let warning = Warning {
            budget: "agent:$(id)/daily".to_owned(),
            percent: 81,
            limit: Unit::NanoUsd.of(10_000_000_000),
            spent: 8_123_000_000,
        };
        let text = message(&warning);
        assert_eq!(text, "tokfence: 81 % of the budget agent:$(id)/daily is spent ($8.123000 of $10.000000)");
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("told");
        let script = format!("printf %s \"$1\" > {}", file.display());
        run("sh", &["-c".to_owned(), script, "sh".to_owned()], &text).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    }

    #[test]
    fn a_command_that_fails_or_is_not_there_is_an_error() {
        assert!(run("false", &[], "x").is_err());
        assert!(run("/nowhere/at/all", &[], "x").is_err());
    }
}
