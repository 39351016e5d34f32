//! `vault`: keys of providers, and the ways to open the vault.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gateway::catalogue::{AuthStyle, Provider};
use gateway::config::Config;
use gateway::overview::form::timestamp;
use serde_json::{Value, json};
use storage::{AuditAction, Store};
use vault::{Entry, EntryKind, NewEntry, NewSlot, OnConflict, Secret};

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::failure::{Exit, Failure};
use crate::format::field;
use crate::prompt;
use crate::unlock;

/// What is said while the vault gets another passphrase.
const SEALING: &str = "sealing the vault";

const COLUMNS: [Column; 7] = [
    Column::Left("provider"),
    Column::Left("kind"),
    Column::SpareLeft("label"),
    Column::Left("last4"),
    Column::Left("origin"),
    Column::SpareLeft("rotated"),
    Column::SpareLeft("last used"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Vault {
    /// Store the key of a provider; asks for it, or `-` reads it from standard input
    Add(AddKey),
    /// Replace the key of a provider
    Rotate(AddKey),
    /// Remove the key of a provider
    Remove(RemoveKey),
    /// List the keys: provider, label, last four characters
    List,
    /// Write all keys into an encrypted file that can be taken elsewhere
    Export(Export),
    /// Read keys from an export, `.env` text, or the Go program's vault.enc
    Import(Import),
    /// Change the passphrase, or add one to a vault that the keyring opens
    Passphrase,
}

#[derive(Debug, Args)]
pub(crate) struct AddKey {
    provider: String,
    /// The key, `-` for standard input, or nothing to be asked for it
    #[arg(hide_possible_values = true)]
    key: Option<String>,
    /// An admin or usage key, which is never sent with a caller's request
    #[arg(long)]
    admin: bool,
    /// A note to tell keys apart; unsaid, that of the key in this place stays
    #[arg(long)]
    label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveKey {
    provider: String,
    /// The admin key of the provider
    #[arg(long)]
    admin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The file to make
    #[arg(default_value = "tokfence-export.tfv")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file, or `-` for `.env` text on standard input
    file: String,
    /// Replace keys that are stored already
    #[arg(long)]
    replace: bool,
    /// Only say what would be imported
    #[arg(long)]
    dry_run: bool,
}

impl Vault {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Add(add) => add.run(app, false),
            Self::Rotate(add) => add.run(app, true),
            Self::Remove(remove) => remove.run(app),
            Self::List => list(app),
            Self::Export(export) => export.run(app),
            Self::Import(import) => import.run(app),
            Self::Passphrase => change_passphrase(app),
        }
    }
}

fn kind(is_admin: bool) -> EntryKind {
    if is_admin { EntryKind::Admin } else { EntryKind::Inference }
}

impl AddKey {
    fn run(self, app: &App, must_exist: bool) -> Result<(), Failure> {
        let config = app.config()?;
        let id = app.provider(&config, &self.provider)?;
        let provider = config.provider(id.as_str()).expect("the name was just resolved");
        let kind = kind(self.admin);
        let secret = self.secret(app, id.as_str())?;
        let mut vault = unlock::open(app)?;
        if must_exist && vault.entry(id.as_str(), kind).is_none() {
            let message = format!("the vault holds no key of `{id}` to replace");
            return Err(Failure::new(Exit::NotFound, "no_such_entry", message)
                .with_hint(format!("tokfence vault add {id}")));
        }
        let last4 = secret.last4();
        let known = vault.entry(id.as_str(), kind);
        let before = known.map(|known| known.secret().last4());
        let label = self.label.or_else(|| Some(known?.label().to_owned())).unwrap_or_default();
        let entry = NewEntry {
            provider: id.to_string(),
            kind,
            label,
            secret,
            allowed_origin: provider.origin.clone(),
            auth_style: provider.auth.as_str().to_owned(),
        };
        let replaced = vault.put(Entry::new(entry, now_us())?)?;
        let action = if replaced { AuditAction::VaultRotate } else { AuditAction::VaultAdd };
        let detail = json!({
            "kind": kind_name(kind), "before": before, "after": last4, "origin": provider.origin.to_string(),
        });
        app.record(action, &id, detail);
        app.tell_daemon()?;
        let document = json!({
            "provider": id.as_str(), "kind": kind_name(kind), "status": if replaced { "replaced" } else { "stored" },
            "last4": last4, "origin": provider.origin.to_string(),
        });
        app.output.done(&document, || {
            let verb = if replaced { "replaced" } else { "stored" };
            format!("{verb} the key of {id} (…{last4}); it is sent to {} only", provider.origin)
        });
        if provider.auth == AuthStyle::Passthrough && !self.admin {
            app.output
                .note(&format!("`{id}` gets the caller's own login, so this key is not sent at present"));
        }
        Ok(())
    }

    fn secret(&self, app: &App, provider: &str) -> Result<Secret<String>, Failure> {
        match self.key.as_deref() {
            Some("-") => prompt::secret_from_stdin(),
            Some(key) => {
                app.output.warn(
                    "a key given as an argument is now in the shell's history and was visible to others",
                );
                Ok(Secret::from(key.trim()))
            }
            None if prompt::has_terminal() => prompt::secret(&format!("Key of {provider}")),
            None => Err(Failure::usage("there is no terminal to ask for the key")
                .with_hint(format!("printf %s \"$KEY\" | tokfence vault add {provider} -"))),
        }
    }
}

impl RemoveKey {
    fn run(self, app: &App) -> Result<(), Failure> {
        // A key whose provider is no longer configured can still be removed, so the name is not resolved.
        let config = app.config()?;
        let name =
            config.provider(&self.provider).map_or(self.provider.clone(), |known| known.id.to_string());
        let mut vault = unlock::open(app)?;
        let kind = kind(self.admin);
        let before = vault.entry(&name, kind).map(|known| known.secret().last4());
        vault.remove(&name, kind)?;
        let detail = json!({ "kind": kind_name(kind), "before": before, "after": null });
        app.record(AuditAction::VaultRemove, &name, detail);
        app.tell_daemon()?;
        app.output
            .done(&json!({ "provider": name, "status": "removed" }), || format!("removed the key of {name}"));
        Ok(())
    }
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Inference => "inference",
        EntryKind::Admin => "admin",
        EntryKind::Canary => "canary",
    }
}

