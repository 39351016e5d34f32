//! Everything that a live view shows, in one document: what the daemon is, what is spent, who asks, what runs.
//!
//! What runs, who is restricted and what is taken back is in memory, and as it is at this moment. What the log and the
//! budgets tell is read from the database by `log`, not more often than it can be afforded however long the log is, so
//! that a view may ask as often as it likes.

pub mod form;
pub mod explain;
mod running;
mod log;
mod collect;

use policy::{Amount, NanoUsd, TimestampUs};
use serde::{Deserialize, Serialize};

pub(crate) use collect::collect;
pub(crate) use log::LogView;

/// The most agents that are listed, those first that were last used.
const AGENTS_MAX: usize = 1_000;
/// The most requests in flight that are listed, the oldest first.
const REQUESTS_MAX: usize = 1_000;
/// The newest so many refusals and events are listed.
const NEWEST: u32 = 50;

/// How everything stands at one moment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Overview {
    /// The moment.
    #[serde(with = "form::instant")]
    pub at: TimestampUs,
    /// `ok`, `locked` without the keys, or `killed` while the kill switch is on.
    pub state: String,
    /// When and why the kill switch was turned on.
    pub killed: Option<TakenBack>,
    /// The process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The TCP address it serves.
    pub address: String,
    /// When it started.
    #[serde(with = "form::instant")]
    pub started_at: TimestampUs,
    /// `ok`, or why rows do not reach the database or cannot be read from it.
    pub log: String,
    /// When `today`, `budgets`, `agents`, `refusals` and `risk_events` were read; `null` when they could not be.
    #[serde(with = "form::maybe_instant")]
    pub log_read_at: Option<TimestampUs>,
    /// What was asked and spent since midnight.
    pub today: Today,
    /// How every budget stands.
    pub budgets: Vec<BudgetStanding>,
    /// Agents, the last used first.
    pub agents: Vec<AgentToday>,
    /// How many agents there are; more than are listed where they are very many.
    pub agents_total: usize,
    /// Requests in flight, the oldest first.
    pub requests: Vec<RunningRequest>,
    /// How many are in flight, those included that are not admitted yet.
    pub in_flight: usize,
    /// The newest requests that were refused or cut, the newest first.
    pub refusals: Vec<Refusal>,
    /// Who is restricted, most first.
    pub risks: Vec<RiskStanding>,
    /// What was seen last, the newest first.
    pub risk_events: Vec<RiskSighting>,
    /// Providers that are not served.
    pub revoked_providers: Vec<RevokedProvider>,
    /// How much is used of each limit on rates.
    pub rates: Vec<RateStanding>,
}

/// That something was taken back, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TakenBack {
    /// When.
    #[serde(with = "form::instant")]
    pub at: TimestampUs,
    /// What its owner said.
    pub reason: String,
}

/// A provider that is not served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RevokedProvider {
    /// Which.
    pub provider: String,
    /// Since when, and why.
    #[serde(flatten)]
    pub taken_back: TakenBack,
}

/// Sums over the requests in the log that began since midnight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Today {
    /// Midnight.
    #[serde(with = "form::instant")]
    pub since: TimestampUs,
    /// Where it is midnight then.
    pub timezone: String,
    /// Requests, refused ones included.
    pub requests: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What the requests of a known price cost.
    #[serde(with = "form::usd")]
    pub cost_usd: NanoUsd,
    /// Requests whose price is unknown.
    pub unpriced: u64,
}

/// How a budget stands. The amounts are in the unit of its limit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BudgetStanding {
    /// `agent:ci/daily`.
    pub name: String,
    /// Whose requests it counts.
    pub subject: String,
    /// Over which time.
    pub period: String,
    /// What may be spent.
    #[serde(with = "form::amount")]
    pub limit: Amount,
    /// What is spent.
    #[serde(with = "form::amount")]
    pub spent: Amount,
    /// How much of that was held by a daemon that died.
    #[serde(with = "form::amount")]
    pub forfeited: Amount,
    /// What requests in flight hold.
    #[serde(with = "form::amount")]
    pub reserved: Amount,
    /// What neither is spent nor held; a debt is negative.
    #[serde(with = "form::amount")]
    pub left: Amount,
    /// When the present period began.
    #[serde(with = "form::instant")]
    pub since: TimestampUs,
    /// When some of what is spent counts no more.
    #[serde(with = "form::maybe_instant")]
    pub renews_at: Option<TimestampUs>,
}

