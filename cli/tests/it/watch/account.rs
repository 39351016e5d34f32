//! A provider that tells what was used with its account: pages of buckets, some minutes late, in the forms that OpenAI,
//! Anthropic and OpenRouter publish; and a log in which it is, or is not.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use policy::{
    Ask, Basis, Caller, Method, NanoUsd, Quote, RequestId, RiskVerdict, RouteClass, Rules, Transport, Usage,
    admit,
};
use serde_json::{Value, json};
use storage::{LogText, Outcome, RequestRow, Used, Writer, WriterConfig};

use crate::support::{Home, Mock, Output, Received, Setup, Then, answer, json as json_answer};

pub(super) const MINUTE: i64 = 60_000_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// Monday, 2 November 2026, midnight UTC.
pub(super) const MONDAY: i64 = 1_793_577_600_000_000;
/// How late the provider tells.
const DELAY: i64 = 10 * MINUTE;
/// Buckets a page, whatever is asked for.
const PAGE: usize = 7;
pub(super) const ADMIN_KEY: &str = "sk-admin-0SENTINEL0-HHHH";

/// A request as the provider books it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) provider: &'static str,
    /// The model that was asked for, and the one that is reported.
    pub(super) asked: &'static str,
    pub(super) model: &'static str,
    pub(super) key: &'static str,
    pub(super) begin: i64,
    pub(super) end: i64,
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Use {
    pub(super) fn openai(begin: i64) -> Self {
        Self {
            provider: "openai",
            asked: "gpt-4o",
            model: "gpt-4o-2024-08-06",
            key: "key_ours",
            begin,
            end: begin + MINUTE / 4,
            input: 900,
            output: 100,
        }
    }

    /// A hundredth of a dollar for a thousand tokens.
    fn nanos(&self) -> i64 {
        i64::try_from((self.input + self.output) * 10_000).unwrap()
    }
}

#[derive(Default)]
struct State {
    uses: Mutex<Vec<Use>>,
    now: AtomicI64,
    /// Answered instead, where one is set.
    instead: Mutex<Option<Vec<u8>>>,
}

/// A home whose providers are a mock, and the time there.
pub(super) struct Watched {
    pub(super) home: Home,
    pub(super) mock: Mock,
    state: Arc<State>,
    rows: AtomicU64,
}

impl Watched {
    pub(super) fn new() -> Self {
        Self::with("")
    }

    /// With further tables of configuration.
    pub(super) fn with(tables: &str) -> Self {
        let (mock, home, state) = (Mock::start(), Home::new(), Arc::new(State::default()));
        let setup = Setup { tables: tables.to_owned(), ..Setup::default() };
        home.write_config(&setup.config(&format!("http://{}", mock.address)));
        let shared = state.clone();
        mock.always(move |received, conn| {
            let instead = shared.instead.lock().unwrap().clone();
            conn.send(instead.unwrap_or_else(|| shared.tell(received))).map(|()| Then::Close)
        });
        let watched = Self { home, mock, state, rows: AtomicU64::new(0) };
        watched.at(MONDAY - 30 * DAY);
        watched.run(&["init", "--non-interactive"]).expect(0);
        let keys =
            "OPENAI_API_KEY=sk-real-1\nANTHROPIC_API_KEY=sk-ant-real-1\nOPENROUTER_API_KEY=sk-or-real-1\n";
        watched.command(&["vault", "import", "-"]).input(keys).run().expect(0);
        // Somebody who used it before, so that the log speaks for all that follows.
        watched.log([watched.row(&Use::openai(MONDAY - 20 * DAY))]);
        watched
    }

    /// Stores an admin key.
    pub(super) fn admin(self, provider: &str) -> Self {
        self.command(&["vault", "add", provider, "-", "--admin"]).input(ADMIN_KEY).run().expect(0);
        self
    }

    /// Sets the time.
    pub(super) fn at(&self, now: i64) -> &Self {
        self.state.now.store(now, Ordering::SeqCst);
        self
    }

    pub(super) fn command(&self, args: &[&str]) -> crate::support::Command {
        let now = self.state.now.load(Ordering::SeqCst);
        self.home.command(args.iter().copied()).env("TOKFENCE_TEST_NOW_US", now.to_string())
    }

    #[track_caller]
    pub(super) fn run(&self, args: &[&str]) -> Output {
        self.command(args).run()
    }

    /// One look.
    #[track_caller]
    pub(super) fn watch(&self, args: &[&str]) -> Output {
        self.run(&[&["--json", "watch", "--once"], args].concat())
    }

