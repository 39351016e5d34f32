//! `tokfence`: the command line.
//!
//! `args` says what can be typed, `commands` has one module a command, and the rest is what they share: `app`
//! (where everything is), `output` and `format` (what a person or a program reads), `failure` (errors, hints,
//! exit codes), `unlock` (how the vault is opened) and `prompt`.

mod args;
mod app;
mod failure;
mod output;
mod format;
mod prompt;
mod unlock;
mod commands;

use std::process::ExitCode;

use clap::Parser;

use crate::app::App;
use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let app = App::new(&args.global);
    match commands::dispatch(&app, args.command) {
        Ok(code) => code,
        Err(failure) => app.output.failure(&failure),
    }
}
