//! `provider`: who can be called, and at which address.

mod edit;
mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::{Args, Subcommand};
use gateway::catalogue::{AuthStyle, Catalogue, Provider as Entry};
use gateway::config::Config;
use policy::ProviderId;
use serde_json::{Value, json};
use storage::AuditAction;

use crate::app::App;
use crate::columns::{Column, Columns};
use crate::failure::{Exit, Failure};
use crate::format::{fields, lines};
pub(crate) use edit::read as read_document;
pub(crate) use edit::replace;
use edit::{Override, edit, override_names, remove_override, set_override};
pub(crate) use reach::reach;

const COLUMNS: [Column; 6] = [
    Column::Left("name"),
    Column::Left("upstream"),
    Column::SpareLeft("auth"),
    Column::SpareLeft("wire"),
    Column::SpareLeft("from"),
    Column::Left("key"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Provider {
    /// List the providers, built in and configured
    List,
    /// Everything about one provider
    Show {
        /// Its name or an alias
        name: String,
    },
    /// Change a provider's address, or add a provider
    Set(Set),
    /// Take back what was configured for a provider
    Remove {
        /// Its name or an alias
        name: String,
    },
    /// Look up a provider's address and connect to it, without sending anything
    Test {
        /// Its name or an alias
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name; a new one adds a provider
    name: String,
    /// Where requests go, with the path in front of every route
    url: String,
    /// The format of its answers: openai, anthropic, google, ollama, cohere
    #[arg(long)]
    wire: Option<String>,
    /// How it takes its key: bearer, x-api-key, x-goog-api-key, api-key, none; passthrough for the caller's own
    #[arg(long)]
    auth: Option<String>,
    /// It runs on this machine or in its network, so plain http and private addresses are allowed
    #[arg(long)]
    local: bool,
}

/// Where a provider's settings are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    BuiltIn,
    Overridden,
    Configured,
}

/// Which keys the running daemon has.
struct Keys(Option<BTreeSet<String>>);

impl Provider {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::List => list(app),
            Self::Show { name } => show(app, &name),
            Self::Set(set) => set.run(app),
            Self::Remove { name } => remove(app, &name),
            Self::Test { name } => test(app, &name),
        }
    }
}

impl Source {
    fn of(provider: &Entry, overridden: &[ProviderId]) -> Self {
        let is_built_in = built_in(&provider.id).is_some();
        match (is_built_in, overridden.iter().any(|name| provider.answers_to(name))) {
            (false, _) => Self::Configured,
            (true, true) => Self::Overridden,
            (true, false) => Self::BuiltIn,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built_in",
            Self::Overridden => "overridden",
            Self::Configured => "configured",
        }
    }
}

fn built_in(id: &ProviderId) -> Option<Entry> {
    Catalogue::embedded().providers().into_iter().find(|known| known.id == *id)
}

impl Keys {
    fn of_daemon(app: &App) -> Self {
        let status = app.daemon_status().ok().filter(|status| !status.is_locked);
        Self(status.map(|status| status.providers.into_iter().collect()))
    }

    /// Whether the provider's key is loaded; `None` when nobody knows.
    fn has(&self, id: &ProviderId) -> Option<bool> {
        self.0.as_ref().map(|loaded| loaded.contains(id.as_str()))
    }
}

/// The configured address: origin and base path.
pub(crate) fn upstream(provider: &Entry) -> String {
    format!("{}{}", provider.origin, provider.base_path)
}

fn summary(provider: &Entry, source: Source, keys: &Keys) -> Value {
    json!({
        "name": provider.id.as_str(),
        "aliases": provider.aliases.iter().map(ProviderId::as_str).collect::<Vec<_>>(),
        "upstream": upstream(provider),
        "auth": provider.auth.as_str(),
        "wire": provider.wire.as_str(),
        "is_local": provider.is_local,
        "source": source.as_str(),
        "has_key": keys.has(&provider.id),
    })
}

/// Each provider once; in the configuration an alias is a name of its own.
pub(crate) fn each_once(config: &Config) -> Vec<Arc<Entry>> {
    let by_name: BTreeMap<_, _> =
        config.providers.values().map(|provider| (provider.id.clone(), provider.clone())).collect();
    by_name.into_values().collect()
}

