//! `scan --fix` and `scan --undo`. What can be taken back is written down without a key: which bytes of which file were
//! one, of which provider, and the hash of the file before and after. The key itself comes out of the vault.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway::config::Config;
use gateway::home::make_private_dir;
use policy::{ProviderId, Scope};
use serde::{Deserialize, Serialize};
use serde_json::json;
use storage::AuditAction;
use vault::{Entries, EntryKind, OnConflict, Secret, Vault};
use zeroize::Zeroizing;

use super::places::{Finding, Findings, Place};
use crate::app::{App, now_us};
use crate::commands::agent::{Grant, mint_token, new_token, parse_agent};
use crate::commands::vault::imported;
use crate::failure::{Exit, Failure};
use crate::unlock;
use crate::user_file::{self, PRIVATE};

/// To whom requests with the capabilities are booked that stand where keys stood.
const AGENT: &str = "scan";
const CHANGED: &str = "changed_since";

/// What a fix leaves behind.
pub(super) struct Fixed {
    pub(super) undo: PathBuf,
    pub(super) capability: String,
    /// Variables that have to be set as well, so that the capability reaches the gateway.
    pub(super) set: BTreeMap<String, String>,
}

/// How to take a fix back.
#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    capability: String,
    files: Vec<Changed>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Changed {
    path: PathBuf,
    sha256_before: String,
    sha256_after: String,
    /// In the order in which they stand there.
    spots: Vec<Spot>,
}

/// Where a capability stands in the place of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Spot {
    provider: String,
    /// In the file as it was.
    start: usize,
    bytes: usize,
}

/// A file as it is to be.
struct Draft {
    content: Zeroizing<Vec<u8>>,
    changed: Changed,
}

/// Moves what can be moved, and says of each key what became of it. The vault is opened where that is needed.
pub(super) fn fix(
    app: &App,
    config: &Config,
    findings: &mut Findings,
    ttl: Duration,
    open: impl FnOnce() -> Result<Vault, Failure>,
) -> Result<Option<Fixed>, Failure> {
    for key in &mut findings.keys {
        if let Some(reason) = reason_to_leave(config, key) {
            leave(key, reason);
        }
    }
    if findings.keys.iter().all(|key| key.reason.is_some()) {
        return Ok(None);
    }
    let mut vault = open()?;
    choose(&vault, findings);
    let providers: BTreeSet<ProviderId> =
        findings.keys.iter().filter(|key| key.reason.is_none()).map(|key| key.provider.clone()).collect();
    if providers.is_empty() {
        return Ok(None);
    }
    store(app, config, &mut vault, findings)?;
    let scope = Scope { providers: providers.iter().cloned().collect(), ..Scope::default() };
    let grant = Grant { scope, ttl: Some(ttl), note: Some("scan --fix".to_owned()), ..Grant::default() };
    let token = new_token()?;
    let drafts = drafts(findings, &token.text)?;
    mint_token(app, &parse_agent(AGENT)?, grant, &token)?;
    let capability = token.id.to_string();
    let files = drafts.iter().map(|draft| draft.changed.clone()).collect();
    // Before a key leaves its place it is in the vault, and the way back is written down.
    let undo = save(app, &Undo { capability: capability.clone(), files })?;
    for draft in &drafts {
        let path = &draft.changed.path;
        user_file::replace(path, &draft.content)
            .map_err(|error| Failure::failed(&format!("change {}", path.display()), &error))?;
    }
    for key in findings.keys.iter_mut().filter(|key| key.reason.is_none()) {
        key.status = "moved";
    }
    Ok(Some(Fixed { undo, capability, set: addresses(app, config, &providers) }))
}

fn leave(key: &mut Finding, reason: String) {
    key.status = "left";
    key.reason = Some(reason);
}

/// Why a key stays where it is, whatever the vault holds.
fn reason_to_leave(config: &Config, key: &Finding) -> Option<String> {
    let provider = config.provider(key.provider.as_str());
    if key.place == Place::Environment {
        let name = key.name.as_deref().unwrap_or_default();
        return Some(format!("unset {name}, and remove it where it is set"));
    }
    if provider.is_none_or(|provider| imported(provider, Secret::from(key.key.expose().as_str())).is_err()) {
        return Some("the vault cannot hold it".to_owned());
    }
    if let Some(obstacle) = key.obstacle {
        return Some(obstacle.to_owned());
    }
    (!key.is_key_name).then(|| match &key.name {
        Some(name) => format!("no SDK reads a key of {} from {name}", key.provider),
        None => "it stands by itself".to_owned(),
    })
}

