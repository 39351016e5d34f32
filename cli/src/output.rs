//! What is printed: data on standard output, everything else on standard error; one JSON document where asked.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::spinner;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
    pub(crate) is_quiet: bool,
    pub(crate) color: Color,
}

impl Output {
    /// Prints a result: `document` under `--json`, `text` otherwise.
    pub(crate) fn data(&self, document: &Value, text: impl FnOnce() -> String) {
        if self.is_json {
            write_out(&format!("{document:#}\n"));
        } else {
            let text = text();
            write_out(&if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" });
        }
    }

    /// Prints a result that has one form, whatever was asked for.
    pub(crate) fn text(&self, text: &str) {
        write_out(&format!("{text}\n"));
    }

    /// Prints one line of a result that goes on for as long as it is watched: compact JSON, or text.
    pub(crate) fn line(&self, document: &Value, text: impl FnOnce() -> String) {
        write_out(&if self.is_json { format!("{document}\n") } else { text() + "\n" });
    }

    /// Says what was done. Under `--json` the document says it; `--quiet` wants to hear nothing.
    pub(crate) fn done(&self, document: &Value, text: impl FnOnce() -> String) {
        if self.is_json {
            self.data(document, String::new);
        } else if !self.is_quiet {
            write_out(&(text() + "\n"));
        }
    }

    /// Something worth knowing beside the result. Under `--json` standard error holds one document, or nothing.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_quiet && !self.is_json {
            write_err(&format!("{} {text}\n", self.paint("note:", "36")));
        }
    }

    /// Something that a person should not miss.
    pub(crate) fn warn(&self, text: &str) {
        if !self.is_json {
            write_err(&format!("{} {text}\n", self.paint("warning:", "33")));
        }
    }

    /// Does what may take long; at a terminal it is said what that is, until it is done. What is printed meanwhile
    /// would be mixed with that, so the work itself prints nothing.
    pub(crate) fn during<T>(&self, doing: &'static str, work: impl FnOnce() -> T) -> T {
        if self.is_quiet || self.is_json { work() } else { spinner::during(doing, work) }
    }

    /// Prints why the command failed, and answers the exit code that says so to scripts.
    pub(crate) fn failure(&self, failure: &Failure) -> ExitCode {
        if self.is_json {
            let error = json!({ "code": failure.code, "message": failure.message, "hint": failure.hint });
            write_err(&format!("{:#}\n", json!({ "error": error })));
        } else {
            write_err(&format!("{} {}\n", self.paint("error:", "31;1"), failure.message));
            if let Some(hint) = &failure.hint {
                write_err(&format!("{} {hint}\n", self.paint("hint:", "36")));
            }
        }
        ExitCode::from(failure.exit as u8)
    }

    /// Whether what is written there is coloured.
    pub(crate) fn has_color(&self, target: &impl IsTerminal) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => target.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.has_color(&io::stderr()) { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A reader that has gone away (`| head`) is no failure: there is nobody left to read one.
fn write_out(text: &str) {
    if io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).is_err() {
        std::process::exit(0);
    }
}

fn write_err(text: &str) {
    // If standard error cannot be written to, there is no place left to say so.
    let _ = io::stderr().write_all(text.as_bytes());
}
