//! What each state takes away. All of it is here; who decides about requests asks here.

use crate::{
    AgentName, Capability, CapabilityId, Denial, DenialCode, Method, ProviderId, RateLimit, Risk, RiskState,
    RouteClass, Rules, Subject, TimestampUs,
};

use super::MINUTE_US;

/// The longest answer in YELLOW, in tokens.
pub const YELLOW_OUTPUT_TOKENS: u64 = 4_096;
/// Requests a minute in YELLOW, at most.
pub const YELLOW_REQUESTS_PER_MINUTE: u32 = 30;
/// How long a capability lasts at most that is made from one in YELLOW, in microseconds.
pub const YELLOW_CHILD_TTL_US: u64 = 15 * 60_000_000;
/// Who is YELLOW for so long without a break is not served until it has ended.
const YELLOW_PATIENCE_US: i64 = 60 * MINUTE_US;

/// How far a caller is restricted at one instant, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RiskVerdict {
    /// How far.
    pub state: RiskState,
    /// Whose state it is, with what led to it; `None` where the state is that in which everybody begins.
    pub cause: Option<(Subject, Risk)>,
}

impl Rules {
    /// How far a caller is restricted at `now`: by the highest state of those that it belongs to.
    pub fn risk(&self, capability: Option<&Capability>, agent: &AgentName, now: TimestampUs) -> RiskVerdict {
        let mut verdict = RiskVerdict { state: self.risk_floor, cause: None };
        if self.risks.is_empty() {
            return verdict;
        }
        let root = capability.map(|capability| Subject::Capability(self.root(capability).id));
        for subject in
            [Some(Subject::Global), Some(Subject::Agent(agent.clone())), root].into_iter().flatten()
        {
            let Some(risk) = self.risks.get(&subject).filter(|risk| risk.state_at(now) > verdict.state)
            else {
                continue;
            };
            verdict = RiskVerdict { state: risk.state_at(now), cause: Some((subject, *risk)) };
        }
        verdict
    }

    /// Whether a caller is served at all, as far as its risk goes. Holds for requests that begin as for those that run.
    ///
    /// # Errors
    /// `risk_restricted` in RED, and in a YELLOW that does not end.
    pub fn check_risk(
        &self,
        capability: Option<&Capability>,
        agent: &AgentName,
        now: TimestampUs,
    ) -> Result<(), Denial> {
        self.risk(capability, agent, now).check_served(agent, now)
    }

    /// The limits on rates that apply to a request at `now`, with what risk makes of them: in YELLOW a caller has half
    /// of what it could have otherwise, and a limit where there was none. That is a limit of its own, so that others
    /// who share the others' limits keep what they have.
    pub fn rate_limits_at(
        &self,
        capability: Option<&Capability>,
        agent: &AgentName,
        provider: &ProviderId,
        now: TimestampUs,
    ) -> Vec<(Subject, RateLimit)> {
        let mut limits = self.rate_limits_for(capability, agent, provider);
        if self.risk(capability, agent, now).state < RiskState::Yellow {
            return limits;
        }
        let own = match capability {
            Some(capability) => Subject::Capability(self.root(capability).id),
            None => Subject::Agent(agent.clone()),
        };
        let halved = halved(&limits);
        match limits.iter_mut().find(|(subject, _)| *subject == own) {
            Some((_, limit)) => *limit = halved,
            None => limits.push((own, halved)),
        }
        limits
    }
}

/// Half of the narrowest of each kind, and never nothing.
fn halved(limits: &[(Subject, RateLimit)]) -> RateLimit {
    let requests = limits.iter().filter_map(|(_, limit)| limit.requests_per_minute).min();
    let tokens = limits.iter().filter_map(|(_, limit)| limit.tokens_per_minute).min();
    let concurrent = limits.iter().filter_map(|(_, limit)| limit.concurrent).min();
    let requests = requests.map_or(YELLOW_REQUESTS_PER_MINUTE, |count| count.div_ceil(2));
    RateLimit {
        requests_per_minute: Some(requests.min(YELLOW_REQUESTS_PER_MINUTE)),
        tokens_per_minute: tokens.map(|count| count.div_ceil(2)),
        concurrent: concurrent.map(|count| count.div_ceil(2)),
    }
}

