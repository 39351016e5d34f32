//! Writes a new vault with a few made-up credentials and, beside it, what a reader must find in it.
//!
//! `cargo run -p vault --example write_sample -- DIRECTORY` makes `sample.tfv` and `sample.json` in the directory. The
//! independent reader in `tests/independent-reader` opens them with the least cost that is ever written.

use std::path::Path;

use vault::{Entry, EntryKind, KdfCost, NewEntry, NewSlot, Secret, Vault, generate_passphrase};

const NOW_US: i64 = 1_764_000_000_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).ok_or("usage: write_sample DIRECTORY")?;
    let directory = Path::new(&directory);
    let passphrase = generate_passphrase()?;
    let slots = [NewSlot::Passphrase { passphrase: &passphrase, cost: KdfCost::FLOOR }, NewSlot::Recovery];
    let (mut vault, code) = Vault::create(&directory.join("sample.tfv"), &slots)?;
    vault.put(entry("openai", EntryKind::Inference, "sk-sample-1", "https://api.openai.com")?)?;
    vault.put(entry("openai", EntryKind::Admin, "sk-sample-2", "https://api.openai.com")?)?;
    let local = entry("local", EntryKind::Inference, "sämple-3", "http://[::1]:8080")?;
    vault.put(local.with_times(NOW_US, NOW_US, Some(NOW_US + 1)))?;
    let entries: Vec<_> = vault.entries().iter().map(to_json).collect();
    let answer = serde_json::json!({
        "passphrase": passphrase.expose(),
        "recovery_code": code.ok_or("no recovery code")?.to_text().expose(),
        "entries": entries,
    });
    std::fs::write(directory.join("sample.json"), format!("{answer:#}\n"))?;
    Ok(())
}

fn entry(provider: &str, kind: EntryKind, secret: &str, origin: &str) -> Result<Entry, vault::Error> {
    let parts = NewEntry {
        provider: provider.to_owned(),
        kind,
        label: "made up".to_owned(),
        secret: Secret::from(secret),
        allowed_origin: origin.parse()?,
        auth_style: "bearer".to_owned(),
    };
    Entry::new(parts, NOW_US)
}

fn to_json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "provider": entry.provider(),
        "kind": entry.kind().to_string(),
        "label": entry.label(),
        "secret": entry.secret().expose(),
        "allowed_origin": entry.allowed_origin().to_string(),
        "auth_style": entry.auth_style(),
        "created_at_us": entry.created_at_us(),
        "rotated_at_us": entry.rotated_at_us(),
        "not_after_us": entry.not_after_us(),
    })
}