    /// Use that the account shows.
    pub(super) fn book(&self, uses: impl IntoIterator<Item = Use>) {
        self.state.uses.lock().unwrap().extend(uses);
    }

    /// Use that went through the gateway and that the account shows.
    pub(super) fn honest(&self, uses: impl IntoIterator<Item = Use>) {
        let uses: Vec<Use> = uses.into_iter().collect();
        self.log(uses.iter().map(|one| self.row(one)));
        self.book(uses);
    }

    /// What is answered from now on, instead of what was used.
    pub(super) fn answers(&self, instead: Option<Vec<u8>>) {
        *self.state.instead.lock().unwrap() = instead;
    }

    /// The log's row of a request.
    pub(super) fn row(&self, one: &Use) -> RequestRow {
        let number = self.rows.fetch_add(1, Ordering::SeqCst);
        RequestRow {
            id: RequestId::from_parts(u64::try_from(one.begin / 1_000).unwrap(), u128::from(number)),
            started_at: one.begin,
            provider: Some(one.provider.parse().unwrap()),
            route_class: Some(RouteClass::Generate),
            method: LogText::method("POST"),
            path: LogText::path("/v1/chat/completions"),
            model: Some(LogText::model(one.asked)),
            agent: Some("ci".parse().unwrap()),
            capability: None,
            transport: Transport::Tcp,
            peer_pid: None,
            peer_uid: None,
            is_streaming: false,
            status: Some(200),
            error_code: None,
            outcome: Outcome::Completed,
            basis: Basis::Reported,
            usage: Usage { input: one.input, output: one.output, ..Usage::default() },
            cost: Some(NanoUsd::from_nanos(one.nanos())),
            latency_us: u64::try_from(one.end - one.begin).unwrap(),
            first_byte_us: Some(1_000),
            request_bytes: 100,
            response_bytes: 200,
            output_limit: None,
        }
    }

    /// Writes rows of the log.
    pub(super) fn log(&self, rows: impl IntoIterator<Item = RequestRow>) {
        write(&self.home.file("tokfence.db"), rows);
    }
}

fn write(path: &Path, rows: impl IntoIterator<Item = RequestRow>) {
    // The rows are of another time than the clock of the machine; nothing of them is too old.
    let config = WriterConfig { retention: None, ..WriterConfig::default() };
    let (ledger, writer) = Writer::start(path, config).unwrap();
    for row in rows {
        let (agent, provider) = ("ci".parse().unwrap(), "openai".parse().unwrap());
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
        let plan = admit(&Rules::default(), &caller, &ask).unwrap();
        let reservation = pollster::block_on(ledger.reserve(plan)).unwrap();
        reservation.settle(row, Used::Known { cost: NanoUsd::ZERO, tokens: 0 });
    }
    writer.shutdown().unwrap();
}

impl State {
    /// What was used by the time that it is, less the delay.
    fn told(&self, provider: &str) -> Vec<Use> {
        let until = self.now.load(Ordering::SeqCst) - DELAY;
        let uses = self.uses.lock().unwrap();
        uses.iter().filter(|one| one.provider == provider && one.end <= until).copied().collect()
    }

