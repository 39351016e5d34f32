//! Instructions in user space: what a request and an event of a stream cost, counted by valgrind. Times depend on the
//! machine and on who else is on it; these counts repeat within a hundredth, so a change that makes the gateway dearer
//! shows at once. The ratio to the floor of the same run is what is held against what was accepted, since a new
//! compiler moves both.

mod bounds;
mod caller;
mod callgrind;
mod count;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::child::Role;
use crate::interruptible;
use crate::mock::{self, CREDENTIAL};
use crate::subject::{Name, Subject};
use crate::tokfence::{self, Tokfence};
use bounds::Bounds;
use callgrind::Callgrind;
use count::{Counted, count};

const THREADS: usize = 1;

#[derive(Debug, clap::Args)]
pub(crate) struct InstructionsArgs {
    /// How often everything is counted; the median is told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Requests of each round
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    requests: u32,
    /// The gateway's program [default: tokfence beside this program]
    #[arg(long)]
    tokfence: Option<PathBuf>,
    /// Write all numbers to a file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// The file of what was accepted
    #[arg(long, default_value = "bench/instructions.toml")]
    bounds: PathBuf,
    /// Fail when a count is more than 5 % above what was accepted
    #[arg(long)]
    check: bool,
    /// Accept what is counted now
    #[arg(long, conflicts_with = "check")]
    bless: bool,
}

pub(crate) fn run(args: &InstructionsArgs) -> Result<()> {
    interruptible::block_on(count_both(args))
}

#[expect(clippy::print_stdout, reason = "the report is this command's output")]
async fn count_both(args: &InstructionsArgs) -> Result<()> {
    let binary = args.tokfence.clone().map_or_else(tokfence::default_binary, Ok)?;
    ensure!(tokfence::is_present(&binary), "no program at {}", binary.display());
    let accepted = args.check.then(|| Bounds::read(&args.bounds)).transpose()?;
    ensure!(!(cfg!(debug_assertions) && (args.check || args.bless)), "bounds are for release builds");
    let mock = mock::spawn().await?;
    let counted = [count_floor(args, &mock).await?, count_gateway(args, &mock, &binary).await?];
    let [floor, gateway] = &counted;
    print!("{}", table::human(&counted));
    if let Some(path) = &args.json {
        let text =
            serde_json::to_string_pretty(&table::document(&counted)).context("cannot write the report")?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let now = Bounds::of(floor, gateway);
    if args.bless {
        now.write(&args.bounds)?;
    }
    accepted.map_or(Ok(()), |accepted| check(&accepted, &now))
}

#[expect(clippy::print_stdout, reason = "the report is this command's output")]
fn check(accepted: &Bounds, now: &Bounds) -> Result<()> {
    let verdict = accepted.judge(now);
    println!("{}", verdict.lines.join("\n"));
    ensure!(verdict.is_accepted, "the gateway takes more instructions than were accepted");
    Ok(())
}

async fn count_floor(args: &InstructionsArgs, mock: &Role) -> Result<Counted> {
    let callgrind = Callgrind::new()?;
    let options = ["--upstream", &mock.address.to_string(), "--threads", &THREADS.to_string()];
    let floor = Role::spawn_under(&callgrind.wrapper(), "floor", &options.map(String::from)).await?;
    let (address, pid) = (floor.address, Some(floor.pid));
    let credential = CREDENTIAL.into();
    let mut subject = Subject { name: Name::Floor, address, prefix: "", credential, pid, answered: 0 };
    count(args, &callgrind, &mut subject).await
}

/// The gateway with everything on. What it did not log or charge, it did not do.
async fn count_gateway(args: &InstructionsArgs, mock: &Role, binary: &Path) -> Result<Counted> {
    let callgrind = Callgrind::new()?;
    let gateway = Tokfence::set_up(Name::Everything, binary, mock.address, THREADS, CREDENTIAL).await?;
    // Dropped after the counts are taken, and before the gateway is told to stop.
    let (mut subject, _process) = gateway.start_under(&callgrind.wrapper()).await?;
    let counted = count(args, &callgrind, &mut subject).await?;
    let logged = gateway.logged(subject.answered).await?.requests;
    if logged != Some(subject.answered) {
        bail!("{} requests were answered, and the log has {logged:?}", subject.answered);
    }
    let unspent = gateway.unspent_budgets().await?;
    ensure!(unspent.is_empty(), "nothing was charged to the budgets {}", unspent.join(", "));
    Ok(counted)
}
