//! `tokfence`: the command line.
//!
//! `args` says what can be typed, `commands` has one module a command, and the rest is what they share: `app`
//! (where everything is), `output`, `spinner` and `format` (what a person or a program reads), `failure` (errors, hints,
//! exit codes), `defect` (errors of ours), `unlock` (how the vault is opened), `prompt`, `daemon_log`, `shield` (who
//! may look into this process), `user_file` (files of others), `agents` (what each agent reads), `child` (a command
//! that is run for somebody), `sandbox` (what is around it), `relay` (how it gets out of there) and `engine` (who has
//! containers).

mod args;
mod app;
mod failure;
mod defect;
mod output;
mod spinner;
mod columns;
mod format;
mod prompt;
mod unlock;
mod daemon_log;
mod shield;
mod user_file;
mod agents;
mod child;
mod relay;
mod sandbox;
mod engine;
mod commands;

use std::process::ExitCode;

use crate::app::App;
use crate::args::Args;
use crate::failure::Failure;
use crate::output::{Color, Output};

/// What a burst of connections leaves free is found again at once; see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    shield::memory();
    let (args, command) = match Args::read() {
        Ok(read) => read,
        Err(error) => return usage_error(&error),
    };
    let app = App::new(&args.global, command);
    defect::tell_by(app.output);
    match commands::dispatch(&app, args.command) {
        Ok(code) => code,
        Err(failure) => app.output.failure(&failure),
    }
}

/// Help and version go where clap sends them; a mistake is told in JSON to whoever asked for JSON.
fn usage_error(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() || !wants_json {
        error.exit();
    }
    let output = Output { is_json: true, is_quiet: false, color: Color::Never };
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    output.failure(&Failure::usage(message).with_hint("tokfence --help"))
}
