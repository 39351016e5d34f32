//! Canaries: secrets that open nothing and are planted to be found. Where one appears tells what has leaked, and from
//! where; nobody has a reason to use one, so a hit is evidence and not a guess.
//!
//! The text of a canary in the vault is known to the vault alone: here is only its hash. Whoever shows it has read the
//! vault, and not the database.

mod make;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{AgentName, CanaryName, CapabilityId};
pub use make::{DecoyShape, UnknownDecoyShape, decoy, prompt_mark};

/// The number of a canary's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanaryId(pub i64);

/// Where a canary is planted, and so what it means where it appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CanaryKind {
    /// A mark in a system prompt. In an answer it says that the prompt leaks.
    Prompt,
    /// A key that looks real, in an agent's files or environment. Whoever uses it or sends it has stolen it.
    Decoy,
    /// An entry of the vault that is never sent. Wherever it is seen, the content of the vault has leaked.
    Vault,
}

/// Text that names no kind of canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kind of canary is one of prompt, decoy, vault")]
pub struct UnknownCanaryKind;

/// For whom a canary was planted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The agent that can see it.
    pub agent: AgentName,
    /// The root capability of the one run that can see it.
    pub capability: Option<CapabilityId>,
}

/// The text of a canary, or what is known of it.
#[derive(Clone, PartialEq, Eq)]
pub enum CanaryValue {
    /// The text.
    Text(Box<str>),
    /// The SHA-256 of a text that only the vault has.
    Hash([u8; 32]),
}

/// A planted canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Its row.
    pub id: CanaryId,
    /// What it means where it appears.
    pub kind: CanaryKind,
    /// What its owner calls it.
    pub name: CanaryName,
    /// What it looks like; a mark in a prompt looks like no key.
    pub shape: Option<DecoyShape>,
    /// What appears.
    pub value: CanaryValue,
    /// For whom it was planted, if for one agent.
    pub holder: Option<Holder>,
}

impl CanaryKind {
    /// Every kind, in the order they are shown.
    pub const ALL: [Self; 3] = [Self::Prompt, Self::Decoy, Self::Vault];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Decoy => "decoy",
            Self::Vault => "vault",
        }
    }
}

impl CanaryValue {
    /// What may be known of `text` outside the vault.
    pub fn hash_of(text: &str) -> Self {
        Self::Hash(Sha256::digest(text.as_bytes()).into())
    }

    /// The texts to look for, each by itself: a pair of key id and key is two. None where only the hash is known.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        let text = match self {
            Self::Text(text) => Some(&**text),
            Self::Hash(_) => None,
        };
        text.into_iter().flat_map(make::parts)
    }

    /// Whether this is `text`, or one of a pair is. How long it takes tells nothing of where they differ.
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => {
                let whole = own.as_bytes().ct_eq(text.as_bytes());
                let each = self.marks().map(|mark| mark.as_bytes().ct_eq(text.as_bytes()));
                each.fold(whole, |found, part| found | part).into()
            }
            Self::Hash(own) => own[..].ct_eq(&Sha256::digest(text.as_bytes())[..]).into(),
        }
    }
}

impl Canary {
    /// The texts that scanners look for; see [`CanaryValue::marks`].
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        self.value.marks()
    }

    /// Whether a caller who presents `text` as its key presents this. A mark of a prompt is no key.
    pub fn is_presented_by(&self, text: &str) -> bool {
        match self.kind {
            CanaryKind::Prompt => false,
            CanaryKind::Decoy | CanaryKind::Vault => self.value.is(text),
        }
    }

    /// The beginning that says what it looks like and no more; safe to show.
    pub fn masked(&self) -> String {
        format!("{}…", self.shape.map_or(make::PROMPT_PREFIX, DecoyShape::prefix))
    }
}

impl fmt::Debug for CanaryValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CanaryValue(..)")
    }
}

impl fmt::Display for CanaryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CanaryKind {
    type Err = UnknownCanaryKind;

    fn from_str(text: &str) -> Result<Self, UnknownCanaryKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownCanaryKind)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
