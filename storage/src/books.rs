//! Hot: what this process has borrowed of each budget, and which requests hold it. Plain arithmetic: no SQL, no
//! clock, no waiting.
//!
//! A pot is what was borrowed of one budget for one period. Its lease, committed in the database, is always the sum
//! of its room, of what requests in flight hold, and of what ended requests used and the writer has not booked yet.
//! Requests move amounts between these three; only a round of the writer changes the sum, in one transaction with
//! the rows of the log. So whatever happens to this process, the database has already set aside all it may spend.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::tz::TimeZone;
use policy::{Budget, BudgetId, Period, Plan, Quote, Shortage, TimestampUs, Unit, Window};

use crate::pot::{IDLE_AFTER, Known, Offer, Pot, lease_step, shortage};

/// The most that one request is charged, in either unit: what a provider reports beyond it nobody owes. As many of
/// them as there are places in the log still fit into a sum.
pub(crate) const CHARGE_MAX: i64 = 100_000_000_000_000;

/// What this process has borrowed of every budget.
#[derive(Debug)]
pub(crate) struct Books {
    accounts: BTreeMap<BudgetId, Account>,
    zone: TimeZone,
    rounds_planned: u64,
    rounds_done: u64,
}

#[derive(Debug)]
struct Account {
    budget: Budget,
    window: Window,
    pots: Vec<Pot>,
}

/// What a request holds of one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    budget: BudgetId,
    unit: Unit,
    start: TimestampUs,
    bucket: TimestampUs,
    amount: i64,
}

/// What a request used of one budget, to be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) budget: BudgetId,
    pub(crate) start: TimestampUs,
    pub(crate) bucket: TimestampUs,
    pub(crate) amount: i64,
}

/// An attempt to take from all budgets at once.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Taken, for answers of at most so many tokens each.
    Held(Vec<Held>, u64),
    /// More has to be borrowed first; ask again when this round is done.
    Wait(u64),
    /// A budget has no room.
    Short(Shortage),
}

/// What a round of the writer does for one pot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) budget: BudgetId,
    pub(crate) start: TimestampUs,
    /// Spend in buckets from here on counts against the limit, and so do leases of them.
    pub(crate) from: TimestampUs,
    /// Up to here, exclusively.
    pub(crate) to: TimestampUs,
    pub(crate) leased: i64,
    pub(crate) booked: i64,
    pub(crate) give_back: i64,
    pub(crate) wish: i64,
}

