//! Everything an owner has laid down, as of one moment: who may ask, what is revoked, which limits hold.

use std::cmp::Reverse;
use std::iter;

use crate::{
    AgentName, Budget, Canary, Capability, CapabilityId, Denial, DenialCode, Map, ProviderId, RateLimit,
    Risk, RiskState, Subject, TimestampUs,
};

/// How many ancestors a capability may have.
pub const ANCESTORS_MAX: usize = 4;

/// What holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Every capability, ended ones included: their holders are told why they are refused.
    pub capabilities: Map<CapabilityId, Capability>,
    /// Why nothing is served at all.
    pub killed: Option<Revocation>,
    /// Providers that are not served.
    pub revoked_providers: Map<ProviderId, Revocation>,
    /// Agents that are not served.
    pub revoked_agents: Map<AgentName, Revocation>,
    /// Requests and tokens a minute, and at once.
    pub rate_limits: Map<Subject, RateLimit>,
    /// Limits on money and tokens.
    pub budgets: Map<Subject, Vec<Budget>>,
    /// What is planted to be found.
    pub canaries: Vec<Canary>,
    /// What was seen of whom.
    pub risks: Map<Subject, Risk>,
    /// The state in which everybody begins.
    pub risk_floor: RiskState,
}

/// That something was taken back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: TimestampUs,
    /// What its owner said.
    pub reason: String,
}

impl Rules {
    /// Whether a caller is served at all at `now`, whatever it asks for: nothing that it stands on was taken back or
    /// has ended.
    ///
    /// # Errors
    /// The [`Denial`] by the first rule that refuses.
    pub fn check_caller(
        &self,
        capability: Option<&Capability>,
        agent: &AgentName,
        now: TimestampUs,
    ) -> Result<(), Denial> {
        for link in self.lineage(capability) {
            link.check_lifetime(now)?;
        }
        if self.revoked_agents.contains_key(agent) {
            let message = format!("the agent `{}` was revoked", agent.as_str());
            let hint = format!("tokfence agent restore {}", agent.as_str());
            return Err(Denial::new(DenialCode::RevokedCapability, message).with_hint(hint));
        }
        Ok(())
    }

    /// Whether anything is served at all.
    ///
    /// # Errors
    /// The [`Denial`] while the kill switch is on.
    pub fn check_killed(&self) -> Result<(), Denial> {
        if self.killed.is_none() {
            return Ok(());
        }
        let denial = Denial::new(DenialCode::Killed, "the kill switch is on; nothing is served");
        Err(denial.with_hint("tokfence unkill"))
    }

    /// Whether requests with this capability to this provider are served at all at `now`. Holds for requests that
    /// begin as for those that run: what is refused here is cut there.
    ///
    /// # Errors
    /// The [`Denial`] by the first rule that refuses.
    pub fn check_standing(
        &self,
        capability: Option<&Capability>,
        agent: &AgentName,
        provider: &ProviderId,
        now: TimestampUs,
    ) -> Result<(), Denial> {
        self.check_caller(capability, agent, now)?;
        self.check_killed()?;
        if self.revoked_providers.contains_key(provider) {
            let message = format!("the provider `{}` was revoked", provider.as_str());
            let hint = format!("tokfence restore {}", provider.as_str());
            return Err(Denial::new(DenialCode::ProviderRevoked, message).with_hint(hint));
        }
        self.check_risk(capability, agent, now)
    }

    /// The canary that a caller presents whose key is `text`, if it is one.
    pub fn presented_canary(&self, text: &str) -> Option<&Canary> {
        self.canaries.iter().find(|canary| canary.is_presented_by(text))
    }

    /// A capability and its ancestors, itself first. An ancestor that is not there ends the line; storage keeps
    /// what a capability refers to.
    pub fn lineage<'a>(&'a self, capability: Option<&'a Capability>) -> impl Iterator<Item = &'a Capability> {
        let parent = |link: &&'a Capability| self.capabilities.get(&link.parent?);
        iter::successors(capability, parent).take(ANCESTORS_MAX + 1)
    }

    /// The capability that an owner minted and that this one comes from.
    pub fn root<'a>(&'a self, capability: &'a Capability) -> &'a Capability {
        self.lineage(Some(capability)).last().unwrap_or(capability)
    }

    /// Everyone for whom limits may hold that apply to a request. A name is copied only when it is come to.
    pub fn subjects<'a>(
        &'a self,
        capability: Option<&'a Capability>,
        agent: &'a AgentName,
        provider: &'a ProviderId,
    ) -> impl Iterator<Item = Subject> + use<'a> {
        iter::once(Subject::Global)
            .chain(iter::once_with(|| Subject::Provider(provider.clone())))
            .chain(iter::once_with(|| Subject::Agent(agent.clone())))
            .chain(self.lineage(capability).map(|link| Subject::Capability(link.id)))
    }

    /// Who is restricted at `now`, most first.
    pub fn restricted(&self, now: TimestampUs) -> Vec<(&Subject, &Risk)> {
        let mut restricted: Vec<_> =
            self.risks.iter().filter(|(_, risk)| risk.state_at(now) > RiskState::Green).collect();
        restricted.sort_by_key(|(subject, risk)| (Reverse(risk.state), risk.since, subject.to_string()));
        restricted
    }

    /// The agent that a subject is, or whose capability.
    pub fn agent_of<'a>(&'a self, subject: &'a Subject) -> Option<&'a AgentName> {
        match subject {
            Subject::Agent(name) => Some(name),
            Subject::Capability(id) => self.capabilities.get(id).map(|capability| &capability.agent),
            Subject::Global | Subject::Provider(_) => None,
        }
    }

    /// Whether anybody can still meet a limit of this subject: those of capabilities that have ended say nothing any
    /// more.
    pub fn is_in_force(&self, subject: &Subject, now: TimestampUs) -> bool {
        let Subject::Capability(id) = subject else { return true };
        let capability = self.capabilities.get(id);
        capability.is_some_and(|found| self.check_caller(Some(found), &found.agent, now).is_ok())
    }

    /// The limits on rates that apply to a request; all must have room.
    pub fn rate_limits_for(
        &self,
        capability: Option<&Capability>,
        agent: &AgentName,
        provider: &ProviderId,
    ) -> Vec<(Subject, RateLimit)> {
        if self.rate_limits.is_empty() {
            return Vec::new();
        }
        let with_limit = |subject| self.rate_limits.get(&subject).map(|limit| (subject, *limit));
        self.subjects(capability, agent, provider).filter_map(with_limit).collect()
    }

    /// Whether a budget applies to a request: what [`Rules::budgets_for`] tells, for less.
    pub fn has_budget_for(
        &self,
        capability: Option<&Capability>,
        agent: &AgentName,
        provider: &ProviderId,
    ) -> bool {
        !self.budgets.is_empty()
            && self
                .subjects(capability, agent, provider)
                .any(|subject| self.budgets.get(&subject).is_some_and(|budgets| !budgets.is_empty()))
    }

    /// The budgets that apply to a request; all must have room.
    pub fn budgets_for<'a>(
        &'a self,
        capability: Option<&'a Capability>,
        agent: &AgentName,
        provider: &ProviderId,
    ) -> Vec<&'a Budget> {
        if self.budgets.is_empty() {
            return Vec::new();
        }
        let of_subject = |subject| self.budgets.get(&subject).into_iter().flatten();
        self.subjects(capability, agent, provider).flat_map(of_subject).collect()
    }
}
