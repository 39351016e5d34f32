//! Sums over the request log: what is summed, and the two places where that is kept. Sums are exact: one that does not
//! fit is an error, never a wrong number. Times are kept as histograms, which tell percentiles to within a hundredth.
//!
//! Old rows do not change. The writer sums them up once, a quarter of an hour at a time (`rollup`); a question (`stats`)
//! adds those sums and the rows that are not in them yet. With the sums it is written down whose rows are where (`spans`).

mod histogram;
mod rollup;
mod spans;
mod stats;

use policy::NanoUsd;
use rusqlite::Row;

pub use stats::{Stats, StatsBy, StatsGroup, StatsQuery, StatsRow};

#[cfg(test)]
pub(crate) use rollup::sum_up_all;
pub(crate) use rollup::{Rollup, forget_older_than, through};
pub(crate) use spans::{USES, first_seq, parts};

use crate::row::{parsed, unsigned, unsigned_opt};
use crate::{Error, Outcome};
use histogram::Histogram;

const QUARTER_US: i64 = 15 * 60_000_000;

/// The columns of the log that sums are made of, in the order of [`raw`].
const RAW: &str = "started_at_us, provider, model, agent, status, outcome, repeats, input_tokens, cache_read_tokens,
    cache_write_5m_tokens + cache_write_1h_tokens AS cache_write_tokens, output_tokens, cost_nano_usd, latency_us,
    first_byte_us";

/// The places of those columns. Looking for them by name would take longer than adding them up.
mod raw {
    pub(super) const STARTED_AT: usize = 0;
    pub(super) const PROVIDER: usize = 1;
    pub(super) const MODEL: usize = 2;
    pub(super) const AGENT: usize = 3;
    pub(super) const STATUS: usize = 4;
    pub(super) const OUTCOME: usize = 5;
    pub(super) const REPEATS: usize = 6;
    pub(super) const INPUT: usize = 7;
    pub(super) const CACHE_READ: usize = 8;
    pub(super) const CACHE_WRITE: usize = 9;
    pub(super) const OUTPUT: usize = 10;
    pub(super) const COST: usize = 11;
    pub(super) const LATENCY: usize = 12;
    pub(super) const FIRST_BYTE: usize = 13;
}

/// The sums of a group.
#[derive(Clone, Debug, Default)]
struct Sums {
    counts: Counts,
    latencies: Histogram,
    first_bytes: Histogram,
}

/// What is added up, in the order of [`COUNTS`].
type Counts = [u64; COUNTS.len()];

/// The names of the columns.
const COUNTS: [&str; 9] = [
    "requests",
    "refused",
    "errors",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "cost_nano_usd",
    "unpriced",
];

impl Sums {
    /// Adds a row of the log.
    fn add_request(&mut self, row: &Row<'_>) -> rusqlite::Result<Result<(), Error>> {
        let outcome: Outcome = parsed(row, raw::OUTCOME)?;
        let (status, cost): (Option<u16>, Option<u64>) =
            (row.get(raw::STATUS)?, unsigned_opt(row, raw::COST)?);
        let (repeats, is_refused) = (unsigned(row, raw::REPEATS)?, outcome == Outcome::Refused);
        let is_error = match outcome {
            Outcome::UpstreamError | Outcome::Cut | Outcome::Unfinished => true,
            Outcome::Completed => status.is_some_and(|status| status >= 400),
            Outcome::Refused | Outcome::ClientGone => false,
        };
        if !is_refused {
            self.latencies.add(unsigned(row, raw::LATENCY)?);
            unsigned_opt(row, raw::FIRST_BYTE)?.into_iter().for_each(|time| self.first_bytes.add(time));
        }
        let counts = [
            repeats,
            if is_refused { repeats } else { 0 },
            is_error.into(),
            unsigned(row, raw::INPUT)?,
            unsigned(row, raw::CACHE_READ)?,
            unsigned(row, raw::CACHE_WRITE)?,
            unsigned(row, raw::OUTPUT)?,
            cost.unwrap_or(0),
            u64::from(cost.is_none() && !is_refused),
        ];
        Ok(self.add_counts(&counts))
    }

    /// Adds sums that were made before.
    fn add_sums(&mut self, row: &Row<'_>) -> rusqlite::Result<Result<(), Error>> {
        let mut counts = Counts::default();
        for (count, name) in counts.iter_mut().zip(COUNTS) {
            *count = unsigned(row, name)?;
        }
        self.latencies.add_encoded(row.get_ref("latencies")?.as_blob()?);
        self.first_bytes.add_encoded(row.get_ref("first_bytes")?.as_blob()?);
        Ok(self.add_counts(&counts))
    }

    fn merge(&mut self, other: &Self) -> Result<(), Error> {
        self.latencies.merge(&other.latencies);
        self.first_bytes.merge(&other.first_bytes);
        self.add_counts(&other.counts)
    }

    fn add_counts(&mut self, counts: &Counts) -> Result<(), Error> {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            // What a column can hold.
            let added = sum.checked_add(*count).filter(|sum| i64::try_from(*sum).is_ok());
            *sum = added.ok_or(Error::Overflow { doing: "sum up the request log" })?;
        }
        Ok(())
    }

    fn into_row(self, group: StatsGroup) -> StatsRow {
        let [requests, refused, errors, input, cache_read, cache_write, output, cost, unpriced] = self.counts;
        StatsRow {
            group,
            requests,
            refused,
            errors,
            input_tokens: input,
            cache_read_tokens: cache_read,
            cache_write_tokens: cache_write,
            output_tokens: output,
            cost: NanoUsd::from_nanos(i64::try_from(cost).unwrap_or(i64::MAX)),
            unpriced,
            latency_p50_us: self.latencies.percentile(50),
            latency_p95_us: self.latencies.percentile(95),
            first_byte_p50_us: self.first_bytes.percentile(50),
        }
    }
}

/// The start of the quarter of an hour that an instant lies in.
fn quarter(at: i64) -> i64 {
    at.div_euclid(QUARTER_US) * QUARTER_US
}
