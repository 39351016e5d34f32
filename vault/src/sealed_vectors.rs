//! Known-answer files, and faults that only somebody with the key could make.
//!
//! Randomness is the byte sequence 0, 1, 2, …, so a second implementation can be checked against the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use crate::entry::{Entries, Entry, EntryKind, NewEntry};
use crate::format::{self, Header, Slot};
use crate::keyring::SecretStore;
use crate::keyring::tests::MemoryKeyring;
use crate::random::{CountingRandom, Random};
use crate::seal::{self, DataKey};
use crate::slot::{self, NewSlot, SlotKind, Surroundings, Unlock};
use crate::{Error, KdfCost, Secret, Vault, kdf, open_export, payload};

const PASSPHRASE: &str = "correct horse battery";
const NOW_US: i64 = 1_764_000_000_000_000;

struct NoRandom;

impl Random for NoRandom {
    fn fill(&self, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::Random { reason: "none left".to_owned() })
    }
}

fn surroundings() -> (Surroundings, Arc<MemoryKeyring>) {
    let keyring = Arc::new(MemoryKeyring::default());
    (
        Surroundings {
            random: Arc::new(CountingRandom::default()),
            keyring: keyring.clone(),
            derive: kdf::derive,
        },
        keyring,
    )
}

fn entries() -> Entries {
    let entry = |provider: &str, kind, label: &str, secret: &str, origin: &str, auth_style: &str| {
        let (provider, label, auth_style) = (provider.to_owned(), label.to_owned(), auth_style.to_owned());
        let allowed_origin = origin.parse().expect("origin");
        let secret = Secret::from(secret);
        Entry::new(NewEntry { provider, kind, label, secret, allowed_origin, auth_style }, NOW_US)
            .expect("valid")
    };
    let mut entries = Entries::default();
    entries.put(entry(
        "openai",
        EntryKind::Inference,
        "",
        "sk-test-0001",
        "https://api.openai.com",
        "bearer",
    ));
    entries.put(entry(
        "openai",
        EntryKind::Admin,
        "usage",
        "sk-admin-0002",
        "https://api.openai.com",
        "bearer",
    ));
    let local =
        entry("ollama", EntryKind::Inference, "Büro", "größer-als-0003", "http://127.0.0.1:11434", "");
    entries.put(local.with_times(NOW_US - 1, NOW_US, Some(NOW_US + 1)));
    entries
}

/// The bytes of a vault with every kind of slot, and what opens it.
fn known_answer() -> (Vec<u8>, Secret<String>, Arc<MemoryKeyring>) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let (around, keyring) = surroundings();
    let passphrase = Secret::from(PASSPHRASE);
    let cost = KdfCost::insecure_for_tests();
    let slots = [NewSlot::Passphrase { passphrase: &passphrase, cost }, NewSlot::Keyring, NewSlot::Recovery];
    let (mut vault, code) = Vault::create_with(&path, &slots, around).expect("creates");
    vault.merge(entries(), crate::OnConflict::Keep).expect("merges");
    let bytes = fs::read(&path).expect("reads");
    (bytes, code.expect("a code").to_text(), keyring)
}

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// Compares with the committed file. To accept a deliberate change of the format, delete the file and run the
/// tests, which write it and fail, until they pass.
#[track_caller]
fn check_vector(name: &str, expected: &[u8]) {
    let path = vector(name);
    let Ok(committed) = fs::read(&path) else {
        fs::write(&path, expected).expect("writes");
        panic!("{name} was missing and has been written; check it and run again");
    };
    assert!(committed == expected, "{name} is no longer what this program writes: the format changed");
}

#[test]
fn the_known_answer_files_are_what_is_written() {
    let (bytes, code, keyring) = known_answer();
    check_vector("known-answer.tfv", &bytes);
    let items = keyring.0.lock().expect("not poisoned");
    let secret: String = items.values().next().expect("one").iter().map(|b| format!("{b:02x}")).collect();
    let entries: Vec<_> = entries().iter().map(entry_json).collect();
    let expected = serde_json::json!({
        "passphrase": PASSPHRASE, "recovery_code": code.expose(), "keyring_secret": secret, "entries": entries,
    });
    check_vector("known-answer.json", format!("{expected:#}\n").as_bytes());
}

fn entry_json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "provider": entry.provider(), "kind": entry.kind().to_string(), "label": entry.label(),
        "secret": entry.secret().expose(), "allowed_origin": entry.allowed_origin().to_string(),
        "auth_style": entry.auth_style(), "created_at_us": entry.created_at_us(),
        "rotated_at_us": entry.rotated_at_us(), "not_after_us": entry.not_after_us(),
    })
}

/// A file sealed by somebody who has the key, but wrong in what `change` does to header and plaintext.
fn sealed(change: impl FnOnce(&mut Header, &mut Vec<u8>)) -> Vec<u8> {
    let (around, _) = surroundings();
    let (bytes, _, _) = known_answer();
    let file = format::decode(&bytes).expect("decodes");
    let (mut header, passphrase) = (file.header, Secret::from(PASSPHRASE));
    let data_key = slot::open(&header.slots, &header.vault_id, &Unlock::Passphrase(&passphrase), &around);
    let mut plaintext = payload::encode(&entries()).expect("encodes");
    change(&mut header, &mut plaintext);
    seal::seal_plaintext(&data_key.expect("opens"), &header, plaintext, &CountingRandom::default())
        .expect("seals")
}

