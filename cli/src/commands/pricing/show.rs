//! `pricing show`: the price of a model at every provider that has it, and what a usage comes to.

use std::collections::BTreeSet;

use clap::Args;
use gateway::catalogue::{AuthStyle, Provider};
use gateway::config::{PriceOrigin, Prices};
use policy::{Ladder, Match, NanoUsd, Part, Price, PriceTable, Rates, Resolved, TokenPrice, Usage};
use serde_json::{Value, json};

use super::bill::{self, fine};
use super::{OWN, resolve};
use crate::app::{App, closest};
use crate::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The model, as a request names it
    model: String,
    /// Only of this provider
    #[arg(long)]
    provider: Option<String>,
    /// The service tier that a response names: flex, priority, batch
    #[arg(long, value_name = "TIER")]
    service_tier: Option<String>,
    #[command(flatten)]
    usage: bill::Typed,
}

/// A price that was found for a model.
struct Found<'a> {
    provider: &'a str,
    origin: PriceOrigin,
    resolved: Resolved<'a>,
}

/// Parts whose rates are always told, also where others stand in for them.
const ALWAYS: [Part; 5] =
    [Part::Input, Part::Output, Part::CacheRead, Part::CacheWrite5m, Part::CacheWrite1h];

impl Show {
    pub(super) fn run(self, app: &App, prices: &Prices) -> Result<(), Failure> {
        let table = &prices.table;
        let usage = self.usage.usage()?;
        let provider = self.provider.as_deref().map(|name| resolve(app, name)).transpose()?;
        if let Some(provider) = &provider
            && provider.is_local
            && provider.auth == AuthStyle::None
        {
            return self.show_free(app, provider, usage.as_ref());
        }
        let wanted = provider.map(|provider| provider.prices.clone());
        let found = find(prices, wanted.as_deref(), &self.model);
        if found.is_empty() {
            return Err(self.unknown(table, wanted.as_deref()));
        }
        let documents = found.iter().map(|found| self.document(found, usage.as_ref()));
        let document = json!({
            "model": self.model,
            "source": table.source,
            "version": table.version,
            "date": table.date,
            "prices": documents.collect::<Result<Vec<_>, _>>()?,
        });
        let texts: Vec<_> =
            found.iter().map(|found| self.describe(found, usage.as_ref())).collect::<Result<_, _>>()?;
        app.output.data(&document, || {
            let source = format!("as of {}: {} ({})", table.date, table.version, table.source);
            texts.into_iter().chain([source]).collect::<Vec<_>>().join("\n\n")
        });
        Ok(())
    }

    /// A server on this machine has no price list, because it costs nothing.
    fn show_free(&self, app: &App, provider: &Provider, usage: Option<&Usage>) -> Result<(), Failure> {
        let free = Price::default();
        let mut price = price_document(provider.id.as_str(), &self.model, &free);
        price["match"] = json!("local");
        price["bill"] = usage.map(|usage| bill::document(&free, usage, None)).transpose()?.into();
        let document = json!({ "model": self.model, "source": "local", "version": null, "date": null, "prices": [price] });
        app.output
            .data(&document, || format!("{} is a server on this machine: it costs nothing", provider.id));
        Ok(())
    }

    fn unknown(&self, table: &PriceTable, provider: Option<&str>) -> Failure {
        let message = match provider {
            Some(provider) => format!("there is no price of `{}` at {provider}", self.model),
            None => format!("there is no price of `{}`", self.model),
        };
        let failure = Failure::new(Exit::NotFound, "unknown_model", message);
        let known = table.iter().filter(|(owner, ..)| provider.is_none_or(|wanted| wanted == *owner));
        match closest(&self.model, known.map(|(_, model, _)| model)) {
            Some(similar) => failure.with_hint(format!("did you mean `{similar}`?")),
            None => failure.with_hint("tokfence pricing list"),
        }
    }

    fn document(&self, found: &Found<'_>, usage: Option<&Usage>) -> Result<Value, Failure> {
        let mut document = found.document();
        let bill = |usage| bill::document(found.resolved.price, usage, self.service_tier.as_deref());
        document["bill"] = usage.map(bill).transpose()?.into();
        Ok(document)
    }

