//! Hot: one pot of the books: what was borrowed of a budget for a period, and what it can do for a request.

use std::time::{Duration, Instant};

use policy::{Budget, Quote, Shortage, TimestampUs, Unit};

/// A lease is kept at about this part of the limit beyond what requests hold, and given back down to it above twice as
/// much: what a crash may cost on top of the requests in flight is a hundredth.
pub(crate) const LEASE_PARTS: i64 = 200;
/// For how long what the database had left may refuse a request without asking again.
const LEFT_IS_FRESH: Duration = Duration::from_secs(1);
/// After this long without a request everything that is not held is given back.
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(1);

/// What was borrowed of a budget for a period. A rolling budget and `total` have one pot for ever.
#[derive(Debug)]
pub(crate) struct Pot {
    /// The start of the period; 0 for a rolling budget and for `total`.
    pub(crate) start: TimestampUs,
    pub(crate) leased: i64,
    pub(crate) room: i64,
    pub(crate) reserved: i64,
    pub(crate) unbooked: i64,
    /// As the database had it in the last round, unless the limit was edited since.
    pub(crate) known: Option<Known>,
    /// What the next round is to borrow.
    pub(crate) wish: i64,
    pub(crate) used_at: Instant,
    /// The most that one request held since the pot was last idle: the next may need as much.
    pub(crate) largest: i64,
    /// Up to this round a request waits that needs room here as well as elsewhere, so none is given back.
    pub(crate) kept_until: u64,
    /// The limit was edited: what was borrowed under the old one is not given out any more.
    pub(crate) is_stale: bool,
}

/// What the database had in the last round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) at: Instant,
    pub(crate) spent: i64,
    /// Leased to other processes.
    pub(crate) others: i64,
    /// Neither spent nor leased to anybody.
    pub(crate) left: i64,
    pub(crate) renews_at: Option<TimestampUs>,
}

/// What a pot can do for a request.
pub(crate) enum Offer {
    /// Pay for answers of this length.
    Enough(u64),
    /// Nothing before this much is borrowed.
    Borrow(i64),
    /// Nothing; this much was needed.
    Short(i64),
}

impl Pot {
    pub(crate) fn new(start: TimestampUs, at: Instant) -> Self {
        Self {
            start,
            leased: 0,
            room: 0,
            reserved: 0,
            unbooked: 0,
            known: None,
            wish: 0,
            used_at: at,
            largest: 0,
            kept_until: 0,
            is_stale: false,
        }
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.reserved != 0 || self.unbooked != 0 || self.wish != 0
    }

    pub(crate) fn usable(&self) -> i64 {
        if self.is_stale { self.room.min(0) } else { self.room }
    }

    pub(crate) fn fresh_left(&self, at: Instant) -> Option<i64> {
        let is_fresh = |known: &&Known| at.saturating_duration_since(known.at) < LEFT_IS_FRESH;
        self.known.as_ref().filter(is_fresh).map(|known| known.left)
    }

    /// Looks what there is for a request. A request that costs nothing needs a budget that is not used up.
    pub(crate) fn offer(&self, unit: Unit, step: i64, quote: &Quote, at: Instant) -> Offer {
        let (least, most) = (quote.amount(unit, quote.least_output), quote.amount(unit, quote.most_output));
        let (least, most) = (least.max(1), most.max(1));
        let usable = self.usable();
        if usable >= most {
            return Offer::Enough(quote.most_output);
        }
        match self.fresh_left(at) {
            Some(left) if usable.saturating_add(left) < least => Offer::Short(least),
            Some(left) if left <= 0 => {
                quote.affordable(unit, usable).map_or(Offer::Short(least), Offer::Enough)
            }
            Some(_) | None => Offer::Borrow((most - usable.max(0)).saturating_add(self.spare(step))),
        }
    }

    /// What is borrowed beyond what a request needs: a step for all that wait together, and not for each.
    pub(crate) fn spare(&self, step: i64) -> i64 {
        if self.wish == 0 { step } else { 0 }
    }

    pub(crate) fn wish_for(&mut self, amount: i64) {
        self.wish = self.wish.saturating_add(amount);
    }

    /// Moves room to a request, and asks for more before it is needed.
    pub(crate) fn hold(&mut self, step: i64, amount: i64, at: Instant) {
        self.room -= amount;
        self.reserved += amount;
        self.largest = self.largest.max(amount);
        self.used_at = at;
        let may_have_more = self.known.is_none_or(|known| known.left > 0);
        if self.wish == 0 && self.room < step / 2 && may_have_more {
            self.wish = step - self.room;
        }
    }
}

pub(crate) fn lease_step(budget: &Budget) -> i64 {
    (budget.limit.number / LEASE_PARTS).max(1)
}

pub(crate) fn shortage(budget: &Budget, pot: &Pot, needed: i64) -> Shortage {
    Shortage {
        budget: budget.name(),
        limit: budget.limit,
        spent: pot.known.map_or(0, |known| known.spent).saturating_add(pot.unbooked),
        reserved: pot.known.map_or(0, |known| known.others).saturating_add(pot.reserved),
        needed,
        resets_at: pot.known.and_then(|known| known.renews_at),
    }
}
