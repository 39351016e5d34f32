//! What is looked for: the secrets of the vault and the canaries, as one list, replaced whole when any of them changes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use policy::CanaryKind;
use policy::scan::{Channel, Form, Hit, View, Watchlist};

/// What is looked for, and what it is.
pub(crate) struct Watch {
    pub(super) list: Watchlist,
    watched: Vec<Arc<Watched>>,
}

/// A secret that was found. What it is and how it was written, never its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) watched: Arc<Watched>,
    pub(crate) form: Form,
    pub(crate) view: View,
    /// After how many bytes of the text it stood in.
    pub(crate) offset: u64,
}

/// A secret that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// A provider's key.
    Key {
        /// Whose.
        provider: String,
    },
    /// What was planted to be found.
    Canary {
        /// What it means where it appears.
        kind: CanaryKind,
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

    /// What is found in a text that is all there, the first of each secret.
    pub(crate) fn find(&self, text: &[u8]) -> Vec<Finding> {
        let mut found: Vec<Hit> = Vec::new();
        if !self.is_empty() {
            Channel::default().feed(&self.list, text, |hit| {
                if found.iter().all(|other| other.secret != hit.secret) {
                    found.push(hit);
                }
            });
        }
        found.iter().map(|hit| self.finding(hit)).collect()
    }

    /// The text with stars in the place of every secret, if there is one in it.
    pub(crate) fn masked(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.find(text).is_empty() {
            return None;
        }
        let mut masked = text.to_vec();
        self.list.mask(&mut masked);
        Some(masked)
    }

    /// A text of ours, such as a line of the log, without secrets.
    pub(crate) fn clean<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let masked = self.masked(text.as_bytes());
        masked.map_or(Cow::Borrowed(text), |masked| String::from_utf8_lossy(&masked).into_owned().into())
    }

    pub(super) fn finding(&self, hit: &Hit) -> Finding {
        let (watched, form, view, offset) = (self.watched(hit.secret), hit.form, hit.view, hit.end);
        Finding { watched, form, view, offset }
    }
}

impl Watched {
    /// Its name among all that is looked for: what an event says instead of the text.
    pub(crate) fn pattern(&self) -> String {
        match self {
            Self::Key { provider } => format!("key:{provider}"),
            Self::Canary { name, .. } => format!("canary:{name}"),
        }
    }

    /// Whether it was planted to be found.
    pub(crate) fn is_canary(&self) -> bool {
        matches!(self, Self::Canary { .. })
    }

    /// Whether it stands in a prompt, which providers are told and nobody else.
    pub(crate) fn is_prompt_mark(&self) -> bool {
        matches!(self, Self::Canary { kind: CanaryKind::Prompt, .. })
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
            Self::Canary { kind, name } => write!(f, "the {kind} canary `{name}`"),
        }
    }
}