    fn describe(&self, found: &Found<'_>, usage: Option<&Usage>) -> Result<String, Failure> {
        let bill = |usage| bill::describe(found.resolved.price, usage, self.service_tier.as_deref());
        let parts = [Some(found.describe(&self.model)), usage.map(bill).transpose()?];
        Ok(parts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
    }
}

/// The prices of a model, by provider.
fn find<'a>(prices: &'a Prices, wanted: Option<&str>, model: &str) -> Vec<Found<'a>> {
    let table: &PriceTable = &prices.table;
    let providers: BTreeSet<&str> = table.iter().map(|(provider, ..)| provider).collect();
    let wanted = providers.into_iter().filter(|provider| wanted.is_none_or(|wanted| wanted == *provider));
    wanted
        .filter_map(|provider| {
            let resolved = table.resolve(provider, model)?;
            Some(Found { provider, origin: prices.origin(provider, resolved.model), resolved })
        })
        .collect()
}

/// How the name that was asked for led to the one in the table.
fn match_name(matched: Match) -> &'static str {
    match matched {
        Match::Exact => "exact",
        Match::Alias => "alias",
        Match::WithoutDate => "without_date",
    }
}

impl Found<'_> {
    fn document(&self) -> Value {
        let mut document = price_document(self.provider, self.resolved.model, self.resolved.price);
        document["match"] = json!(match_name(self.resolved.matched));
        document["origin"] = json!(self.origin.as_str());
        document
    }

    fn describe(&self, asked: &str) -> String {
        let how = match self.resolved.matched {
            Match::Exact => String::new(),
            Match::WithoutDate => format!("  (`{asked}` without its date)"),
            Match::Alias => format!("  (`{asked}` is another name of it)"),
        };
        let from = match self.origin {
            PriceOrigin::Embedded => "",
            PriceOrigin::Imported => "  (from the imported list)",
            PriceOrigin::Own => &format!("  (from your {OWN})"),
        };
        let price = self.resolved.price;
        let head = format!("{} {}{how}{from}", self.provider, self.resolved.model);
        let ordinary =
            [head, describe_rates(&price.ordinary.rates)].into_iter().chain(describe_steps(&price.ordinary));
        let served = price.service_tiers.iter().map(|(name, ladder)| describe_service_tier(name, ladder));
        ordinary.chain(served).collect::<Vec<_>>().join("\n")
    }
}

fn describe_steps(ladder: &Ladder) -> impl Iterator<Item = String> {
    ladder.tiers.iter().map(|tier| {
        let above = format!("above {} input tokens, all of them:", tier.above_input_tokens);
        format!("{above}\n{}", describe_rates(&tier.rates))
    })
}

/// One line for each set of rates.
fn describe_service_tier(name: &str, ladder: &Ladder) -> String {
    let line = |rates: &Rates| {
        let rate = |part| short(rates.get(part));
        format!(
            "input {}, output {}, cache read {}",
            rate(Part::Input),
            rate(Part::Output),
            rate(Part::CacheRead)
        )
    };
    let steps =
        ladder.tiers.iter().map(|tier| format!("; above {}: {}", tier.above_input_tokens, line(&tier.rates)));
    format!("service tier {name}: {}{}", line(&ladder.rates), steps.collect::<String>())
}

pub(super) fn price_document(provider: &str, model: &str, price: &Price) -> Value {
    let mut document = ladder_document(&price.ordinary);
    document["provider"] = json!(provider);
    document["model"] = json!(model);
    let served = price.service_tiers.iter().map(|(name, ladder)| (name.clone(), ladder_document(ladder)));
    document["service_tiers"] = Value::Object(served.collect());
    document
}

fn ladder_document(ladder: &Ladder) -> Value {
    let tiers = ladder.tiers.iter().map(|tier| {
        let mut document = rates_document(&tier.rates);
        document["above_input_tokens"] = json!(tier.above_input_tokens);
        document
    });
    let tiers: Vec<Value> = tiers.collect();
    let mut document = rates_document(&ladder.rates);
    document["tiers"] = json!(tiers);
    document
}

/// Which rates are told: those of plain text, and whatever else is listed.
fn told(rates: &Rates, is_by_the_piece: bool) -> impl Iterator<Item = (Part, TokenPrice)> {
    let is_told = |part: &Part| ALWAYS.contains(part) || rates.listed(*part).is_some();
    let parts = Part::ALL.into_iter().filter(move |part| part.is_by_the_piece() == is_by_the_piece);
    parts.filter(is_told).map(|part| (part, rates.get(part))).collect::<Vec<_>>().into_iter()
}

