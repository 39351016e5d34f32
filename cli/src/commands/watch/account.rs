//! Which providers can be asked about their accounts, and with which key at which address.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use gateway::catalogue::{AuthStyle, Provider};
use gateway::config::{Config, OutboundUrl};
use gateway::outbound::Outbound;
use policy::ProviderId;
use vault::{Entry, EntryKind, Secret, Vault};

use super::Settings;
use super::pages::{Client, Fault, PATIENCE};

/// How a provider tells what was used.
#[derive(Clone, Debug)]
pub(super) enum Account {
    OpenAi,
    Anthropic,
    OpenRouter,
    /// An endpoint of the owner's.
    Custom(OutboundUrl),
}

/// What the figures of a provider are opened with, and where.
pub(super) struct Keys<'a> {
    pub(super) provider: &'a Provider,
    pub(super) vault: &'a Vault,
    pub(super) is_over: &'a AtomicBool,
}

/// The providers that are looked at: those that were named, or all that can be asked.
pub(super) fn watched(settings: &Settings, config: &Config, vault: &Vault) -> Vec<ProviderId> {
    let mut watched = settings.providers.clone();
    if watched.is_empty() {
        let entries = vault.entries().iter();
        let can_be_asked = entries.filter(|entry| match entry.kind() {
            EntryKind::Admin => true,
            EntryKind::Inference => entry.provider() == "openrouter",
            EntryKind::Canary => false,
        });
        watched.extend(can_be_asked.filter_map(|entry| Some(config.provider(entry.provider())?.id.clone())));
        watched.extend(settings.endpoints.iter().map(|(provider, _)| provider.clone()));
    }
    watched.sort();
    watched.dedup();
    watched
}

impl Account {
    /// How a provider is asked.
    ///
    /// # Errors
    /// Where nobody knows how.
    pub(super) fn of(provider: &ProviderId, settings: &Settings) -> Result<Self, Fault> {
        let endpoint = settings.endpoints.iter().find(|(of, _)| of == provider);
        match (endpoint, provider.as_str()) {
            (Some((_, url)), _) => Ok(Self::Custom(url.clone())),
            (None, "openai") => Ok(Self::OpenAi),
            (None, "anthropic") => Ok(Self::Anthropic),
            (None, "openrouter") => Ok(Self::OpenRouter),
            (None, other) => Err(Fault::new(
                "no_usage_endpoint",
                format!("nothing is known about accounts of `{other}`; see --usage-endpoint {other}=URL"),
            )),
        }
    }
}

impl<'a> Keys<'a> {
    /// A client with the admin key of the provider.
    ///
    /// # Errors
    /// Where there is none, or it was stored for another address.
    pub(super) fn admin(&self) -> Result<Client<'a>, Fault> {
        let id = &self.provider.id;
        let entry = self.entry(EntryKind::Admin).ok_or_else(|| {
            let message = format!("the vault holds no admin key of `{id}`; tokfence vault add {id} --admin");
            Fault::new("no_admin_key", message)
        })?;
        self.client(entry)
    }

    /// The entry of a kind.
    pub(super) fn entry(&self, kind: EntryKind) -> Option<&'a Entry> {
        self.vault.entry(self.provider.id.as_str(), kind)
    }

    /// A client with the key of an entry, for the origin that the key was stored for and no other.
    pub(super) fn client(&self, entry: &Entry) -> Result<Client<'a>, Fault> {
        let (id, origin) = (&self.provider.id, entry.allowed_origin());
        if *origin != self.provider.origin {
            let message = format!(
                "the key of `{id}` was stored for {origin} and is not sent to {}",
                self.provider.origin
            );
            return Err(Fault::new("other_origin", message));
        }
        self.to(origin.to_string(), self.fields(entry), self.provider.ca_file.as_deref())
    }

    /// A client for an endpoint of the owner's. The admin key goes there only if it was stored for that address.
    pub(super) fn endpoint(&self, url: &OutboundUrl) -> Result<Client<'a>, Fault> {
        let admin = self.entry(EntryKind::Admin).filter(|entry| entry.allowed_origin() == url.origin());
        let fields = admin.map(|entry| self.fields(entry)).unwrap_or_default();
        let is_provider = *url.origin() == self.provider.origin;
        let ca_file = self.provider.ca_file.as_deref().filter(|_| is_provider);
        self.to(url.origin().to_string(), fields, ca_file)
    }

    fn to(
        &self,
        origin: String,
        mut fields: Vec<(&'static str, Secret<String>)>,
        ca_file: Option<&Path>,
    ) -> Result<Client<'a>, Fault> {
        let outbound =
            Outbound::new(ca_file, PATIENCE).map_err(|reason| Fault::new("certificates", reason))?;
        fields.push(("accept", Secret::from("application/json")));
        Ok(Client::new(outbound, origin, fields, self.is_over))
    }

    /// The fields that carry a key, as its provider wants them.
    fn fields(&self, entry: &Entry) -> Vec<(&'static str, Secret<String>)> {
        let key = entry.secret().expose();
        match self.provider.auth {
            AuthStyle::XApiKey => anthropic_fields(key),
            AuthStyle::XGoogApiKey => vec![("x-goog-api-key", Secret::from(key.as_str()))],
            AuthStyle::ApiKey => vec![("api-key", Secret::from(key.as_str()))],
            // A caller's own login says nothing about how an admin key is taken.
            AuthStyle::Passthrough | AuthStyle::None if self.provider.id.as_str() == "anthropic" => {
                anthropic_fields(key)
            }
            AuthStyle::Bearer | AuthStyle::Passthrough | AuthStyle::None => {
                vec![("authorization", Secret::new(format!("Bearer {key}")))]
            }
        }
    }
}

fn anthropic_fields(key: &str) -> Vec<(&'static str, Secret<String>)> {
    vec![("x-api-key", Secret::from(key)), ("anthropic-version", Secret::from("2023-06-01"))]
}
