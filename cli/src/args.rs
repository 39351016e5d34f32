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
    /// The page is what `--help` says. `TOKFENCE_BLESS=1` writes it.
    #[test]
    fn the_reference_of_commands_is_of_this_version() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
        let options = clap_markdown::MarkdownOptions::new().show_footer(false).title("Commands".to_owned());
        let page = clap_markdown::help_markdown_custom::<Args>(&options);
        if std::env::var_os("TOKFENCE_BLESS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        let hint =
            "docs/cli.md is of other commands: TOKFENCE_BLESS=1 cargo test --workspace reference_of_commands";
        assert!(page == written, "{hint}");
    }
    /// Every command that can be typed, without those that only lead to others.
    fn leaves(command: &clap::Command, words: &mut Vec<String>, all: &mut Vec<String>) {
        let inner: Vec<_> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).collect();
        if inner.is_empty() {
            all.push(words.join(" "));
        }
        for command in inner {
            words.push(command.get_name().to_owned());
            leaves(command, words, all);
            words.pop();
        }
    }

    #[test]
    fn the_page_on_json_tells_of_every_command() {
        let page = include_str!("../../docs/json.md");
        let mut all = Vec::new();
        leaves(&Args::command(), &mut Vec::new(), &mut all);
        all.retain(|words| {
            !page.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{words}`")))
        });
        assert!(all.is_empty(), "docs/json.md does not tell of {all:?}");
    }
}
