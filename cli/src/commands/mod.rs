//! One module a command.

pub(crate) mod demo;
pub(crate) mod init;
pub(crate) mod doctor;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod vault;
pub(crate) mod agent;
pub(crate) mod run;
pub(crate) mod env;
pub(crate) mod provider;
pub(crate) mod log;
pub(crate) mod stats;
pub(crate) mod pricing;
pub(crate) mod config;
pub(crate) mod completions;

use std::process::ExitCode;

use crate::app::App;
use crate::args::Command;
use crate::failure::Failure;

/// Runs the command that was typed.
pub(crate) fn dispatch(app: &App, command: Command) -> Result<ExitCode, Failure> {
    let done = |result: Result<(), Failure>| result.map(|()| ExitCode::SUCCESS);
    match command {
        Command::Demo(command) => done(command.run(app)),
        Command::Init(command) => done(command.run(app)),
        Command::Doctor(command) => command.run(app),
        Command::Start(command) => done(command.run(app)),
        Command::Stop => done(stop::stop(app)),
        Command::Restart => done(stop::restart(app)),
        Command::Status => stop::status(app),
        Command::Lock => done(stop::lock(app)),
        Command::Unlock(command) => done(command.run(app)),
        Command::Vault(command) => done(command.run(app)),
        Command::Agent(command) => done(command.run(app)),
        Command::Run(command) => command.run(app),
        Command::Env(command) => done(command.run(app)),
        Command::Provider(command) => done(command.run(app)),
        Command::Log(command) => done(command.run(app)),
        Command::Stats(command) => done(command.run(app)),
        Command::Pricing(command) => done(command.run(app)),
        Command::Config(command) => done(command.run(app)),
        Command::Completions(command) => done(command.run(app)),
    }
}