/// An agent, and what it did since midnight.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct AgentToday {
    /// Its name.
    pub name: String,
    /// When its last admitted request began.
    #[serde(with = "form::maybe_instant")]
    pub last_used_at: Option<TimestampUs>,
    /// Requests since midnight, refused ones included.
    pub requests: u64,
    /// Those that were refused.
    pub refused: u64,
    /// What they cost, as far as prices are known.
    #[serde(with = "form::usd")]
    pub cost_usd: NanoUsd,
    /// Those whose price is unknown.
    pub unpriced: u64,
    /// Its requests in flight.
    pub in_flight: usize,
    /// The highest state of risk of the agent and of its capabilities: `GREEN`, `YELLOW`, `ORANGE` or `RED`.
    pub risk: String,
    /// Whether it is not served.
    pub is_revoked: bool,
}

/// The requests in flight of some processes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct InFlight {
    /// Those that were admitted, the oldest first.
    pub requests: Vec<RunningRequest>,
    /// How many there are, those included that are not admitted yet.
    pub count: usize,
}

/// A request that runs, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RunningRequest {
    /// Its id.
    pub id: String,
    /// Who asks.
    pub agent: String,
    /// With which capability.
    pub capability: Option<String>,
    /// Whom.
    pub provider: String,
    /// Which model was asked for.
    pub model: Option<String>,
    /// When it began.
    #[serde(with = "form::instant")]
    pub started_at: TimestampUs,
    /// Whether the answer is a stream.
    pub is_streaming: bool,
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Output tokens so far.
    pub output_tokens: u64,
    /// Whether these numbers are estimates, because the provider has not reported them yet.
    pub is_estimated: bool,
    /// What it costs so far at the model's ordinary price; `null` where that is unknown.
    #[serde(with = "form::maybe_usd")]
    pub cost_usd: Option<NanoUsd>,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the answer's body so far.
    pub response_bytes: u64,
    /// Whether it was cut and is about to end.
    pub is_cut: bool,
}

/// A request that was refused or cut.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Refusal {
    /// Its id.
    pub id: String,
    /// When it began.
    #[serde(with = "form::instant")]
    pub at: TimestampUs,
    /// Who asked, if that was proven.
    pub agent: Option<String>,
    /// Whom.
    pub provider: Option<String>,
    /// For which model.
    pub model: Option<String>,
    /// What was answered.
    pub status: Option<u16>,
    /// Whether it was cut after it had been admitted.
    pub is_cut: bool,
    /// Why, as a stable code.
    pub code: String,
    /// Why, in words.
    pub reason: String,
    /// How many equal refusals this one stands for.
    pub repeats: u64,
}

/// How far somebody is restricted, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RiskStanding {
    /// Who: `agent:ci`, `capability:1a2b3c4d`, `global`.
    pub subject: String,
    /// The agent that this is.
    pub agent: Option<String>,
    /// `YELLOW`, `ORANGE` or `RED`.
    pub state: String,
    /// Since when.
    #[serde(with = "form::instant")]
    pub since: TimestampUs,
    /// The signal that led to it.
    pub signal: String,
    /// The number of its event.
    pub event: i64,
}

/// Something that was seen and is evidence against somebody.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RiskSighting {
    /// Its number.
    pub event: i64,
    /// When.
    #[serde(with = "form::instant")]
    pub at: TimestampUs,
    /// Evidence of what.
    pub signal: String,
    /// Against whom.
    pub subject: String,
    /// The agent, if it is known.
    pub agent: Option<String>,
    /// The request.
    pub request: Option<String>,
    /// What was found, by its name.
    pub pattern: String,
    /// What was done at once: `logged`, `refused`, `masked` or `cut`.
    pub action: String,
    /// The state before.
    pub state_before: String,
    /// The state after.
    pub state_after: String,
    /// How often it was seen.
    pub repeats: u64,
}

/// A limit on rates, and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RateStanding {
    /// Whose: `openai`, `agent:ci`.
    pub subject: String,
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub concurrent: Option<u32>,
    /// Requests that have not refilled yet.
    pub requests_used: u64,
    /// Tokens that have not refilled yet; more than the limit is a debt.
    pub tokens_used: u64,
    /// Requests in flight.
    pub in_flight: u32,
}