    fn tell(&self, received: &Received) -> Vec<u8> {
        let line = received.line();
        let target = line.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Parameters(query.to_owned());
        match path {
            "/v1/organization/usage/completions" => self.pages("openai", &query, HOUR, openai_lines),
            path if path.starts_with("/v1/organization/usage/") => {
                self.pages("none", &query, HOUR, openai_lines)
            }
            "/v1/organization/costs" => self.pages("openai", &query, DAY, openai_costs),
            "/v1/organizations/usage_report/messages" => {
                self.pages("anthropic", &query, HOUR, anthropic_lines)
            }
            "/v1/organizations/cost_report" => self.pages("anthropic", &query, DAY, anthropic_costs),
            "/api/v1/key" => {
                let nanos: i64 = self.told("openrouter").iter().map(Use::nanos).sum();
                let usd = NanoUsd::from_nanos(nanos).to_string();
                json_answer(format!(r#"{{"data":{{"label":"sk-or-v1-abc...","usage":{usd},"limit":null}}}}"#))
            }
            _ => answer("404 Not Found", "{}"),
        }
    }

    fn pages(
        &self,
        provider: &str,
        query: &Parameters,
        width: i64,
        lines: fn(&[Use]) -> Vec<Value>,
    ) -> Vec<u8> {
        let expected = if width == DAY { "1d" } else { "1h" };
        assert_eq!(query.get("bucket_width").as_deref(), Some(expected));
        let (begin, end) = query.span();
        let uses = self.told(provider);
        let first: usize =
            query.get("page").map_or(0, |page| page.trim_start_matches("page_").parse().unwrap());
        let count = usize::try_from((end - begin) / width).unwrap();
        let is_openai = query.get("start_time").is_some();
        let bucket = |index: usize| {
            let at = begin + i64::try_from(index).unwrap() * width;
            // Booked to when it ended, or some time later.
            let late = if is_openai { 0 } else { 20 * MINUTE };
            let is_of = |one: &&Use| (at..at + width).contains(&(one.end + late));
            let of: Vec<Use> = uses.iter().filter(is_of).copied().collect();
            match is_openai {
                true => {
                    json!({ "object": "bucket", "start_time": at / 1_000_000, "end_time": (at + width) / 1_000_000, "results": lines(&of) })
                }
                false => {
                    json!({ "starting_at": text(at), "ending_at": text(at + width), "results": lines(&of) })
                }
            }
        };
        let data: Vec<Value> = (first..count.min(first + PAGE)).map(bucket).collect();
        let has_more = first + PAGE < count;
        let next = has_more.then(|| format!("page_{}", first + PAGE));
        json_answer(
            json!({ "object": "page", "data": data, "has_more": has_more, "next_page": next }).to_string(),
        )
    }
}

struct Parameters(String);

impl Parameters {
    fn get(&self, name: &str) -> Option<String> {
        let values = self.0.split('&').filter_map(|pair| pair.split_once('='));
        values.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.replace("%3A", ":"))
    }

    fn span(&self) -> (i64, i64) {
        let seconds = |name| Some(self.get(name)?.parse::<i64>().unwrap() * 1_000_000);
        let instant = |name| Some(self.get(name)?.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        let begin = seconds("start_time").or_else(|| instant("starting_at")).unwrap();
        (begin, seconds("end_time").or_else(|| instant("ending_at")).unwrap())
    }
}

fn text(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).unwrap().to_string()
}

/// One line for each model and key.
fn grouped(uses: &[Use]) -> Vec<(&'static str, &'static str, u64, u64, u64)> {
    let mut names: Vec<_> = uses.iter().map(|one| (one.model, one.key)).collect();
    names.sort_unstable();
    names.dedup();
    let line = |(model, key)| {
        let of = uses.iter().filter(|one| (one.model, one.key) == (model, key));
        let sum = of.fold((0, 0, 0), |sum, one| (sum.0 + 1, sum.1 + one.input, sum.2 + one.output));
        (model, key, sum.0, sum.1, sum.2)
    };
    names.into_iter().map(line).collect()
}

fn openai_lines(uses: &[Use]) -> Vec<Value> {
    let line = |(model, key, requests, input, output): (&str, &str, u64, u64, u64)| {
        json!({
            "object": "organization.usage.completions.result", "input_tokens": input, "output_tokens": output,
            "input_cached_tokens": input / 2, "input_audio_tokens": 0, "output_audio_tokens": 0,
            "num_model_requests": requests, "project_id": null, "user_id": null, "api_key_id": key, "model": model, "batch": null,
        })
    };
    grouped(uses).into_iter().map(line).collect()
}

fn openai_costs(uses: &[Use]) -> Vec<Value> {
    let nanos: i64 = uses.iter().map(Use::nanos).sum();
    // And something that no request is the reason for.
    let value: Value = serde_json::from_str(&NanoUsd::from_nanos(nanos + 12_345_678).to_string()).unwrap();
    vec![json!({
        "object": "organization.costs.result", "amount": { "value": value, "currency": "usd" },
        "line_item": null, "project_id": null, "organization_id": "org-1",
    })]
}

fn anthropic_lines(uses: &[Use]) -> Vec<Value> {
    let line = |(model, key, _, input, output): (&str, &str, u64, u64, u64)| {
        json!({
            "uncached_input_tokens": input - input / 2 - input / 4,
            "cache_creation": { "ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": input / 4 },
            "cache_read_input_tokens": input / 2, "output_tokens": output,
            "server_tool_use": { "web_search_requests": 0 }, "api_key_id": key, "workspace_id": null, "model": model,
            "service_tier": null, "context_window": null,
        })
    };
    grouped(uses).into_iter().map(line).collect()
}

fn anthropic_costs(uses: &[Use]) -> Vec<Value> {
    let nanos: i64 = uses.iter().map(Use::nanos).sum();
    let cents = NanoUsd::from_nanos(nanos * 100).to_string();
    vec![
        json!({ "currency": "USD", "amount": cents, "workspace_id": null, "description": null, "model": null }),
    ]
}
