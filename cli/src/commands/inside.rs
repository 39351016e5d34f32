//! `inside`: the first of our own processes in a sandbox or a container. It opens the ways to the gateway and runs the
//! command that everything is for. Nobody types it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::app::App;
use crate::child;
use crate::failure::{Exit, Failure};
use crate::relay::{self, Way};

#[derive(Debug, Args)]
pub(crate) struct Inside {
    /// A way to carry connections: LISTEN=TO, each an address or the path of a socket
    #[arg(long = "way", value_name = "LISTEN=TO")]
    ways: Vec<Way>,
    /// A file of NAME=VALUE lines for the command's environment, where others can look into that of this process
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// The command, after `--`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Inside {
    pub(crate) fn run(self, _: &App) -> Result<ExitCode, Failure> {
        let mut signals = child::signals()?;
        relay::start(&self.ways).map_err(|error| Failure::failed("open the way to the gateway", &error))?;
        if let Some(code) = child::ended_before(&mut signals) {
            return Ok(code);
        }
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).envs(self.variables()?);
        child::wait(spawn(&mut command)?, signals, child::to_child)
    }

    fn variables(&self) -> Result<Vec<(String, String)>, Failure> {
        let Some(path) = &self.env_file else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::failed(&format!("read {}", path.display()), &error))?;
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(text.lines().filter_map(pair).collect())
    }
}

/// Starts a command of the user's.
pub(crate) fn spawn(command: &mut Command) -> Result<std::process::Child, Failure> {
    command.spawn().map_err(|error| {
        let message = format!("cannot run `{}`: {error}", command.get_program().display());
        Failure::new(Exit::Failed, "cannot_run", message)
    })
}
