//! `pricing`: what models cost, and where the numbers come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::{Args, Subcommand};
use gateway::catalogue::{AuthStyle, Provider};
use policy::{NanoUsd, Price, PriceTable, Rates, TokenPrice};
use serde_json::{Value, json};

use crate::app::{App, closest, now_us};
use crate::failure::{Exit, Failure};
use crate::format::{Column, Columns};

#[derive(Debug, Subcommand)]
pub(crate) enum Pricing {
    /// What a model costs, and where that is from
    Show(Show),
    /// All prices
    List {
        /// Only of this provider
        #[arg(long)]
        provider: Option<String>,
    },
    /// Where the prices are from, and how old they are
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The model, as a request names it
    model: String,
    /// Only of this provider
    #[arg(long)]
    provider: Option<String>,
}

/// A price that was found for a model.
struct Found<'a> {
    provider: &'a str,
    model: &'a str,
    price: &'a Price,
}

const COLUMNS: [Column; 7] = [
    Column::Left("provider"),
    Column::Left("model"),
    Column::Right("input"),
    Column::Right("output"),
    Column::Right("cache read"),
    Column::Right("cache write"),
    Column::Left("tiers above"),
];

impl Pricing {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        let table = gateway::embedded_prices();
        match self {
            Self::Show(show) => show.run(app, &table),
            Self::List { provider } => list(app, &table, provider.as_deref()),
            Self::Status => {
                status(app, &table);
                Ok(())
            }
        }
    }
}

impl Show {
    fn run(self, app: &App, table: &PriceTable) -> Result<(), Failure> {
        let provider = self.provider.as_deref().map(|name| resolve(app, name)).transpose()?;
        if let Some(provider) = &provider
            && provider.is_local
            && provider.auth == AuthStyle::None
        {
            self.show_free(app, provider);
            return Ok(());
        }
        let wanted = provider.map(|provider| provider.prices.clone());
        let found = find(table, wanted.as_deref(), &self.model);
        if found.is_empty() {
            return Err(self.unknown(table, wanted.as_deref()));
        }
        let document = json!({
            "model": self.model,
            "source": table.source,
            "version": table.version,
            "date": table.date,
            "prices": found.iter().map(|found| found.document(&self.model)).collect::<Vec<_>>(),
        });
        app.output.data(&document, || {
            let parts = found.iter().map(|found| found.describe(&self.model));
            let source = format!("as of {}: {} ({})", table.date, table.version, table.source);
            parts.chain([source]).collect::<Vec<_>>().join("\n\n")
        });
        Ok(())
    }

    /// A server on this machine has no price list, because it costs nothing.
    fn show_free(&self, app: &App, provider: &Provider) {
        let free = Price { rates: Rates::default(), tiers: Vec::new(), max_output_tokens: None };
        let mut price = price_document(provider.id.as_str(), &self.model, &free);
        price["match"] = json!("local");
        let document = json!({ "model": self.model, "source": "local", "version": null, "date": null, "prices": [price] });
        app.output
            .data(&document, || format!("{} is a server on this machine: it costs nothing", provider.id));
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
}

fn resolve(app: &App, name: &str) -> Result<Arc<Provider>, Failure> {
    let config = app.config()?;
    let id = app.provider(&config, name)?;
    Ok(config.provider(id.as_str()).expect("the name was just resolved").clone())
}

/// The prices of a model, by provider.
fn find<'a>(table: &'a PriceTable, wanted: Option<&str>, model: &str) -> Vec<Found<'a>> {
    let providers: BTreeSet<&str> = table.iter().map(|(provider, ..)| provider).collect();
    let wanted = providers.into_iter().filter(|provider| wanted.is_none_or(|wanted| wanted == *provider));
    wanted
        .filter_map(|provider| {
            let resolved = table.resolve(provider, model)?;
            Some(Found { provider, model: resolved.model, price: resolved.price })
        })
        .collect()
}

