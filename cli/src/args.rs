//! What can be typed.

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};

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

impl Args {
    /// What was typed, and the name of its command without anything that was typed behind it: `agent revoke`.
    pub(crate) fn read() -> Result<(Self, String), clap::Error> {
        let mut parser = Self::command();
        let matches = parser.try_get_matches_from_mut(std::env::args_os())?;
        let args = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut parser))?;
        Ok((args, words(&matches).join(" ")))
    }
}

fn words(matches: &ArgMatches) -> Vec<&str> {
    let mut words = Vec::new();
    let mut next = matches.subcommand();
    while let Some((word, inner)) = next {
        words.push(word);
        next = inner.subcommand();
    }
    words
}
