//! Prices: money per million tokens, and the cost of a usage.
//!
//! A table is text (JSON) that says where its numbers come from and when they were read. A model is found by
//! its exact name, then by an alias, then without a trailing date; never by a prefix, because `gpt-4o` and
//! `gpt-4o-mini` are different prices. What is not found is unknown, which is not the same as free.

use std::collections::HashMap;

use serde::Deserialize;

use crate::{NanoUsd, Overflow, Usage};

const TOKENS_PER_MTOK: u128 = 1_000_000;

/// Nano-dollars per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct TokenPrice(u64);

/// What one model costs, with the dearer rates of long contexts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Price {
    /// The rates of an ordinary request.
    #[serde(flatten)]
    pub rates: Rates,
    /// Rates for long contexts, in ascending order of their threshold.
    #[serde(default)]
    pub tiers: Vec<Tier>,
    /// The longest answer that the model gives, in tokens, where it is known.
    #[serde(default)]
    pub max_output_tokens: Option<u64>,
}

/// Rates that hold for the whole request once its input passes a threshold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tier {
    /// The tier applies when all input tokens together are more than this.
    pub above_input_tokens: u64,
    /// The rates of the tier.
    #[serde(flatten)]
    pub rates: Rates,
}

/// The rates for each kind of token. One that is not listed is never free; the methods say what stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Rates {
    /// Input tokens that no cache was involved in.
    pub input: TokenPrice,
    /// Output tokens, reasoning included.
    pub output: TokenPrice,
    #[serde(default)]
    cache_read: Option<TokenPrice>,
    #[serde(default)]
    cache_write_5m: Option<TokenPrice>,
    #[serde(default)]
    cache_write_1h: Option<TokenPrice>,
}

/// All prices known, by provider and model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
    #[serde(default)]
    aliases: HashMap<String, HashMap<String, String>>,
    providers: HashMap<String, HashMap<String, Price>>,
}

/// A price, and the name in the table under which it was found.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'a> {
    /// The name in the table; differs from the name asked for after an alias or a date was resolved.
    pub model: &'a str,
    /// The price.
    pub price: &'a Price,
}