impl Found<'_> {
    /// How the name that was asked for led to the one in the table.
    fn matched(&self, asked: &str) -> &'static str {
        let date = asked.strip_prefix(self.model).and_then(|rest| rest.strip_prefix('-'));
        let is_date = |date: &str| date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        match date {
            None if asked == self.model => "exact",
            Some(date) if is_date(date) => "without_date",
            Some(_) | None => "alias",
        }
    }

    fn document(&self, asked: &str) -> Value {
        let mut document = price_document(self.provider, self.model, self.price);
        document["match"] = json!(self.matched(asked));
        document
    }

    fn describe(&self, asked: &str) -> String {
        let how = match self.matched(asked) {
            "exact" => String::new(),
            "without_date" => format!("  (`{asked}` without its date)"),
            _ => format!("  (`{asked}` is another name of it)"),
        };
        let tiers = self.price.tiers.iter().map(|tier| {
            let above = format!("above {} input tokens, all of them:", tier.above_input_tokens);
            format!("{above}\n{}", describe_rates(&tier.rates))
        });
        let head = format!("{} {}{how}", self.provider, self.model);
        let ordinary = describe_rates(&self.price.rates);
        [head, ordinary].into_iter().chain(tiers).collect::<Vec<_>>().join("\n")
    }
}

fn price_document(provider: &str, model: &str, price: &Price) -> Value {
    let tiers = price.tiers.iter().map(|tier| {
        json!({ "above_input_tokens": tier.above_input_tokens, "usd_per_mtok": rates_document(&tier.rates) })
    });
    json!({
        "provider": provider,
        "model": model,
        "usd_per_mtok": rates_document(&price.rates),
        "tiers": tiers.collect::<Vec<_>>(),
    })
}

