//! What happens as things grow: idle connections, concurrent streams, agents, budgets, rows of the log. Each part has
//! gateways of its own and ends in tables; where sizes are compared, they are measured in turn within each round.

mod agents;
mod budgets;
mod cases;
mod idle;
mod plan;
mod rows;
mod streams;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::compare::{progress, write};
use crate::interruptible;
use crate::mock;
use crate::report::Machine;
use crate::table::Table;
use crate::tokfence;
use plan::Plan;

#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// Idle connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=25_000))]
    connections: u32,
    /// Concurrent streams
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=2000))]
    streams: u32,
    /// The most agents of a gateway
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1500))]
    agents: u32,
    /// Rows that the log grows to
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    rows: u64,
    /// Rounds that count, where sizes are compared; one more warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of each load
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Threads of each gateway
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// The gateway's program [default: tokfence beside this program]
    #[arg(long)]
    tokfence: Option<PathBuf>,
    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Write all numbers to a file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the tables to a file as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Idle,
    Streams,
    Agents,
    Budgets,
    Rows,
}

impl Part {
    const ALL: [Self; 5] = [Self::Idle, Self::Streams, Self::Agents, Self::Budgets, Self::Rows];
}

pub(crate) fn run(args: &ScaleArgs) -> Result<()> {
    interruptible::block_on(scale(args))
}

async fn scale(args: &ScaleArgs) -> Result<()> {
    let machine = Machine::of_this();
    let binary = args.tokfence.clone().map_or_else(tokfence::default_binary, Ok)?;
    ensure!(tokfence::is_present(&binary), "no program at {}", binary.display());
    let mock = mock::spawn().await?;
    let plan = Plan { args, binary: &binary, upstream: mock.address };
    let mut tables = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| args.only.is_empty() || args.only.contains(part)) {
        progress(&format!("{part:?}"));
        tables.extend(match part {
            Part::Idle => idle::measure_all(&plan).await?,
            Part::Streams => streams::measure_all(&plan).await?,
            Part::Agents => agents::measure_all(&plan).await?,
            Part::Budgets => budgets::measure_all(&plan).await?,
            Part::Rows => rows::measure_all(&plan).await?,
        });
    }
    publish(args, &machine, &tables)
}

#[expect(clippy::print_stdout, reason = "the report is this command's output")]
fn publish(args: &ScaleArgs, machine: &Machine, tables: &[Table]) -> Result<()> {
    let Machine { cpu, cores, kernel, load_average } = machine;
    let mut text = format!(
        "{cpu}, {cores} cores, {kernel}, load average {load_average} at the start. {} gateway thread(s); where sizes \
         are compared, the median of {} round(s) of {} s, sizes in turn.\n",
        args.threads, args.rounds, args.seconds
    );
    if cfg!(debug_assertions) {
        text += "\nDebug build of bench: the numbers mean nothing.\n";
    }
    text.extend(tables.iter().map(Table::markdown));
    print!("{text}");
    if let Some(path) = &args.json {
        let document = json!({ "machine": machine, "threads": args.threads, "tables": tables });
        write(path, &serde_json::to_string_pretty(&document).context("cannot write the report")?)?;
    }
    args.markdown.as_ref().map_or(Ok(()), |path| write(path, &text))
}
