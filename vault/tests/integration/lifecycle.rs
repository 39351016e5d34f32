//! Creating, opening, editing, and changing what opens the vault.

use std::fs;

use vault::{EntryKind, Error, KdfCost, NewSlot, RecoveryCode, Secret, SlotKind, Unlock, Vault};

use crate::support::{
    NOW_US, check_code, entry, entry_of_kind, fresh, listing, new_passphrase, open, passphrase,
};

#[test]
fn what_was_put_is_there_after_opening_again() {
    let (_directory, path, mut vault) = fresh();
    assert!(!vault.put(entry("openai", "sk-openai-0001")).expect("puts"));
    assert!(!vault.put(entry_of_kind("openai", EntryKind::Admin, "sk-admin-0002")).expect("puts"));
    assert!(vault.put(entry("openai", "sk-openai-0003")).expect("replaces"));
    assert_eq!(vault.generation(), 4);

    let vault = open(&path).expect("opens");
    assert_eq!(vault.entries().len(), 2);
    let inference = vault.entry("openai", EntryKind::Inference).expect("present");
    assert_eq!(inference.secret().expose(), "sk-openai-0003");
    assert_eq!(inference.secret().last4(), "0003");
    assert_eq!(inference.allowed_origin().to_string(), "https://api.openai.com");
    assert_eq!((inference.label(), inference.auth_style()), ("work", "bearer"));
    assert_eq!((inference.created_at_us(), inference.rotated_at_us()), (NOW_US, NOW_US));
    assert!(vault.entry("anthropic", EntryKind::Inference).is_none());
}

#[test]
fn rotating_a_secret_dates_it_and_removing_takes_it_out() {
    let (_directory, path, mut vault) = fresh();
    vault.put(entry("openai", "sk-old-0001")).expect("puts");
    let new = Secret::from("sk-new-0002");
    vault.rotate_secret("openai", EntryKind::Inference, new, NOW_US + 1).expect("rotates");
    let vault_again = open(&path).expect("opens");
    let rotated = vault_again.entry("openai", EntryKind::Inference).expect("present");
    assert_eq!((rotated.created_at_us(), rotated.rotated_at_us()), (NOW_US, NOW_US + 1));
    check_code(vault.rotate_secret("nobody", EntryKind::Inference, Secret::from("x"), 0), "no_such_entry");
    check_code(vault.remove("openai", EntryKind::Admin), "no_such_entry");
    vault.remove("openai", EntryKind::Inference).expect("removes");
    assert!(open(&path).expect("opens").entries().is_empty());
}

#[test]
fn a_failed_edit_writes_nothing() {
    let (_directory, path, mut vault) = fresh();
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    let before = fs::read(&path).expect("reads");
    let result = vault.edit(|entries| {
        entries.remove("openai", EntryKind::Inference);
        Err::<(), _>(Error::Replaced)
    });
    check_code(result, "vault_replaced");
    assert_eq!(fs::read(&path).expect("reads"), before);
    assert_eq!(listing(&vault), [("openai".to_owned(), "sk-0001-0001".to_owned())]);
}

#[test]
fn an_existing_file_is_never_overwritten_by_create() {
    let (_directory, path, _vault) = fresh();
    let before = fs::read(&path).expect("reads");
    check_code(Vault::create(&path, &[new_passphrase(&passphrase())]), "already_exists");
    fs::write(&path, "").expect("writes");
    check_code(Vault::create(&path, &[new_passphrase(&passphrase())]), "already_exists");
    fs::write(&path, &before).expect("writes");
    assert!(open(&path).is_ok());
}

#[test]
fn a_vault_needs_a_way_in_and_one_of_each_kind_at_most() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    check_code(Vault::create(&path, &[]), "vault_malformed");
    let passphrase = passphrase();
    let slot = new_passphrase(&passphrase);
    check_code(Vault::create(&path, &[slot, slot]), "slot_exists");
    check_code(Vault::create(&path, &[new_passphrase(&Secret::from("short"))]), "weak_passphrase");
    check_code(Vault::create(&directory.path().join("absent/vault.tfv"), &[slot]), "io");
    assert!(!path.exists());
}

#[test]
fn the_wrong_secret_is_told_apart_from_a_missing_slot() {
    let (_directory, path, _vault) = fresh();
    check_code(
        Vault::open(&path, &Unlock::Passphrase(&Secret::from("wrong horse battery"))),
        "wrong_passphrase",
    );
    check_code(Vault::open(&path, &Unlock::Keyring), "no_such_slot");
    check_code(Vault::open(&path.with_file_name("other"), &Unlock::Keyring), "vault_not_found");
}

#[test]
fn a_passphrase_typed_decomposed_opens_the_same_vault() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    Vault::create(&path, &[new_passphrase(&Secret::from("un caf\u{e9} au lait"))]).expect("creates");
    assert!(Vault::open(&path, &Unlock::Passphrase(&Secret::from("un cafe\u{301} au lait"))).is_ok());
}

#[test]
fn the_recovery_code_opens_the_vault_as_printed() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let passphrase = passphrase();
    let (mut vault, code) =
        Vault::create(&path, &[new_passphrase(&passphrase), NewSlot::Recovery]).expect("creates");
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    let code = RecoveryCode::parse(&code.expect("one was asked for").to_text()).expect("reads back");
    assert_eq!(Vault::open(&path, &Unlock::Recovery(&code)).expect("opens").entries().len(), 1);

    vault.remove_slot(SlotKind::Recovery).expect("removes");
    check_code(Vault::open(&path, &Unlock::Recovery(&code)), "no_such_slot");
    vault.add_slot(&NewSlot::Recovery).expect("adds").expect("a code");
    check_code(Vault::open(&path, &Unlock::Recovery(&code)), "wrong_recovery_code");
}

