//! Asks an account page by page. A key goes to the one address it is for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway::outbound::Outbound;
use policy::{InvalidAmount, NanoUsd};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use vault::Secret;

use crate::format::plain;

/// How long a page may take, name and connection and answer together.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
const PAGE_BYTES_MAX: u64 = 4 << 20;
const PAGES_MAX: usize = 100;

/// Why something could not be looked at. It is no finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Stable.
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn not_understood(what: &str) -> Self {
        Self::new("not_understood", format!("the answer is not understood: {what}"))
    }

    /// With what was asked for in front.
    pub(super) fn of(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

/// An account at one address, and what opens it.
pub(super) struct Client<'a> {
    outbound: Outbound,
    /// Scheme, host and port.
    origin: String,
    fields: Vec<(&'static str, Secret<String>)>,
    is_over: &'a AtomicBool,
}

/// The end of an address.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(String);

/// A page of an answer, in the form that the providers have in common.
#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    next_page: Option<String>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        outbound: Outbound,
        origin: String,
        fields: Vec<(&'static str, Secret<String>)>,
        is_over: &'a AtomicBool,
    ) -> Self {
        Self { outbound, origin, fields, is_over }
    }

    /// What all pages have.
    pub(super) fn pages<T: DeserializeOwned>(&self, path: &str, query: &Query) -> Result<Vec<T>, Fault> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut of_page = query.clone();
            cursor.iter().for_each(|cursor| of_page.add("page", cursor));
            let page: Page<T> = self.ask(path, &of_page)?;
            all.extend(page.data);
            match page.next_page.filter(|_| page.has_more) {
                None if page.has_more => {
                    return Err(Fault::not_understood("there is more, and no way to it"));
                }
                None => return Ok(all),
                next if next == cursor => return Err(Fault::not_understood("its pages do not go on")),
                next => cursor = next,
            }
        }
        Err(Fault::new("too_long", format!("there are more than {PAGES_MAX} pages")))
    }

    /// One document.
    pub(super) fn ask<T: DeserializeOwned>(&self, path: &str, query: &Query) -> Result<T, Fault> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(Fault::new("interrupted", "the watch is ending"));
        }
        let mark = if query.0.is_empty() {
            ""
        } else if path.contains('?') {
            "&"
        } else {
            "?"
        };
        let url = format!("{}{path}{mark}{}", self.origin, query.0);
        let fields: Vec<(&str, &str)> =
            self.fields.iter().map(|(name, value)| (*name, value.expose().as_str())).collect();
        let answer = self.outbound.get(&url, &fields, PAGE_BYTES_MAX);
        let answer = answer.map_err(|reason| Fault::new("unreachable", reason))?;
        check_status(answer.status)?;
        // Where it is wrong, not what it says: it may repeat what it was asked with.
        serde_json::from_slice(&answer.body).map_err(|error| {
            Fault::not_understood(&format!("line {}, column {}", error.line(), error.column()))
        })
    }
}

fn check_status(status: u16) -> Result<(), Fault> {
    let answered = |with: &str| format!("it was answered with {status}{with}");
    match status {
        200 => Ok(()),
        300..=399 => Err(Fault::new("redirected", answered(", and no redirect is followed"))),
        401 | 403 => {
            Err(Fault::new("unauthorized", answered("; the key does not open the account's figures")))
        }
        429 => Err(Fault::new("rate_limited", answered(""))),
        _ => Err(Fault::new("provider_error", answered(""))),
    }
}

impl Query {
    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.add(name, &value.to_string());
        self
    }

    /// The name once for each of the values.
    pub(super) fn with_each(mut self, name: &str, values: &[String]) -> Self {
        values.iter().for_each(|value| self.add(name, value));
        self
    }

    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        escape(name, &mut self.0);
        self.0.push('=');
        escape(value, &mut self.0);
    }
}

/// Everything but what is never special in an address (RFC 3986, section 2.3).
fn escape(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            to.push(char::from(byte));
        } else {
            to.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// An amount as it stands in the answer, a number or a text.
pub(super) fn amount(raw: &RawValue, shift: i32) -> Result<NanoUsd, Fault> {
    let text = raw.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    NanoUsd::from_decimal(text, shift)
        .map_err(|error: InvalidAmount| Fault::not_understood(&plain(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_in_an_address_is_escaped() {
        let query = Query::default()
            .with("starting_at", "2026-11-25T00:00:00Z")
            .with_each("group_by[]", &["model".to_owned(), "a&b=ä".to_owned()]);
        assert_eq!(
            query.0,
            "starting_at=2026-11-25T00%3A00%3A00Z&group_by%5B%5D=model&group_by%5B%5D=a%26b%3D%C3%A4"
        );
    }

    #[test]
    fn an_amount_is_a_number_or_a_text_and_never_a_float() {
        let amount = |json: &str, shift| {
            amount(&serde_json::from_str::<Box<RawValue>>(json).unwrap(), shift).map(NanoUsd::nanos).ok()
        };
        assert_eq!(amount("0.060000000000000001", 0), Some(60_000_000));
        assert_eq!(amount("\"123.45\"", -2), Some(1_234_500_000));
        assert_eq!(amount("1e-7", 0), Some(100));
        for json in ["null", "true", "\"\"", "\"1,5\"", "[1]", "{}", "1e400"] {
            assert_eq!(amount(json, 0), None, "{json}");
        }
    }
}
