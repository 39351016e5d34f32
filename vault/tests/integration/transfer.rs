//! Export, import and the Go program's vault.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use vault::{EntryKind, ImportReport, KdfCost, OnConflict, Secret, Vault, legacy, open_export};

use crate::support::{check_code, entry, entry_of_kind, fresh, listing, new_passphrase, open, passphrase};

const COST: KdfCost = KdfCost::insecure_for_tests();

#[test]
fn an_export_is_a_vault_of_its_own() {
    let (directory, path, mut vault) = fresh();
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    let own = Secret::from("for the memory stick");
    let exported = directory.path().join("export.tfv");
    vault.export_file(&exported, &own, COST).expect("exports");
    assert_eq!(fs::metadata(&exported).expect("stat").permissions().mode() & 0o777, 0o600);
    check_code(vault.export_file(&exported, &own, COST), "already_exists");
    check_code(vault.export(&Secret::from("short"), COST), "weak_passphrase");

    let description = Vault::describe(&exported).expect("describes");
    assert_ne!(description.vault_id, Vault::describe(&path).expect("describes").vault_id);
    assert_eq!(description.slots.len(), 1);
    let bytes = fs::read(&exported).expect("reads");
    check_code(open_export(&bytes, &passphrase()), "wrong_passphrase");
    let entries = open_export(&bytes, &own).expect("opens");
    let opened = entries.get("openai", EntryKind::Inference).expect("present");
    assert_eq!(opened.secret().expose(), "sk-0001-0001");
    assert_eq!(opened.allowed_origin().to_string(), "https://api.openai.com");
}

#[track_caller]
fn check_import(on_conflict: OnConflict, expected: ImportReport, expected_secret: &str) {
    let (directory, _path, mut source) = fresh();
    source.put(entry("openai", "sk-imported-1")).expect("puts");
    source.put(entry("mistral", "sk-imported-2")).expect("puts");
    let exported = directory.path().join("export.tfv");
    source.export_file(&exported, &passphrase(), COST).expect("exports");
    // A memory stick without modes must do.
    fs::set_permissions(&exported, fs::Permissions::from_mode(0o644)).expect("chmod");

    let (_directory, _path, mut vault) = fresh();
    vault.put(entry("openai", "sk-own-0001")).expect("puts");
    let report = vault.import_file(&exported, &passphrase(), on_conflict).expect("imports");
    assert_eq!(report, expected);
    let listed = listing(&vault);
    assert_eq!(listed[0], ("mistral".to_owned(), "sk-imported-2".to_owned()));
    assert_eq!(listed[1], ("openai".to_owned(), expected_secret.to_owned()));
    assert_eq!(vault.generation(), 3, "one write for all");
}

#[test]
fn an_import_keeps_or_replaces_as_asked() {
    check_import(OnConflict::Keep, ImportReport { added: 1, replaced: 0, kept: 1 }, "sk-own-0001");
    check_import(OnConflict::Replace, ImportReport { added: 1, replaced: 1, kept: 0 }, "sk-imported-1");
}

#[test]
fn a_failed_import_changes_nothing() {
    let (directory, path, mut vault) = fresh();
    let before = fs::read(&path).expect("reads");
    let foreign = directory.path().join("foreign");
    fs::write(&foreign, "OPENAI_API_KEY=sk-1").expect("writes");
    check_code(vault.import_file(&foreign, &passphrase(), OnConflict::Keep), "not_a_vault");
    check_code(
        vault.import_file(&directory.path().join("absent"), &passphrase(), OnConflict::Keep),
        "vault_not_found",
    );
    assert_eq!(fs::read(&path).expect("reads"), before);
}

/// Written by the Go program's algorithm; see `tests/vectors/README.md`.
fn legacy_vector() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/legacy-vault.enc")
}

#[test]
fn the_go_programs_vault_can_be_read() {
    let entries = legacy::open(&legacy_vector(), &Secret::from("  old passphrase\n")).expect("opens");
    let read: Vec<_> = entries.iter().map(|(name, key)| (name.as_str(), key.expose().as_str())).collect();
    assert_eq!(read, [("anthropic", "sk-ant-legacy-2"), ("openai", "sk-legacy-1")]);
}

#[test]
fn the_go_programs_vault_is_refused_when_it_does_not_fit() {
    check_code(legacy::open(&legacy_vector(), &Secret::from("wrong")), "wrong_passphrase");
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.enc");
    check_code(legacy::open(&path, &passphrase()), "vault_not_found");
    for text in
        ["", "{}", r#"{"salt":"","nonce":"","ciphertext":""}"#, r#"{"salt":"!","nonce":"","ciphertext":""}"#]
    {
        fs::write(&path, text).expect("writes");
        check_code(legacy::open(&path, &passphrase()), "legacy_malformed");
    }
}

#[test]
fn a_canary_goes_wherever_the_keys_go() {
    let (directory, path, mut vault) = fresh();
    let canary = || entry_of_kind("openai", EntryKind::Canary, "sk-proj-that-opens-nothing");
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    vault.put(canary()).expect("puts");
    vault.rotate_dek(&[new_passphrase(&passphrase())]).expect("rotates");
    let mut vault = open(&path).expect("opens");
    let exported = directory.path().join("export.tfv");
    vault.export_file(&exported, &passphrase(), COST).expect("exports");

    let (_directory, path, mut other) = fresh();
    other.import_file(&exported, &passphrase(), OnConflict::Keep).expect("imports");
    for vault in [&vault, &open(&path).expect("opens")] {
        let found = vault.entry("openai", EntryKind::Canary).expect("it is kept");
        assert_eq!(found.secret().expose(), canary().secret().expose());
        assert_eq!(
            vault.entry("openai", EntryKind::Inference).expect("kept").secret().expose(),
            "sk-0001-0001"
        );
    }
    vault.remove("openai", EntryKind::Canary).expect("removes");
    assert_eq!(vault.entries().len(), 1, "the key of the same name stays");
}
