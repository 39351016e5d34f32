//! Rows to log, plans to reserve with, and a database that other processes can get in the way of.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use policy::{
    Ask, Basis, Caller, Denial, Method, NanoUsd, Plan, ProviderId, Quote, RequestId, RiskVerdict, RouteClass,
    Rules, Transport, Usage, admit,
};
use storage::{Ledger, LogText, Outcome, RequestRow, Reservation, Store, Used, Writer, WriterConfig};

/// Far longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a database in it, gone at the end of the test.
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("tokfence.db")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.path()).unwrap()
    }

    pub(crate) fn writer(&self) -> (storage::Ledger, Writer) {
        Writer::start(&self.path(), config()).unwrap()
    }

    /// Writes the rows, in this order, and closes the log.
    pub(crate) fn log(&self, rows: impl IntoIterator<Item = RequestRow>) {
        let (ledger, writer) = self.writer();
        for row in rows {
            reserve(&ledger).unwrap().settle(row, FREE);
        }
        writer.shutdown().unwrap();
    }
}

pub(crate) fn config() -> WriterConfig {
    // The rows of these tests begin in 1970; only a test of retention wants them deleted.
    WriterConfig { retention: None, ..WriterConfig::default() }
}

/// What a request used that cost nothing.
pub(crate) const FREE: Used = Used::Known { cost: NanoUsd::ZERO, tokens: 0 };

pub(crate) fn reserve(ledger: &Ledger) -> Result<Reservation, Denial> {
    pollster::block_on(ledger.reserve(plan()))
}

pub(crate) fn plan() -> Plan {
    let (agent, provider): (_, ProviderId) = ("ci".parse().unwrap(), "openai".parse().unwrap());
    let risk = RiskVerdict::default();
    let caller = Caller { agent: &agent, capability: None, risk: &risk };
    let ask = Ask {
        provider: &provider,
        class: RouteClass::Generate,
        method: Method::Post,
        model: None,
        names_other_models: false,
        transport: Transport::Tcp,
        quote: Quote::FREE,
    };
    admit(&Rules::default(), &caller, &ask).unwrap()
}

pub(crate) fn id(number: u64) -> RequestId {
    RequestId::from_parts(1_700_000_000_000, u128::from(number))
}

/// A completed request; `number` makes it differ from others in everything that is counted.
pub(crate) fn row(number: u64) -> RequestRow {
    RequestRow {
        id: id(number),
        started_at: i64::try_from(number).unwrap() * 1_000_000,
        provider: Some("openai".parse().unwrap()),
        route_class: Some(RouteClass::Generate),
        method: LogText::method("POST"),
        path: LogText::path("/openai/v1/chat/completions"),
        model: Some(LogText::model("gpt-4o")),
        agent: Some("ci".parse().unwrap()),
        capability: Some("abcdefgh".parse().unwrap()),
        transport: Transport::Unix,
        peer_pid: Some(4_000_000_000),
        peer_uid: Some(1_000),
        is_streaming: number.is_multiple_of(2),
        status: Some(200),
        error_code: None,
        outcome: Outcome::Completed,
        basis: Basis::Reported,
        usage: Usage {
            input: number,
            cache_read: number + 1,
            cache_write_5m: number + 2,
            cache_write_1h: number + 3,
            output: number + 4,
            reasoning: number / 2,
            ..Usage::default()
        },
        cost: Some(NanoUsd::from_nanos(i64::try_from(number).unwrap() * 7)),
        latency_us: number + 10,
        first_byte_us: Some(number + 5),
        request_bytes: 100,
        response_bytes: 200,
        output_limit: number.is_multiple_of(3).then_some(number),
    }
}

/// A refused request at this second.
pub(crate) fn refusal(number: u64, code: &'static str, path: &str) -> RequestRow {
    RequestRow {
        path: LogText::path(path),
        model: None,
        capability: None,
        status: Some(401),
        error_code: Some(code.into()),
        outcome: Outcome::Refused,
        basis: Basis::None,
        usage: Usage::default(),
        cost: Some(NanoUsd::ZERO),
        first_byte_us: None,
        ..row(number)
    }
}

/// Asks again and again, without a pause worth the name, until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}