/// Text that is not a price table.
#[derive(Debug, thiserror::Error)]
#[error("the price table cannot be read")]
pub struct PriceTableError(#[from] serde_json::Error);

impl TokenPrice {
    /// A price given in nano-dollars per million tokens.
    pub const fn from_nanos_per_mtok(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The price in nano-dollars per million tokens.
    pub const fn nanos_per_mtok(self) -> u64 {
        self.0
    }

    /// The exact product, in millionths of a nano-dollar.
    fn scaled(self, tokens: u64) -> u128 {
        u128::from(self.0) * u128::from(tokens)
    }
}

impl Rates {
    /// Input tokens read from a cache; the input price where no other is listed.
    pub fn cache_read(&self) -> TokenPrice {
        self.cache_read.unwrap_or(self.input)
    }

    /// Input tokens written to a cache for five minutes; the input price where no other is listed.
    pub fn cache_write_5m(&self) -> TokenPrice {
        self.cache_write_5m.unwrap_or(self.input)
    }

    /// Input tokens written to a cache for an hour; the five-minute price where no other is listed.
    pub fn cache_write_1h(&self) -> TokenPrice {
        self.cache_write_1h.unwrap_or_else(|| self.cache_write_5m())
    }
}

impl Price {
    /// The cost of a usage. The parts are summed exactly and rounded up once.
    ///
    /// # Errors
    /// [`Overflow`] when the cost does not fit in an `i64` of nano-dollars.
    pub fn cost(&self, usage: &Usage) -> Result<NanoUsd, Overflow> {
        let rates = self.rates_for(usage.input_total());
        let parts = [
            (rates.input, usage.input),
            (rates.output, usage.output),
            (rates.cache_read(), usage.cache_read),
            (rates.cache_write_5m(), usage.cache_write_5m),
            (rates.cache_write_1h(), usage.cache_write_1h),
        ];
        let scaled = parts
            .into_iter()
            .try_fold(0u128, |sum, (price, tokens)| sum.checked_add(price.scaled(tokens)).ok_or(Overflow))?;
        NanoUsd::try_from(scaled.div_ceil(TOKENS_PER_MTOK))
    }

    /// The rates that apply to a request with this many input tokens, cached ones included.
    pub fn rates_for(&self, input_tokens: u64) -> &Rates {
        let tier = self.tiers.iter().rev().find(|tier| input_tokens > tier.above_input_tokens);
        tier.map_or(&self.rates, |tier| &tier.rates)
    }
}

impl PriceTable {
    /// Reads a table from its JSON text.
    ///
    /// # Errors
    /// [`PriceTableError`] with the line and column of the fault.
    pub fn parse(json: &str) -> Result<Self, PriceTableError> {
        let mut table: Self = serde_json::from_str(json)?;
        for price in table.providers.values_mut().flat_map(HashMap::values_mut) {
            price.tiers.sort_by_key(|tier| tier.above_input_tokens);
        }
        Ok(table)
    }

    /// The price of a model: exact name, then alias, then the name without a trailing date.
    pub fn resolve(&self, provider: &str, model: &str) -> Option<Resolved<'_>> {
        let models = self.providers.get(provider)?;
        let exact = |name: &str| models.get_key_value(name).map(|(model, price)| Resolved { model, price });
        let alias = || {
            let target = self.aliases.get(provider)?.get(model)?;
            exact(target)
        };
        exact(model).or_else(alias).or_else(|| exact(without_date(model)?))
    }

    /// The dearest rates of all models of a provider, each kind by itself: what a model of unknown price may cost.
    pub fn dearest(&self, provider: &str) -> Option<Rates> {
        let prices = self.providers.get(provider)?.values();
        let rates = prices.flat_map(|price| price.tiers.iter().map(|tier| &tier.rates).chain([&price.rates]));
        rates.copied().reduce(|a, b| Rates {
            input: a.input.max(b.input),
            output: a.output.max(b.output),
            cache_read: Some(a.cache_read().max(b.cache_read())),
            cache_write_5m: Some(a.cache_write_5m().max(b.cache_write_5m())),
            cache_write_1h: Some(a.cache_write_1h().max(b.cache_write_1h())),
        })
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

    const TABLE: &str = r#"{
        "source": "test", "licence": "MIT", "version": "1", "date": "2026-11-25",
        "aliases": {"openai": {"gpt-4o-latest": "gpt-4o"}},
        "providers": {"openai": {
            "gpt-4o": {"input": 2500000000, "output": 10000000000, "cache_read": 1250000000},
            "gpt-4o-mini": {"input": 150000000, "output": 600000000},
            "long": {"input": 1000000000, "output": 2000000000,
                     "tiers": [{"above_input_tokens": 200000, "input": 2000000000, "output": 3000000000}]}
        }}
    }"#;

    fn input_price(nanos: u64) -> Price {
        let rates = Rates { input: TokenPrice(nanos), ..Rates::default() };
        Price { rates, tiers: Vec::new(), max_output_tokens: None }
    }

    #[track_caller]
    fn check_resolve(model: &str, found: Option<&str>) {
        let table = PriceTable::parse(TABLE).unwrap();
        assert_eq!(table.resolve("openai", model).map(|resolved| resolved.model), found, "{model}");
    }

    #[track_caller]
    fn check_cost(model: &str, usage: Usage, nanos: i64) {
        let table = PriceTable::parse(TABLE).unwrap();
        assert_eq!(
            table.resolve("openai", model).unwrap().price.cost(&usage),
            Ok(NanoUsd::from_nanos(nanos))
        );
    }

    #[test]
    fn a_model_is_found_by_name_alias_or_without_its_date() {
        check_resolve("gpt-4o", Some("gpt-4o"));
        check_resolve("gpt-4o-latest", Some("gpt-4o"));
        check_resolve("gpt-4o-2024-08-06", Some("gpt-4o"));
        check_resolve("gpt-4o-20240806", Some("gpt-4o"));
    }

    #[test]
    fn a_model_is_never_found_by_a_prefix() {
        check_resolve("gpt-4o-nano", None);
        check_resolve("gpt-4", None);
        check_resolve("gpt-4o-2024-8-6", None);
        check_resolve("-20240806", None);
        check_resolve("é-20240806", None);
        check_resolve("gpt-4o-2024é06", None);
    }

    #[test]
    fn a_single_token_is_never_free() {
        check_cost("gpt-4o-mini", Usage { input: 1, ..Usage::default() }, 150);
        check_cost("gpt-4o", Usage { cache_read: 1, ..Usage::default() }, 1_250);
    }

    #[test]
    fn an_unlisted_cache_price_is_the_input_price() {
        check_cost("gpt-4o-mini", Usage { cache_read: 1_000_000, ..Usage::default() }, 150_000_000);
        check_cost("gpt-4o-mini", Usage { cache_write_1h: 1_000_000, ..Usage::default() }, 150_000_000);
    }

    #[test]
    fn a_long_context_is_priced_anew_as_a_whole() {
        check_cost("long", Usage { input: 200_000, output: 10, ..Usage::default() }, 200_020_000);
        check_cost("long", Usage { input: 200_001, output: 10, ..Usage::default() }, 400_032_000);
        check_cost("long", Usage { input: 1, cache_read: 200_000, ..Usage::default() }, 400_002_000);
    }

    #[test]
    fn the_dearest_rates_are_those_of_any_model_and_tier() {
        let dearest = PriceTable::parse(TABLE).unwrap().dearest("openai").unwrap();
        assert_eq!(
            (dearest.input.nanos_per_mtok(), dearest.output.nanos_per_mtok()),
            (2_500_000_000, 10_000_000_000)
        );
        assert!(PriceTable::parse(TABLE).unwrap().dearest("nobody").is_none());
    }

    #[test]
    fn a_cost_that_does_not_fit_is_an_error() {
        let price = input_price(u64::MAX);
        assert_eq!(price.cost(&Usage { input: u64::MAX, ..Usage::default() }), Err(Overflow));
    }

    proptest! {
        #[test]
        fn splitting_a_usage_never_lowers_its_cost(input in 0u64..1 << 40, part in 0u64..1 << 40, price in 0u64..1 << 40) {
            let price = input_price(price);
            let cost = |input| price.cost(&Usage { input, ..Usage::default() }).map(NanoUsd::nanos);
            if let (Ok(whole), Ok(one), Ok(other)) = (cost(input + part), cost(input), cost(part)) {
                prop_assert!(whole <= one + other);
                prop_assert!(whole >= one.max(other));
            }
        }

        #[test]
        fn no_name_can_panic_the_date_rule(model in ".{0,30}") {
            let _ = without_date(&model);
        }
    }
}
