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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every name that a command or an option has, at whatever depth.
    fn names(command: &clap::Command, names: &mut Vec<String>) {
        names.push(command.get_name().to_owned());
        let long = |argument: &clap::Arg| argument.get_long().map(|name| format!("--{name}"));
        names.extend(command.get_arguments().filter_map(long));
        command.get_subcommands().for_each(|inner| self::names(inner, names));
    }

    fn any_word() -> impl Strategy<Value = String> {
        let mut known = Vec::new();
        names(&Args::command(), &mut known);
        prop_oneof![
            6 => proptest::sample::select(known),
            2 => "[-=a-z0-9./:*$]{0,12}",
            1 => ".{0,20}",
            1 => Just("1.00/daily".to_owned()),
        ]
    }

    proptest! {
        /// What cannot be meant is told in words, and help is help.
        #[test]
        fn no_arguments_are_a_fault(typed in proptest::collection::vec(any_word(), 0..8)) {
            let typed = std::iter::once("tokfence".to_owned()).chain(typed);
            if let Err(error) = Args::try_parse_from(typed) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn the_commands_agree_with_themselves() {
        Args::command().debug_assert();
    }
}
