//! What can be typed.

use clap::Parser;

use crate::app::Global;
use crate::commands::Command;

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
