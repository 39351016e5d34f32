//! A load that is held for long: plain requests in open loop and paced streams from several agents, through the gateway
//! with everything on, while its owner changes rules by the command line. At the end it is not told how fast that was,
//! but whether anything was lost, miscounted or growing; a run in which something was fails.

mod books;
mod checks;
mod edits;
mod hold;
mod house;
mod memory;
mod samples;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::compare::{progress, write};
use crate::interruptible;
use crate::mock;
use crate::report::Machine;
use crate::tokfence;
use books::Books;
use checks::Check;
use hold::Held;
use house::House;

#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How long the load is held
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Plain requests a second, on 20 connections; 0: none
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=10_000))]
    rate: u32,
    /// Concurrent streams of 20 events a second, each of five seconds; 0: none
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(..=1000))]
    streams: u32,
    /// Changes of the rules a minute; 0: none
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=600))]
    edits: u32,
    /// Agents that ask in turn; up to a hundred of them have a budget of their own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    agents: u32,
    /// Threads of the gateway
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// The gateway's program [default: tokfence beside this program]
    #[arg(long)]
    tokfence: Option<PathBuf>,
    /// Write all numbers to a file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the tables to a file as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
}

const MINUTES_MAX: f64 = 1400.0;

impl SoakArgs {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    ensure!(
        args.minutes > 0.0 && args.minutes <= MINUTES_MAX,
        "--minutes must be above 0, at most {MINUTES_MAX}"
    );
    ensure!(args.rate > 0 || args.streams > 0, "without requests and without streams there is no load");
    interruptible::block_on(soak(args))
}

async fn soak(args: &SoakArgs) -> Result<()> {
    let machine = Machine::of_this();
    let binary = args.tokfence.clone().map_or_else(tokfence::default_binary, Ok)?;
    ensure!(tokfence::is_present(&binary), "no program at {}", binary.display());
    let mock = mock::spawn().await?;
    progress(&format!("setting up {} with {} agents", binary.display(), args.agents));
    let house = House::set_up(args, &binary, mock.address).await?;
    let version = house.gateway.tokfence.version().await?;
    let held = hold::hold(args, &house).await?;
    let books = Books::read(&house, &held).await?;
    let checks = checks::all(args, &held, &books);
    publish(args, &machine, &version, &held, &checks)?;
    let missed: Vec<&str> =
        checks.iter().filter(|check| check.is_met == Some(false)).map(|check| check.what).collect();
    ensure!(missed.is_empty(), "not as it has to be: {}", missed.join("; "));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report is this command's output")]
fn publish(args: &SoakArgs, machine: &Machine, version: &str, held: &Held, checks: &[Check]) -> Result<()> {
    let Machine { cpu, cores, kernel, load_average } = machine;
    let SoakArgs { minutes, rate, streams, edits, agents, threads, .. } = args;
    let mut text = format!(
        "{version}; {cpu}, {cores} cores, {kernel}, load average {load_average} at the start. {minutes} minutes of {rate} \
         requests/s and {streams} streams from {agents} agents, {edits} changes of the rules a minute, {threads} gateway \
         thread(s).\n"
    );
    if cfg!(debug_assertions) {
        text += "\nDebug build of bench: the times say nothing of the gateway.\n";
    }
    text += &checks::markdown(checks);
    text += &held.table().markdown();
    print!("{text}");
    if let Some(path) = &args.json {
        let document = json!({
            "machine": machine, "tokfence_version": version, "is_debug_build": cfg!(debug_assertions), "minutes": minutes,
            "rate": rate, "streams": streams, "edits": edits, "agents": agents, "threads": threads, "checks": checks,
            "times": held.table(), "samples": held.samples,
        });
        write(path, &serde_json::to_string_pretty(&document).context("cannot write the report")?)?;
    }
    args.markdown.as_ref().map_or(Ok(()), |path| write(path, &text))
}
