//! The table of prices: where they come from, and how the price of a model is found.
//!
//! A model is found by its exact name, then by an alias, then without a trailing date; never by a prefix, because
//! `gpt-4o` and `gpt-4o-mini` are different prices. What is not found is unknown, which is not the same as free.

use std::collections::HashMap;

use super::{Price, Rates};

/// All prices known, by provider and model.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    /// Where the numbers come from.
    pub source: String,
    /// The licence of that source.
    pub licence: String,
    /// The version of the source.
    pub version: String,
    /// The day the source was published, `YYYY-MM-DD`.
    pub date: String,
    /// Provider, then another name of a model, then its name in `providers`.
    pub(super) aliases: HashMap<String, HashMap<String, String>>,
    pub(super) providers: HashMap<String, HashMap<String, Price>>,
}

/// A price, and how it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The name in the table; differs from the name asked for after an alias or a date was resolved.
    pub model: &'a str,
    /// The price.
    pub price: &'a Price,
    /// What of the name was found.
    pub matched: Match,
}

/// How a name led to a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is in the table.
    Exact,
    /// It is another name of one in the table.
    Alias,
    /// It is in the table without its date, or an alias is.
    WithoutDate,
}

/// Text that is not a price table.
#[derive(Debug, thiserror::Error)]
#[error("the price table is not valid: {0}")]
pub struct PriceTableError(String);

impl PriceTable {
    /// Reads a table from its JSON text.
    ///
    /// # Errors
    /// [`PriceTableError`] with the key, line and column of the fault.
    pub fn parse(json: &str) -> Result<Self, PriceTableError> {
        serde_json::from_str(json).map_err(|error| PriceTableError(error.to_string()))
    }

    /// The price of a model: exact name, then alias, then the name without a trailing date.
    pub fn resolve(&self, provider: &str, model: &str) -> Option<Resolved<'_>> {
        let named = |name: &str| self.exact(provider, name).or_else(|| self.alias(provider, name));
        let dated = || Some(Resolved { matched: Match::WithoutDate, ..named(without_date(model)?)? });
        named(model).or_else(dated)
    }

    /// The price that stands in the table under exactly this name.
    pub fn price(&self, provider: &str, model: &str) -> Option<&Price> {
        self.providers.get(provider)?.get(model)
    }

    fn exact(&self, provider: &str, model: &str) -> Option<Resolved<'_>> {
        let (model, price) = self.providers.get(provider)?.get_key_value(model)?;
        Some(Resolved { model, price, matched: Match::Exact })
    }

    fn alias(&self, provider: &str, name: &str) -> Option<Resolved<'_>> {
        let target = self.aliases.get(provider)?.get(name)?;
        Some(Resolved { matched: Match::Alias, ..self.exact(provider, target)? })
    }

    /// Lays another table over this one: what it lists is priced by it, and the rest stays as it is.
    pub fn overlay(&mut self, over: Self) {
        for (provider, models) in over.providers {
            // A name that has a price of its own now is no other name of something else.
            let aliases = self.aliases.entry(provider.clone()).or_default();
            models.keys().for_each(|model| {
                aliases.remove(model);
            });
            self.providers.entry(provider).or_default().extend(models);
        }
        for (provider, aliases) in over.aliases {
            self.aliases.entry(provider).or_default().extend(aliases);
        }
    }

    /// Puts one price into the table.
    pub fn insert(&mut self, provider: &str, model: &str, price: Price) {
        self.providers.entry(provider.to_owned()).or_default().insert(model.to_owned(), price);
    }

    /// Puts another name for a model into the table.
    pub fn insert_alias(&mut self, provider: &str, name: &str, model: &str) {
        self.aliases.entry(provider.to_owned()).or_default().insert(name.to_owned(), model.to_owned());
    }

    /// The dearest rates of all models of a provider, each kind by itself: what a model of unknown price may cost.
    pub fn dearest(&self, provider: &str) -> Option<Rates> {
        let prices = self.providers.get(provider)?.values();
        prices.flat_map(Price::all_rates).copied().reduce(|a, b| a.max(&b))
    }

    /// Every provider, model and price, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Price)> {
        let providers = self.providers.iter();
        providers.flat_map(|(provider, models)| {
            models.iter().map(move |(model, price)| (provider.as_str(), model.as_str(), price))
        })
    }
}

/// `name-2025-08-07` or `name-20250807` without its date.
fn without_date(model: &str) -> Option<&str> {
    let dashed = |at: usize| {
        let date = model.get(at..)?.as_bytes();
        let shaped = date.iter().enumerate().all(|(i, b)| match i {
            0 | 5 | 8 => *b == b'-',
            _ => b.is_ascii_digit(),
        });
        shaped.then(|| &model[..at])
    };
    let compact = |at: usize| {
        let digits = model.get(at..)?.strip_prefix('-')?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| &model[..at])
    };
    let name = model.len().checked_sub(11).and_then(dashed);
    name.or_else(|| model.len().checked_sub(9).and_then(compact)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_name_can_panic_the_date_rule(model in ".{0,30}") {
            let _ = without_date(&model);
        }
    }
}
