//! `pricing`: what models cost, and where the numbers come from.

mod bill;
mod import;
mod show;

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, Subcommand};
use gateway::catalogue::Provider;
use gateway::config::Prices;
use policy::{Part, Price, PriceTable};
use serde_json::json;

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::failure::Failure;
use show::{price_document, short};

#[derive(Debug, Subcommand)]
pub(crate) enum Pricing {
    /// What a model costs, where that is from, and what a usage comes to
    Show(Box<show::Show>),
    /// All prices
    List(List),
    /// Where the prices are from, and how old they are
    Status,
    /// Use a newer price list
    Import(import::Import),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only of this provider
    #[arg(long)]
    provider: Option<String>,
}

/// Where the user's own prices are, in the home.
const OWN: &str = "prices.toml";

const COLUMNS: [Column; 7] = [
    Column::Left("provider"),
    Column::Long("model"),
    Column::Right("input"),
    Column::Right("output"),
    Column::SpareRight("cache read"),
    Column::SpareRight("cache write"),
    Column::SpareLeft("tiers above"),
];

impl Pricing {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Show(show) => show.run(app, &Prices::load(&app.home)?),
            Self::List(List { provider }) => list(app, &Prices::load(&app.home)?.table, provider.as_deref()),
            Self::Status => {
                status(app, &Prices::load(&app.home)?);
                Ok(())
            }
            Self::Import(import) => import.run(app),
        }
    }
}

/// The provider of a name that somebody typed.
fn resolve(app: &App, name: &str) -> Result<Arc<Provider>, Failure> {
    let config = app.config()?;
    let id = app.provider(&config, name)?;
    Ok(config.provider(id.as_str()).expect("the name was just resolved").clone())
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
    let rates = &price.ordinary.rates;
    let rate = |part| short(rates.get(part));
    let (short_lived, long_lived) = (rate(Part::CacheWrite5m), rate(Part::CacheWrite1h));
    let tiers = price.ordinary.tiers.iter().map(|tier| tier.above_input_tokens.to_string());
    vec![
        provider.to_owned(),
        model.to_owned(),
        rate(Part::Input),
        rate(Part::Output),
        rate(Part::CacheRead),
        if short_lived == long_lived { short_lived } else { format!("{short_lived}, 1h {long_lived}") },
        tiers.collect::<Vec<_>>().join(", "),
    ]
}

fn status(app: &App, prices: &Prices) {
    let table = &prices.table;
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
        "imported": prices.imported.as_ref().map(|imported| {
            json!({
                "version": imported.version,
                "date": imported.date,
                "models": imported.iter().count(),
                "is_passed_over": prices.passes_over_imported(),
            })
        }),
        "own": prices.own.as_ref().map(|own| own.iter().count()),
    });
    app.output.data(&document, || {
        let age = age_days.map_or(String::new(), |days| format!(" ({days} days ago)"));
        let providers = models.iter().map(|(provider, count)| format!("{provider} {count}"));
        let mut lines = vec![
            format!("source     {}", table.source),
            format!("version    {}", table.version),
            format!("date       {}{age}", table.date),
            format!("licence    {}", table.licence),
            format!("models     {total}"),
            format!("providers  {}", providers.collect::<Vec<_>>().join(", ")),
        ];
        lines.extend(imported(prices));
        lines.extend(
            prices.own.as_ref().map(|own| format!("own        {} prices, {OWN}", own.iter().count())),
        );
        lines.join("\n")
    });
}

/// What became of the list that was imported.
fn imported(prices: &Prices) -> Option<String> {
    let imported = prices.imported.as_ref()?;
    let (version, date) = (&imported.version, &imported.date);
    Some(match prices.passes_over_imported() {
        true => format!("imported   {version} of {date}: passed over, the list in this program is newer"),
        false => format!("imported   {version} of {date}, {} models", imported.iter().count()),
    })
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

    #[test]
    fn an_age_is_in_whole_days() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        assert_eq!(age_days("2028-02-28", at("2028-03-01T00:00:00Z")), Some(2));
        assert_eq!(age_days("2028-02-28", at("2028-02-28T23:59:59Z")), Some(0));
        assert_eq!(age_days("2028-02-28", at("2028-02-27T23:59:59Z")), Some(-1));
        assert_eq!(age_days("someday", 0), None);
    }
}