#[track_caller]
fn check_sealed(expected_code: &str, change: impl FnOnce(&mut Header, &mut Vec<u8>)) {
    let result = open_export(&sealed(change), &Secret::from(PASSPHRASE));
    assert_eq!(result.as_ref().map_or_else(Error::code, |_| "ok"), expected_code);
}

fn replace(plaintext: &mut [u8], from: &[u8], to: &[u8]) {
    let at = plaintext.windows(from.len()).position(|window| window == from).expect("present");
    plaintext[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn faults_under_the_right_key_are_refused() {
    check_sealed("ok", |_, _| {});
    check_sealed("vault_malformed", |_, plaintext| replace(plaintext, "größer".as_bytes(), b"gr\xff"));
    check_sealed("vault_malformed", |_, plaintext| replace(plaintext, b"ollama", b"zllama"));
    check_sealed("vault_malformed", |_, plaintext| plaintext[3] += 1);
    check_sealed("vault_malformed", |_, plaintext| plaintext[4095] = 1);
    check_sealed("vault_malformed", |_, plaintext| plaintext.resize(8192, 0));
    check_sealed("vault_truncated", |_, plaintext| plaintext.resize(4095, 0));
    check_sealed("vault_malformed", |_, plaintext| plaintext.resize(8191, 0));
    check_sealed("vault_truncated", |_, plaintext| plaintext.clear());
    check_sealed("invalid_entry", |_, plaintext| replace(plaintext, b"usage", b"us\x1b[J"));
    check_sealed("invalid_entry", |_, plaintext| replace(plaintext, b"sk-test-0001", b"sk-test\r\n001"));
    check_sealed("invalid_entry", |_, plaintext| replace(plaintext, b"ollama", b"Ollama"));
    check_sealed("vault_damaged", |header, _| header.commitment[0] ^= 1);
    check_sealed("wrong_passphrase", |header, _| header.vault_id[0] ^= 1);
}

#[test]
fn the_largest_payload_is_accepted_and_one_block_more_is_not() {
    check_sealed("vault_malformed", |_, plaintext| plaintext.resize(format::PLAINTEXT_BYTES_MAX + 4096, 0));
    // It opens, and only then is the padding found to be more than it should be.
    let largest = sealed(|_, plaintext| plaintext.resize(format::PLAINTEXT_BYTES_MAX, 0));
    assert!(format::decode(&largest).is_ok());
    assert!(largest.len() <= format::FILE_BYTES_MAX);
}

#[test]
fn unknown_slots_are_ignored_when_opening_and_kept_when_writing() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let unknown = [
        Slot::Unknown { type_id: 3, body: b"a system credential".to_vec() },
        Slot::Unknown { type_id: 200, body: Vec::new() },
        Slot::Unknown { type_id: 200, body: vec![0; 300] },
    ];
    let bytes = sealed(|header, _| header.slots.extend(unknown.clone()));
    crate::file::write_new(&path, &bytes).expect("writes");
    let passphrase = Secret::from(PASSPHRASE);
    let mut vault = Vault::open(&path, &Unlock::Passphrase(&passphrase)).expect("opens");
    vault.remove("openai", EntryKind::Admin).expect("removes");
    let slots = format::decode(&fs::read(&path).expect("reads")).expect("decodes").header.slots;
    assert_eq!(slots[3..], unknown);
    let kinds: Vec<_> =
        Vault::describe(&path).expect("describes").slots.iter().map(|slot| slot.kind).collect();
    assert_eq!(kinds[3..], [SlotKind::Unknown(3), SlotKind::Unknown(200), SlotKind::Unknown(200)]);
}

#[test]
fn slots_that_appear_twice_are_refused() {
    for index in 0..3 {
        check_sealed("vault_malformed", |header, _| header.slots.push(header.slots[index].clone()));
    }
    check_sealed("vault_malformed", |header, _| {
        header.slots.extend([7, 7].map(|type_id| Slot::Unknown { type_id, body: vec![1] }));
    });
}

#[test]
fn the_last_generation_can_be_read_but_not_passed() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let bytes = sealed(|header, _| header.generation = u64::MAX);
    crate::file::write_new(&path, &bytes).expect("writes");
    let passphrase = Secret::from(PASSPHRASE);
    let mut vault = Vault::open(&path, &Unlock::Passphrase(&passphrase)).expect("opens");
    let error = vault.remove("openai", EntryKind::Admin).expect_err("no generation is left");
    assert_eq!(error.code(), "generation_exhausted");
    assert_eq!(fs::read(&path).expect("reads"), bytes);
}

