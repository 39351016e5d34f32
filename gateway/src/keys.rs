//! The credentials of an open vault, as ready header values, each with the only origin it may be sent to.

use std::collections::HashMap;

use http::HeaderValue;
use policy::ProviderId;
use vault::{EntryKind, Origin, Vault};

use crate::catalogue::Provider;
use crate::config::Config;

/// The credentials as ready header values, or none of them while the vault is locked.
#[derive(Debug)]
pub(crate) enum KeyRing {
    Locked,
    Unlocked(HashMap<ProviderId, Key>),
}

/// One credential: what to send, and the only origin it may be sent to.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) value: HeaderValue,
    pub(crate) origin: Origin,
}

impl KeyRing {
    /// Makes the header values once, so that no request has to. Entries whose provider no longer exists, or
    /// that serve `watch` alone, are left out.
    pub(crate) fn from_vault(vault: &Vault, config: &Config) -> Self {
        let inference = vault.entries().iter().filter(|entry| entry.kind() == EntryKind::Inference);
        let keys = inference.filter_map(|entry| {
            let provider = config.provider(entry.provider())?;
            let value = header_value(provider, entry.secret().expose())?;
            Some((provider.id.clone(), Key { value, origin: entry.allowed_origin().clone() }))
        });
        Self::Unlocked(keys.collect())
    }
}

/// The value of the header that carries a credential; `None` when it could not stand in a header.
fn header_value(provider: &Provider, secret: &str) -> Option<HeaderValue> {
    let (_, prefix) = provider.auth.header()?;
    let mut value = HeaderValue::try_from(format!("{prefix}{secret}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
