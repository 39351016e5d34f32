//! A role of this program as a child process: how it tells its address, and how it ends with its parent.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

const START_WAIT_MAX: Duration = Duration::from_secs(15);

/// Flags that every serving role has.
#[derive(Debug, clap::Args)]
pub(crate) struct RoleArgs {
    /// Loopback address to listen on; port 0 takes a free one. The bound address is the one line of stdout
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Exit when stdin ends, so that a parent that dies leaves nothing running
    #[arg(long)]
    exit_with_stdin: bool,
}

impl RoleArgs {
    /// What holds for each role before it serves.
    pub(crate) fn prepare(&self) -> Result<()> {
        ensure_loopback(self.listen)?;
        if self.exit_with_stdin {
            std::thread::spawn(|| {
                // An error ends the wait like the end of the input does: either way nobody is there.
                let _ = std::io::stdin().read_to_end(&mut Vec::new());
                std::process::exit(0);
            });
        }
        Ok(())
    }
}

/// Load and mock answers stay on this machine: what they say is no credential's business elsewhere.
pub(crate) fn ensure_loopback(address: SocketAddr) -> Result<()> {
    ensure!(address.ip().is_loopback(), "{address} is not a loopback address");
    Ok(())
}

/// Tells the bound address, as the one line of stdout.
pub(crate) fn announce(address: SocketAddr) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{address}").and_then(|()| stdout.flush()).context("cannot announce the address")
}

/// A role running as a child, killed when dropped.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    _child: Child,
    _stdin: ChildStdin,
}

impl Role {
    /// Starts `bench NAME ARGS` and waits until it announced its address.
    pub(crate) async fn spawn(name: &str, args: &[String], environment: &[(&str, &str)]) -> Result<Self> {
        Self::start(own_command(name)?, name, args, environment).await
    }

    /// The same, run by another program: `WRAPPER bench NAME ARGS`, in one process.
    pub(crate) async fn spawn_under(wrapper: &[String], name: &str, args: &[String]) -> Result<Self> {
        let (program, options) = wrapper.split_first().context("no program to run under")?;
        let mut command = Command::new(program);
        command.args(options).arg(own_path()?).arg(name).kill_on_drop(true);
        Self::start(command, &format!("{name} under {program}"), args, &[]).await
    }

    async fn start(
        mut command: Command,
        name: &str,
        args: &[String],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut child = command
            .args(args)
            .arg("--exit-with-stdin")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take().context("child without stdin")?;
        let stdout = child.stdout.take().context("child without stdout")?;
        let mut line = String::new();
        timeout(START_WAIT_MAX, BufReader::new(stdout).read_line(&mut line))
            .await
            .with_context(|| format!("{name} did not announce its address in {START_WAIT_MAX:?}"))?
            .with_context(|| format!("cannot read the address of {name}"))?;
        let address = line.trim().parse().with_context(|| format!("{name} announced {line:?}"))?;
        let pid = child.id().with_context(|| format!("{name} exited"))?;
        Ok(Self { address, pid, _child: child, _stdin: stdin })
    }
}

/// This program again, as `role`.
pub(crate) fn own_command(role: &str) -> Result<Command> {
    let mut command = Command::new(own_path()?);
    command.arg(role).kill_on_drop(true);
    Ok(command)
}

fn own_path() -> Result<PathBuf> {
    std::env::current_exe().context("own path is unknown")
}