/// What came of a step, once it is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stepped {
    pub(crate) limit: i64,
    pub(crate) leased: i64,
    pub(crate) granted: i64,
    pub(crate) spent: i64,
    pub(crate) others: i64,
    pub(crate) left: i64,
    /// The earliest bucket in which something was spent.
    pub(crate) oldest: Option<TimestampUs>,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self { accounts: BTreeMap::new(), zone: TimeZone::UTC, rounds_planned: 0, rounds_done: 0 }
    }

    /// Takes over the budgets as they are now. What was borrowed stays with those that are still there.
    pub(crate) fn set_budgets<'a>(
        &mut self,
        budgets: impl Iterator<Item = &'a Budget>,
        zone: &TimeZone,
        now: TimestampUs,
    ) {
        let mut old = std::mem::take(&mut self.accounts);
        self.zone = zone.clone();
        for budget in budgets {
            let window = budget.period.window(now, zone);
            let account = match old.remove(&budget.id) {
                Some(account) => account.edited(budget, window),
                None => Account { budget: budget.clone(), window, pots: Vec::new() },
            };
            self.accounts.insert(budget.id, account);
        }
    }

    /// Takes what `plan` needs from all its budgets, or nothing. `waited_for` is the round that an attempt before
    /// this one was told to wait for.
    pub(crate) fn try_reserve(
        &mut self,
        plan: &Plan,
        now: TimestampUs,
        at: Instant,
        waited_for: Option<u64>,
    ) -> Attempt {
        if let Some(round) = waited_for.filter(|round| self.rounds_done < *round) {
            return Attempt::Wait(round);
        }
        let quote = plan.quote();
        let mut output = quote.most_output;
        let mut must_wait = false;
        for id in plan.budgets() {
            let Some(account) = self.accounts.get_mut(id) else { continue };
            account.turn(now, &self.zone);
            let (unit, step) = (account.budget.limit.unit, lease_step(&account.budget));
            match account.current(at).offer(unit, step, quote, at) {
                Offer::Enough(affordable) => output = output.min(affordable),
                Offer::Short(needed) => return Attempt::Short(account.shortage(needed, at)),
                Offer::Borrow(amount) => {
                    account.current(at).wish_for(amount);
                    must_wait = true;
                }
            }
        }
        if must_wait {
            self.keep(plan, at);
            return Attempt::Wait(self.rounds_planned + 1);
        }
        let accounts = &mut self.accounts;
        let take = |id: &BudgetId| Some(accounts.get_mut(id)?.take(quote, output, at));
        Attempt::Held(plan.budgets().iter().filter_map(take).collect(), output)
    }

    /// Keeps the room in all budgets of a request that waits for more in some: otherwise each could be given back while
    /// another is borrowed from, and the request would wait for ever.
    fn keep(&mut self, plan: &Plan, at: Instant) {
        for id in plan.budgets() {
            if let Some(account) = self.accounts.get_mut(id) {
                account.current(at).kept_until = self.rounds_planned + 2;
            }
        }
    }

    /// Makes a reservation cover answers of `output` tokens each, or leaves it as it is.
    pub(crate) fn try_grow(
        &mut self,
        held: &mut [Held],
        quote: &Quote,
        output: u64,
        at: Instant,
        waited_for: Option<u64>,
    ) -> Result<(), Attempt> {
        if let Some(round) = waited_for.filter(|round| self.rounds_done < *round) {
            return Err(Attempt::Wait(round));
        }
        let mut must_wait = false;
        let kept_until = self.rounds_planned + 2;
        for part in held.iter() {
            let Some((account, pot)) = self.pot(part.budget, part.start) else { continue };
            let more = quote.amount(part.unit, output) - part.amount;
            if pot.usable() >= more {
                continue;
            }
            match pot.fresh_left(at) {
                Some(left) if pot.usable().saturating_add(left) < more => {
                    return Err(Attempt::Short(shortage(account, pot, more)));
                }
                Some(_) | None => {
                    let spare = pot.spare(lease_step(account));
                    pot.wish_for((more - pot.usable().max(0)).saturating_add(spare));
                    pot.kept_until = kept_until;
                    must_wait = true;
                }
            }
        }
        if must_wait {
            return Err(Attempt::Wait(self.rounds_planned + 1));
        }
        for part in held {
            let Some((account, pot)) = self.pot(part.budget, part.start) else { continue };
            let more = quote.amount(part.unit, output) - part.amount;
            pot.hold(lease_step(account), more, at);
            part.amount += more;
        }
        Ok(())
    }

    /// Ends a reservation: what was used instead of what was held is to be booked, by the period it was taken from.
    pub(crate) fn settle(&mut self, held: &[Held], used: impl Fn(Unit) -> i64, at: Instant) -> Vec<Charge> {
        let mut charges = Vec::with_capacity(held.len());
        for part in held {
            // A budget that was cleared meanwhile counts nothing any more.
            let Some((_, pot)) = self.pot(part.budget, part.start) else { continue };
            let amount = used(part.unit).clamp(0, CHARGE_MAX);
            pot.reserved -= part.amount;
            pot.unbooked += amount;
            pot.room += part.amount - amount;
            pot.used_at = at;
            charges.push(Charge { budget: part.budget, start: part.start, bucket: part.bucket, amount });
        }
        charges
    }

    /// What the next round has to do: book these charges, borrow what is wished for, and give back what is not needed;
    /// all that no request holds where `gives_all_back`, which is for when no request waits.
    pub(crate) fn plan_round<'c>(
        &mut self,
        charges: impl Iterator<Item = &'c Charge>,
        now: TimestampUs,
        at: Instant,
        gives_all_back: bool,
    ) -> Vec<Step> {
        self.rounds_planned += 1;
        let mut booked: BTreeMap<(BudgetId, TimestampUs), i64> = BTreeMap::new();
        for charge in charges {
            *booked.entry((charge.budget, charge.start)).or_default() += charge.amount;
        }
        let mut steps = Vec::new();
        for account in self.accounts.values_mut() {
            account.turn(now, &self.zone);
            for index in 0..account.pots.len() {
                let key = (account.budget.id, account.pots[index].start);
                let booked = booked.remove(&key);
                let step = account.step(index, booked.unwrap_or(0), at, gives_all_back, self.rounds_planned);
                if booked.is_some() || step.give_back > 0 || step.wish > 0 {
                    steps.push(step);
                }
            }
        }
        steps
    }

    /// Nobody waits any more, and nobody will.
    pub(crate) fn forget_waiting(&mut self) {
        let pots = self.accounts.values_mut().flat_map(|account| &mut account.pots);
        pots.for_each(|pot| pot.kept_until = 0);
    }

    /// The steps of a round are committed. What was borrowed may be used.
    pub(crate) fn finish_round(&mut self, done: impl Iterator<Item = (Step, Option<Stepped>)>, at: Instant) {
        self.rounds_done = self.rounds_planned;
        let zone = self.zone.clone();
        for (step, stepped) in done {
            let Some((account, pot)) = self.pot(step.budget, step.start) else { continue };
            let stepped = stepped.unwrap_or_default();
            let expected = step.leased - step.booked - step.give_back + stepped.granted;
            pot.leased = stepped.leased;
            pot.unbooked -= step.booked;
            // What was used beyond the lease is in the database now, and no longer a debt of this pot.
            pot.room += stepped.granted + (stepped.leased - expected);
            let renews_at = match (account.period, stepped.oldest) {
                (Period::Rolling { .. }, Some(bucket)) => account.period.renewal(bucket, &zone),
                (Period::Rolling { .. } | Period::Total, _) => None,
                (Period::Daily | Period::Weekly | Period::Monthly, _) => {
                    account.period.renewal(step.start, &zone)
                }
            };
            let Stepped { spent, others, left, .. } = stepped;
            if !pot.is_stale {
                pot.known = Some(Known { at, spent, others, left, renews_at });
            }
        }
        for account in self.accounts.values_mut() {
            let current = account.pot_start();
            account.pots.retain(|pot| pot.start == current || pot.leased != 0 || pot.is_in_use());
        }
    }

    /// What is borrowed of each budget and held by no request.
    pub(crate) fn kept_ready(&self) -> BTreeMap<BudgetId, i64> {
        let room = |account: &Account| account.pots.iter().map(|pot| pot.room.max(0)).sum();
        self.accounts.iter().map(|(id, account)| (*id, room(account))).collect()
    }

    /// The budget of a number.
    pub(crate) fn budget(&self, id: BudgetId) -> Option<&Budget> {
        self.accounts.get(&id).map(|account| &account.budget)
    }

    /// What requests in flight hold of a budget.
    #[cfg(test)]
    pub(crate) fn reserved(&self, budget: BudgetId) -> i64 {
        self.accounts.get(&budget).map_or(0, |account| account.pots.iter().map(|pot| pot.reserved).sum())
    }

    fn pot(&mut self, budget: BudgetId, start: TimestampUs) -> Option<(&Budget, &mut Pot)> {
        let account = self.accounts.get_mut(&budget)?;
        let pot = account.pots.iter_mut().find(|pot| pot.start == start)?;
        Some((&account.budget, pot))
    }
}

