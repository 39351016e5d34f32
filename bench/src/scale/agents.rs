//! Agents: what many of them cost a request, a command, and a change of the rules.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::budgets;
use super::cases::{Case, compare};
use super::plan::Plan;
use crate::compare::progress;
use crate::measure::{Measurement, measure};
use crate::served::Served;
use crate::stats::median;
use crate::subject::Name;
use crate::table::{Row, Table};
use crate::tokfence::Tokfence;

/// Budgets of the largest gateway.
const BUDGETS: u32 = 100;
/// Mints at the beginning and at the end of which the time is told.
const TIMED: usize = 10;
/// How often rules change while requests are answered.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn measure_all(plan: &Plan<'_>) -> Result<Vec<Table>> {
    let most = plan.args.agents;
    let mut cases = Vec::new();
    let mut commands = Vec::new();
    for (agents, count) in [(1, 1), (10, 1), (100, 1), (most, 1), (most, BUDGETS)] {
        let mut new = case(plan, agents, count).await?;
        // Before any load, so that what the log adds to a command is not in here.
        commands.push(commands_of(&mut new).await?);
        cases.push(new.case);
    }
    let commands = Table {
        title: "commands and changes, with an empty log, daemon running".into(),
        columns: &[
            "first mints ms",
            "last mints ms",
            "agent list ms",
            "budget status ms",
            "status ms",
            "revoke → refused ms",
            "restore → served ms",
        ],
        rows: commands,
    };
    let (rounds, seconds) = (plan.args.rounds, plan.args.seconds);
    let changing = changes_under_load(&mut cases, seconds).await?;
    let title = "agents that ask in turn".to_owned();
    Ok(vec![commands, changing, compare(title, &mut cases, rounds, seconds).await?])
}

struct NewCase {
    case: Case,
    mints_ms: Vec<f64>,
}

async fn case(plan: &Plan<'_>, agents: u32, count: u32) -> Result<NewCase> {
    let name = format!("{agents} agents, {count} budgets");
    progress(&format!("setting up {name}"));
    let gateway = plan.start(Name::Capability, "").await?;
    let (mut tokens, mut mints_ms) = (Vec::new(), Vec::new());
    for at in 0..agents {
        let started = Instant::now();
        tokens.push(gateway.tokfence.mint_for(&agent(at), &[]).await?);
        mints_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    budgets::set(&gateway, "global", "daily").await?;
    for at in 1..count {
        budgets::set(&gateway, &format!("agent:{}", agent(at)), "daily").await?;
    }
    Ok(NewCase { case: Case { name, gateway, tokens }, mints_ms })
}

fn agent(at: u32) -> String {
    format!("agent-{at:04}")
}

async fn commands_of(NewCase { case, mints_ms }: &mut NewCase) -> Result<Row> {
    let first = median(&mints_ms[..TIMED.min(mints_ms.len())]);
    let last = median(&mints_ms[mints_ms.len().saturating_sub(TIMED)..]);
    let list = case.gateway.command_ms(&["agent", "list"]).await?;
    let budgets = case.gateway.command_ms(&["budget", "status"]).await?;
    let status = case.gateway.command_ms(&["status"]).await?;
    let (revoke, restore) = time_to_force(&mut case.gateway).await?;
    Ok(Row::new(&case.name, [first, last, list, budgets, status, revoke, restore]))
}

/// From the start of `agent revoke` and `agent restore` to the answer of a request that shows them in force. The agent
/// does nothing else: who asks again and again after a revocation is restricted.
async fn time_to_force(Served { tokfence, subject }: &mut Served) -> Result<(Option<f64>, Option<f64>)> {
    let (mut revokes_ms, mut restores_ms) = (Vec::new(), Vec::new());
    for at in 0..TIMED {
        let agent = format!("leaver-{at}");
        let token = tokfence.mint_for(&agent, &[]).await?;
        let own = std::mem::replace(&mut subject.credential, token);
        let started = Instant::now();
        tokfence.run(&["agent", "revoke", &agent], None).await?;
        ensure!(subject.probe().await.is_err(), "a revoked agent was served");
        revokes_ms.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        tokfence.run(&["agent", "restore", &agent], None).await?;
        subject.probe().await?;
        restores_ms.push(started.elapsed().as_secs_f64() * 1e3);
        subject.credential = own;
    }
    Ok((median(&revokes_ms), median(&restores_ms)))
}

/// One busy connection while rules change ten times a second: each change is read before the next request is decided.
async fn changes_under_load(cases: &mut [Case], seconds: f64) -> Result<Table> {
    let arguments = format!("--connections 1 --seconds {seconds}");
    let mut rows = Vec::new();
    for Case { name, gateway, .. } in cases {
        for (suffix, is_changing) in [("rules stay", false), ("rules change", true)] {
            let (load, changes) = load_beside_changes(gateway, &arguments, is_changing).await?;
            let latency = load.load.latency;
            let [p50, p99, max] =
                [latency.map(|of| of.p50_us), latency.map(|of| of.p99_us), latency.map(|of| of.max_us)];
            let changes = Some(f64::from(changes));
            rows.push(Row::new(
                format!("{name}, {suffix}"),
                [changes, p50, p99, max, load.cpu_us_per_request],
            ));
        }
    }
    let columns = &["changes", "p50 µs", "p99 µs", "max µs", "CPU µs/request"];
    Ok(Table { title: "one busy connection while rules change".into(), columns, rows })
}

async fn load_beside_changes(
    Served { tokfence, subject }: &mut Served,
    arguments: &str,
    is_changing: bool,
) -> Result<(Measurement, u32)> {
    let arguments: Vec<String> = arguments.split_ascii_whitespace().map(String::from).collect();
    let mut changes = 0;
    let measurement = tokio::select! {
        measurement = measure(subject, &arguments) => measurement?,
        error = change_rules(tokfence, &mut changes), if is_changing => return Err(error),
    };
    Ok((measurement, changes))
}

/// Changes a limit that nobody comes near, again and again; returns only when that fails.
async fn change_rules(tokfence: &Tokfence, changes: &mut u32) -> anyhow::Error {
    loop {
        sleep(CHANGE_EVERY).await;
        let limit = (900_000 + *changes).to_string();
        if let Err(error) = tokfence.run(&["ratelimit", "set", "agent:bench", &limit], None).await {
            return error;
        }
        *changes += 1;
    }
}