fn list(app: &App) -> Result<(), Failure> {
    let (config, keys) = (app.config()?, Keys::of_daemon(app));
    let overridden = override_names(&app.config_path)?;
    let providers = each_once(&config);
    let summaries =
        providers.iter().map(|provider| summary(provider, Source::of(provider, &overridden), &keys));
    let document = json!({ "providers": summaries.collect::<Vec<_>>() });
    app.output.data(&document, || {
        let rows = providers.iter().map(|provider| {
            let names = std::iter::once(&provider.id).chain(&provider.aliases).map(ProviderId::as_str);
            let has_key = match keys.has(&provider.id) {
                _ if provider.auth == AuthStyle::Passthrough => "caller's",
                None => "?",
                Some(true) => "yes",
                Some(false) => "-",
            };
            vec![
                names.collect::<Vec<_>>().join(", "),
                upstream(provider),
                provider.auth.as_str().to_owned(),
                provider.wire.to_string(),
                Source::of(provider, &overridden).as_str().replace('_', " "),
                has_key.to_owned(),
            ]
        });
        Columns::table(&COLUMNS, &rows.collect::<Vec<_>>(), "no providers")
    });
    if keys.0.is_none() {
        app.output.note("which keys are loaded is known while the gateway runs and is unlocked");
    }
    Ok(())
}

fn find(app: &App, config: &Config, name: &str) -> Result<Arc<Entry>, Failure> {
    let id = app.provider(config, name)?;
    Ok(config.provider(id.as_str()).expect("the name was just resolved").clone())
}

fn show(app: &App, name: &str) -> Result<(), Failure> {
    let config = app.config()?;
    let provider = find(app, &config, name)?;
    let source = Source::of(&provider, &override_names(&app.config_path)?);
    let mut document = summary(&provider, source, &Keys::of_daemon(app));
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let timeouts = provider.timeouts;
    document["connect_timeout_ms"] = json!(millis(timeouts.connect));
    document["first_byte_timeout_ms"] = json!(millis(timeouts.first_byte));
    document["idle_timeout_ms"] = json!(millis(timeouts.idle));
    document["ca_file"] = json!(provider.ca_file.as_ref().map(|path| path.display().to_string()));
    // A header may carry a second credential, so only its name is shown.
    document["extra_headers"] =
        provider.extra_headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().into();
    let passed = provider.passed_headers.iter().chain(&provider.further_headers);
    document["passed_headers"] = passed.map(ToString::to_string).collect::<Vec<_>>().into();
    document["variables"] = json!(provider.env);
    document["prices"] = json!(provider.prices);
    app.output.data(&document, || {
        let variables = provider.env.iter().map(|(name, value)| format!("{name}={value}"));
        let mut shown = document.clone();
        shown["variables"] = variables.collect::<Vec<_>>().into();
        lines(&fields(&shown))
    });
    Ok(())
}

/// What of a provider a command may change.
fn settings(provider: &Entry) -> Value {
    json!({
        "upstream": upstream(provider),
        "wire": provider.wire.as_str(),
        "auth": provider.auth.as_str(),
        "is_local": provider.is_local,
    })
}

impl Set {
    fn run(self, app: &App) -> Result<(), Failure> {
        let before = app.config()?;
        let typed = self.name.to_ascii_lowercase();
        let parsed = typed.parse().map_err(|error: policy::InvalidName| Failure::usage(error.to_string()));
        let old = before.provider(&typed).cloned();
        let id = old.as_ref().map_or(parsed, |provider| Ok(provider.id.clone()))?;
        let undo = self.undo(app, &id, old.as_deref())?;
        let new = Override { url: self.url, wire: self.wire, auth: self.auth, is_local: self.local };
        let is_plain = new.url.starts_with("http://") && !new.is_local;
        let edited = edit(app, |document| set_override(document, &id, old.as_deref(), &new));
        let after = edited.map_err(|failure| match is_plain {
            true => failure.with_hint("--local, if it is a server on this machine"),
            false => failure,
        })?;
        let provider = find(app, &after, id.as_str())?;
        record(app, AuditAction::ProviderSet, &id, old.as_deref(), Some(&*provider));
        tell(app, &undo, key_note(app, &provider, old.as_deref()))?;
        let document = json!({
            "name": id.as_str(), "status": if old.is_some() { "changed" } else { "added" },
            "is": settings(&provider), "was": old.as_deref().map(settings), "undo": undo,
        });
        app.output.done(&document, || match &old {
            None => format!("added {id} at {}", upstream(&provider)),
            Some(old) => format!("{id} is at {} (was {})", upstream(&provider), upstream(old)),
        });
        Ok(())
    }

    fn undo(&self, app: &App, id: &ProviderId, old: Option<&Entry>) -> Result<String, Failure> {
        let overridden = override_names(&app.config_path)?;
        Ok(match old.filter(|old| Source::of(old, &overridden) != Source::BuiltIn) {
            Some(old) => set_command(old),
            None => format!("tokfence provider remove {id}"),
        })
    }
}

fn record(app: &App, action: AuditAction, id: &ProviderId, before: Option<&Entry>, after: Option<&Entry>) {
    app.record(action, id, json!({ "before": before.map(settings), "after": after.map(settings) }));
}

