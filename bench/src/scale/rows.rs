//! A log that grows: what a request costs at its beginning and at its end, and how long commands and a start take then.
//! The rows are made by requests through the gateway, so they are what it writes, at the speed at which it writes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::plan::Plan;
use crate::compare::progress;
use crate::served::Served;
use crate::stats::median;
use crate::subject::Name;
use crate::table::{Row, Table};

/// Rows of one load while the log grows.
const STEP: u64 = 50_000;
const STEP_SECONDS: u32 = 300;
/// Steps between two looks, at most: a row of the table is told of the steps since the one before.
const LOOKS: u64 = 10;
/// The gateway sums rows up half a minute after they were written, some thousands at a time.
const REST: Duration = Duration::from_secs(60);
const STARTS: usize = 3;
const MIB: f64 = 1_048_576.0;
const COMMANDS: [(&str, &[&str]); 7] = [
    ("status", &["status"]),
    ("log --limit 50", &["log", "--limit", "50"]),
    ("log --agent bench --limit 50", &["log", "--agent", "bench", "--limit", "50"]),
    ("log --agent rare --limit 50", &["log", "--agent", "rare", "--limit", "50"]),
    ("stats", &["stats"]),
    ("stats --period all", &["stats", "--period", "all"]),
    ("agent list", &["agent", "list"]),
];

pub(super) async fn measure_all(plan: &Plan<'_>) -> Result<Vec<Table>> {
    let mut gateway = plan.start(Name::Everything, "").await?;
    ask_as_rare(&mut gateway).await?;
    // Warms up, and gives commands something to show.
    gateway.load("--connections 32 --requests 1000").await?;
    let before = times(&mut gateway).await?;
    let growth = grow(&mut gateway, plan.args.rows).await?;
    let logged = gateway.subject.answered;
    let after = times(&mut gateway).await?;
    progress(&format!("resting {REST:?}"));
    sleep(REST).await;
    let rested = times(&mut gateway).await?;
    let names = COMMANDS.map(|(name, _)| name).into_iter().chain(["start to first answer", "set a budget"]);
    let rows = names.zip(before.into_iter().zip(after).zip(rested));
    let rows =
        rows.map(|(name, ((before, after), rested))| Row::new(name, [before, after, rested])).collect();
    let title = format!(
        "commands with 1,000 rows, with {logged} right after the last, and a minute later, when they are summed up; \
         daemon running"
    );
    Ok(vec![growth, Table { title, columns: &["1,000 rows ms", "all rows ms", "a minute later ms"], rows }])
}

/// One row of an agent that never asks again.
async fn ask_as_rare(gateway: &mut Served) -> Result<()> {
    let token = gateway.tokfence.mint_for("rare", &[]).await?;
    gateway.load_by(&[token], "--connections 1 --requests 1").await.map(drop)
}

async fn grow(gateway: &mut Served, target: u64) -> Result<Table> {
    let steps = target.div_ceil(STEP);
    let mut rows = Vec::new();
    let mut since = Sums::default();
    for step in 1..=steps {
        since.add(gateway).await?;
        if step % steps.div_ceil(LOOKS) == 0 || step == steps {
            progress(&format!("{} rows", gateway.subject.answered));
            rows.push(std::mem::take(&mut since).row(gateway)?);
        }
    }
    let title =
        format!("a growing log: each row tells of the requests since the one before, in loads of {STEP}");
    let columns = &["CPU µs/request", "requests/s", "p50 µs", "p99 µs", "RSS MiB", "database MiB"];
    Ok(Table { title, columns, rows })
}

/// The sums of some loads, all of the same length.
#[derive(Debug, Default)]
struct Sums {
    loads: u32,
    cpu_us: f64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Sums {
    async fn add(&mut self, gateway: &mut Served) -> Result<()> {
        let arguments = format!("--connections 32 --requests {STEP} --seconds {STEP_SECONDS}");
        let measurement = gateway.load(&arguments).await?;
        let latency = measurement.load.latency.context("answers without a latency")?;
        self.loads += 1;
        self.cpu_us += measurement.cpu_us_per_request.unwrap_or_default();
        self.rate += measurement.load.requests_per_s;
        self.p50_us += latency.p50_us;
        self.p99_us += latency.p99_us;
        Ok(())
    }

    fn row(self, gateway: &Served) -> Result<Row> {
        let mean = |sum: f64| Some(sum / f64::from(self.loads));
        let values = [
            mean(self.cpu_us),
            mean(self.rate),
            mean(self.p50_us),
            mean(self.p99_us),
            gateway.memory_mib()?,
            Some(database_bytes(gateway)? as f64 / MIB),
        ];
        Ok(Row::new(format!("{} rows", gateway.subject.answered), values))
    }
}

/// The database with what is not yet moved into its file.
fn database_bytes(gateway: &Served) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(gateway.tokfence.home()).context("cannot list the home")? {
        let entry = entry.context("cannot list the home")?;
        if entry.file_name().to_string_lossy().starts_with("tokfence.db") {
            bytes += entry.metadata().context("cannot look at the database")?.len();
        }
    }
    Ok(bytes)
}

/// Milliseconds of each command, of a start, and of setting a budget that counts what the log says.
async fn times(gateway: &mut Served) -> Result<Vec<Option<f64>>> {
    let mut times = Vec::new();
    for (name, arguments) in COMMANDS {
        progress(name);
        times.push(gateway.command_ms(arguments).await?);
    }
    let mut starts_ms = Vec::new();
    for _ in 0..STARTS {
        starts_ms.push(ms(gateway.tokfence.restart(&mut gateway.subject).await?));
    }
    times.push(median(&starts_ms));
    let started = Instant::now();
    gateway.tokfence.run(&["budget", "set", "openai", "100000000", "total"], None).await?;
    times.push(Some(ms(started.elapsed())));
    gateway.tokfence.run(&["budget", "clear", "openai", "total"], None).await?;
    // What the writer still does of that is no request's cost.
    sleep(Duration::from_millis(200)).await;
    Ok(times)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
