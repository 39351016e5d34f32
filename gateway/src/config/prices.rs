//! The prices that count: the list in the binary, a newer one that was imported, and the user's own.
//!
//! Each is laid over the one before. An imported list that is older than the one in the binary is passed over, so that
//! a new version of the program is never held back by it. The user's own prices are in dollars per million tokens, as
//! text, because that is how price pages write them and no float may come near money.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use policy::{Ladder, NanoUsd, Part, Price, PriceTable, PriceTableError, Rates, Tier, TokenPrice};
use toml_edit::{TableLike, Value};

use super::reader::{Reader, Section, integer, text};
use super::{Fault, list};
use crate::process::home::Home;

/// A price list is some hundred kilobytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The price lists of a home.
#[derive(Clone, Debug)]
pub struct Prices {
    /// What requests are priced by.
    pub table: Arc<PriceTable>,
    /// The list that was imported, also when it is passed over.
    pub imported: Option<PriceTable>,
    /// The user's own prices.
    pub own: Option<PriceTable>,
}

/// Which list a price is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceOrigin {
    /// The list in the binary.
    Embedded,
    /// The list that was imported.
    Imported,
    /// The user's own file.
    Own,
}

/// A price list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An imported list is not valid.
    #[error("{}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PriceTableError,
    },
    /// The user's own prices are not valid.
    #[error("{} {}", path.display(), list(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        faults: Vec<Fault>,
    },
}

/// The price table that is part of the binary.
pub fn embedded_prices() -> Arc<PriceTable> {
    static EMBEDDED: LazyLock<Arc<PriceTable>> = LazyLock::new(|| {
        let table = PriceTable::parse(include_str!("../../../conf/prices.json"));
        Arc::new(table.expect("a test parses the embedded file"))
    });
    EMBEDDED.clone()
}

impl Prices {
    /// The prices of a home. Files that are not there change nothing.
    ///
    /// # Errors
    /// [`PricesError`] for a file that cannot be read or is not valid, with its lines and keys.
    pub fn load(home: &Home) -> Result<Self, PricesError> {
        let path = home.prices();
        let imported = read(&path)?.map(|text| parse_imported(&path, &text)).transpose()?;
        Ok(Self::layered(imported, Self::read_own(home)?))
    }

    /// The user's own prices alone.
    ///
    /// # Errors
    /// [`PricesError`] when they cannot be read or are not valid.
    pub fn read_own(home: &Home) -> Result<Option<PriceTable>, PricesError> {
        let path = home.own_prices();
        let Some(text) = read(&path)? else { return Ok(None) };
        Self::parse_own(&text).map(Some).map_err(|faults| PricesError::Faults { path, faults })
    }

    fn layered(imported: Option<PriceTable>, own: Option<PriceTable>) -> Self {
        let mut table = embedded_prices();
        let newer = imported.iter().filter(|imported| !is_passed_over(imported));
        for over in newer.chain(&own) {
            Arc::make_mut(&mut table).overlay(over.clone());
        }
        if let Some(newer) = imported.as_ref().filter(|imported| !is_passed_over(imported)) {
            let table = Arc::make_mut(&mut table);
            table.source.clone_from(&newer.source);
            table.licence.clone_from(&newer.licence);
            table.version.clone_from(&newer.version);
            table.date.clone_from(&newer.date);
        }
        Self { table, imported, own }
    }

    /// Reads a list that is to be imported.
    ///
    /// # Errors
    /// [`PricesError`] when it cannot be read or is not valid.
    pub fn read_list(path: &Path) -> Result<(PriceTable, String), PricesError> {
        let missing = || PricesError::Io { path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
        let text = read(path)?.ok_or_else(missing)?;
        Ok((parse_imported(path, &text)?, text))
    }

    /// Reads the user's own prices from their TOML text.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse_own(text: &str) -> Result<PriceTable, Vec<Fault>> {
        let mut reader = Reader::new(text);
        let Some(document) = reader.parse() else { return Err(reader.into_faults()) };
        let mut root = Section::root(document.as_table());
        let mut table = PriceTable::default();
        read_models(&mut reader, &mut root, &mut table);
        read_aliases(&mut reader, &mut root, &mut table);
        reader.finish(root);
        let faults = reader.into_faults();
        if faults.is_empty() { Ok(table) } else { Err(faults) }
    }

