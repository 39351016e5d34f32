//! The comparison: sets up mock provider, floor, nginx and gateways, lets each round meet all of them in turn, and
//! reports. Rounds are interleaved and their order rotates, because a machine's speed drifts: what is measured
//! in one block differs from the next block by more than the subjects differ from each other.

mod memory;
mod overrun;
mod rounds;
mod setup;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::interruptible;
use crate::report::{self, Log, Machine, Run, Samples, Section};
use crate::subject::Name;
use crate::tokfence;
use setup::Setup;

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Rounds; each load of them follows a short one that warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of each load
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Connections of the json and sse loads
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Requests a second of the open-loop json load
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Threads of each proxy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// The gateway's program [default: tokfence beside this program]
    #[arg(long)]
    tokfence: Option<PathBuf>,
    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure each feature by every load, and not only by json and sse
    #[arg(long)]
    full: bool,
    /// One short round without the steps between features: shows that everything works, and says nothing of speed
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "full"])]
    quick: bool,
    /// Write all numbers to a file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the tables to a file as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Draw the costs and the latencies into a file as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Json,
    Prompts,
    Sse,
    Paced,
    Memory,
    Start,
    Overrun,
}

impl CompareArgs {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    fn seconds(&self) -> f64 {
        if self.quick { QUICK_SECONDS } else { self.seconds }
    }

    /// Whether `name` is set up at all.
    fn includes(&self, name: Name) -> bool {
        !(self.quick && name.is_step())
    }

    /// Whether `name` meets the loads of `section`.
    fn measures(&self, section: Section, name: Name) -> bool {
        self.full || !name.is_step() || matches!(section, Section::Json | Section::Sse)
    }
}

const QUICK_SECONDS: f64 = 0.2;

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    interruptible::block_on(compare(args))
}

async fn compare(args: &CompareArgs) -> Result<()> {
    let machine = Machine::of_this();
    let mut samples = Samples::default();
    let binary = gateway_binary(args)?;
    if args.wants(Part::Memory) {
        measure_memory(args, binary.as_deref(), &mut samples).await?;
    }
    let mut setup = Setup::new(args, binary.as_deref(), &mut samples).await?;
    rounds::measure_all(args, &mut setup.subjects, &mut samples).await?;
    let logs = setup.logged().await?;
    if let (Some((gateway, subject)), true) = (setup.everything(), args.wants(Part::Overrun)) {
        overrun::measure_overrun(args, gateway, subject, &mut samples).await?;
    }
    let run = Run {
        machine,
        tokfence_version: setup.version().await?,
        is_debug_build: cfg!(debug_assertions),
        rounds: args.rounds(),
        seconds: args.seconds(),
        connections: args.connections,
        rate: args.rate,
        threads: args.threads.into(),
        logs: logs.iter().map(|log| Log::new(log.name, log.answered, log.logged.requests)).collect(),
    };
    publish(args, &run, &samples)?;
    logs.iter().try_for_each(check_log)
}

/// What processes of their own hold in memory: a thousand connections leave holes in the floor's memory that make it half
/// as slow again for as long as it runs.
async fn measure_memory(args: &CompareArgs, binary: Option<&Path>, samples: &mut Samples) -> Result<()> {
    let mut setup = Setup::new(args, binary, samples).await?;
    memory::measure_growth(args, &mut setup.subjects, samples).await?;
    memory::keep_peak(&setup.subjects, samples)?;
    let logs = setup.logged().await?;
    logs.iter().filter(|log| args.measures(Section::Memory, log.name)).try_for_each(check_log)
}

/// The gateway's program, or none if there is none at the default place.
fn gateway_binary(args: &CompareArgs) -> Result<Option<PathBuf>> {
    let binary = args.tokfence.clone().map_or_else(tokfence::default_binary, Ok)?;
    if tokfence::is_present(&binary) {
        return Ok(Some(binary));
    }
    if args.tokfence.is_some() {
        bail!("no program at {}", binary.display());
    }
    progress(&format!("no tokfence at {}: measuring without it", binary.display()));
    Ok(None)
}

#[expect(clippy::print_stdout, reason = "the report is this command's output")]
fn publish(args: &CompareArgs, run: &Run, samples: &Samples) -> Result<()> {
    print!("{}", report::human(run, samples));
    if let Some(path) = &args.json {
        let document: Value = report::document(run, samples);
        write(path, &serde_json::to_string_pretty(&document).context("cannot write the report")?)?;
    }
    if let Some(path) = &args.markdown {
        write(path, &report::markdown(run, samples))?;
    }
    if let Some(path) = &args.plot {
        write(path, &report::plot(run, samples)?)?;
    }
    Ok(())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A gateway that is fast because it loses log rows, or charges no budget, is not fast.
#[expect(clippy::print_stdout, reason = "the report is this command's output")]
fn check_log(log: &setup::LogCheck) -> Result<()> {
    let logged = log.logged.requests;
    let shown = logged.map_or_else(|| "an unknown number".into(), |count| count.to_string());
    let (name, answered) = (log.name.text(), log.answered);
    println!("{name}: {answered} requests answered, {shown} logged");
    if log.name == Name::Everything {
        println!("its newest row: {}", log.logged.newest);
    }
    ensure!(logged == Some(answered), "{name}: {answered} requests were answered and {shown} logged");
    let unspent = &log.unspent_budgets;
    ensure!(unspent.is_empty(), "{name}: nothing was charged to the budgets {}", unspent.join(", "));
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress of a run of minutes")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}
