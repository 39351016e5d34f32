//! What can be typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::commands;
use crate::output::Color;

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed · 2 usage · 3 daemon not running · 4 vault locked or wrong \
passphrase · 5 no such provider, agent or record · 6 found something · 7 refused as unsafe";

/// A gateway between AI agents and their providers.
#[derive(Debug, Parser)]
#[command(name = "tokfence", version, about, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Global {
    /// Where everything is kept
    #[arg(long, global = true, env = "TOKFENCE_HOME", value_name = "DIR", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// The configuration file, instead of the home's config.toml
    #[arg(long, global = true, env = "TOKFENCE_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON document instead of text, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
}

/// The commands, in the order in which a newcomer needs them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show everything on a mock provider, without a key; nothing is left behind
    Demo(commands::demo::Demo),
    /// Make the home, the vault and the database
    Init(commands::init::Init),
    /// Check the installation and say how to mend what is wrong
    Doctor(commands::doctor::Doctor),
    /// Start the gateway
    Start(commands::start::Start),
    /// Stop the gateway
    Stop,
    /// Stop the gateway if it runs, and start it in the background
    Restart,
    /// Tell how the gateway is; exits 3 when it is not running
    Status,
    /// Make a running gateway forget the keys
    Lock,
    /// Give a running gateway the keys
    Unlock(commands::start::Unlock),
    /// Keys of providers
    #[command(subcommand)]
    Vault(commands::vault::Vault),
    /// Agents and their capabilities
    #[command(subcommand)]
    Agent(commands::agent::Agent),
    /// Run an agent with a capability of its own, revoked when it ends
    Run(commands::run::Run),
    /// Print the variables that point an agent's SDKs at the gateway
    Env(commands::env::Env),
    /// Providers: list, show, change, test
    #[command(subcommand)]
    Provider(commands::provider::Provider),
    /// The log of requests
    Log(commands::log::Log),
    /// Sums over the log
    Stats(commands::stats::Stats),
    /// Prices of models
    #[command(subcommand)]
    Pricing(commands::pricing::Pricing),
    /// The configuration
    #[command(subcommand)]
    Config(commands::config::Config),
    /// Print a completion script for a shell
    Completions(commands::completions::Completions),
}