impl Account {
    /// The same account under an edited budget.
    fn edited(mut self, budget: &Budget, window: Window) -> Self {
        if self.budget.limit != budget.limit {
            self.pots.iter_mut().for_each(|pot| (pot.is_stale, pot.known) = (true, None));
        }
        Self { budget: budget.clone(), window, ..self }
    }

    /// Follows the clock into another period. It never goes back to an earlier one.
    fn turn(&mut self, now: TimestampUs, zone: &TimeZone) {
        if self.window.bucket_end.is_some_and(|end| now >= end) {
            self.window = self.budget.period.window(now, zone);
        }
    }

    fn pot_start(&self) -> TimestampUs {
        match self.budget.period {
            Period::Daily | Period::Weekly | Period::Monthly => self.window.bucket,
            Period::Rolling { .. } | Period::Total => 0,
        }
    }

    fn current(&mut self, at: Instant) -> &mut Pot {
        let start = self.pot_start();
        let index = match self.pots.iter().position(|pot| pot.start == start) {
            Some(index) => index,
            None => {
                self.pots.push(Pot::new(start, at));
                self.pots.len() - 1
            }
        };
        &mut self.pots[index]
    }

    fn take(&mut self, quote: &Quote, output: u64, at: Instant) -> Held {
        let unit = self.budget.limit.unit;
        let (bucket, amount) = (self.window.bucket, quote.amount(unit, output));
        let (budget, step) = (self.budget.id, lease_step(&self.budget));
        let pot = self.current(at);
        pot.hold(step, amount, at);
        Held { budget, unit, start: pot.start, bucket, amount }
    }

    fn step(&mut self, index: usize, booked: i64, at: Instant, gives_all_back: bool, round: u64) -> Step {
        let is_past = self.pots[index].start != self.pot_start();
        let step = lease_step(&self.budget);
        let (id, period, window) = (self.budget.id, self.budget.period, self.window);
        let pot = &mut self.pots[index];
        let is_idle = at.saturating_duration_since(pot.used_at) >= IDLE_AFTER && pot.wish == 0;
        let is_awaited = round <= pot.kept_until && !gives_all_back;
        if gives_all_back && round > pot.kept_until {
            pot.wish = 0; // it was made ahead of need
        }
        let kept = match pot.wish {
            _ if pot.is_stale => 0,
            _ if is_awaited => pot.room,
            0 if gives_all_back || is_past || is_idle => 0,
            0 if pot.room > step.max(pot.largest).saturating_mul(2) => step.max(pot.largest),
            _ => pot.room,
        };
        if is_idle {
            pot.largest = 0;
        }
        let give_back = (pot.room - kept).max(0);
        pot.room -= give_back;
        pot.is_stale = false;
        // A pot of another zone's day may reach into this period; then it is a part of it.
        let is_over = is_past && pot.start < window.counts_from;
        let (from, to) = match period {
            Period::Rolling { .. } | Period::Total => (window.counts_from, TimestampUs::MAX),
            _ if is_over => (pot.start, window.from),
            _ => (window.counts_from, window.bucket_end.unwrap_or(TimestampUs::MAX)),
        };
        let wish = std::mem::take(&mut pot.wish);
        Step { budget: id, start: pot.start, from, to, leased: pot.leased, booked, give_back, wish }
    }

    fn shortage(&mut self, needed: i64, at: Instant) -> Shortage {
        let budget = self.budget.clone();
        shortage(&budget, self.current(at), needed)
    }
}

#[cfg(test)]
#[path = "books_tests/mod.rs"]
mod tests;
