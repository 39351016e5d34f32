//! A daemon in the background: it is told what it needs, and waited for until it serves or has said why it does not.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::{IGNORED_VARIABLES, KILLED, daemon_args, this_program};
use crate::app::App;
use crate::failure::{Exit, Failure, exit_of};
use crate::prompt;
use crate::unlock::{self, PASSPHRASE_VARIABLE, Source};

/// A daemon that does not serve by then will not: whatever it waits for, there is nobody to give it.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Starts a daemon in the background and returns when it serves, or with the reason why it does not.
pub(crate) fn start_detached(app: &App, source: Option<&Source>) -> Result<(), Failure> {
    let mut child = spawn(app, source)?;
    if let (Some(pipe), Some(Source::Passphrase(passphrase))) = (child.stdin.take(), source) {
        // A child that has ended already says why on its standard error, which is read below.
        let _ = prompt::write_secret(pipe, passphrase);
    }
    let document =
        app.output.during("starting the gateway", || wait_until_it_serves(child, START_PATIENCE))?;
    let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
    app.output.done(&document, || {
        let keys =
            if text("state") == "locked" { format!("; {}", unlock::way_to_keys(app)) } else { String::new() };
        format!("serving http://{} (process {}){keys}", text("address"), document["pid"])
    });
    if text("state") == "killed" {
        app.output.warn(KILLED);
    }
    for note in document["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        app.output.note(note);
    }
    Ok(())
}

/// The line with which a child says that it serves.
pub(crate) fn wait_until_it_serves(mut child: Child, patience: Duration) -> Result<Value, Failure> {
    let (sender, receiver) = mpsc::sync_channel(1);
    if let Some(pipe) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut line = String::new();
            // Without a line the child has ended, and its standard error says why. Who no longer waits for it has
            // ended the child.
            let _ = BufReader::new(pipe).read_line(&mut line);
            let _ = sender.send(line);
        });
    }
    let Ok(ready) = receiver.recv_timeout(patience) else { return Err(end_for_its_silence(child, patience)) };
    serde_json::from_str(&ready).map_err(|_| why_it_ended(child))
}

fn end_for_its_silence(mut child: Child, patience: Duration) -> Failure {
    // One that ended just now is as good as killed.
    let _ = child.kill();
    let _ = child.wait();
    let message = format!("the daemon did not serve within {} seconds and was ended", patience.as_secs());
    Failure::new(Exit::Failed, "start_timeout", message).with_hint("`tokfence start` shows what it waits for")
}

fn spawn(app: &App, source: Option<&Source>) -> Result<Child, Failure> {
    let program = this_program()?;
    let mut command = Command::new(program);
    command.args(daemon_args(app)).args(["--json", "start", "--background"]);
    if let Some(Source::Passphrase(_)) = source {
        command.args(["--passphrase-fd", "0"]);
    }
    for variable in IGNORED_VARIABLES.iter().chain([&PASSPHRASE_VARIABLE]) {
        command.env_remove(variable);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
    command.spawn().map_err(|error| Failure::failed("start the daemon", &error))
}

/// The failure that a child wrote to its standard error before it ended.
fn why_it_ended(mut child: Child) -> Failure {
    let mut text = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        let _ = pipe.read_to_string(&mut text);
    }
    // It has closed its standard error, so it is at its end.
    let _ = child.wait();
    let document: Value = serde_json::from_str(text.trim()).unwrap_or_default();
    let field = |key: &str| document["error"][key].as_str().map(str::to_owned);
    let code = field("code").unwrap_or_else(|| "start_failed".to_owned());
    Failure {
        exit: exit_of(&code),
        code,
        message: field("message").unwrap_or_else(|| format!("the daemon ended at once: {}", text.trim())),
        hint: field("hint"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn failure(script: &str, patience: Duration) -> Failure {
        wait_until_it_serves(child(script), patience).unwrap_err()
    }

    #[test]
    fn a_child_that_says_that_it_serves_is_believed() {
        let document = wait_until_it_serves(child(r#"echo '{"state":"ok"}'"#), START_PATIENCE).unwrap();
        assert_eq!(document["state"], "ok");
    }

    #[test]
    fn a_child_that_says_nothing_is_ended() {
        let stuck = child("exec sleep 600");
        let pid = rustix::process::Pid::from_child(&stuck);
        let failure = wait_until_it_serves(stuck, Duration::from_millis(50)).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.exit), ("start_timeout", Exit::Failed));
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn the_failure_of_a_child_is_told_as_if_it_were_ours() {
        let script = |code: &str| {
            format!(r#"echo '{{"error":{{"code":"{code}","message":"why","hint":"how"}}}}' >&2; exit 1"#)
        };
        for (code, exit) in [
            ("unsafe_file", Exit::Unsafe),
            ("keyring_unavailable", Exit::Locked),
            ("wrong_passphrase", Exit::Locked),
            ("cannot_serve", Exit::Failed),
        ] {
            let failure = failure(&script(code), START_PATIENCE);
            assert_eq!((failure.code.as_str(), failure.exit), (code, exit));
            assert_eq!((failure.message.as_str(), failure.hint.as_deref()), ("why", Some("how")));
        }
        assert_eq!(failure("echo gone >&2", START_PATIENCE).message, "the daemon ended at once: gone");
    }
}
