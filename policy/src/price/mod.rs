//! Prices: what each part of a usage costs at which model, and the cost of a usage.
//!
//! A price has the rates of an ordinary request, those of long contexts, and those of the provider's other service
//! tiers. A bill lists what a usage costs part by part; a cost is the sum of its lines. All of it is whole numbers.

mod bill;
mod rates;
mod read;
mod table;

use std::collections::BTreeMap;

use crate::{NanoUsd, Overflow, Usage};

pub use bill::{Bill, Line};
pub use rates::{Part, Rates, TokenPrice};
pub use table::{Match, PriceTable, PriceTableError, Resolved};

/// What one model costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// The rates of an ordinary request.
    pub ordinary: Ladder,
    /// The rates of other service tiers, by the name that a response has for the tier: `flex`, `priority`.
    pub service_tiers: BTreeMap<String, Ladder>,
    /// The longest answer that the model gives, in tokens, where it is known.
    pub max_output_tokens: Option<u64>,
    /// The longest input that the model takes, in tokens, where it is known.
    pub max_input_tokens: Option<u64>,
}

/// Rates that get dearer where the input gets long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    /// The rates of an ordinary context.
    pub rates: Rates,
    /// Rates for long contexts, in ascending order of their threshold.
    pub tiers: Vec<Tier>,
}

/// Rates that hold for the whole request once its input passes a threshold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// The tier applies when all input tokens together are more than this.
    pub above_input_tokens: u64,
    /// The rates of the tier.
    pub rates: Rates,
}

impl Price {
    /// A price with the same rates for every request.
    pub fn flat(rates: Rates) -> Self {
        Self { ordinary: Ladder { rates, tiers: Vec::new() }, ..Self::default() }
    }

    /// What a usage costs, part by part, in the service tier that answered. A tier that is not listed costs what an
    /// ordinary request does.
    pub fn bill(&self, usage: &Usage, service_tier: Option<&str>) -> Bill<'_> {
        let (tier, ladder) = self.ladder(service_tier);
        let (above, rates) = ladder.step(usage.input_total());
        Bill::new(rates, tier, above, usage)
    }

    /// What a usage costs in the service tier that answered.
    ///
    /// # Errors
    /// [`Overflow`] when the cost does not fit in an `i64` of nano-dollars.
    pub fn cost(&self, usage: &Usage, service_tier: Option<&str>) -> Result<NanoUsd, Overflow> {
        self.bill(usage, service_tier).total()
    }

    /// The rates of a service tier, and its name in the list where they are not the ordinary ones.
    pub fn ladder(&self, service_tier: Option<&str>) -> (Option<&str>, &Ladder) {
        let listed =
            service_tier.and_then(|name| self.service_tiers.get_key_value(&name.to_ascii_lowercase()));
        listed.map_or((None, &self.ordinary), |(name, ladder)| (Some(name), ladder))
    }

    /// The dearest rates, each part by itself, that a request for this service tier can be charged with this much
    /// input; providers may answer in the ordinary tier instead of the one that was asked for.
    pub fn rates_for(&self, input_tokens: u64, service_tiers: &[&str]) -> Rates {
        let ladders = service_tiers.iter().map(|name| self.ladder(Some(name)).1);
        let ordinary = *self.ordinary.rates_for(input_tokens);
        ladders.fold(ordinary, |dearest, ladder| dearest.max(ladder.rates_for(input_tokens)))
    }

    /// Every set of rates that the price has.
    fn all_rates(&self) -> impl Iterator<Item = &Rates> {
        let ladders = std::iter::once(&self.ordinary).chain(self.service_tiers.values());
        ladders.flat_map(|ladder| {
            std::iter::once(&ladder.rates).chain(ladder.tiers.iter().map(|tier| &tier.rates))
        })
    }
}

impl Ladder {
    /// The rates that apply to a request with this many input tokens, cached ones included.
    pub fn rates_for(&self, input_tokens: u64) -> &Rates {
        self.step(input_tokens).1
    }

    fn step(&self, input_tokens: u64) -> (Option<u64>, &Rates) {
        let tier = self.tiers.iter().rev().find(|tier| input_tokens > tier.above_input_tokens);
        tier.map_or((None, &self.rates), |tier| (Some(tier.above_input_tokens), &tier.rates))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
