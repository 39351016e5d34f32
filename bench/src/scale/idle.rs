//! Connections that say nothing: what each holds in memory, and whether those that work feel them.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::plan::Plan;
use crate::client::Connection;
use crate::compare::progress;
use crate::load::request_bytes;
use crate::plan::Wire;
use crate::served::Served;
use crate::subject::Name;
use crate::table::{Row, Table};

/// A connection is made before the gateway has accepted it, and closed before it has noticed.
const SETTLE: Duration = Duration::from_secs(1);
const KIB_PER_MIB: f64 = 1024.0;
/// Connections beside the idle ones, under the cap of the configuration.
const OTHERS: u32 = 100;

pub(super) async fn measure_all(plan: &Plan<'_>) -> Result<Vec<Table>> {
    let count = plan.args.connections;
    let all = count + OTHERS;
    let limits = format!("\n[limits]\nconnections = {all}\nconnections_per_peer = {all}\n");
    let mut gateway = plan.start(Name::Everything, &limits).await?;
    // Brings memory to where it is after any load, which is no idle connection's doing.
    gateway.load("--connections 32 --seconds 2").await?;
    let mut idle = Idle { gateway, seconds: plan.args.seconds, base_mib: None, count: 0, rows: Vec::new() };
    idle.look("no idle connection").await?;
    progress(&format!("connecting {count} times"));
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::new(idle.gateway.subject.address);
        connection.connect().await?;
        connections.push(connection);
    }
    idle.count = count;
    idle.look(&format!("{count} connected")).await?;
    idle.ask(&mut connections).await?;
    idle.look(&format!("{count} after a request each")).await?;
    // A connection that was closed in the meantime fails here: then it was not idle, it was gone.
    idle.ask(&mut connections).await?;
    drop(connections);
    idle.count = 0;
    idle.look("all closed").await?;
    let title = "idle connections beside one busy connection (target: 50 KiB each)".into();
    let columns = &["RSS MiB", "KiB each", "busy p50 µs", "busy p99 µs", "CPU µs/request"];
    Ok(vec![Table { title, columns, rows: idle.rows }])
}

struct Idle {
    gateway: Served,
    seconds: f64,
    base_mib: Option<f64>,
    count: u32,
    rows: Vec<Row>,
}

impl Idle {
    async fn look(&mut self, name: &str) -> Result<()> {
        sleep(SETTLE).await;
        let rss_mib = self.gateway.memory_mib()?;
        let base_mib = *self.base_mib.get_or_insert(rss_mib.unwrap_or_default());
        let grown_kib = rss_mib.map(|rss_mib| (rss_mib - base_mib) * KIB_PER_MIB);
        let each_kib = grown_kib.filter(|_| self.count > 0).map(|kib| kib / f64::from(self.count));
        let busy = self.gateway.load(&format!("--connections 1 --seconds {}", self.seconds)).await?;
        let (p50, p99) = (busy.load.latency.map(|of| of.p50_us), busy.load.latency.map(|of| of.p99_us));
        self.rows.push(Row::new(name, [rss_mib, each_kib, p50, p99, busy.cpu_us_per_request]));
        Ok(())
    }

    async fn ask(&mut self, connections: &mut [Connection]) -> Result<()> {
        let subject = &mut self.gateway.subject;
        let request = request_bytes(Wire::Openai, subject.address, subject.prefix, &subject.credential, None);
        for connection in connections {
            connection.exchange(&request, &mut |_, _| ()).await?;
            subject.answered += 1;
        }
        Ok(())
    }
}