    /// Which list the price of a model is from, by the name that it has in the list.
    pub fn origin(&self, provider: &str, model: &str) -> PriceOrigin {
        let has = |table: &Option<PriceTable>| {
            table.as_ref().is_some_and(|table| table.price(provider, model).is_some())
        };
        if has(&self.own) {
            PriceOrigin::Own
        } else if has(&self.imported) && !self.passes_over_imported() {
            PriceOrigin::Imported
        } else {
            PriceOrigin::Embedded
        }
    }

    /// Whether there is an imported list that is older than the one in the binary.
    pub fn passes_over_imported(&self) -> bool {
        self.imported.as_ref().is_some_and(is_passed_over)
    }
}

impl PriceOrigin {
    /// The stable name: `embedded`, `imported` or `own`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Imported => "imported",
            Self::Own => "own",
        }
    }
}

impl PricesError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "prices_unreadable",
            Self::Table { .. } | Self::Faults { .. } => "invalid_prices",
        }
    }
}

/// Dates are all of the form `YYYY-MM-DD`, which sorts.
fn is_passed_over(imported: &PriceTable) -> bool {
    imported.date < embedded_prices().date
}

fn read(path: &Path) -> Result<Option<String>, PricesError> {
    let failed = |source| PricesError::Io { path: path.to_owned(), source };
    let size = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?.len(),
    };
    if size > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("it is too large to be a price list")));
    }
    std::fs::read_to_string(path).map(Some).map_err(failed)
}

fn parse_imported(path: &Path, text: &str) -> Result<PriceTable, PricesError> {
    PriceTable::parse(text).map_err(|source| PricesError::Table { path: path.to_owned(), source })
}

/// `[models.PROVIDER."MODEL"]`
fn read_models(reader: &mut Reader<'_>, root: &mut Section<'_>, table: &mut PriceTable) {
    let mut providers = reader.section(root, "models");
    for provider in providers.keys() {
        let mut models = reader.section(&mut providers, provider);
        for model in models.keys() {
            let mut section = reader.section(&mut models, model);
            let price = read_price(reader, &mut section);
            reader.finish(section);
            table.insert(provider, model, price);
        }
    }
}

/// `[aliases.PROVIDER]`
fn read_aliases(reader: &mut Reader<'_>, root: &mut Section<'_>, table: &mut PriceTable) {
    let mut providers = reader.section(root, "aliases");
    for provider in providers.keys() {
        let mut aliases = reader.section(&mut providers, provider);
        for name in aliases.keys() {
            let known = |value: &Value| {
                let model = text(value)?;
                let is_known = table.price(provider, &model).is_some()
                    || embedded_prices().price(provider, &model).is_some();
                is_known
                    .then_some(())
                    .ok_or_else(|| format!("there is no price of `{model}` at {provider}"))?;
                Ok(model)
            };
            if let Some(model) = reader.value(&mut aliases, name, known) {
                table.insert_alias(provider, name, &model);
            }
        }
    }
}

