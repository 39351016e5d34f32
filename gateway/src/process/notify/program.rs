//! Notices by programs: a command of the owner's, and what the system has for notes on a desktop.

use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Level;

/// A program that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Runs the owner's command with the message as its last argument. There is no shell between.
pub(super) fn run(command: &[String], message: &str) {
    let Some((program, arguments)) = command.split_first() else { return };
    let mut command = Command::new(program);
    command.args(arguments).arg(message);
    if let Err(error) = wait_for(&mut command) {
        tracing::error!(%error, program, "the command for notifications failed");
    }
}

/// Shows the message on the desktop.
pub(super) fn show(message: &str, level: Level) {
    let mut command = desktop_command(message, level);
    if let Err(error) = wait_for(&mut command) {
        let program = command.get_program().display().to_string();
        tracing::error!(%error, program, "a notification could not be shown on the desktop");
    }
}

/// The message is an argument and no part of a script. It is the title, which has no markup anywhere.
fn desktop_command(message: &str, level: Level) -> Command {
    if cfg!(target_os = "macos") {
        let mut command = Command::new("osascript");
        for line in
            ["on run argv", "display notification (item 1 of argv) with title \"tokfence\"", "end run"]
        {
            command.args(["-e", line]);
        }
        command.arg(message);
        return command;
    }
    let urgency = match level {
        Level::Warning => "normal",
        Level::Critical => "critical",
    };
    let mut command = Command::new("notify-send");
    command.args(["--app-name", "tokfence", "--urgency", urgency, "--", message]);
    command
}

/// Runs a program to its end, which must be a good one.
fn wait_for(command: &mut Command) -> io::Result<()> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            let failed = || io::Error::other(format!("it ended with {status}"));
            return if status.success() { Ok(()) } else { Err(failed()) };
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_last_argument_and_no_shell_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("told");
        let script = format!("printf %s \"$1\" > {}", file.display());
        let command = ["sh", "-c", &script, "sh"].map(str::to_owned);
        run(&command, "$(id) & \"more\"");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "$(id) & \"more\"");
    }

    #[test]
    fn a_command_that_fails_or_is_not_there_is_an_error() {
        assert!(wait_for(&mut Command::new("false")).is_err());
        assert!(wait_for(&mut Command::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn on_a_desktop_the_message_is_an_argument_too() {
        let command = desktop_command("--help $(id)", Level::Critical);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments.last().unwrap().to_str(), Some("--help $(id)"));
    }
}
