//! The parts of the comparison, what is measured in each, and what its table shows of that.

use serde::Serialize;

use super::Run;
use crate::subject::Name;

/// A part of the comparison with a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Section {
    Json,
    JsonSingle,
    JsonRate,
    #[serde(rename = "prompt_50k")]
    Prompt50K,
    #[serde(rename = "prompt_1m")]
    Prompt1M,
    Sse,
    #[serde(rename = "sse_66")]
    Sse66,
    Paced,
    Memory,
    Start,
    Overrun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    RequestsPerS,
    LatencyP50Us,
    LatencyP99Us,
    LatencyP999Us,
    CpuUsPerRequest,
    FirstEventP50Us,
    FirstEventP99Us,
    FirstEventP999Us,
    EventDelayP50Us,
    EventDelayP99Us,
    EventDelayP999Us,
    EventsPerRead,
    IdleMib,
    /// While the connections of the json load ask all the time.
    ConnectionsMib,
    IdleConnectionKib,
    Streams200Mib,
    Streams1000Mib,
    PeakMib,
    /// To the first answer of any kind, with a vault that stays locked, so without a key derivation.
    LockedStartMs,
    FirstAnswerMs,
    Admitted,
    /// Calls admitted past the one that the budget pays for.
    AdmittedOver,
}

/// What a column shows of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// The median, with its ratios to the floor's and to nginx's.
    Value(Metric, &'static str),
    /// The median alone, where a ratio says nothing.
    Plain(Metric, &'static str),
    /// How much more than another subject has.
    Added(Metric, Name, &'static str),
}

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Value(_, title) | Self::Plain(_, title) | Self::Added(_, _, title) => title,
        }
    }
}

const CLOSED_LOOP: &[Column] = &[
    Column::Value(Metric::RequestsPerS, "requests/s"),
    Column::Value(Metric::LatencyP50Us, "p50 µs"),
    Column::Value(Metric::LatencyP99Us, "p99 µs"),
    Column::Value(Metric::LatencyP999Us, "p99.9 µs"),
    Column::Value(Metric::CpuUsPerRequest, "CPU µs/request"),
];
/// Where one request follows the other, the rate says what the latency says.
const ONE_CONNECTION: &[Column] = &[
    Column::Value(Metric::LatencyP50Us, "p50 µs"),
    Column::Added(Metric::LatencyP50Us, Name::Direct, "p50 over direct µs"),
    Column::Added(Metric::LatencyP50Us, Name::Floor, "p50 over floor µs"),
    Column::Value(Metric::LatencyP99Us, "p99 µs"),
    Column::Value(Metric::LatencyP999Us, "p99.9 µs"),
    Column::Value(Metric::CpuUsPerRequest, "CPU µs/request"),
];
const OPEN_LOOP: &[Column] = &[
    Column::Value(Metric::LatencyP50Us, "p50 µs"),
    Column::Added(Metric::LatencyP50Us, Name::Direct, "p50 over direct µs"),
    Column::Value(Metric::LatencyP99Us, "p99 µs"),
    Column::Added(Metric::LatencyP99Us, Name::Direct, "p99 over direct µs"),
    Column::Value(Metric::LatencyP999Us, "p99.9 µs"),
    Column::Value(Metric::CpuUsPerRequest, "CPU µs/request"),
];
const STREAMS: &[Column] = &[
    Column::Value(Metric::RequestsPerS, "streams/s"),
    Column::Value(Metric::LatencyP50Us, "p50 µs"),
    Column::Value(Metric::LatencyP99Us, "p99 µs"),
    Column::Value(Metric::LatencyP999Us, "p99.9 µs"),
    Column::Value(Metric::CpuUsPerRequest, "CPU µs/stream"),
];
const PACED: &[Column] = &[
    Column::Value(Metric::EventDelayP50Us, "event p50 µs"),
    Column::Value(Metric::EventDelayP99Us, "event p99 µs"),
    Column::Value(Metric::EventDelayP999Us, "event p99.9 µs"),
    Column::Value(Metric::FirstEventP50Us, "first event p50 µs"),
    Column::Added(Metric::FirstEventP50Us, Name::Direct, "first event over direct µs"),
    Column::Plain(Metric::EventsPerRead, "events/read"),
    Column::Value(Metric::CpuUsPerRequest, "CPU µs/stream"),
];
const MEMORY: &[Column] = &[
    Column::Value(Metric::IdleMib, "idle MiB"),
    Column::Value(Metric::ConnectionsMib, "json load MiB"),
    Column::Value(Metric::IdleConnectionKib, "idle connection KiB"),
    Column::Value(Metric::Streams200Mib, "200 streams MiB"),
    Column::Value(Metric::Streams1000Mib, "1,000 streams MiB"),
    Column::Value(Metric::PeakMib, "peak MiB"),
];
const START: &[Column] = &[
    Column::Value(Metric::LockedStartMs, "no key derivation ms"),
    Column::Value(Metric::FirstAnswerMs, "with key derivation ms"),
];
const OVERRUN: &[Column] = &[
    Column::Plain(Metric::Admitted, "admitted of 64"),
    Column::Plain(Metric::AdmittedOver, "admitted over the budget"),
];

impl Section {
    pub(crate) const ALL: [Self; 11] = [
        Self::Json,
        Self::JsonSingle,
        Self::JsonRate,
        Self::Prompt50K,
        Self::Prompt1M,
        Self::Sse,
        Self::Sse66,
        Self::Paced,
        Self::Memory,
        Self::Start,
        Self::Overrun,
    ];

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Json => CLOSED_LOOP,
            Self::JsonSingle | Self::Prompt50K | Self::Prompt1M => ONE_CONNECTION,
            Self::JsonRate => OPEN_LOOP,
            Self::Sse | Self::Sse66 => STREAMS,
            Self::Paced => PACED,
            Self::Memory => MEMORY,
            Self::Start => START,
            Self::Overrun => OVERRUN,
        }
    }

    pub(super) fn title(self, run: &Run) -> String {
        let (connections, rate) = (run.connections, run.rate);
        match self {
            Self::Json => {
                format!("json: 500 byte request, 1.5 KB answer, {connections} connections, closed loop")
            }
            Self::JsonSingle => "json over one connection".into(),
            Self::JsonRate => format!("json at {rate} requests/s, {connections} connections, open loop"),
            Self::Prompt50K => "prompts of 50 KB over one connection".into(),
            Self::Prompt1M => "prompts of 1 MB over one connection".into(),
            Self::Sse => format!("sse: streams of 204 events, unpaced, {connections} connections"),
            Self::Sse66 => format!(
                "sse: ready-made streams of 66 events, 18 KB, in one piece, {connections} connections"
            ),
            Self::Paced => "paced: 20 streams of 200 events, one each 5 ms".into(),
            Self::Memory => {
                format!(
                    "memory: resident, before any load, while {connections} connections ask, for each of 1,000 idle connections, with paced streams, highest"
                )
            }
            Self::Start => {
                "start: from the command to the first answer, with the vault locked and unlocked".into()
            }
            Self::Overrun => "overrun: 64 calls at once on a budget that one uses up".into(),
        }
    }
}