fn rates_document(rates: &Rates) -> Value {
    let document = |is_by_the_piece, write: fn(TokenPrice) -> String| -> Value {
        told(rates, is_by_the_piece).map(|(part, price)| (part.to_string(), json!(write(price)))).collect()
    };
    json!({ "usd_per_mtok": document(false, exact), "usd_each": document(true, exact_each) })
}

fn describe_rates(rates: &Rates) -> String {
    let line = |(part, price): (Part, TokenPrice)| {
        format!("  {:<16} {:>10} per million tokens", part.as_str().replace('_', " "), short(price))
    };
    let piece =
        |(part, price): (Part, TokenPrice)| format!("  {:<16} {:>10} each", part.as_str(), short_each(price));
    told(rates, false).map(line).chain(told(rates, true).map(piece)).collect::<Vec<_>>().join("\n")
}

/// Dollars per million tokens, all decimals there are.
pub(super) fn exact(price: TokenPrice) -> String {
    NanoUsd::from_nanos(i64::try_from(price.nanos_per_mtok()).unwrap_or(i64::MAX)).to_string()
}

/// Dollars for one piece, all decimals there are.
pub(super) fn exact_each(price: TokenPrice) -> String {
    fine(u128::from(price.nanos_per_mtok()))
}

/// Dollars per million tokens as price lists print them: `$2.50`, `$0.075`.
pub(super) fn short(price: TokenPrice) -> String {
    shorten(&exact(price))
}

/// The same for one piece.
pub(super) fn short_each(price: TokenPrice) -> String {
    shorten(&exact_each(price))
}

fn shorten(text: &str) -> String {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    format!("${whole}.{:0<2}", decimals.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const TABLE: &str = r#"{
        "source": "test", "licence": "MIT", "version": "1", "date": "2026-11-25",
        "aliases": {"openai": {"gpt-4o-latest": "gpt-4o"}},
        "providers": {
            "openai": {"gpt-4o": {"input": 2500000000, "output": 10000000000, "cache_read": 1250000000,
                "tiers": [{"above_input_tokens": 200000, "input": 5000000000, "output": 20000000000}]}},
            "azure": {"gpt-4o": {"input": 75000000, "output": 1}}
        }
    }"#;

    fn prices() -> Prices {
        Prices { table: Arc::new(PriceTable::parse(TABLE).unwrap()), imported: None, own: None }
    }

    #[track_caller]
    fn check_matched(asked: &str, expected: &[(&str, &str)]) {
        let prices = prices();
        let found = find(&prices, None, asked);
        let found: Vec<_> =
            found.iter().map(|found| (found.provider, match_name(found.resolved.matched))).collect();
        assert_eq!(found, expected, "{asked}");
    }

    #[test]
    fn it_is_told_how_a_name_was_found() {
        check_matched("gpt-4o", &[("azure", "exact"), ("openai", "exact")]);
        check_matched("gpt-4o-latest", &[("openai", "alias")]);
        check_matched("gpt-4o-2024-08-06", &[("azure", "without_date"), ("openai", "without_date")]);
        check_matched("gpt-4o-mini", &[]);
    }

    #[test]
    fn a_price_is_told_in_full() {
        let prices = prices();
        let text = find(&prices, Some("openai"), "gpt-4o-latest")[0].describe("gpt-4o-latest");
        let expected = "\
openai gpt-4o  (`gpt-4o-latest` is another name of it)
  input                 $2.50 per million tokens
  output               $10.00 per million tokens
  cache read            $1.25 per million tokens
  cache write 5m        $2.50 per million tokens
  cache write 1h        $2.50 per million tokens
above 200000 input tokens, all of them:
  input                 $5.00 per million tokens
  output               $20.00 per million tokens
  cache read            $5.00 per million tokens
  cache write 5m        $5.00 per million tokens
  cache write 1h        $5.00 per million tokens";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_price_is_as_short_as_it_can_be_and_no_shorter() {
        let texts =
            [0, 1, 75_000_000, 2_500_000_000].map(|nanos| short(TokenPrice::from_nanos_per_mtok(nanos)));
        assert_eq!(texts, ["$0.00", "$0.000000001", "$0.075", "$2.50"]);
    }
}
