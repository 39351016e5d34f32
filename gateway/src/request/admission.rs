//! Hot: what a request takes before it is sent, of rates, budgets and what its caller's risk leaves, and what it gives back
//! before its caller sees the end.

use std::sync::Arc;

use pingora::http::RequestHeader;
use policy::{Basis, Caller, Capability, Denial, Quote, RiskVerdict, Usage};
use storage::Reservation;

use crate::config::Reserve;
use crate::meter::{Ending, Metered};
use crate::provider::upstream::Upstream;
use crate::request::context::{Context, Hide, Reserved, Stage, used};
use crate::request::facts::anonymous;
use crate::request::quote;
use crate::request::rates::{self, Permit};
use crate::state::Snapshot;

impl Context {
    /// Takes a place and a request from the limits on rates that apply; the caller and the provider must be known.
    pub(crate) fn enter_rates(&mut self, capability: Option<&Capability>) -> Result<(), Denial> {
        let (Some(agent), Some(provider)) = (&self.facts.agent, &self.facts.provider) else { return Ok(()) };
        let limits =
            self.snapshot.rules.rate_limits_at(capability, agent, &provider.id, self.shared.ledger.now());
        self.permit = Permit::enter(&self.shared, &limits)?;
        Ok(())
    }

    /// Takes the tokens that the request is taken to need from those limits; the body must have been read.
    pub(crate) fn take_tokens(&mut self) -> Result<(), Denial> {
        let Some(permit) = &mut self.permit else { return Ok(()) };
        permit.take_tokens(rates::tokens_needed(&self.facts, self.request_bytes))
    }

    /// The caller is about to see the end of the answer and may ask again at once.
    pub(crate) fn leave_rates(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.leave();
        }
    }

    /// The same for its budgets, once all is known that is charged.
    pub(crate) fn leave_budgets(&mut self) {
        if !matches!(&self.stage, Stage::Reserved(reserved) if reserved.reservation.is_limited()) {
            return;
        }
        self.finish_meter();
        let is_known = |metered: &&Metered| metered.usage.is_some() && metered.ending == Ending::Complete;
        let Some(metered) = self.metered.as_ref().filter(is_known) else { return };
        let (basis, usage, cost) = self.charge(Some(metered), None);
        self.charged = Some((basis, usage, cost));
        self.remember_length(basis, &usage);
        let used = used(&usage, cost);
        if let Stage::Reserved(reserved) = &mut self.stage {
            reserved.reservation.charge(used);
        }
    }

    /// Remembers how long an answer was that a budget had to cover, for what its caller asks next.
    pub(super) fn remember_length(&self, basis: Basis, usage: &Usage) {
        if !self.facts.is_streaming && basis == Basis::Reported {
            let agent = self.facts.agent.as_ref().unwrap_or_else(|| anonymous());
            self.shared.lengths.add(agent, usage.output);
        }
    }

    pub(super) fn finish_meter(&mut self) {
        if let Some(meter) = self.meter.take() {
            self.metered = Some(meter.finish());
        }
    }

    /// The request is refused, which takes nothing from the limits on rates.
    pub(crate) fn release_rates(&mut self) {
        self.permit = None;
    }

    /// From here on the request is decided by the rules as they are now, and still by the configuration it began with.
    pub(crate) fn take_newest_rules(&mut self) {
        let newest = self.shared.snapshot.load();
        if !Arc::ptr_eq(&newest.rules, &self.snapshot.rules) {
            let rules = newest.rules.clone();
            self.snapshot = Arc::new(Snapshot { rules, ..Snapshot::clone(&self.snapshot) });
        }
    }

    /// Takes from the body what decisions need.
    pub(crate) fn read_body(&mut self, request: &RequestHeader) -> Result<(), Denial> {
        self.request_bytes = self.body.bytes.len() as u64;
        self.facts.read_body(request, &self.body.bytes)
    }

    /// How far the caller is restricted, by the rules that the request is decided by.
    pub(crate) fn risk(&self) -> RiskVerdict {
        self.facts.risk(&self.snapshot.rules, self.shared.ledger.now())
    }

    /// Whether the caller's risk lets it use the route. The caller and the route must be known.
    pub(crate) fn check_risk(&self) -> Result<(), Denial> {
        let (Some(agent), Some(class)) = (&self.facts.agent, self.facts.class) else { return Ok(()) };
        let method = self.facts.method.as_ref().and_then(|method| method.as_str().parse().ok());
        method.map_or(Ok(()), |method| self.risk().check_route(agent, class, method))
    }

    /// What the request may cost; nothing is worked out where nobody counts it.
    pub(crate) fn quote(&self, caller: &Caller<'_>) -> Result<Quote, Denial> {
        let Some(provider) = &self.facts.provider else { return Ok(Quote::FREE) };
        if !self.snapshot.rules.has_budget_for(caller.capability, caller.agent, &provider.id) {
            return Ok(Quote::FREE);
        }
        quote::quote(&self.facts, &self.snapshot, &self.shared.lengths, self.request_bytes)
    }

    /// The budgets have room. The body becomes the one that is sent: its answer limited to what a strict budget
    /// covers and the caller's risk allows, its usage asked for on the caller's behalf.
    pub(crate) fn reserved(
        &mut self,
        reservation: Reservation,
        upstream: Arc<Upstream>,
        target: String,
    ) -> Result<(), Denial> {
        let covered = reservation.covered_output().filter(|_| self.is_strict());
        let of_risk = self.risk().output_tokens().filter(|_| quote::can_limit(&self.facts));
        self.stage = Stage::Reserved(Box::new(Reserved { reservation, upstream, target }));
        self.enter_live();
        if let Some(covered) = covered.into_iter().chain(of_risk).min() {
            self.limit_output(covered)?;
        }
        if let Some(body) = self.facts.ask_for_usage(&self.body.bytes) {
            self.body.replace(body);
            self.hide_usage = Some(Hide::new());
        }
        if let Some(permit) = &mut self.permit {
            permit.admit();
        }
        Ok(())
    }

    pub(super) fn is_strict(&self) -> bool {
        self.snapshot.config.budget.reserve == Reserve::Strict
    }

    fn limit_output(&mut self, covered: u64) -> Result<(), Denial> {
        let Some(limit) = quote::output_limit(&self.facts, &self.snapshot, covered)? else { return Ok(()) };
        let body = quote::limit_answer(&self.facts, &self.body.bytes, limit)?;
        self.facts.body_replaced(&body)?;
        self.body.replace(body);
        self.output_limit = Some(limit.into());
        Ok(())
    }
}