/// Leaves keys of which the vault has another, or of which there are several.
fn choose(vault: &Vault, findings: &mut Findings) {
    let mut distinct: BTreeMap<ProviderId, BTreeSet<String>> = BTreeMap::new();
    for key in findings.keys.iter().filter(|key| key.reason.is_none()) {
        distinct
            .entry(key.provider.clone())
            .or_default()
            .insert(user_file::sha256(key.key.expose().as_bytes()));
    }
    for key in findings.keys.iter_mut().filter(|key| key.reason.is_none()) {
        let provider = key.provider.clone();
        match vault.entry(provider.as_str(), EntryKind::Inference) {
            Some(entry) if entry.secret().expose() == key.key.expose() => {}
            Some(entry) => {
                let last4 = entry.secret().last4();
                leave(
                    key,
                    format!(
                        "the vault holds another key of {provider} (…{last4}); tokfence vault rotate {provider}"
                    ),
                );
            }
            None if distinct.get(&provider).is_some_and(|keys| keys.len() > 1) => {
                leave(
                    key,
                    format!(
                        "there are several keys of {provider}; choose with tokfence vault add {provider}"
                    ),
                );
            }
            None => {}
        }
    }
}

fn store(app: &App, config: &Config, vault: &mut Vault, findings: &Findings) -> Result<(), Failure> {
    let mut entries = Entries::default();
    for key in findings.keys.iter().filter(|key| key.reason.is_none()) {
        if let Some(provider) = config.provider(key.provider.as_str()) {
            drop(entries.put(imported(provider, Secret::from(key.key.expose().as_str()))?));
        }
    }
    let names: Vec<String> = entries.iter().map(|entry| entry.provider().to_owned()).collect();
    let report = vault.merge(entries, OnConflict::Keep)?;
    if report.added > 0 {
        let detail = json!({ "added": report.added, "replaced": 0, "kept": report.kept, "providers": names });
        app.record(AuditAction::VaultImport, "vault", detail);
    }
    app.tell_daemon()
}

/// The files with the capability in the place of each key that is moved.
fn drafts(findings: &Findings, token: &str) -> Result<Vec<Draft>, Failure> {
    let mut by_file: BTreeMap<&Path, Vec<(&Finding, usize)>> = BTreeMap::new();
    for key in findings.keys.iter().filter(|key| key.reason.is_none()) {
        if let Place::File { path, start, .. } = &key.place {
            by_file.entry(path).or_default().push((key, *start));
        }
    }
    by_file.into_iter().map(|(path, keys)| draft(path, keys, token)).collect()
}

fn draft(path: &Path, mut keys: Vec<(&Finding, usize)>, token: &str) -> Result<Draft, Failure> {
    let old = Zeroizing::new(user_file::read(path)?.unwrap_or_default());
    keys.sort_by_key(|(_, start)| *start);
    let (mut content, mut at, mut spots) = (Zeroizing::new(Vec::with_capacity(old.len())), 0, Vec::new());
    for (key, start) in keys {
        let secret = key.key.expose().as_bytes();
        if old.get(start..start + secret.len()) != Some(secret) {
            let message = format!(
                "{} was changed while it was looked at; nothing was moved from a file",
                path.display()
            );
            return Err(Failure::new(Exit::Failed, CHANGED, message).with_hint("tokfence scan --fix"));
        }
        content.extend_from_slice(&old[at..start]);
        content.extend_from_slice(token.as_bytes());
        at = start + secret.len();
        spots.push(Spot { provider: key.provider.to_string(), start, bytes: token.len() });
    }
    content.extend_from_slice(&old[at..]);
    let changed = Changed {
        path: path.to_owned(),
        sha256_before: user_file::sha256(&old),
        sha256_after: user_file::sha256(&content),
        spots,
    };
    Ok(Draft { content, changed })
}

