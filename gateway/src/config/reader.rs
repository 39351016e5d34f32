//! Reads a TOML document key by key and remembers every fault with its line, so that all are told at once.

use std::fmt;
use std::ops::Range;

use toml_edit::{Document, Item, Table, TableLike};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1; 0 when the fault has no place of its own.
    pub line: usize,
    /// The key, dotted: `daemon.port`.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Collects faults while a document is read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

/// One table of the document, in whichever of TOML's forms. Keys are taken one by one; what nobody took is unknown.
pub(super) struct Section<'a> {
    name: String,
    table: Option<&'a dyn TableLike>,
    span: Option<Range<usize>>,
    taken: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, faults: Vec::new() }
    }

    /// Parses the text; a fault and `None` when it is not TOML.
    pub(super) fn parse(&mut self) -> Option<Document<String>> {
        match Document::parse(self.text.to_owned()) {
            Ok(document) => Some(document),
            Err(error) => {
                let message = error.message().to_owned();
                self.fault(error.span(), String::new(), message);
                None
            }
        }
    }

    pub(super) fn fault(&mut self, span: Option<Range<usize>>, key: String, message: impl Into<String>) {
        let line = span.map_or(0, |span| {
            let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
            before.iter().filter(|byte| **byte == b'\n').count() + 1
        });
        self.faults.push(Fault { line, key, message: message.into() });
    }

    pub(super) fn into_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|fault| fault.line);
        self.faults
    }

    /// The table `name` of `parent`, under a header of its own or inline; empty when it is not there.
    pub(super) fn section<'t>(&mut self, parent: &mut Section<'t>, name: &str) -> Section<'t> {
        let full = parent.full_key(name);
        let item = parent.take(name);
        let table = item.and_then(Item::as_table_like);
        if let Some(item) = item.filter(|item| !item.is_table_like()) {
            self.fault(item.span(), full.clone(), "must be a table");
        }
        Section { name: full, table, span: item.and_then(Item::span), taken: Vec::new() }
    }

    /// A value converted by `convert`, whose error is the fault's message; `None` when missing or wrong. A table
    /// under a header of its own is the same value as an inline one.
    pub(super) fn value<T>(
        &mut self,
        section: &mut Section<'_>,
        key: &str,
        convert: impl FnOnce(&toml_edit::Value) -> Result<T, String>,
    ) -> Option<T> {
        let item = section.take(key)?;
        let value = item.clone().into_value().map_err(|_| "must be a value".to_owned());
        let converted = value.and_then(|value| convert(&value));
        converted.map_err(|message| self.fault(item.span(), section.full_key(key), message)).ok()
    }

    /// Reports every key of the section that nobody asked for.
    pub(super) fn finish(&mut self, section: Section<'_>) {
        let Some(table) = section.table else { return };
        for key in section.untaken() {
            let span = table.key(key).and_then(toml_edit::Key::span);
            let closest = section.taken.iter().find(|taken| is_close(taken, key));
            let message = match closest {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => "unknown key".to_owned(),
            };
            self.fault(span, section.full_key(key), message);
        }
    }
}

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a Table) -> Self {
        Self { name: String::new(), table: Some(table), span: None, taken: Vec::new() }
    }

    pub(super) fn full_key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The item under `key`, which is known from now on.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a Item> {
        self.taken.push(key.to_owned());
        self.table?.get(key)
    }

    /// Reports a key that must be there and is not.
    pub(super) fn require(&self, reader: &mut Reader<'_>, key: &str) {
        if self.table.is_some_and(|table| !table.contains_key(key)) {
            reader.fault(self.span.clone(), self.full_key(key), "is missing");
        }
    }

    pub(super) fn keys(&self) -> Vec<&'a str> {
        self.table.into_iter().flat_map(|table| table.iter().map(|(key, _)| key)).collect()
    }

    /// The keys that nobody asked for yet.
    pub(super) fn untaken(&self) -> Vec<&'a str> {
        self.keys().into_iter().filter(|key| !self.taken.iter().any(|taken| taken == key)).collect()
    }
}

/// Whether two keys are one slip apart: a letter too many, too few, or swapped.
fn is_close(known: &str, typed: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (known.chars().collect(), typed.chars().collect());
    let prefix = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = |chars: &[char]| chars.len() - prefix;
    let suffix = a[prefix..].iter().rev().zip(b[prefix..].iter().rev()).take_while(|(x, y)| x == y).count();
    rest(&a) - suffix <= 2 && rest(&b) - suffix <= 2
}

