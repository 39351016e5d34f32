//! What a request and its row cost in the ledger: `cargo bench -p storage --bench ledger`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends here")]

#[expect(dead_code, reason = "what the tests log with, of which this needs a part")]
#[path = "../tests/integration/common.rs"]
mod common;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jiff::tz::TimeZone;
use policy::{
    Ask, Caller, Method, NanoUsd, Plan, Quote, RequestId, RiskVerdict, RouteClass, Rules, Subject, Transport,
    Unit, admit,
};
use storage::{Ledger, RequestRow, Used, Writer, WriterConfig};

use common::{Home, PATIENCE, config, row};

/// Requests between two commits where their own time counts: few enough that what is borrowed lasts, and over before
/// the writer looks again.
const REQUESTS: u64 = 500;
const ROWS: u64 = 100;
const USED: Used = Used::Known { cost: NanoUsd::from_nanos(100), tokens: 240 };
/// Each a budget of its own for everybody.
const PERIODS: [&str; 5] = ["5h", "daily", "weekly", "monthly", "total"];

/// A ledger on a database of its own, and the budgets that apply to every request.
struct Books {
    ledger: Ledger,
    rules: Rules,
    written: u64,
    // Ends before its database is removed.
    _writer: Writer,
    _home: Home,
}

impl Books {
    fn new(budgets: usize) -> Self {
        let home = Home::new();
        let slots = usize::try_from(REQUESTS * 2).unwrap();
        let (ledger, writer) = Writer::start(&home.path(), WriterConfig { slots, ..config() }).unwrap();
        let (mut store, zone, now) = (home.store(), TimeZone::UTC, ledger.now());
        let subjects = [Subject::Global, Subject::Provider("openai".parse().unwrap())];
        let all = subjects.iter().flat_map(|subject| PERIODS.map(|period| (subject, period)));
        for (subject, period) in all.take(budgets) {
            let limit = Unit::Tokens.of(1_000_000_000_000);
            store.set_budget(subject, period.parse().unwrap(), limit, now, &zone).unwrap();
        }
        let rules = store.load_policy().unwrap().rules;
        ledger.set_budgets(&rules, &zone, 80);
        let mut books = Self { ledger, rules, written: 0, _writer: writer, _home: home };
        // The first requests wait until something is borrowed.
        books.request(REQUESTS);
        books.commit();
        books
    }

    /// Reserves and settles so many; answers how long that took without making what goes in.
    fn request(&mut self, requests: u64) -> Duration {
        let what: Vec<(Plan, RequestRow)> = (0..requests).map(|_| (plan(&self.rules), self.row())).collect();
        let started = Instant::now();
        for (plan, row) in what {
            pollster::block_on(self.ledger.reserve(plan)).unwrap().settle(row, USED);
        }
        started.elapsed()
    }

    /// Has everything written that was settled; answers how long that took. With budgets that includes the two short
    /// transactions in which what is borrowed is given back.
    fn commit(&self) -> Duration {
        let started = Instant::now();
        self.ledger.flush(PATIENCE).unwrap();
        started.elapsed()
    }

    fn row(&mut self) -> RequestRow {
        self.written += 1;
        let id = RequestId::from_parts(1_760_000_000_000 + self.written, u128::from(self.written));
        RequestRow { id, started_at: self.ledger.now(), ..row(1) }
    }
}

fn plan(rules: &Rules) -> Plan {
    let (agent, provider) = ("ci".parse().unwrap(), "openai".parse().unwrap());
    let ask = Ask {
        provider: &provider,
        class: RouteClass::Generate,
        method: Method::Post,
        model: None,
        names_other_models: false,
        transport: Transport::Tcp,
        quote: Quote::unpriced(500, 1),
    };
    admit(rules, &Caller { agent: &agent, capability: None, risk: &RiskVerdict::default() }, &ask).unwrap()
}

fn ledger(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("ledger");
    for budgets in [0, 1, 10] {
        let mut books = Books::new(budgets);
        group.bench_function(BenchmarkId::new("reserve and settle, budgets", budgets), |bench| {
            bench.iter_custom(|requests| {
                let mut spent = Duration::ZERO;
                let mut left = requests;
                while left > 0 {
                    let now = left.min(REQUESTS);
                    // When all is written and nobody asks, everything is given back; the first borrows again.
                    books.request(1);
                    spent += books.request(now);
                    books.commit();
                    left -= now;
                }
                spent
            });
        });
    }
    group.throughput(Throughput::Elements(ROWS));
    for budgets in [0, 1, 10] {
        let mut books = Books::new(budgets);
        group.bench_function(BenchmarkId::new("a hundred rows are written, budgets", budgets), |bench| {
            bench.iter_custom(|batches| {
                let batch = |_| {
                    books.request(ROWS);
                    books.commit()
                };
                (0..batches).map(batch).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ledger);
criterion_main!(benches);