/// Says how to take the change back, and puts it in force. Programs find the former in the document.
fn tell(app: &App, undo: &str, note: Option<String>) -> Result<(), Failure> {
    app.output.note(&format!("undo: {undo}"));
    note.iter().for_each(|note| app.output.note(note));
    app.tell_daemon()
}

/// A key is bound to the origin it was stored for, inside the vault, so it does not follow an edited address.
fn key_note(app: &App, provider: &Entry, old: Option<&Entry>) -> Option<String> {
    let old = old.filter(|old| old.origin != provider.origin && old.auth.header().is_some())?;
    if Keys::of_daemon(app).has(&provider.id) == Some(false) {
        return None;
    }
    let (id, from, to) = (&provider.id, &old.origin, &provider.origin);
    Some(format!("a key stored for {from} is not sent to {to}; store one for it: tokfence vault add {id}"))
}

fn remove(app: &App, name: &str) -> Result<(), Failure> {
    let old = find(app, &app.config()?, name)?;
    let id = &old.id;
    if Source::of(&old, &override_names(&app.config_path)?) == Source::BuiltIn {
        let document = json!({
            "name": id.as_str(), "status": "unchanged", "is": settings(&old), "was": settings(&old), "undo": null,
        });
        app.output.done(&document, || format!("{id} is as it is built in; there is nothing to remove"));
        return Ok(());
    }
    let after = edit(app, |document| remove_override(document, &old))?;
    let new = after.provider(id.as_str()).cloned();
    record(app, AuditAction::ProviderRemove, id, Some(&*old), new.as_deref());
    let (undo, left) =
        (set_command(&old), format!("a key of it stays in the vault: tokfence vault remove {id}"));
    tell(app, &undo, new.as_ref().map_or(Some(left), |new| key_note(app, new, Some(&old))))?;
    let document = json!({
        "name": id.as_str(), "status": if new.is_some() { "reset" } else { "removed" },
        "is": new.as_deref().map(settings), "was": settings(&old), "undo": undo,
    });
    app.output.done(&document, || match &new {
        Some(new) => format!("{id} is at {} again (was {})", upstream(new), upstream(&old)),
        None => format!("removed {id} (was {})", upstream(&old)),
    });
    Ok(())
}

/// The command that configures a provider as it is.
fn set_command(provider: &Entry) -> String {
    let (id, local) = (&provider.id, if provider.is_local { " --local" } else { "" });
    let (wire, auth) = (provider.wire, provider.auth.as_str());
    format!("tokfence provider set {id} {} --wire {wire} --auth {auth}{local}", upstream(provider))
}

fn test(app: &App, name: &str) -> Result<(), Failure> {
    let provider = find(app, &app.config()?, name)?;
    let reached = app.output.during("connecting", || reach(&provider)).map_err(|why| {
        Failure::new(
            Exit::Failed,
            "upstream_unreachable",
            format!("{} cannot be reached: {why}", provider.id),
        )
    })?;
    let document = json!({
        "name": provider.id.as_str(),
        "upstream": upstream(&provider),
        "status": "reached",
        "address": reached.address.to_string(),
        "addresses": reached.found.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>(),
        "connect_ms": crate::format::millis(reached.connect_us),
    });
    app.output.data(&document, || {
        let took = crate::format::span(reached.connect_us);
        format!("{} is reached at {} ({took}); no key was sent", provider.id, reached.address)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_is_listed_once() {
        let config = Config::parse("", std::path::Path::new("/nowhere")).unwrap();
        let providers = each_once(&config);
        assert_eq!(providers.iter().filter(|provider| provider.id.as_str() == "google").count(), 1);
        assert!(providers.iter().all(|provider| provider.id.as_str() != "gemini"));
    }

    #[test]
    fn an_undo_says_everything_that_was_set() {
        let text =
            "[providers.mine]\nupstream = \"http://127.0.0.1:8000/v1\"\nlocal = true\nauth = \"none\"\n";
        let config = Config::parse(text, std::path::Path::new("/nowhere")).unwrap();
        let command = set_command(config.provider("mine").unwrap());
        let expected =
            "tokfence provider set mine http://127.0.0.1:8000/v1 --wire openai --auth none --local";
        assert_eq!(command, expected);
    }

    #[test]
    fn the_source_is_told() {
        let text =
            "[providers.gemini]\nidle_timeout = \"1m\"\n[providers.mine]\nupstream = \"https://a.example\"\n";
        let config = Config::parse(text, std::path::Path::new("/nowhere")).unwrap();
        let overridden = ["gemini", "mine"].map(|name| name.parse().unwrap());
        let source = |name: &str| Source::of(config.provider(name).unwrap(), &overridden).as_str();
        assert_eq!(
            [source("google"), source("mine"), source("openai")],
            ["overridden", "configured", "built_in"]
        );
    }
}
