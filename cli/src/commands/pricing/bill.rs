//! What a usage comes to at a price, with the arithmetic: the lines that are shown are the ones that are charged.

use clap::Args;
use policy::{Bill, Line, NanoUsd, Overflow, Price, Usage};
use serde_json::{Value, json};

use super::show::{exact, exact_each, short, short_each};
use crate::failure::Failure;

/// A usage that somebody typed. No token is counted twice: what came from a cache is not in `--input`.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "A usage to price")]
pub(crate) struct Typed {
    /// Input tokens that no cache was involved in
    #[arg(long, value_name = "N")]
    input: Option<u64>,
    /// Output tokens, reasoning included
    #[arg(long, value_name = "N")]
    output: Option<u64>,
    /// Input tokens read from the cache
    #[arg(long, value_name = "N")]
    cache_read: Option<u64>,
    /// Input tokens written to the cache for five minutes, or for the provider's only lifetime
    #[arg(long, value_name = "N")]
    cache_write_5m: Option<u64>,
    /// Input tokens written to the cache for an hour
    #[arg(long, value_name = "N")]
    cache_write_1h: Option<u64>,
    /// How many of the output tokens were reasoning
    #[arg(long, value_name = "N")]
    reasoning: Option<u64>,
    /// How many of `--input` were sound
    #[arg(long, value_name = "N")]
    audio_input: Option<u64>,
    /// How many of `--cache-read` were sound
    #[arg(long, value_name = "N")]
    audio_cache_read: Option<u64>,
    /// How many of `--output` were sound
    #[arg(long, value_name = "N")]
    audio_output: Option<u64>,
    /// How many of `--input` were images
    #[arg(long, value_name = "N")]
    image_input: Option<u64>,
    /// How many of `--cache-read` were images
    #[arg(long, value_name = "N")]
    image_cache_read: Option<u64>,
    /// How many of `--output` were images
    #[arg(long, value_name = "N")]
    image_output: Option<u64>,
    /// Searches of the web that the provider made
    #[arg(long, value_name = "N")]
    searches: Option<u64>,
}

impl Typed {
    /// The usage, if one was typed.
    pub(crate) fn usage(&self) -> Result<Option<Usage>, Failure> {
        let wholes = [self.input, self.output, self.cache_read, self.cache_write_5m, self.cache_write_1h];
        let parts = [
            ("--reasoning", self.reasoning, "--output", self.output),
            ("--audio-input", self.audio_input, "--input", self.input),
            ("--audio-cache-read", self.audio_cache_read, "--cache-read", self.cache_read),
            ("--audio-output", self.audio_output, "--output", self.output),
            ("--image-input", self.image_input, "--input", self.input),
            ("--image-cache-read", self.image_cache_read, "--cache-read", self.cache_read),
            ("--image-output", self.image_output, "--output", self.output),
        ];
        for (name, part, of, whole) in parts {
            if part.unwrap_or(0) > whole.unwrap_or(0) {
                return Err(Failure::usage(format!("`{name}` counts a part of `{of}`, and is more than it")));
            }
        }
        let is_typed = wholes.into_iter().chain([self.searches]).any(|count| count.is_some());
        Ok(is_typed.then(|| self.filled()))
    }

    fn filled(&self) -> Usage {
        Usage {
            input: self.input.unwrap_or(0),
            cache_read: self.cache_read.unwrap_or(0),
            cache_write_5m: self.cache_write_5m.unwrap_or(0),
            cache_write_1h: self.cache_write_1h.unwrap_or(0),
            output: self.output.unwrap_or(0),
            reasoning: self.reasoning.unwrap_or(0),
            audio_input: self.audio_input.unwrap_or(0),
            audio_cache_read: self.audio_cache_read.unwrap_or(0),
            audio_output: self.audio_output.unwrap_or(0),
            image_input: self.image_input.unwrap_or(0),
            image_cache_read: self.image_cache_read.unwrap_or(0),
            image_output: self.image_output.unwrap_or(0),
            searches: self.searches.unwrap_or(0),
        }
    }
}

/// The bill as a document.
pub(super) fn document(price: &Price, usage: &Usage, service_tier: Option<&str>) -> Result<Value, Failure> {
    let bill = price.bill(usage, service_tier);
    let (cost, sum) = totals(&bill)?;
    let lines = bill.lines().map(|line| {
        let rate = if line.part.is_by_the_piece() { "usd_each" } else { "usd_per_mtok" };
        let price = if line.part.is_by_the_piece() { exact_each(line.price) } else { exact(line.price) };
        json!({ "part": line.part.as_str(), "count": line.count, rate: price, "usd": fine(line.scaled()) })
    });
    Ok(json!({
        "service_tier": bill.service_tier,
        "above_input_tokens": bill.above_input_tokens,
        "lines": lines.collect::<Vec<_>>(),
        "sum_usd": fine(sum),
        "cost_usd": cost.to_string(),
    }))
}

