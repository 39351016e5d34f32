//! The credentials of an open vault, as ready headers, each with the only origin it may be sent to.

use http::{HeaderName, HeaderValue};
use policy::{Denial, DenialCode, Map, ProviderId};
use vault::{EntryKind, Origin, Vault};

use crate::config::Config;
use crate::provider::catalogue::{AuthStyle, Provider};

/// The credentials as ready headers, or none of them while the vault is locked.
#[derive(Debug)]
pub(crate) enum KeyRing {
    Locked,
    Unlocked(Map<ProviderId, Credential>),
}

/// One credential: the header to send, and the only origin it may be sent to.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) name: HeaderName,
    pub(crate) value: HeaderValue,
    origin: Origin,
}

impl KeyRing {
    /// Makes the headers once, so that no request has to. Entries whose provider no longer exists, that
    /// serve `watch` alone, or that are canaries, are left out.
    pub(crate) fn from_vault(vault: &Vault, config: &Config) -> Self {
        let inference = vault.entries().iter().filter(|entry| entry.kind() == EntryKind::Inference);
        let credentials = inference.filter_map(|entry| {
            let provider = config.provider(entry.provider())?;
            let (name, value) = header(provider, entry.secret().expose())?;
            let origin = entry.allowed_origin().clone();
            Some((provider.id.clone(), Credential { name, value, origin }))
        });
        Self::Unlocked(credentials.collect())
    }

    /// The credential to send to a provider; `None` for one that takes none of ours. It is bound to the origin it
    /// was stored for, inside the sealed vault, so an edited configuration cannot send it elsewhere. A locked vault
    /// means that its owner wants nothing to go out on anybody's account, so that holds for callers' own
    /// credentials as well.
    ///
    /// # Errors
    /// The [`Denial`] to answer with: locked, missing, or stored for another origin.
    pub(crate) fn credential_for(&self, provider: &Provider) -> Result<Option<&Credential>, Denial> {
        let credentials = match self {
            _ if provider.auth == AuthStyle::None => return Ok(None),
            Self::Locked => return Err(vault_locked()),
            Self::Unlocked(_) if provider.auth == AuthStyle::Passthrough => return Ok(None),
            Self::Unlocked(credentials) => credentials,
        };
        let missing = |message: String| {
            let hint = format!("tokfence vault add {}", provider.id);
            Denial::new(DenialCode::MissingKey, message).with_hint(hint)
        };
        let Some(credential) = credentials.get(&provider.id) else {
            return Err(missing(format!("the vault holds no key for `{}`", provider.id)));
        };
        if credential.origin != provider.origin {
            return Err(missing(format!(
                "the key of `{}` was stored for {} and is not sent to {}",
                provider.id, credential.origin, provider.origin
            )));
        }
        Ok(Some(credential))
    }
}

/// What is answered while the vault is locked.
pub(crate) fn vault_locked() -> Denial {
    Denial::new(DenialCode::VaultLocked, "the vault is locked").with_hint("tokfence unlock")
}

/// The header that carries a credential; `None` when it could not stand in one.
fn header(provider: &Provider, secret: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, prefix) = provider.auth.header()?;
    let mut value = HeaderValue::try_from(format!("{prefix}{secret}")).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault::{Entry, KdfCost, NewEntry, NewSlot, Secret};

    fn entry(provider: &Provider, kind: EntryKind, secret: &str) -> Entry {
        let parts = NewEntry {
            provider: provider.id.to_string(),
            kind,
            label: String::new(),
            secret: Secret::from(secret),
            allowed_origin: provider.origin.clone(),
            auth_style: provider.auth.as_str().to_owned(),
        };
        Entry::new(parts, 0).unwrap()
    }

    #[test]
    fn only_what_is_for_requests_becomes_a_header() {
        let home = tempfile::tempdir().unwrap();
        let passphrase = Secret::from("correct horse battery");
        let slot = NewSlot::Passphrase { passphrase: &passphrase, cost: KdfCost::insecure_for_tests() };
        let (mut vault, _) = Vault::create(&home.path().join("vault.tfv"), &[slot]).unwrap();
        let config = Config::parse("", home.path()).unwrap();
        let of = |name: &str| config.provider(name).unwrap();
        vault.put(entry(of("openai"), EntryKind::Inference, "sk-1")).unwrap();
        for name in ["openai", "anthropic"] {
            vault.put(entry(of(name), EntryKind::Admin, "sk-admin")).unwrap();
            vault.put(entry(of(name), EntryKind::Canary, "sk-proj-that-opens-nothing")).unwrap();
        }
        let ring = KeyRing::from_vault(&vault, &config);
        assert_eq!(ring.credential_for(of("openai")).unwrap().unwrap().value, "Bearer sk-1");
        let missing = ring.credential_for(of("anthropic")).unwrap_err();
        assert_eq!(missing.code(), DenialCode::MissingKey);
    }
}
