//! Measures what `tokfence` costs: the same load goes straight to a mock provider, through a bare Pingora
//! proxy (the floor), and through the gateway, interleaved in one run. Each role is a subcommand and a process
//! of its own, so that one's CPU time and memory never count as another's. The gateway is driven as users
//! drive it, by its command line and over HTTP; this crate links none of the project's other crates.

mod cli;
mod compare;
mod instructions;
mod measure;
mod report;
mod table;
mod scale;
mod soak;

mod served;
mod subject;
mod tokfence;

mod floor;
mod mock;
mod nginx;
mod scrape;

mod client;
mod load;

mod child;
mod clock;
mod http;
mod interruptible;
mod open_files;
mod plan;
mod process;
mod sse;
mod stats;

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "the one place where an error reaches its reader")]
fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