/// The bill as text, a line for each part.
pub(super) fn describe(price: &Price, usage: &Usage, service_tier: Option<&str>) -> Result<String, Failure> {
    let bill = price.bill(usage, service_tier);
    let (cost, sum) = totals(&bill)?;
    let tier = bill.service_tier.map(|tier| format!(" in service tier {tier}")).unwrap_or_default();
    let above =
        bill.above_input_tokens.map(|above| format!(", above {above} input tokens")).unwrap_or_default();
    let head = format!("this usage{tier}{above}:");
    let lines = bill.lines().map(|line| describe_line(&line));
    let total = format!("  {:<43} ${}", "sum, rounded up to a nano-dollar", cost);
    let rounded = (sum % NANO != 0).then(|| format!("  {:<43} ${}", "exactly", fine(sum)));
    Ok([head].into_iter().chain(lines).chain(rounded).chain([total]).collect::<Vec<_>>().join("\n"))
}

fn describe_line(line: &Line) -> String {
    let name = line.part.as_str().replace('_', " ");
    let rate = if line.part.is_by_the_piece() { short_each(line.price) } else { short(line.price) };
    let unit = if line.part.is_by_the_piece() { "each" } else { "a million" };
    format!("  {:>12} {name:<16} at {rate:>10} {unit:<9} ${}", line.count, fine(line.scaled()))
}

/// Millionths of a nano-dollar in a nano-dollar.
const NANO: u128 = 1_000_000;

/// What is charged, and the sum before it was rounded.
fn totals(bill: &Bill<'_>) -> Result<(NanoUsd, u128), Failure> {
    let too_much = |_: Overflow| Failure::usage("this usage costs more than can be counted");
    Ok((bill.total().map_err(too_much)?, bill.scaled().map_err(too_much)?))
}

/// Dollars with all the decimals that millionths of a nano-dollar have, but at least six.
pub(super) fn fine(scaled: u128) -> String {
    const USD: u128 = 1_000_000_000_000_000;
    let fraction = format!("{:015}", scaled % USD);
    let kept = fraction.trim_end_matches('0').len().max(6);
    format!("{}.{}", scaled / USD, &fraction[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Part, Rates, TokenPrice};

    fn price() -> Price {
        let usd = |nanos| TokenPrice::from_nanos_per_mtok(nanos);
        let rates = Rates::new(usd(1_250_000_000), usd(10_000_000_000))
            .with(Part::CacheRead, usd(125_000_000))
            .with(Part::Search, usd(10_000_000 * 1_000_000));
        Price::flat(rates)
    }

    #[test]
    fn the_arithmetic_is_shown_line_by_line() {
        let usage = Usage {
            input: 23_456,
            cache_read: 100_001,
            output: 789,
            reasoning: 512,
            searches: 2,
            ..Usage::NONE
        };
        let text = describe(&price(), &usage, Some("flex")).unwrap();
        let expected = "\
this usage:
         23456 input            at      $1.25 a million $0.029320
           277 output           at     $10.00 a million $0.002770
        100001 cache read       at     $0.125 a million $0.012500125
           512 reasoning        at     $10.00 a million $0.005120
             2 search           at      $0.01 each      $0.020000
  sum, rounded up to a nano-dollar            $0.069710125";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_rounding_added_is_told() {
        let odd = Price::flat(Rates::new(TokenPrice::from_nanos_per_mtok(1_500_001), TokenPrice::default()));
        let document = document(&odd, &Usage { input: 1, ..Usage::NONE }, None).unwrap();
        assert_eq!(document["sum_usd"], "0.000000001500001");
        assert_eq!(document["cost_usd"], "0.000000002");
        assert!(describe(&odd, &Usage { input: 1, ..Usage::NONE }, None).unwrap().contains("exactly"));
    }

    #[test]
    fn a_usage_that_costs_too_much_is_an_error() {
        let dear = Price::flat(Rates::new(TokenPrice::from_nanos_per_mtok(u64::MAX), TokenPrice::default()));
        assert!(document(&dear, &Usage { input: u64::MAX, ..Usage::NONE }, None).is_err());
    }
}