/// Each rate by its stable name.
fn named_rates(rates: &Rates) -> [(&'static str, TokenPrice); 5] {
    [
        ("input", rates.input),
        ("output", rates.output),
        ("cache_read", rates.cache_read()),
        ("cache_write_5m", rates.cache_write_5m()),
        ("cache_write_1h", rates.cache_write_1h()),
    ]
}

fn rates_document(rates: &Rates) -> Value {
    named_rates(rates).into_iter().map(|(name, price)| (name.to_owned(), json!(exact(price)))).collect()
}

fn describe_rates(rates: &Rates) -> String {
    let line = |(name, price): (&str, TokenPrice)| {
        format!("  {:<15} {:>10} per million tokens", name.replace('_', " "), short(price))
    };
    named_rates(rates).into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Dollars per million tokens, all decimals there are.
fn exact(price: TokenPrice) -> String {
    NanoUsd::from_nanos(i64::try_from(price.nanos_per_mtok()).unwrap_or(i64::MAX)).to_string()
}

/// Dollars per million tokens as price lists print them: `$2.50`, `$0.075`.
fn short(price: TokenPrice) -> String {
    let text = exact(price);
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    format!("${whole}.{:0<2}", decimals.trim_end_matches('0'))
}

fn list(app: &App, table: &PriceTable, provider: Option<&str>) -> Result<(), Failure> {
    let provider = provider.map(|name| resolve(app, name)).transpose()?;
    let wanted = provider.map(|provider| provider.prices.clone());
    let mut all: Vec<_> = table.iter().collect();
    all.retain(|(provider, ..)| wanted.as_ref().is_none_or(|wanted| wanted == provider));
    all.sort_by_key(|(provider, model, _)| (*provider, *model));
    let documents = all.iter().map(|(provider, model, price)| price_document(provider, model, price));
    let document = json!({
        "source": table.source,
        "version": table.version,
        "date": table.date,
        "prices": documents.collect::<Vec<_>>(),
    });
    app.output.data(&document, || {
        let rows: Vec<_> = all.iter().map(|(provider, model, price)| cells(provider, model, price)).collect();
        Columns::table(&COLUMNS, &rows, "no prices")
    });
    app.output.note("USD per million tokens");
    Ok(())
}

fn cells(provider: &str, model: &str, price: &Price) -> Vec<String> {
    let rates = &price.rates;
    let (short_lived, long_lived) = (short(rates.cache_write_5m()), short(rates.cache_write_1h()));
    let tiers = price.tiers.iter().map(|tier| tier.above_input_tokens.to_string());
    vec![
        provider.to_owned(),
        model.to_owned(),
        short(rates.input),
        short(rates.output),
        short(rates.cache_read()),
        if short_lived == long_lived { short_lived } else { format!("{short_lived}, 1h {long_lived}") },
        tiers.collect::<Vec<_>>().join(", "),
    ]
}

fn status(app: &App, table: &PriceTable) {
    let mut models: BTreeMap<&str, u64> = BTreeMap::new();
    table.iter().for_each(|(provider, ..)| *models.entry(provider).or_default() += 1);
    let total: u64 = models.values().sum();
    let age_days = age_days(&table.date, now_us());
    let document = json!({
        "source": table.source,
        "version": table.version,
        "date": table.date,
        "age_days": age_days,
        "licence": table.licence,
        "models": total,
        "providers": models,
    });
    app.output.data(&document, || {
        let age = age_days.map_or(String::new(), |days| format!(" ({days} days ago)"));
        let providers = models.iter().map(|(provider, count)| format!("{provider} {count}"));
        [
            format!("source     {}", table.source),
            format!("version    {}", table.version),
            format!("date       {}{age}", table.date),
            format!("licence    {}", table.licence),
            format!("models     {total}"),
            format!("providers  {}", providers.collect::<Vec<_>>().join(", ")),
        ]
        .join("\n")
    });
}

/// How many days ago a day was; negative when it is to come.
fn age_days(date: &str, now_us: i64) -> Option<i64> {
    let day: jiff::civil::Date = date.parse().ok()?;
    let begin = day.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond();
    Some((now_us - begin).div_euclid(24 * 60 * 60 * 1_000_000))
}

#[cfg(test)]
mod tests {
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

    #[track_caller]
    fn check_matched(asked: &str, expected: &[(&str, &str)]) {
        let table = PriceTable::parse(TABLE).unwrap();
        let found = find(&table, None, asked);
        let found: Vec<_> = found.iter().map(|found| (found.provider, found.matched(asked))).collect();
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
        let table = PriceTable::parse(TABLE).unwrap();
        let text = find(&table, Some("openai"), "gpt-4o-latest")[0].describe("gpt-4o-latest");
        let expected = "\
openai gpt-4o  (`gpt-4o-latest` is another name of it)
  input                $2.50 per million tokens
  output              $10.00 per million tokens
  cache read           $1.25 per million tokens
  cache write 5m       $2.50 per million tokens
  cache write 1h       $2.50 per million tokens
above 200000 input tokens, all of them:
  input                $5.00 per million tokens
  output              $20.00 per million tokens
  cache read           $5.00 per million tokens
  cache write 5m       $5.00 per million tokens
  cache write 1h       $5.00 per million tokens";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_price_is_as_short_as_it_can_be_and_no_shorter() {
        let texts =
            [0, 1, 75_000_000, 2_500_000_000].map(|nanos| short(TokenPrice::from_nanos_per_mtok(nanos)));
        assert_eq!(texts, ["$0.00", "$0.000000001", "$0.075", "$2.50"]);
    }

    #[test]
    fn an_age_is_in_whole_days() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        assert_eq!(age_days("2028-02-28", at("2028-03-01T00:00:00Z")), Some(2));
        assert_eq!(age_days("2028-02-28", at("2028-02-28T23:59:59Z")), Some(0));
        assert_eq!(age_days("2028-02-28", at("2028-02-27T23:59:59Z")), Some(-1));
        assert_eq!(age_days("someday", 0), None);
    }
}
