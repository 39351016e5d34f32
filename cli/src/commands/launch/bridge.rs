//! The process that carries connections in and out of an agent's container: from the port of this machine to the agent,
//! and from the agent to the gateway. It outlives the gateway's restarts, and ends with `launch stop`.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::folder::{Folder, give};
use crate::app::App;
use crate::child;
use crate::commands::start::{daemon_args, this_program, wait_until_it_serves};
use crate::failure::{Exit, Failure};
use crate::relay::{self, Endpoint, Way};

/// How long it may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries, until it is told to end.
pub(super) fn run(app: &App, folder: &Folder) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed("carry connections", &error);
    let launched = folder.load()?;
    // A session of its own: the terminal it was started from can go.
    rustix::process::setsid().map_err(|error| Failure::failed("leave the terminal", &error))?;
    let mut lock =
        File::options().write(true).create(true).truncate(false).open(folder.lock()).map_err(failed)?;
    if lock.try_lock().is_err() {
        return Err(Failure::new(Exit::Failed, "already_running", "another process carries them already"));
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    let mut signals = child::signals()?;
    let gateway = app.config()?.daemon.socket_path;
    let port = Endpoint::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, launched.port)));
    let ways = [
        Way { listen: port, to: Endpoint::Unix(folder.agent_socket()) },
        Way { listen: Endpoint::Unix(folder.gateway_socket()), to: Endpoint::Unix(gateway) },
    ];
    relay::start(&ways).map_err(|error| {
        let message = format!("cannot listen on 127.0.0.1:{}: {error}", launched.port);
        Failure::new(Exit::Failed, "cannot_listen", message).with_hint("--port PORT")
    })?;
    give(&folder.gateway_socket(), launched.owner)?;
    app.output.line(&json!({ "state": "ok" }), String::new);
    // It is told to end by any of them.
    let _ = signals.forever().next();
    Ok(())
}

/// Starts it, and returns when it carries.
pub(super) fn start(app: &App, name: &str) -> Result<(), Failure> {
    let mut command = Command::new(this_program()?);
    command.args(daemon_args(app)).args(["--json", "launch", "bridge", "--name", name]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
    let child = command.spawn().map_err(|error| Failure::failed("carry connections", &error))?;
    wait_until_it_serves(child, PATIENCE).map(drop)
}

/// Ends it, if it runs.
pub(super) fn stop(folder: &Folder) -> Result<(), Failure> {
    let begun = Instant::now();
    while let Some(pid) = folder.bridge().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
        let is_late = begun.elapsed() > PATIENCE / 2;
        if begun.elapsed() > PATIENCE {
            return Err(Failure::new(
                Exit::Failed,
                "still_running",
                "the process that carries connections does not end",
            ));
        }
        // One that is gone needs none.
        let _ = kill_process(pid, if is_late { Signal::KILL } else { Signal::TERM });
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