impl RiskVerdict {
    /// Whether a request of this class may be made.
    ///
    /// # Errors
    /// `risk_restricted` with the state, and where its owner reads what led to it.
    pub fn check_route(&self, agent: &AgentName, class: RouteClass, method: Method) -> Result<(), Denial> {
        let is_safe = class == RouteClass::Metadata && matches!(method, Method::Get | Method::Head);
        let refused = match self.state {
            RiskState::Green => return Ok(()),
            RiskState::Yellow if class == RouteClass::File => "files and batches are not served",
            RiskState::Yellow => return Ok(()),
            RiskState::Orange if is_safe => return Ok(()),
            RiskState::Orange => "only routes that tell of models are served",
            RiskState::Red => "nothing is served",
        };
        Err(self.denial(agent, refused))
    }

    /// Whether a request may name models that answer in place of the one it asks for.
    ///
    /// # Errors
    /// `risk_restricted` in any state but GREEN.
    pub fn check_fallbacks(&self, agent: &AgentName, names_other_models: bool) -> Result<(), Denial> {
        match self.state {
            RiskState::Green => Ok(()),
            _ if names_other_models => Err(self.denial(agent, "fallback models are not served")),
            _ => Ok(()),
        }
    }

    /// Whether a caller may make a capability from its own, and how long that may last in microseconds.
    ///
    /// # Errors
    /// `risk_restricted` from ORANGE on.
    pub fn child_ttl_us(&self, agent: &AgentName) -> Result<Option<u64>, Denial> {
        match self.state {
            RiskState::Green => Ok(None),
            RiskState::Yellow => Ok(Some(YELLOW_CHILD_TTL_US)),
            RiskState::Orange | RiskState::Red => {
                Err(self.denial(agent, "no capability is made from another"))
            }
        }
    }

    /// The longest answer, in tokens.
    pub fn output_tokens(&self) -> Option<u64> {
        (self.state >= RiskState::Yellow).then_some(YELLOW_OUTPUT_TOKENS)
    }

    /// The refusal of what the state does not allow. What led to it is for the owner to read, not for whoever took
    /// something that was planted.
    pub fn denial(&self, agent: &AgentName, refused: &str) -> Denial {
        let message = format!("{} is {}: {refused}", self.whose(agent), self.state);
        let hint = match &self.cause {
            Some((_, risk)) => format!("tokfence risk explain {}", risk.event),
            None => "`risk.initial_state` in config.toml".to_owned(),
        };
        Denial::new(DenialCode::RiskRestricted, message)
            .with_hint(hint)
            .with_detail("risk", self.state.as_str())
    }

    fn check_served(&self, agent: &AgentName, now: TimestampUs) -> Result<(), Denial> {
        let since = self.cause.as_ref().map_or(now, |(_, risk)| risk.since);
        match self.state {
            RiskState::Red => Err(self.denial(agent, "nothing is served")),
            RiskState::Yellow if now.saturating_sub(since) >= YELLOW_PATIENCE_US => {
                Err(self
                    .denial(agent, "it has been so for an hour, and nothing is served until it has ended"))
            }
            _ => Ok(()),
        }
    }

    fn whose(&self, agent: &AgentName) -> String {
        match &self.cause {
            Some((Subject::Global, _)) => "everything".to_owned(),
            Some((Subject::Capability(id), _)) => capability_of(agent, id),
            _ => format!("the agent `{}`", agent.as_str()),
        }
    }
}

fn capability_of(agent: &AgentName, id: &CapabilityId) -> String {
    format!("the capability `{id}` of the agent `{}`", agent.as_str())
}
