//! What is looked for: the secrets of the vault and the canaries, as one list, replaced whole when any of them changes.

use std::fmt;
use std::sync::Arc;

use policy::scan::Watchlist;

/// What is looked for, and what it is.
pub(crate) struct Watch {
    pub(super) list: Watchlist,
    watched: Vec<Arc<Watched>>,
}

/// A secret that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// A provider's key.
    Key {
        /// Whose.
        provider: String,
    },
    /// A text that looks like a key and is none.
    Decoy {
        /// What its owner calls it.
        name: String,
    },
    /// A line of a system prompt, which may be said to providers and is told by none.
    PromptMark {
        /// What its owner calls it.
        name: String,
    },
    /// An entry of the vault that is never used.
    VaultCanary {
        /// What its owner calls it.
        name: String,
    },
}

impl Watch {
    /// Looks for nothing.
    pub(crate) fn nothing() -> Self {
        Self::new(Vec::<(Watched, &[u8])>::new())
    }

    /// Looks for these. What [`Watchlist::can_watch`] denies is left out, and told of in the log.
    pub(crate) fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = (Watched, S)>) -> Self {
        let (can, cannot): (Vec<_>, Vec<_>) =
            secrets.into_iter().partition(|(_, secret)| Watchlist::can_watch(secret.as_ref()));
        for (watched, _) in cannot {
            tracing::warn!(secret = %watched, "too short or too plain to be looked for in traffic");
        }
        let (watched, secrets): (Vec<_>, Vec<_>) = can.into_iter().unzip();
        let list = Watchlist::new(&secrets).unwrap_or_else(|error| {
            tracing::error!(%error, "secrets are not looked for in traffic");
            Watchlist::new::<&[u8]>(&[]).expect("a list of nothing can be built")
        });
        Self { list, watched: watched.into_iter().map(Arc::new).collect() }
    }

    /// Whether anything is looked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// What a secret of the list is.
    pub(super) fn watched(&self, secret: usize) -> Arc<Watched> {
        self.watched[secret].clone()
    }

    /// Puts stars in the place of every secret in a text of ours, such as a line of the log.
    pub(crate) fn mask(&self, text: &str) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let is_clean = self.is_empty() || self.list.mask(&mut bytes).is_empty();
        (!is_clean).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Watched {
    /// Whether it was planted to be found.
    pub(crate) fn is_canary(&self) -> bool {
        !matches!(self, Self::Key { .. })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { provider } => write!(f, "the key of `{provider}`"),
            Self::Decoy { name } => write!(f, "the decoy `{name}`"),
            Self::PromptMark { name } => write!(f, "the prompt mark `{name}`"),
            Self::VaultCanary { name } => write!(f, "the vault canary `{name}`"),
        }
    }
}
