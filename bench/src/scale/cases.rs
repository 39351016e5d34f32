//! Gateways of different sizes under the same load, in turn within each round: a size that costs more shows as a ratio
//! to the first one, whatever the machine does meanwhile.

use anyhow::Result;

use crate::compare::progress;
use crate::measure::Measurement;
use crate::served::Served;
use crate::stats::{median, paired_median};
use crate::table::{Row, Table};

const CONNECTIONS: u32 = 32;

/// A gateway of one size.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) gateway: Served,
    /// Of those who ask, in turn.
    pub(super) tokens: Vec<String>,
}

#[derive(Debug, Default)]
struct Samples {
    cpu_us: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

impl Samples {
    fn push(&mut self, measurement: &Measurement) {
        self.cpu_us.extend(measurement.cpu_us_per_request);
        self.p50_us.extend(measurement.load.latency.map(|of| of.p50_us));
        self.p99_us.extend(measurement.load.latency.map(|of| of.p99_us));
    }
}

/// Measures each case once a round and compares them to the first.
pub(super) async fn compare(title: String, cases: &mut [Case], rounds: u32, seconds: f64) -> Result<Table> {
    let arguments = format!("--connections {CONNECTIONS} --seconds {seconds}");
    let mut samples: Vec<Samples> = cases.iter().map(|_| Samples::default()).collect();
    for round in 0..=rounds {
        progress(&format!("{title}: round {round} of {rounds}"));
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            let measurement = case.gateway.load_by(&case.tokens, &arguments).await?;
            // The first round warms up.
            if round > 0 {
                samples.push(&measurement);
            }
        }
    }
    let mut rows = Vec::new();
    for (case, found) in cases.iter().zip(&samples) {
        let ratio = paired_median(&found.cpu_us, &samples[0].cpu_us, |case, first| case / first);
        let [cpu, p50, p99] = [&found.cpu_us, &found.p50_us, &found.p99_us].map(|values| median(values));
        rows.push(Row::new(&case.name, [cpu, ratio, p50, p99, case.gateway.memory_mib()?]));
    }
    let columns = &["CPU µs/request", "× the first", "p50 µs", "p99 µs", "RSS MiB"];
    Ok(Table { title: format!("{title}; {CONNECTIONS} connections, closed loop"), columns, rows })
}