fn list(app: &App) -> Result<(), Failure> {
    let vault = unlock::open(app)?;
    app.flush_log();
    let used =
        Store::open_existing(&app.config()?.logging.db_path).and_then(|store| store.last_used_by_provider());
    let used = used.unwrap_or_default();
    let last_used = |entry: &Entry| {
        let id = entry.provider().parse().ok()?;
        used.get(&id).filter(|_| entry.kind() == EntryKind::Inference).map(|at| timestamp(*at))
    };
    let entries: Vec<Value> = vault
        .entries()
        .iter()
        .map(|entry| {
            json!({
                "provider": entry.provider(),
                "kind": kind_name(entry.kind()),
                "label": entry.label(),
                "last4": entry.secret().last4(),
                "origin": entry.allowed_origin().to_string(),
                "created_at": timestamp(entry.created_at_us()),
                "rotated_at": timestamp(entry.rotated_at_us()),
                "last_used_at": last_used(entry),
            })
        })
        .collect();
    let document = json!({ "keys": entries });
    app.output.data(&document, || {
        let columns = ["provider", "kind", "label", "last4", "origin", "rotated_at", "last_used_at"];
        let rows = document["keys"].as_array().into_iter().flatten();
        let cells = |entry: &Value| columns.iter().map(|column| field(column, &entry[column])).collect();
        Columns::table(&COLUMNS, &rows.map(cells).collect::<Vec<_>>(), "no keys")
    });
    Ok(())
}

impl Export {
    fn run(self, app: &App) -> Result<(), Failure> {
        let vault = unlock::open(app)?;
        app.output.note("the export has a passphrase of its own");
        let passphrase = match unlock::passphrase_from_environment(app) {
            Some(passphrase) => passphrase,
            None => prompt::new_passphrase()?,
        };
        let export = || vault.export_file(&self.file, &passphrase, unlock::kdf_cost());
        app.output.during("sealing the export", export)?;
        let document = json!({ "file": self.file.display().to_string(), "keys": vault.entries().len() });
        app.record(AuditAction::VaultExport, "vault", document.clone());
        app.output
            .done(&document, || format!("wrote {} keys to {}", vault.entries().len(), self.file.display()));
        Ok(())
    }
}

impl Import {
    fn run(self, app: &App) -> Result<(), Failure> {
        let found = self.read(app)?;
        let mut vault = unlock::open(app)?;
        let names: Vec<String> = found.iter().map(|entry| entry.provider().to_owned()).collect();
        if self.dry_run {
            app.output
                .done(&json!({ "would_import": names }), || format!("would import: {}", names.join(", ")));
            return Ok(());
        }
        let conflict = if self.replace { OnConflict::Replace } else { OnConflict::Keep };
        let report = vault.merge(found, conflict)?;
        let document = json!({ "added": report.added, "replaced": report.replaced, "kept": report.kept });
        if report.added + report.replaced > 0 {
            let mut detail = document.clone();
            detail["providers"] = json!(names);
            app.record(AuditAction::VaultImport, "vault", detail);
        }
        app.tell_daemon()?;
        app.output.done(&document, || {
            format!("added {}, replaced {}, kept {}", report.added, report.replaced, report.kept)
        });
        if report.kept > 0 && !self.replace {
            app.output.note("keys that were stored already were kept; --replace takes the new ones");
        }
        Ok(())
    }