fn read_price(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Price {
    let ordinary = read_ladder(reader, section);
    let mut tiers = reader.section(section, "service_tiers");
    let service_tiers = tiers.keys().into_iter().map(|name| {
        let mut section = reader.section(&mut tiers, name);
        let ladder = read_ladder(reader, &mut section);
        reader.finish(section);
        (name.to_owned(), ladder)
    });
    let service_tiers = service_tiers.collect();
    let mut limit = |key| reader.value(section, key, |value| integer(value, 1, i64::from(i32::MAX)));
    let (max_input_tokens, max_output_tokens) = (limit("max_input_tokens"), limit("max_output_tokens"));
    Price {
        ordinary,
        service_tiers,
        max_input_tokens: max_input_tokens.map(i64::cast_unsigned),
        max_output_tokens: max_output_tokens.map(i64::cast_unsigned),
    }
}

fn read_ladder(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Ladder {
    let mut rates = Rates::default();
    for part in Part::ALL {
        let read = |value: &Value| rate(value, part);
        match reader.value(section, part.as_str(), read) {
            Some(price) => rates = rates.with(part, price),
            None if matches!(part, Part::Input | Part::Output) => section.require(reader, part.as_str()),
            None => {}
        }
    }
    let tiers = reader.value(section, "tiers", read_tiers).unwrap_or_default();
    Ladder { rates, tiers }
}

/// A list of inline tables: `{ above_input_tokens = 200000, input = "2.50", output = "15" }`.
fn read_tiers(value: &Value) -> Result<Vec<Tier>, String> {
    let list = value.as_array().ok_or_else(|| "must be a list of tables".to_owned())?;
    let tiers: Vec<Tier> = list.iter().map(read_tier).collect::<Result<_, _>>()?;
    let is_ascending = tiers.is_sorted_by(|a, b| a.above_input_tokens < b.above_input_tokens);
    is_ascending
        .then_some(tiers)
        .ok_or_else(|| "must be in ascending order of `above_input_tokens`".to_owned())
}

fn read_tier(value: &Value) -> Result<Tier, String> {
    let table = value.as_inline_table().ok_or_else(|| "must be a list of tables".to_owned())?;
    let mut tier = Tier::default();
    for (key, item) in TableLike::iter(table) {
        let value = item.as_value().ok_or_else(|| format!("`{key}` must be a value"))?;
        match Part::from_name(key) {
            Some(part) => {
                let price = rate(value, part).map_err(|fault| format!("`{key}` {fault}"))?;
                tier.rates = tier.rates.with(part, price);
            }
            None if key == "above_input_tokens" => {
                let above =
                    integer(value, 1, i64::from(i32::MAX)).map_err(|fault| format!("`{key}` {fault}"))?;
                tier.above_input_tokens = above.cast_unsigned();
            }
            None => return Err(format!("`{key}` is no key of a tier")),
        }
    }
    let has = |part| tier.rates.listed(part).is_some();
    let is_whole = tier.above_input_tokens > 0 && has(Part::Input) && has(Part::Output);
    is_whole.then_some(tier).ok_or_else(|| "each needs `above_input_tokens`, `input` and `output`".to_owned())
}

/// Dollars for a million tokens, or for one piece.
fn rate(value: &Value, part: Part) -> Result<TokenPrice, String> {
    let expected = || {
        let each = if part.is_by_the_piece() { "each" } else { "per million tokens" };
        format!("must be dollars {each} in quotes, such as \"2.50\"")
    };
    let amount: NanoUsd = text(value).ok().and_then(|text| text.parse().ok()).ok_or_else(expected)?;
    let pieces = if part.is_by_the_piece() { 1_000_000 } else { 1 };
    let nanos = amount.nanos().cast_unsigned().checked_mul(pieces).ok_or_else(expected)?;
    Ok(TokenPrice::from_nanos_per_mtok(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Usage;

    #[track_caller]
    fn check_faults(text: &str, expected: &[&str]) {
        let faults = Prices::parse_own(text).err().unwrap_or_default();
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn own_prices_are_dollars_per_million_tokens() {
        let text = r#"
            [models.openai."gpt-5.1"]
            input = "1.25"
            output = "10"
            cache_read = "0.125"
            search = "0.01"
            max_output_tokens = 128000
            tiers = [{ above_input_tokens = 272000, input = "2.50", output = "20" }]
            service_tiers.flex = { input = "0.625", output = "5" }

            [aliases.openai]
            mine = "gpt-5.1"
        "#;
        let own = Prices::parse_own(text).unwrap();
        let found = own.resolve("openai", "mine").unwrap();
        assert_eq!((found.model, found.price.max_output_tokens), ("gpt-5.1", Some(128_000)));
        let cost = |usage, tier| found.price.cost(&usage, tier).map(NanoUsd::nanos);
        let usage = Usage { input: 1, cache_read: 1_000, searches: 1, ..Usage::default() };
        assert_eq!(cost(usage, None), Ok(1_250 + 125_000 + 10_000_000));
        assert_eq!(cost(Usage { input: 272_001, ..Usage::default() }, None), Ok(680_002_500));
        assert_eq!(cost(Usage { output: 1, ..Usage::default() }, Some("flex")), Ok(5_000));
    }

    #[test]
    fn every_fault_of_own_prices_is_told_with_its_line_and_key() {
        let dollars = "must be dollars per million tokens in quotes, such as \"2.50\"";
        check_faults("", &[]);
        check_faults(
            "[models.p.m]\ninput = 1.25\noutput = \"-1\"\ninptu = \"1\"\n[model.p.m]\n",
            &[
                &format!("line 2: `models.p.m.input`: {dollars}"),
                &format!("line 3: `models.p.m.output`: {dollars}"),
                "line 4: `models.p.m.inptu`: unknown key; did you mean `input`?",
                "line 5: `model`: unknown key; did you mean `models`?",
            ],
        );
        check_faults("\n[models.p.m]\ninput = \"1\"\n", &["line 2: `models.p.m.output`: is missing"]);
        check_faults(
            "[models.p.m]\ninput = \"1\"\noutput = \"1\"\nsearch = \"1e3\"\ntiers = [{ input = \"1\" }]\n",
            &[
                "line 4: `models.p.m.search`: must be dollars each in quotes, such as \"2.50\"",
                "line 5: `models.p.m.tiers`: each needs `above_input_tokens`, `input` and `output`",
            ],
        );
        check_faults(
            "[aliases.openai]\na = \"b\"\n",
            &["line 2: `aliases.openai.a`: there is no price of `b` at openai"],
        );
    }

    fn list(date: &str, input: u64) -> PriceTable {
        let price = format!(r#"{{"input": {input}, "output": 1}}"#);
        let text = format!(
            r#"{{"date": "{date}", "source": "s", "providers": {{"openai": {{"gpt-5.1": {price}}}}}}}"#
        );
        PriceTable::parse(&text).unwrap()
    }

    #[track_caller]
    fn check_layers(prices: &Prices, origin: PriceOrigin, input: u64) {
        let price = prices.table.resolve("openai", "gpt-5.1").unwrap().price;
        assert_eq!(price.ordinary.rates.input().nanos_per_mtok(), input);
        assert_eq!(prices.origin("openai", "gpt-5.1"), origin);
        // What a list does not have stays as it was.
        assert!(prices.table.resolve("anthropic", "claude-opus-5-5").is_some());
    }

    #[test]
    fn the_users_own_price_counts_before_an_imported_one_and_that_before_the_embedded() {
        let own = || Some(list("2026-01-01", 3));
        check_layers(&Prices::layered(None, None), PriceOrigin::Embedded, 1_250_000_000);
        check_layers(&Prices::layered(Some(list("2999-01-01", 2)), None), PriceOrigin::Imported, 2);
        check_layers(&Prices::layered(Some(list("2999-01-01", 2)), own()), PriceOrigin::Own, 3);
        assert_eq!(Prices::layered(Some(list("2999-01-01", 2)), own()).table.date, "2999-01-01");
    }

    #[test]
    fn an_imported_list_that_is_older_than_the_program_is_passed_over() {
        let prices = Prices::layered(Some(list("2020-01-01", 2)), None);
        check_layers(&prices, PriceOrigin::Embedded, 1_250_000_000);
        assert!(prices.passes_over_imported());
        assert_eq!(prices.table.date, embedded_prices().date);
    }
}
