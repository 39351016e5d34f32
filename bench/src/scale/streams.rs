//! Many streams at once, through a gateway with a scope, budgets, limits and the scanner.

use anyhow::{Result, ensure};

use super::plan::Plan;
use crate::measure::{Measurement, measure};
use crate::mock::CREDENTIAL;
use crate::subject::{Name, Subject};
use crate::table::{Row, Table};

const EVENTS: u32 = 100;
/// With a thousand streams ten thousand events a second, which leaves the machine room: latency is what is measured.
const GAP_MS: u32 = 100;
const FEW: u32 = 20;

pub(super) async fn measure_all(plan: &Plan<'_>) -> Result<Vec<Table>> {
    let many = plan.args.streams;
    let mut gateway = plan.start(Name::Everything, "").await?;
    gateway.load("--connections 32 --seconds 1").await?;
    let before_mib = gateway.memory_mib()?;
    let mut direct = Subject {
        name: Name::Direct,
        address: plan.upstream,
        prefix: "",
        credential: CREDENTIAL.into(),
        pid: None,
        answered: 0,
    };
    let mut rows = vec![Row::new("no stream", [before_mib, None, None, None, None, None])];
    for count in [FEW, many] {
        let arguments = arguments(count);
        for (name, subject) in [("direct", &mut direct), ("tokfence", &mut gateway.subject)] {
            let measurement = measure(subject, &arguments).await?;
            let answered = measurement.load.requests;
            ensure!(answered == u64::from(count), "{answered} of {count} streams were whole");
            rows.push(row(format!("{count} streams, {name}"), &measurement));
        }
    }
    let title = format!(
        "concurrent streams of {EVENTS} events, one each {GAP_MS} ms, with scope, budgets, limits and scanner (target: \
         120 MiB with 1000)"
    );
    let columns = &[
        "RSS MiB",
        "event p50 µs",
        "event p99 µs",
        "first event p50 µs",
        "first event p99 µs",
        "CPU µs/event",
    ];
    Ok(vec![Table { title, columns, rows }])
}

fn arguments(streams: u32) -> Vec<String> {
    let text = format!(
        "--workload paced --connections {streams} --requests {streams} --events {EVENTS} --gap-ms {GAP_MS} --seconds \
         60"
    );
    text.split_ascii_whitespace().map(String::from).collect()
}

fn row(name: String, Measurement { load, cpu_us_per_request, memory_mib }: &Measurement) -> Row {
    let (event, first) = (load.event_delay, load.first_event);
    let cpu_us = cpu_us_per_request.map(|us| us / f64::from(EVENTS));
    let event = [event.map(|of| of.p50_us), event.map(|of| of.p99_us)];
    let first = [first.map(|of| of.p50_us), first.map(|of| of.p99_us)];
    Row::new(name, [*memory_mib, event[0], event[1], first[0], first[1], cpu_us])
}