    fn read(&self, app: &App) -> Result<vault::Entries, Failure> {
        if self.file == "-" {
            return entries_from_variables(app, vault::dotenv::parse(prompt::secret_from_stdin()?.expose())?);
        }
        let failed = |error| Failure::failed(&format!("read {}", self.file), &error);
        let bytes = std::fs::read(&self.file).map_err(failed)?;
        if bytes.starts_with(b"TOKVAULT") {
            let passphrase = ask_passphrase(app, "Passphrase of the export")?;
            let open = || vault::open_export(&bytes, &passphrase);
            return Ok(app.output.during("opening the export", open)?);
        }
        if bytes.trim_ascii_start().starts_with(b"{") {
            let passphrase = ask_passphrase(app, "Passphrase of the old vault")?;
            let open = || vault::legacy::open(std::path::Path::new(&self.file), &passphrase);
            let keys = app.output.during("opening the old vault", open)?;
            return entries_from_providers(app, keys);
        }
        let text = Secret::new(String::from_utf8(bytes).map_err(|_| Failure::usage("the file is not text"))?);
        entries_from_variables(app, vault::dotenv::parse(text.expose())?)
    }
}

fn ask_passphrase(app: &App, question: &str) -> Result<Secret<String>, Failure> {
    match unlock::passphrase_from_environment(app) {
        Some(passphrase) => Ok(passphrase),
        None => prompt::secret(question),
    }
}

/// Keys under the names of variables: those that a provider's SDK reads as its key are taken.
fn entries_from_variables(
    app: &App,
    variables: Vec<(String, Secret<String>)>,
) -> Result<vault::Entries, Failure> {
    let config = app.config()?;
    let mut entries = vault::Entries::default();
    for (variable, secret) in variables {
        match owner(&config, &variable) {
            Some(provider) => drop(entries.put(imported(provider, secret)?)),
            None => app.output.note(&format!("{variable} is not the key of a known provider; left out")),
        }
    }
    Ok(entries)
}

/// Keys under the names of providers.
fn entries_from_providers(app: &App, keys: Vec<(String, Secret<String>)>) -> Result<vault::Entries, Failure> {
    let config = app.config()?;
    let mut entries = vault::Entries::default();
    for (name, secret) in keys {
        match config.provider(&name) {
            Some(provider) => drop(entries.put(imported(provider, secret)?)),
            None => app.output.note(&format!("there is no provider `{name}`; its key is left out")),
        }
    }
    Ok(entries)
}

/// The provider whose SDK takes its key from this variable.
pub(crate) fn owner<'a>(config: &'a Config, variable: &str) -> Option<&'a Provider> {
    let owners = config.providers.values().filter(|known| is_key_variable(known, variable));
    owners.map(AsRef::as_ref).min_by_key(|provider| &provider.id)
}

/// Whether the provider's SDK takes a key from this variable that could be in the vault.
pub(crate) fn is_key_variable(provider: &Provider, variable: &str) -> bool {
    provider.auth != AuthStyle::Passthrough
        && provider.env.get(variable).is_some_and(|template| template == "{token}")
}

/// The entry of a key that somebody had elsewhere.
pub(crate) fn imported(provider: &Provider, secret: Secret<String>) -> Result<Entry, vault::Error> {
    let entry = NewEntry {
        provider: provider.id.to_string(),
        kind: EntryKind::Inference,
        label: "imported".to_owned(),
        secret,
        allowed_origin: provider.origin.clone(),
        auth_style: provider.auth.as_str().to_owned(),
    };
    Entry::new(entry, now_us())
}

fn change_passphrase(app: &App) -> Result<(), Failure> {
    let slots = vault::Vault::describe(&app.home.vault())?;
    if slots.has(vault::SlotKind::Passphrase) {
        let old = prompt::secret("Present passphrase of the vault")?;
        let open = || vault::Vault::open(&app.home.vault(), &vault::Unlock::Passphrase(&old));
        let mut vault = app.output.during(unlock::OPENING, open)?;
        let new = prompt::new_passphrase()?;
        let change = || vault.change_passphrase(&old, &new, unlock::kdf_cost());
        app.output.during(SEALING, change)?;
    } else {
        let mut vault = unlock::open(app)?;
        let passphrase = prompt::new_passphrase()?;
        let slot = NewSlot::Passphrase { passphrase: &passphrase, cost: unlock::kdf_cost() };
        app.output.during(SEALING, || vault.add_slot(&slot))?;
    }
    let before = if slots.has(vault::SlotKind::Passphrase) { "another passphrase" } else { "no passphrase" };
    let detail = json!({ "before": before, "after": "a passphrase" });
    app.record(AuditAction::VaultPassphrase, "vault", detail);
    app.output.done(&json!({ "status": "changed" }), || "the passphrase is changed".to_owned());
    app.output.note("copies of the vault made before still open with the old one");
    Ok(())
}