#[test]
fn the_last_slot_stays() {
    let (_directory, path, mut vault) = fresh();
    check_code(vault.remove_slot(SlotKind::Passphrase), "last_slot");
    check_code(vault.remove_slot(SlotKind::Recovery), "no_such_slot");
    let passphrase = passphrase();
    check_code(vault.add_slot(&new_passphrase(&passphrase)), "slot_exists");
    assert!(open(&path).is_ok());
}

#[test]
fn a_changed_passphrase_replaces_the_old_one_and_leaves_other_slots_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let (old, new) = (passphrase(), Secret::from("staple correct horse"));
    let (mut vault, code) =
        Vault::create(&path, &[new_passphrase(&old), NewSlot::Recovery]).expect("creates");
    let cost = KdfCost::insecure_for_tests();
    check_code(vault.change_passphrase(&new, &old, cost), "wrong_passphrase");
    check_code(vault.change_passphrase(&old, &Secret::from("short"), cost), "weak_passphrase");
    vault.change_passphrase(&old, &new, cost).expect("changes");
    check_code(open(&path), "wrong_passphrase");
    assert!(Vault::open(&path, &Unlock::Passphrase(&new)).is_ok());
    assert!(Vault::open(&path, &Unlock::Recovery(&code.expect("a code"))).is_ok());
}

#[test]
fn a_rotated_data_key_shuts_out_old_slots_and_old_readers() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let old = passphrase();
    let (mut vault, old_code) =
        Vault::create(&path, &[new_passphrase(&old), NewSlot::Recovery]).expect("creates");
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    let mut reader = open(&path).expect("opens");

    let new = Secret::from("staple correct horse");
    let new_code =
        vault.rotate_dek(&[new_passphrase(&new), NewSlot::Recovery]).expect("rotates").expect("a code");
    check_code(reader.refresh(), "vault_rekeyed");
    check_code(reader.put(entry("x", "sk-0002-0002")), "vault_rekeyed");
    assert_eq!(reader.entries().len(), 1, "the old entries are still in memory");
    check_code(open(&path), "wrong_passphrase");
    check_code(Vault::open(&path, &Unlock::Recovery(&old_code.expect("a code"))), "wrong_recovery_code");
    let vault = Vault::open(&path, &Unlock::Recovery(&new_code)).expect("opens");
    assert_eq!(listing(&vault), [("openai".to_owned(), "sk-0001-0001".to_owned())]);
    assert_eq!(vault.description().slots.len(), 2);
}

#[test]
fn a_rotated_data_key_drops_the_slots_that_were_not_given() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let passphrase = passphrase();
    let (mut vault, _) =
        Vault::create(&path, &[new_passphrase(&passphrase), NewSlot::Recovery]).expect("creates");
    assert!(vault.rotate_dek(&[new_passphrase(&passphrase)]).expect("rotates").is_none());
    assert!(!Vault::describe(&path).expect("describes").has(SlotKind::Recovery));
    check_code(vault.rotate_dek(&[]), "vault_malformed");
    assert!(open(&path).is_ok());
}

#[test]
fn refresh_sees_what_another_process_wrote() {
    let (_directory, path, mut writer) = fresh();
    let mut reader = open(&path).expect("opens");
    assert!(!reader.refresh().expect("refreshes"));
    writer.put(entry("openai", "sk-0001-0001")).expect("puts");
    assert!(reader.refresh().expect("refreshes"));
    assert!(!reader.refresh().expect("refreshes"));
    assert_eq!(listing(&reader), listing(&writer));
}

#[test]
fn refresh_tells_what_happened_to_the_file() {
    let (directory, path, mut vault) = fresh();
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    let old = fs::read(&path).expect("reads");
    vault.put(entry("anthropic", "sk-0002-0002")).expect("puts");

    fs::write(&path, &old).expect("writes");
    assert!(vault.refresh().expect("an older copy of the same vault"));
    assert_eq!((vault.generation(), vault.entries().len()), (2, 1));

    fs::remove_file(&path).expect("removes");
    check_code(vault.refresh(), "vault_not_found");
    check_code(vault.put(entry("x", "sk-0003-0003")), "vault_not_found");
    assert!(!path.exists(), "an edit never creates a vault");

    let other = directory.path().join("other.tfv");
    Vault::create(&other, &[new_passphrase(&passphrase())]).expect("creates");
    fs::rename(&other, &path).expect("renames");
    check_code(vault.refresh(), "vault_replaced");
    check_code(vault.put(entry("x", "sk-0003-0003")), "vault_replaced");
    assert_eq!(vault.entries().len(), 1);
}

#[test]
fn describe_needs_no_secret() {
    let (_directory, path, mut vault) = fresh();
    vault.add_slot(&NewSlot::Recovery).expect("adds");
    let description = Vault::describe(&path).expect("describes");
    assert_eq!(description, vault.description());
    let kinds: Vec<_> = description.slots.iter().map(|slot| slot.kind).collect();
    assert_eq!(kinds, [SlotKind::Passphrase, SlotKind::Recovery]);
    assert_eq!(description.slots[0].cost, Some(KdfCost::insecure_for_tests()));
    assert_eq!(description.generation, 2);
}

#[test]
fn a_vault_can_move_to_another_thread_and_prints_nothing_secret() {
    fn assert_send_sync<T: Send + Sync>(_: &T) {}
    let (_directory, _path, mut vault) = fresh();
    vault.put(entry("openai", "sk-very-secret-0001")).expect("puts");
    assert_send_sync(&vault);
    let printed = format!("{vault:?} {:?}", vault.entries());
    assert!(!printed.contains("sk-very"), "{printed}");
}
