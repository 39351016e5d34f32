//! Puts the document together: what is in memory now, and what was read from the database a moment ago.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use policy::{AgentName, RateLimit, Revocation, RiskState, Rules, Subject, TimestampUs};

use super::log::Reading;
use super::{
    AGENTS_MAX, AgentToday, InFlight, LogView, Overview, RateStanding, RevokedProvider, RiskStanding,
    RunningRequest, TakenBack, running,
};
use crate::state::{Shared, now_us};

impl InFlight {
    /// Those of this process.
    pub(crate) fn of(shared: &Shared) -> Self {
        Self { requests: running::requests(shared), count: shared.in_flight.load(Ordering::Relaxed) }
    }
}

/// All of the document that does not depend on how the daemon was started.
pub(crate) fn collect(shared: &Shared, view: &LogView, in_flight: InFlight) -> Overview {
    let rules = shared.snapshot.load().rules.clone();
    let (reading, now) = (view.look(shared), shared.ledger.now());
    let agents = agents(&rules, &reading, &in_flight.requests, now);
    Overview {
        at: now_us(),
        state: shared.health().to_owned(),
        killed: rules.killed.as_ref().map(TakenBack::from),
        log: reading.failure.clone().unwrap_or_else(|| shared.ledger.health().in_words()),
        log_read_at: reading.at,
        today: reading.today.clone(),
        budgets: reading.budgets.clone(),
        agents_total: agents.len(),
        agents: agents.into_iter().take(AGENTS_MAX).collect(),
        requests: in_flight.requests,
        in_flight: in_flight.count,
        refusals: reading.refusals.clone(),
        risks: risks(&rules, now),
        risk_events: reading.risk_events.clone(),
        revoked_providers: revoked_providers(&rules),
        rates: rates(shared, &rules, now),
        ..Overview::default()
    }
}

impl From<&Revocation> for TakenBack {
    fn from(revocation: &Revocation) -> Self {
        Self { at: revocation.at, reason: revocation.reason.clone() }
    }
}

/// Every agent, the last used first.
fn agents(rules: &Rules, reading: &Reading, running: &[RunningRequest], now: TimestampUs) -> Vec<AgentToday> {
    let risks = risks_of_agents(rules, now);
    let mut in_flight: HashMap<&str, (usize, TimestampUs)> = HashMap::new();
    for request in running {
        let (count, last) = in_flight.entry(&request.agent).or_default();
        (*count, *last) = (*count + 1, request.started_at.max(*last));
    }
    let unseen = highest_of_all(rules, now);
    let mut agents: Vec<AgentToday> = reading
        .last_used
        .iter()
        .map(|(name, last_used_at)| {
            let (running, last_begun) = in_flight.get(name.as_str()).copied().unwrap_or_default();
            let today = reading.by_agent.get(name.as_str());
            AgentToday {
                last_used_at: (*last_used_at).max(Some(last_begun).filter(|_| running > 0)),
                requests: today.map_or(0, |row| row.requests),
                refused: today.map_or(0, |row| row.refused),
                cost_usd: today.map(|row| row.cost).unwrap_or_default(),
                unpriced: today.map_or(0, |row| row.unpriced),
                in_flight: running,
                risk: risks.get(name).copied().unwrap_or(unseen).to_string(),
                is_revoked: rules.revoked_agents.contains_key(name),
                name: name.to_string(),
            }
        })
        .collect();
    agents.sort_by(|a, b| b.last_used_at.cmp(&a.last_used_at).then_with(|| a.name.cmp(&b.name)));
    agents
}

/// The highest state of each agent of which something was seen.
fn risks_of_agents(rules: &Rules, now: TimestampUs) -> HashMap<&AgentName, RiskState> {
    let mut states = HashMap::new();
    for (subject, risk) in &rules.risks {
        let Some(agent) = rules.agent_of(subject) else { continue };
        let state = states.entry(agent).or_insert_with(|| highest_of_all(rules, now));
        *state = risk.state_at(now).max(*state);
    }
    states
}

/// The state in which everybody is at least.
fn highest_of_all(rules: &Rules, now: TimestampUs) -> RiskState {
    let global = rules.risks.get(&Subject::Global).map(|risk| risk.state_at(now));
    rules.risk_floor.max(global.unwrap_or_default())
}

fn risks(rules: &Rules, now: TimestampUs) -> Vec<RiskStanding> {
    let standing = |(subject, risk): (&Subject, &policy::Risk)| RiskStanding {
        subject: subject.to_string(),
        agent: rules.agent_of(subject).map(ToString::to_string),
        state: risk.state.to_string(),
        since: risk.since,
        signal: risk.signal.to_string(),
        event: risk.event,
    };
    rules.restricted(now).into_iter().map(standing).collect()
}

fn revoked_providers(rules: &Rules) -> Vec<RevokedProvider> {
    let revoked = rules.revoked_providers.iter();
    let mut revoked: Vec<RevokedProvider> = revoked
        .map(|(id, revocation)| RevokedProvider { provider: id.to_string(), taken_back: revocation.into() })
        .collect();
    revoked.sort_by(|a, b| a.provider.cmp(&b.provider));
    revoked
}

fn rates(shared: &Shared, rules: &Rules, now: TimestampUs) -> Vec<RateStanding> {
    let standing = |(subject, limit): (&Subject, &RateLimit)| {
        let used = shared.rates.used(subject);
        RateStanding {
            subject: subject.to_string(),
            requests_per_minute: limit.requests_per_minute,
            tokens_per_minute: limit.tokens_per_minute,
            concurrent: limit.concurrent,
            requests_used: used.requests,
            tokens_used: used.tokens,
            in_flight: used.in_flight,
        }
    };
    let in_force = rules.rate_limits.iter().filter(|(subject, _)| rules.is_in_force(subject, now));
    let mut rates: Vec<RateStanding> = in_force.map(standing).collect();
    rates.sort_by(|a, b| a.subject.cmp(&b.subject));
    rates
}
