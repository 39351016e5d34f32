//! The load itself: requests, streams and changes of the rules, beside each other, while the gateway is looked at.

use anyhow::{Result, bail};

use super::SoakArgs;
use super::edits::{self, Edits};
use super::house::House;
use super::samples::{Sample, watch};
use crate::load::LoadReport;
use crate::measure::run_load;
use crate::stats::Quantiles;
use crate::subject::Subject;
use crate::table::{Row, Table};

const CONNECTIONS: u32 = 20;
/// Content events of each stream; with the gap five seconds.
pub(super) const STREAM_EVENTS: u32 = 100;
const STREAM_GAP_MS: u32 = 50;

/// What a load met, and what was seen of the gateway meanwhile. `None` is what was not asked for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) json: Option<LoadReport>,
    pub(super) streams: Option<LoadReport>,
    pub(super) edits: Edits,
    pub(super) samples: Vec<Sample>,
}

pub(super) async fn hold(args: &SoakArgs, house: &House) -> Result<Held> {
    let seconds = args.length().as_secs_f64();
    let json = (args.rate > 0).then(|| {
        format!("--workload json --connections {CONNECTIONS} --rate {} --seconds {seconds}", args.rate)
    });
    let streams = (args.streams > 0).then(|| {
        format!(
            "--workload paced --connections {} --events {STREAM_EVENTS} --gap-ms {STREAM_GAP_MS} --seconds {seconds}",
            args.streams
        )
    });
    let subject = &house.gateway.subject;
    let Some(pid) = subject.pid else { bail!("a gateway without a process") };
    let caller = Subject { credential: house.tokens.join(" "), answered: 0, ..*subject };
    let (wal, mut samples) = (house.wal(), Vec::new());
    let all = async {
        tokio::try_join!(
            load(&caller, json),
            load(&caller, streams),
            edits::make(&house.gateway.tokfence, args.edits, args.length())
        )
    };
    let (json, streams, edits) = tokio::select! {
        found = all => found?,
        error = watch(pid, &wal, args.length(), &mut samples) => return Err(error),
    };
    Ok(Held { json, streams, edits, samples })
}

async fn load(caller: &Subject, arguments: Option<String>) -> Result<Option<LoadReport>> {
    let Some(arguments) = arguments else { return Ok(None) };
    let arguments: Vec<String> = arguments.split_ascii_whitespace().map(String::from).collect();
    run_load(caller, &arguments).await.map(Some)
}

impl Held {
    /// Times, for information: of a machine's speed this says more than of the gateway's.
    pub(super) fn table(&self) -> Table {
        let row = |name: &str, found: Option<Quantiles>| {
            let of = |value: fn(Quantiles) -> f64| found.map(|found| value(found) / 1e3);
            Row::new(name, [of(|q| q.p50_us), of(|q| q.p99_us), of(|q| q.p999_us), of(|q| q.max_us)])
        };
        let (json, streams) = (self.json.as_ref(), self.streams.as_ref());
        let rows = vec![
            row("request, from when it was due", json.and_then(|load| load.latency)),
            row("event, from its write by the provider", streams.and_then(|load| load.event_delay)),
            row("first event of a stream", streams.and_then(|load| load.first_event)),
            row("change of the rules, the whole command", self.edits.took.quantiles()),
        ];
        let columns = &["p50 ms", "p99 ms", "p99.9 ms", "max ms"];
        Table { title: "times, for information".into(), columns, rows }
    }
}
