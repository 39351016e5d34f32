//! One module a command.

pub(crate) mod demo;
pub(crate) mod init;
pub(crate) mod doctor;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod kill;
pub(crate) mod service;
pub(crate) mod ratelimit;
pub(crate) mod vault;
pub(crate) mod agent;
pub(crate) mod budget;
pub(crate) mod canary;
pub(crate) mod risk;
pub(crate) mod run;
pub(crate) mod inside;
pub(crate) mod launch;
pub(crate) mod env;
pub(crate) mod setup;
pub(crate) mod scan;
pub(crate) mod provider;
pub(crate) mod log;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod widget;
pub(crate) mod watch;
pub(crate) mod dashboard;
pub(crate) mod pricing;
pub(crate) mod audit;
pub(crate) mod config;
pub(crate) mod completions;
pub(crate) mod man;

use std::process::ExitCode;

use clap::Subcommand;

use crate::app::App;
use crate::failure::Failure;

/// The commands, in the order in which a newcomer needs them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show everything on a mock provider, without a key; nothing is left behind
    Demo(demo::Demo),
    /// Make the home, the vault and the database
    Init(init::Init),
    /// Check the installation and say how to mend what is wrong
    Doctor(doctor::Doctor),
    /// Start the gateway
    Start(start::Start),
    /// Stop the gateway
    Stop,
    /// Stop the gateway if it runs, and start it in the background
    Restart,
    /// Put this version in the place of the running one: no request fails, streams go on to their end
    Upgrade,
    /// Tell how the gateway is; exits 3 when it is not running
    Status,
    /// Let the gateway start by itself: as your service, or as one of the machine
    #[command(subcommand)]
    Service(service::Service),
    /// Make a running gateway forget the keys, and cut the requests that run
    Lock(stop::Lock),
    /// Give a running gateway the keys
    Unlock(start::Unlock),
    /// Serve nothing from now on, and cut what runs; works with the gateway down and outlives it
    Kill(kill::Kill),
    /// Serve again what was served before `kill`
    Unkill,
    /// Serve a provider no more
    Revoke(kill::Revoke),
    /// Serve a provider again
    Restore(kill::Restore),
    /// Limits on requests and tokens a minute, and on requests at once
    #[command(subcommand)]
    Ratelimit(ratelimit::Ratelimit),
    /// Keys of providers
    #[command(subcommand)]
    Vault(vault::Vault),
    /// Agents and their capabilities
    #[command(subcommand)]
    Agent(agent::Agent),
    /// Limits on what may be spent
    #[command(subcommand)]
    Budget(budget::Budget),
    /// Secrets that open nothing and tell what leaks
    #[command(subcommand)]
    Canary(canary::Canary),
    /// Who is restricted because of what was seen of him, and why
    Risk(risk::Risk),
    /// Run an agent with a capability of its own, revoked when it ends
    Run(run::Run),
    /// OpenClaw, or another image, in a container that reaches the gateway and nothing else
    Launch(launch::Launch),
    /// Run a command in a sandbox or a container, where this program put itself
    #[command(hide = true)]
    Inside(inside::Inside),
    /// Print the variables that point an agent's SDKs at the gateway
    Env(env::Env),
    /// Tell an agent, in its own files, where the gateway is, with a capability in the place of its key
    Setup(setup::Setup),
    /// Find keys that lie around in plain text, and move them into the vault
    Scan(scan::Scan),
    /// Providers: list, show, change, test
    #[command(subcommand)]
    Provider(provider::Provider),
    /// The log of requests
    Log(log::Log),
    /// Sums over the log
    Stats(stats::Stats),
    /// Watch everything live: what runs, what is spent, who is refused; with keys to kill and revoke
    Top,
    /// The gateway in a menu bar
    #[command(subcommand)]
    Widget(widget::Widget),
    /// Print, or open, a link to the dashboard: what happens now, what happened, and the switches, in your browser
    Dashboard(dashboard::Dashboard),
    /// Compare what providers report of their accounts with the log, to find a stolen key
    Watch(watch::Watch),
    /// Prices of models
    #[command(subcommand)]
    Pricing(pricing::Pricing),
    /// The log of what was changed, and whether it is whole
    Audit(audit::Audit),
    /// The configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print a manual page, or write all of them
    Man(man::Man),
}

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
        Command::Upgrade => done(stop::upgrade(app)),
        Command::Status => stop::status(app),
        Command::Service(command) => command.run(app),
        Command::Lock(command) => done(command.run(app)),
        Command::Unlock(command) => done(command.run(app)),
        Command::Kill(command) => done(command.run(app)),
        Command::Unkill => done(kill::unkill(app)),
        Command::Revoke(command) => done(command.run(app)),
        Command::Restore(command) => done(command.run(app)),
        Command::Ratelimit(command) => done(command.run(app)),
        Command::Vault(command) => done(command.run(app)),
        Command::Agent(command) => done(command.run(app)),
        Command::Budget(command) => done(command.run(app)),
        Command::Canary(command) => done(command.run(app)),
        Command::Risk(command) => done(command.run(app)),
        Command::Run(command) => command.run(app),
        Command::Launch(command) => command.run(app),
        Command::Inside(command) => command.run(app),
        Command::Env(command) => done(command.run(app)),
        Command::Setup(command) => command.run(app),
        Command::Scan(command) => command.run(app),
        Command::Provider(command) => done(command.run(app)),
        Command::Log(command) => done(command.run(app)),
        Command::Stats(command) => done(command.run(app)),
        Command::Top => top::top(app),
        Command::Widget(command) => done(command.run(app)),
        Command::Dashboard(command) => done(command.run(app)),
        Command::Watch(command) => command.run(app),
        Command::Pricing(command) => done(command.run(app)),
        Command::Audit(command) => command.run(app),
        Command::Config(command) => command.run(app),
        Command::Completions(command) => done(command.run(app)),
        Command::Man(command) => done(command.run(app)),
    }
}
