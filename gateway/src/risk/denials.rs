//! Signals that lie in what was refused or spent: whoever asks for what he may not have, again and again, is looked at.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::header::HeaderMap;
use policy::{
    AgentName, Capability, Denial, DenialCode, NanoUsd, Period, ProviderId, RouteClass, Rules, Signal,
    Subject, Transport, Unit,
};
use storage::{LogText, RiskAction, RiskSeen, Spot};

use crate::request::authenticate::authenticate;
use crate::request::context::Context;
use crate::request::facts::anonymous;
use crate::request::headers::CAPABILITY;
use crate::state::Shared;

/// Different things that are denied within ten minutes, until that is a signal.
const SCOPE_DENIALS: usize = 5;
/// Uses of a capability that has ended.
const DEAD_USES: usize = 3;

impl Context {
    /// What was seen of this request, to be reported.
    pub(crate) fn seen(&self, signal: Signal, action: RiskAction) -> RiskSeen {
        let (facts, watch) = (&self.facts, self.shared.watch.load());
        RiskSeen {
            agent: facts.agent.clone(),
            capability: facts.capability.map(|presented| presented.id),
            provider: facts.provider.as_ref().map(|provider| provider.id.clone()),
            route_class: facts.class,
            path: Some(LogText::path(&watch.clean(&facts.path))),
            request: Some(self.id),
            ..RiskSeen::new(signal, self.risk_subject(), action)
        }
    }

    /// Something was found in what goes by. Where it was only looked for (`scan` is `detect`), nothing follows.
    pub(crate) fn report_found(&self, signal: Signal, pattern: String, spot: Spot, action: RiskAction) {
        let is_enforced = action != RiskAction::Logged;
        self.shared.report(RiskSeen { pattern, spot: Some(spot), is_enforced, ..self.seen(signal, action) });
    }

    /// Whose evidence this request is.
    fn risk_subject(&self) -> Subject {
        let rules = &self.snapshot.rules;
        let presented = self.facts.capability.and_then(|presented| rules.capabilities.get(&presented.id));
        subject(rules, presented, self.facts.agent.as_ref().unwrap_or_else(|| anonymous()))
    }

    /// The request was refused: whether that is a signal, alone or with others.
    pub(crate) fn look_at_denial(&mut self, headers: &HeaderMap, denial: &Denial) {
        if let Some(signal) = self.signal_of(headers, denial) {
            let pattern = denial.code().as_str().to_owned();
            self.shared.report(RiskSeen { pattern, ..self.seen(signal, RiskAction::Refused) });
        }
    }

    fn signal_of(&mut self, headers: &HeaderMap, denial: &Denial) -> Option<Signal> {
        match denial.code() {
            DenialCode::OriginNotAllowed => self.is_proven(headers).then_some(Signal::BrowserRequest),
            // What the catalogue does not know is refused as well, and agents ask for much of that in good faith.
            DenialCode::EndpointDenied => match self.facts.class? {
                RouteClass::Mint => Some(Signal::MintingAttempt),
                RouteClass::Admin => None,
                _ => self.counted(Signal::ScopeDenials, SCOPE_DENIALS, denial),
            },
            DenialCode::OutOfScope if self.is_off_its_socket() => Some(Signal::WrongTransport),
            DenialCode::OutOfScope => self.counted(Signal::ScopeDenials, SCOPE_DENIALS, denial),
            DenialCode::RevokedCapability | DenialCode::ExpiredCapability => {
                self.counted(Signal::DeadCapability, DEAD_USES, denial)
            }
            _ => None,
        }
    }

    /// The signal, once there were enough.
    fn counted(&self, signal: Signal, needed: usize, denial: &Denial) -> Option<Signal> {
        self.facts.capability?;
        let mut hasher = DefaultHasher::new();
        denial.message().hash(&mut hasher);
        let (what, now) = (hasher.finish(), self.shared.ledger.now());
        let mut books = self.shared.risk.books();
        books.counter.count(self.risk_subject(), signal, what, needed, now).then_some(signal)
    }

    /// Whether a page has a capability, which is then known as the caller. Its query was not read, where nobody puts
    /// one by hand.
    fn is_proven(&mut self, headers: &HeaderMap) -> bool {
        let snapshot = self.snapshot.clone();
        let is_apart = headers.contains_key(CAPABILITY);
        let found = authenticate(&snapshot, is_apart, headers, None, self.connection.is_local);
        let Ok(Some(capability)) = found else { return false };
        self.facts.called_by(Some(capability));
        true
    }

    fn is_off_its_socket(&self) -> bool {
        let rules = &self.snapshot.rules;
        let presented = self.facts.capability.and_then(|presented| rules.capabilities.get(&presented.id));
        let needs_socket = rules.lineage(presented).any(|link| link.scope.requires_unix_socket);
        needs_socket && self.connection.transport != Transport::Unix
    }

    /// The request has cost something: whether spending rises as it never did.
    pub(crate) fn look_at_spending(&self, cost: Option<NanoUsd>) {
        let (Some(cost), Some(agent), Some(provider)) = (cost, &self.facts.agent, &self.facts.provider)
        else {
            return;
        };
        let rules = &self.snapshot.rules;
        let capability = self.facts.capability.and_then(|presented| rules.capabilities.get(&presented.id));
        let Some(day) = day_limit(rules, capability, agent, &provider.id).filter(|_| cost > NanoUsd::ZERO)
        else {
            return;
        };
        let (subject, now) = (self.risk_subject(), self.shared.ledger.now());
        let is_rise = self.shared.risk.books().slope.add(&subject, cost, day, now);
        if is_rise {
            self.shared.report(self.seen(Signal::SpendSlope, RiskAction::Logged));
        }
    }
}

impl Shared {
    /// A decoy, or a canary of the vault, was presented as a key by nobody who is known: it was stolen. It is evidence
    /// against the one for whom it was planted, from whom it was taken.
    pub(crate) fn decoy_presented(&self, rules: &Rules, canary: policy::CanaryId) {
        let Some(canary) = rules.canaries.iter().find(|known| known.id == canary) else { return };
        let signal = match canary.kind {
            policy::CanaryKind::Vault => Signal::VaultCanary,
            policy::CanaryKind::Decoy | policy::CanaryKind::Prompt => Signal::DecoyAsCredential,
        };
        let holder = canary.holder.as_ref();
        let agent = holder.map_or(anonymous(), |holder| &holder.agent);
        let capability = holder.and_then(|holder| rules.capabilities.get(&holder.capability?));
        let pattern = format!("canary:{}", canary.name);
        let seen = RiskSeen::new(signal, subject(rules, capability, agent), RiskAction::Refused);
        self.report(RiskSeen { pattern, agent: Some(agent.clone()), ..seen });
    }
}

/// The capability that an owner minted, or the agent where there is none.
fn subject(rules: &Rules, capability: Option<&Capability>, agent: &AgentName) -> Subject {
    match capability {
        Some(capability) => Subject::Capability(rules.root(capability).id),
        None => Subject::Agent(agent.clone()),
    }
}

/// The least that may be spent in a day.
fn day_limit(
    rules: &Rules,
    capability: Option<&Capability>,
    agent: &AgentName,
    provider: &ProviderId,
) -> Option<NanoUsd> {
    let budgets = rules.budgets_for(capability, agent, provider).into_iter();
    let of_day =
        budgets.filter(|budget| budget.period == Period::Daily && budget.limit.unit == Unit::NanoUsd);
    of_day.map(|budget| NanoUsd::from_nanos(budget.limit.number)).min()
}
