//! Whom a limit is for.

use std::fmt;
use std::str::FromStr;

use crate::{AgentName, CapabilityId, ProviderId};

/// Whose requests a budget or a rate limit counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// All requests.
    Global,
    /// Requests to one provider.
    Provider(ProviderId),
    /// Requests booked to one agent.
    Agent(AgentName),
    /// Requests made with one capability or with a child of it.
    Capability(CapabilityId),
}

/// Text that names no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `global`, the name of a provider, or `agent:NAME`")]
pub struct InvalidSubject(String);

impl Subject {
    /// The stable name of its kind: `global`, `provider`, `agent` or `capability`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Provider(_) => "provider",
            Self::Agent(_) => "agent",
            Self::Capability(_) => "capability",
        }
    }

    /// The name within its kind; empty for `global`.
    pub fn name(&self) -> &str {
        match self {
            Self::Global => "",
            Self::Provider(id) => id.as_str(),
            Self::Agent(name) => name.as_str(),
            Self::Capability(id) => id.as_str(),
        }
    }

    /// The subject of a kind and a name, as [`Subject::kind`] and [`Subject::name`] tell them.
    ///
    /// # Errors
    /// [`InvalidSubject`] when there is no such kind or the name does not follow its rule.
    pub fn from_parts(kind: &str, name: &str) -> Result<Self, InvalidSubject> {
        let found = match kind {
            "global" => name.is_empty().then_some(Self::Global),
            "provider" => name.parse().ok().map(Self::Provider),
            "agent" => name.parse().ok().map(Self::Agent),
            "capability" => name.parse().ok().map(Self::Capability),
            _ => None,
        };
        found.ok_or_else(|| InvalidSubject(format!("{kind}:{name}").escape_debug().to_string()))
    }
}

/// As it is typed: `global`, `openai`, `agent:ci`, `capability:1a2b3c4d`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.pad("global"),
            Self::Provider(id) => f.pad(id.as_str()),
            Self::Agent(name) => f.pad(&format!("agent:{}", name.as_str())),
            Self::Capability(id) => f.pad(&format!("capability:{}", id.as_str())),
        }
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let invalid = |_| InvalidSubject(text.escape_debug().to_string());
        match text.split_once(':') {
            Some((kind @ ("agent" | "capability" | "provider"), name)) => {
                Self::from_parts(kind, name).map_err(invalid)
            }
            Some(_) => Err(InvalidSubject(text.escape_debug().to_string())),
            None if text == "global" => Ok(Self::Global),
            None => Self::from_parts("provider", text).map_err(invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_typed() {
        for text in ["global", "openai", "agent:ci", "capability:1a2b3c4d"] {
            let subject: Subject = text.parse().unwrap();
            assert_eq!(subject.to_string(), text);
            assert_eq!(Subject::from_parts(subject.kind(), subject.name()), Ok(subject));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "Global", "agent:", "agent:a b", "user:x", "capability:short", "agents:ci", "a:b:c"]
        {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
        assert!(Subject::from_parts("global", "x").is_err());
    }
}