/// The variables that lead SDKs of these providers to the gateway.
fn addresses(app: &App, config: &Config, providers: &BTreeSet<ProviderId>) -> BTreeMap<String, String> {
    let running = app.daemon_status().map(|status| status.address);
    let address = running.unwrap_or_else(|_| config.daemon.listen.to_string());
    let providers = providers.iter().filter_map(|id| config.provider(id.as_str()));
    let of = |provider: &gateway::catalogue::Provider| {
        let url = format!("http://{address}/{}", provider.id);
        let names = provider.env.iter().filter(|(_, template)| template.starts_with("{url}"));
        names.map(|(name, template)| (name.clone(), template.replace("{url}", &url))).collect::<Vec<_>>()
    };
    providers.flat_map(|provider| of(provider)).collect()
}

fn folder(app: &App) -> PathBuf {
    app.home.dir().join("scan")
}

fn save(app: &App, undo: &Undo) -> Result<PathBuf, Failure> {
    make_private_dir(&folder(app))?;
    let path = folder(app).join(format!("undo-{}.json", undo.capability));
    let failed = |error: io::Error| Failure::failed(&format!("write {}", path.display()), &error);
    let text = serde_json::to_string_pretty(undo).map_err(|error| failed(error.into()))?;
    user_file::put(&path, text.as_bytes(), PRIVATE).map_err(failed)?;
    Ok(path)
}

/// Puts the keys back into all files that a fix changed, or changes nothing.
pub(super) fn undo(app: &App, file: &Path) -> Result<(), Failure> {
    let text = user_file::read(file)?.ok_or_else(|| {
        let message = format!("there is no file {}", file.display());
        let hint = format!("the files that fixes left are in {}", folder(app).display());
        Failure::new(Exit::NotFound, "no_such_file", message).with_hint(hint)
    })?;
    let undo: Undo = serde_json::from_slice(&text)
        .map_err(|error| Failure::failed(&format!("{} is not what a fix left", file.display()), &error))?;
    let vault = unlock::open(app)?;
    let restored: Vec<(&Path, Zeroizing<Vec<u8>>)> = undo
        .files
        .iter()
        .map(|changed| Ok((changed.path.as_path(), changed.restored(&vault)?)))
        .collect::<Result<_, Failure>>()?;
    for (path, content) in &restored {
        user_file::replace(path, content)
            .map_err(|error| Failure::failed(&format!("put back {}", path.display()), &error))?;
    }
    if let Ok(id) = undo.capability.parse() {
        match app.store()?.revoke_capability(id, "its scan was undone", now_us()) {
            Err(storage::Error::NoSuchCapability { .. }) => {}
            revoked => drop(revoked?),
        }
        app.tell_daemon()?;
    }
    std::fs::remove_file(file)
        .map_err(|error| Failure::failed(&format!("remove {}", file.display()), &error))?;
    let files: Vec<String> = restored.iter().map(|(path, _)| path.display().to_string()).collect();
    app.output.done(&json!({ "status": "undone", "files": files }), || {
        files.iter().map(|path| format!("put back {path}")).collect::<Vec<_>>().join("\n")
    });
    app.output.note("the keys stay in the vault as well; tokfence vault remove PROVIDER");
    Ok(())
}

impl Changed {
    /// The file as it was, with keys from the vault.
    fn restored(&self, vault: &Vault) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let unsafe_now = |message: String| Failure::new(Exit::Unsafe, CHANGED, message);
        let path = self.path.display();
        let current = user_file::read(&self.path)?.unwrap_or_default();
        if user_file::sha256(&current) == self.sha256_before {
            return Ok(Zeroizing::new(current));
        }
        if user_file::sha256(&current) != self.sha256_after {
            let message = format!("{path} was changed since its keys were moved; nothing is put back");
            return Err(unsafe_now(message).with_hint("the keys are in the vault; write them there by hand"));
        }
        // A spot tells where it stood in the file as it was, so what was put in before it has no say.
        let (mut content, mut at) = (Zeroizing::new(Vec::new()), 0);
        for spot in &self.spots {
            let entry = vault.entry(&spot.provider, EntryKind::Inference);
            let entry = entry
                .ok_or_else(|| unsafe_now(format!("the vault holds no key of {} any more", spot.provider)))?;
            let between = spot.start.saturating_sub(content.len());
            content.extend_from_slice(current.get(at..at + between).unwrap_or_default());
            content.extend_from_slice(entry.secret().expose().as_bytes());
            at += between + spot.bytes;
        }
        content.extend_from_slice(current.get(at..).unwrap_or_default());
        if user_file::sha256(&content) == self.sha256_before {
            return Ok(content);
        }
        Err(unsafe_now(format!("the vault holds other keys than those that stood in {path}")))
    }
}
