//! What the database tells for a view: read over a connection of its own, so that no request waits for it, and not again
//! before ten times as long has passed as it took. So views cost a tenth of a core at most, whatever the log has grown to.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use policy::{AgentName, BudgetId, DenialCode, Period, TimestampUs};
use storage::{
    AgentUses, BudgetStatus, LoggedRequest, Outcome, RiskEvent, StatsBy, StatsGroup, StatsQuery, StatsRow,
    Store,
};

use super::{BudgetStanding, NEWEST, Refusal, RiskSighting, Today};
use crate::state::{Shared, now_us};

/// What was read so recently is not read again in any case.
const FRESH: Duration = Duration::from_millis(100);
/// So many times what reading took passes before it is read again.
const REST: u32 = 10;

/// The way to the database, and what was last read.
#[derive(Debug)]
pub(crate) struct LogView {
    path: PathBuf,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    open: Option<Open>,
    /// What was read, and from when on it may be read again.
    read: Option<(Arc<Reading>, Instant)>,
}

/// The connection, and what needs not be read over it again.
#[derive(Debug)]
struct Open {
    store: Store,
    uses: AgentUses,
}

/// What was read at one moment.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) at: Option<TimestampUs>,
    pub(super) today: Today,
    pub(super) budgets: Vec<BudgetStanding>,
    /// When each agent was last used.
    pub(super) last_used: BTreeMap<AgentName, Option<TimestampUs>>,
    /// What agents did since midnight; `anonymous` among them.
    pub(super) by_agent: HashMap<String, StatsRow>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) risk_events: Vec<RiskSighting>,
    /// Why it could not be read.
    pub(super) failure: Option<String>,
}

impl LogView {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::default() }
    }

    /// What the database tells, as of a moment ago. Whoever asks while it is read gets the same.
    pub(super) fn look(&self, shared: &Shared) -> Arc<Reading> {
        // Nothing under the lock is left half-changed by a panic.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        if let Some((reading, until)) = &last.read
            && began < *until
        {
            return reading.clone();
        }
        let reading = Arc::new(
            self.read(&mut last.open, shared)
                .unwrap_or_else(|error| Reading { failure: Some(error.to_string()), ..Reading::default() }),
        );
        let took = began.elapsed();
        last.read = Some((reading.clone(), began + took + FRESH.max(took * REST)));
        reading
    }

    fn read(&self, kept: &mut Option<Open>, shared: &Shared) -> Result<Reading, storage::Error> {
        // After a failure it is opened anew: the file may have been replaced.
        let mut open = match kept.take() {
            Some(open) if open.store.check_in_place().is_ok() => open,
            Some(_) | None => Open { store: Store::open_existing(&self.path)?, uses: AgentUses::default() },
        };
        let reading = Reading::of(&mut open, shared)?;
        *kept = Some(open);
        Ok(reading)
    }
}

impl Reading {
    fn of(Open { store, uses }: &mut Open, shared: &Shared) -> Result<Self, storage::Error> {
        let zone = &shared.snapshot.load().config.budget.timezone;
        let now = shared.ledger.now();
        let since = Period::Daily.window(now, zone).from;
        let query = StatsQuery { since: Some(since), zone: zone.clone(), ..StatsQuery::of(StatsBy::Agent) };
        let sums = store.stats(&query)?;
        store.follow_uses(uses)?;
        // What the daemon only keeps ready is held by nobody.
        let kept_ready = shared.ledger.kept_ready();
        let budgets = store.budgets(now, zone)?;
        let named = |row: StatsRow| match &row.group {
            StatsGroup::Name(Some(name)) => Some((name.clone(), row)),
            _ => None,
        };
        Ok(Self {
            at: Some(now_us()),
            today: today(&sums.total, since, zone),
            budgets: budgets.into_iter().map(|status| standing(status, &kept_ready)).collect(),
            last_used: uses.last_used.clone(),
            by_agent: sums.rows.into_iter().filter_map(named).collect(),
            refusals: store.newest_refusals(NEWEST)?.iter().map(refusal).collect(),
            risk_events: store.newest_risk_events(NEWEST)?.iter().map(sighting).collect(),
            failure: None,
        })
    }
}

fn today(total: &StatsRow, since: TimestampUs, zone: &TimeZone) -> Today {
    Today {
        since,
        timezone: zone.iana_name().unwrap_or("UTC").to_owned(),
        requests: total.requests,
        refused: total.refused,
        errors: total.errors,
        input_tokens: total.input_total(),
        output_tokens: total.output_tokens,
        cost_usd: total.cost,
        unpriced: total.unpriced,
    }
}

fn standing(mut status: BudgetStatus, kept_ready: &BTreeMap<BudgetId, i64>) -> BudgetStanding {
    let kept = kept_ready.get(&status.budget.id).copied().unwrap_or(0);
    status.reserved = status.reserved.saturating_sub(kept).max(0);
    BudgetStanding::from(&status)
}

impl From<&BudgetStatus> for BudgetStanding {
    fn from(status: &BudgetStatus) -> Self {
        let budget = &status.budget;
        let amount = |number| budget.limit.unit.of(number);
        Self {
            name: budget.name(),
            subject: budget.subject.to_string(),
            period: budget.period.to_string(),
            limit: budget.limit,
            spent: amount(status.spent),
            forfeited: amount(status.forfeited),
            reserved: amount(status.reserved),
            left: amount(status.left()),
            since: status.since,
            renews_at: status.renews_at,
        }
    }
}

fn refusal(logged: &LoggedRequest) -> Refusal {
    let request = &logged.request;
    let code = request.error_code.as_deref().unwrap_or_default();
    let known = DenialCode::ALL.into_iter().find(|known| known.as_str() == code);
    Refusal {
        id: request.id.to_string(),
        at: request.started_at,
        agent: request.agent.as_ref().map(AgentName::to_string),
        provider: request.provider.as_ref().map(ToString::to_string),
        model: request.model.as_ref().map(ToString::to_string),
        status: request.status,
        is_cut: request.outcome == Outcome::Cut,
        code: code.to_owned(),
        reason: known.map_or(code, |known| known.in_words()).to_owned(),
        repeats: logged.repeats,
    }
}

fn sighting(event: &RiskEvent) -> RiskSighting {
    let seen = &event.seen;
    RiskSighting {
        event: event.seq,
        at: seen.at,
        signal: seen.signal.to_string(),
        subject: seen.subject.to_string(),
        agent: seen.agent.as_ref().map(ToString::to_string),
        request: seen.request.map(|id| id.to_string()),
        pattern: seen.pattern.clone(),
        action: seen.action.to_string(),
        state_before: event.before.to_string(),
        state_after: event.after.to_string(),
        repeats: event.repeats,
    }
}