/// A whole number within `min..=max`.
pub(super) fn integer(value: &toml_edit::Value, min: i64, max: i64) -> Result<i64, String> {
    value
        .as_integer()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("must be a whole number from {min} to {max}"))
}

/// A text.
pub(super) fn text(value: &toml_edit::Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "must be a text in quotes".to_owned())
}

/// `true` or `false`.
pub(super) fn boolean(value: &toml_edit::Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

/// A list of texts.
pub(super) fn texts(value: &toml_edit::Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(|| "must be a list of texts".to_owned())?;
    list.iter().map(text).collect()
}

/// A table of texts.
pub(super) fn text_table(value: &toml_edit::Value) -> Result<Vec<(String, String)>, String> {
    let table = value.as_inline_table().ok_or_else(|| "must be a table of texts".to_owned())?;
    let entry = |(key, item): (&str, &Item)| {
        let value = item.as_value().ok_or_else(|| "must be a table of texts".to_owned())?;
        Ok((key.to_owned(), text(value)?))
    };
    TableLike::iter(table).map(entry).collect()
}

/// A span of time with its unit: `"250ms"`, `"10s"`, `"10m"`, `"24h"`, `"30d"`.
pub(super) fn duration(value: &toml_edit::Value) -> Result<std::time::Duration, String> {
    parse_duration(&text(value)?).ok_or_else(|| "must be a time such as \"30s\" or \"10m\"".to_owned())
}

/// Parses a span of time such as `10s`; whole numbers and one unit.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(std::time::Duration::from_millis)
}

/// A size with its unit: `"64 KiB"`, `"32 MiB"`, `"1 GiB"`, in bytes.
pub(super) fn size(value: &toml_edit::Value) -> Result<u64, String> {
    let text = text(value)?;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit = match text[digits..].trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let bytes = text[..digits].parse().ok().and_then(|number: u64| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "must be a size such as \"64 KiB\" or \"32 MiB\"".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn faults(text: &str) -> Vec<String> {
        let faults = Config::parse(text, Path::new("/nowhere")).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check_same(text: &str) {
        let config = Config::parse(text, Path::new("/nowhere")).unwrap();
        assert_eq!(config.daemon.listen.port(), 9000, "{text}");
        let mine = config.provider("mine").unwrap();
        let headers: Vec<_> = mine.extra_headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(headers, ["x-team", "x-site"], "{text}");
    }

    #[test]
    fn a_table_may_have_any_of_the_forms_of_toml() {
        check_same(
            "[daemon]\nport = 9000\n[providers.mine]\nupstream = \"https://a.example\"\n\
             extra_headers = { x-team = \"a\", x-site = \"b\" }\n",
        );
        check_same(
            "daemon = { port = 9000 }\n[providers.mine]\nupstream = \"https://a.example\"\n\
             [providers.mine.extra_headers]\nx-team = \"a\"\nx-site = \"b\"\n",
        );
        check_same(
            "daemon.port = 9000\nproviders.mine.upstream = \"https://a.example\"\n\
             providers.mine.extra_headers.x-team = \"a\"\nproviders.mine.extra_headers.x-site = \"b\"\n",
        );
        check_same(
            "daemon = { port = 9000 }\nproviders = { mine = { upstream = \"https://a.example\", \
             extra_headers = { x-team = \"a\", x-site = \"b\" } } }\n",
        );
    }

    #[test]
    fn a_slip_in_an_inline_table_is_told_with_its_line() {
        assert_eq!(
            faults("\ndaemon = { prot = 9000 }\n"),
            ["line 2: `daemon.prot`: unknown key; did you mean `port`?"]
        );
        assert_eq!(
            faults("\ndaemon = { port = \"x\" }\n"),
            ["line 2: `daemon.port`: must be a whole number from 0 to 65535"]
        );
    }

    #[test]
    fn what_is_no_table_and_what_should_be_none_are_faults() {
        assert_eq!(faults("daemon = 1\n"), ["line 1: `daemon`: must be a table"]);
        assert_eq!(faults("[[daemon]]\nport = 1\n"), ["line 1: `daemon`: must be a table"]);
        assert_eq!(
            faults("[daemon.port]\nx = 1\n"),
            ["line 1: `daemon.port`: must be a whole number from 0 to 65535"]
        );
        let text = "[providers.mine]\nupstream = \"https://a.example\"\nextra_headers = 1\n";
        assert_eq!(faults(text), ["line 3: `providers.mine.extra_headers`: must be a table of texts"]);
    }
}
