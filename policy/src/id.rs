//! Names and ids, checked once when they are parsed and never mixed up afterwards. Every request copies some of them,
//! so a copy is shared.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Text that cannot be a name of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind}: {rule}")]
pub struct InvalidName {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

fn parse_name(
    text: &str,
    kind: &'static str,
    rule: &'static str,
    holds: impl Fn(&[u8]) -> bool,
) -> Result<Arc<str>, InvalidName> {
    if holds(text.as_bytes()) {
        return Ok(text.into());
    }
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    Err(InvalidName { text: shown, kind, rule })
}

const LOWER_CASE_RULE: &str = "lower-case letters, digits, `_` and `-`, 63 at most, a letter or digit first";

fn is_lower_case_name(name: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.first().is_some_and(plain)
        && name.len() <= 63
        && name.iter().all(|b| plain(b) || matches!(b, b'_' | b'-'))
}

/// A provider's name in routes, configuration and vault: `^[a-z0-9][a-z0-9_-]{0,62}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(Arc<str>);

/// The name of an agent: `^[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(Arc<str>);

/// What its owner calls a canary: the same rule as for providers, so that an entry of the vault can have the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanaryName(Arc<str>);

/// The public part of a capability token: eight letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapabilityId([u8; 8]);

/// The id of one request; 26 characters that sort by time (a ULID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(ulid::Ulid);

impl FromStr for ProviderId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        parse_name(text, "a provider name", LOWER_CASE_RULE, is_lower_case_name).map(Self)
    }
}

impl FromStr for CanaryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        parse_name(text, "a name for a canary", LOWER_CASE_RULE, is_lower_case_name).map(Self)
    }
}

impl FromStr for AgentName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "letters, digits, `_`, `.`, `@` and `-`, 63 at most, a letter or digit first";
        let holds = |name: &[u8]| {
            name.first().is_some_and(u8::is_ascii_alphanumeric)
                && name.len() <= 63
                && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'@' | b'-'))
        };
        parse_name(text, "an agent name", rule, holds).map(Self)
    }
}

impl FromStr for CapabilityId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let holds = |name: &[u8]| name.len() == 8 && name.iter().all(u8::is_ascii_alphanumeric);
        let name = parse_name(text, "a capability id", "eight letters and digits", holds)?;
        let bytes = name.as_bytes().try_into().expect("the rule above asks for eight bytes");
        Ok(Self(bytes))
    }
}

impl ProviderId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AgentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CanaryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CapabilityId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a capability id is ASCII")
    }
}

impl RequestId {
    /// An id for a request that began at `unix_ms`, made unique by `random` (its low 80 bits count).
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(unix_ms, random))
    }
}

impl FromStr for RequestId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "26 letters and digits";
        parse_name(text, "a request id", rule, |_| ulid::Ulid::from_string(text).is_ok())?;
        Ok(Self(ulid::Ulid::from_string(text).expect("it was parsed one line above")))
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CanaryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CapabilityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_names_are_lower_case_words() {
        for good in ["openai", "azure-openai", "a", "9_router"] {
            assert!(good.parse::<ProviderId>().is_ok(), "{good}");
        }
        for bad in ["", "OpenAI", "-a", "a/b", "a.b", "__tokfence", &"a".repeat(64)] {
            assert!(bad.parse::<ProviderId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_cannot_carry_control_characters() {
        let error = "a\u{1b}[31m".parse::<ProviderId>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn request_ids_sort_by_time() {
        let (earlier, later) = (RequestId::from_parts(1_000, u128::MAX), RequestId::from_parts(1_001, 0));
        assert!(earlier.to_string() < later.to_string());
        assert_eq!(later.to_string().parse(), Ok(later));
    }
}
