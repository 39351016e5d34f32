//! What every test needs: a directory, a cheap vault in it, an entry.

use std::path::PathBuf;

use tempfile::TempDir;
use vault::{Entry, EntryKind, KdfCost, NewEntry, NewSlot, Secret, Unlock, Vault};

pub(crate) const PASSPHRASE: &str = "correct horse battery";
pub(crate) const NOW_US: i64 = 1_764_000_000_000_000;

pub(crate) fn passphrase() -> Secret<String> {
    Secret::from(PASSPHRASE)
}

pub(crate) fn new_passphrase(passphrase: &Secret<String>) -> NewSlot<'_> {
    NewSlot::Passphrase { passphrase, cost: KdfCost::insecure_for_tests() }
}

/// A directory with a new vault in it, opened.
pub(crate) fn fresh() -> (TempDir, PathBuf, Vault) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("vault.tfv");
    let (vault, _) = Vault::create(&path, &[new_passphrase(&passphrase())]).expect("creates");
    (directory, path, vault)
}

pub(crate) fn open(path: &std::path::Path) -> Result<Vault, vault::Error> {
    Vault::open(path, &Unlock::Passphrase(&passphrase()))
}

pub(crate) fn entry(provider: &str, secret: &str) -> Entry {
    entry_of_kind(provider, EntryKind::Inference, secret)
}

pub(crate) fn entry_of_kind(provider: &str, kind: EntryKind, secret: &str) -> Entry {
    let parts = NewEntry {
        provider: provider.to_owned(),
        kind,
        label: "work".to_owned(),
        secret: Secret::from(secret),
        allowed_origin: "https://api.openai.com".parse().expect("origin"),
        auth_style: "bearer".to_owned(),
    };
    Entry::new(parts, NOW_US).expect("valid entry")
}

/// Provider and secret of every entry, in the vault's order.
pub(crate) fn listing(vault: &Vault) -> Vec<(String, String)> {
    vault
        .entries()
        .iter()
        .map(|entry| (entry.provider().to_owned(), entry.secret().expose().clone()))
        .collect()
}

#[track_caller]
pub(crate) fn check_code<T: std::fmt::Debug>(result: Result<T, vault::Error>, expected: &str) {
    match result {
        Ok(value) => panic!("expected {expected}, got {value:?}"),
        Err(error) => assert_eq!(error.code(), expected, "{error}"),
    }
}