#[test]
fn a_slot_cannot_be_moved_to_another_vault_nor_made_cheaper() {
    let (bytes, _, _) = known_answer();
    let mut file = format::decode(&bytes).expect("decodes");
    let passphrase = Secret::from(PASSPHRASE);
    let (around, _) = surroundings();
    let mut open = |change: &dyn Fn(&mut Header)| {
        change(&mut file.header);
        slot::open(&file.header.slots, &file.header.vault_id, &Unlock::Passphrase(&passphrase), &around).err()
    };
    assert!(open(&|_| {}).is_none());
    assert_eq!(open(&|header| header.vault_id[15] ^= 1).expect("refused").code(), "wrong_passphrase");
    let cheaper = |header: &mut Header| {
        header.vault_id[15] ^= 1;
        if let Slot::Passphrase { cost, .. } = &mut header.slots[0] {
            *cost = KdfCost::from_file(8, 1, 1);
        }
    };
    assert_eq!(open(&cheaper).expect("refused").code(), "wrong_passphrase");
}

#[test]
fn without_randomness_nothing_is_written() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let around = Surroundings {
        random: Arc::new(NoRandom),
        keyring: Arc::new(MemoryKeyring::default()),
        derive: kdf::derive,
    };
    let error = Vault::create_with(&path, &[NewSlot::Recovery], around).expect_err("no randomness");
    assert_eq!(error.code(), "random_failed");
    assert!(!path.exists());
}

#[test]
fn the_keyring_opens_the_vault_and_holds_one_item() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let (around, keyring) = surroundings();
    let count = || keyring.0.lock().expect("not poisoned").len();
    let (mut vault, _) =
        Vault::create_with(&path, &[NewSlot::Keyring, NewSlot::Recovery], around.clone()).expect("creates");
    assert_eq!(vault.description().slots[0].hint, "memory");
    assert!(Vault::open_with(&path, &Unlock::Keyring, around.clone()).is_ok());
    vault.rotate_dek(&[NewSlot::Keyring, NewSlot::Recovery]).expect("rotates");
    assert_eq!(count(), 1, "the old item is gone");
    assert!(Vault::open_with(&path, &Unlock::Keyring, around.clone()).is_ok());
    vault.remove_slot(SlotKind::Keyring).expect("removes");
    assert_eq!(count(), 0);
    vault.add_slot(&NewSlot::Keyring).expect("adds");
    assert_eq!(count(), 1);
    keyring.0.lock().expect("not poisoned").values_mut().for_each(|secret| secret[0] ^= 1);
    let error = Vault::open_with(&path, &Unlock::Keyring, around.clone()).expect_err("a foreign item");
    assert_eq!(error.code(), "wrong_keyring_item");
    keyring.0.lock().expect("not poisoned").clear();
    let error = Vault::open_with(&path, &Unlock::Keyring, around).expect_err("no item");
    assert_eq!(error.code(), "keyring_unavailable");
}

#[test]
fn a_failure_leaves_no_item_in_the_keyring() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let (around, keyring) = surroundings();
    let short = Secret::from("short");
    let weak = NewSlot::Passphrase { passphrase: &short, cost: KdfCost::insecure_for_tests() };
    assert!(Vault::create_with(&path, &[NewSlot::Keyring, weak], around.clone()).is_err());
    let (mut vault, _) = Vault::create_with(&path, &[NewSlot::Recovery], around).expect("creates");
    assert!(vault.rotate_dek(&[NewSlot::Keyring, NewSlot::Keyring]).is_err());
    fs::remove_file(&path).expect("removes");
    assert!(vault.add_slot(&NewSlot::Keyring).is_err());
    assert!(keyring.0.lock().expect("not poisoned").is_empty());
}

/// Says yes and forgets.
struct ForgetfulKeyring(Mutex<u32>);

impl SecretStore for ForgetfulKeyring {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    fn store(&self, _: &str, _: &[u8; 32]) -> Result<(), Error> {
        Ok(())
    }

    fn load(&self, _: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
        Ok(Zeroizing::new([0; 32]))
    }

    fn delete(&self, _: &str) -> Result<(), Error> {
        *self.0.lock().expect("not poisoned") += 1;
        Ok(())
    }
}

#[test]
fn a_keyring_that_forgets_is_found_out_before_the_vault_depends_on_it() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    let keyring = Arc::new(ForgetfulKeyring(Mutex::new(0)));
    let around = Surroundings {
        random: Arc::new(CountingRandom::default()),
        keyring: keyring.clone(),
        derive: kdf::derive,
    };
    let error = Vault::create_with(&path, &[NewSlot::Keyring], around).expect_err("it forgets");
    assert_eq!(error.code(), "keyring_unavailable");
    assert!(!path.exists());
    assert_eq!(*keyring.0.lock().expect("not poisoned"), 1);
}

#[test]
fn two_keys_do_not_match_one_commitment() {
    let (bytes, _, _) = known_answer();
    let file = format::decode(&bytes).expect("decodes");
    let other = DataKey::generate(&CountingRandom::default()).expect("random");
    assert!(!other.matches(&file.header));
    let error = seal::open_payload(&other, &file).expect_err("another key");
    assert!(matches!(error, Error::Damaged { what: "the key commitment does not match" }));
}
