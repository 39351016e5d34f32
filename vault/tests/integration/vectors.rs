//! The committed known-answer file, and what one fault each does to it.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vault::{Entries, Error, RecoveryCode, Secret, Unlock, Vault, open_export};

use crate::support::{PASSPHRASE, passphrase};

/// Where the first slot's fields are: type, length, KDF, memory, passes, lanes, salt, nonce, wrapped key.
const SLOT: usize = 38;
const M_KIB: usize = SLOT + 4;
const T: usize = M_KIB + 4;
const P: usize = T + 4;
const SALT: usize = P + 1;
const NONCE: usize = SALT + 16;
const WRAPPED: usize = NONCE + 24;
const SECOND_SLOT: usize = WRAPPED + 48;

fn known_answer() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/known-answer.tfv");
    fs::read(path).expect("the committed file")
}

fn header_len(file: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([file[10], file[11]]))
}

fn secrets(entries: &Entries) -> Vec<String> {
    entries.iter().map(|entry| entry.secret().expose().clone()).collect()
}

#[track_caller]
fn check(expected_code: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = known_answer();
    change(&mut bytes);
    let started = std::time::Instant::now();
    let result = open_export(&bytes, &passphrase());
    let code = result.as_ref().map_or_else(Error::code, |_| "ok");
    assert_eq!(code, expected_code, "{:?}", result.err());
    assert!(started.elapsed().as_secs() < 2, "refusing took too long");
}

#[track_caller]
fn check_each(expected_code: &str, offsets: impl IntoIterator<Item = usize>) {
    for offset in offsets {
        check(expected_code, |bytes| bytes[offset] ^= 1);
    }
}

#[test]
fn the_known_answer_opens_with_each_secret_it_can() {
    let entries = open_export(&known_answer(), &passphrase()).expect("opens");
    assert_eq!(secrets(&entries), ["größer-als-0003", "sk-test-0001", "sk-admin-0002"]);

    let directory = tempfile::tempdir().expect("directory");
    let path = private_copy(directory.path(), &known_answer());
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/known-answer.json"));
    let answer: serde_json::Value = serde_json::from_str(&text.expect("the committed file")).expect("JSON");
    let code = Secret::from(answer["recovery_code"].as_str().expect("text"));
    let code = RecoveryCode::parse(&code).expect("a code");
    assert_eq!(
        secrets(Vault::open(&path, &Unlock::Recovery(&code)).expect("opens").entries()),
        secrets(&entries)
    );
    assert_eq!(answer["passphrase"], PASSPHRASE);
}

fn private_copy(directory: &Path, bytes: &[u8]) -> PathBuf {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join("vault.tfv");
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("creates");
    file.write_all(bytes).expect("writes");
    path
}

#[test]
fn a_wrong_passphrase_is_that_and_nothing_else() {
    let error = open_export(&known_answer(), &Secret::from("correct horse batterx")).expect_err("wrong");
    assert_eq!(error.code(), "wrong_passphrase");
    assert!(error.hint().is_some());
}

#[test]
fn what_is_not_a_vault_is_foreign() {
    check_each("not_a_vault", 0..8);
    check("not_a_vault", |bytes| *bytes = b"{\"salt\":\"\"}".to_vec());
    check("not_a_vault", |bytes| *bytes = b"PK".to_vec());
}

#[test]
fn other_versions_are_refused_as_such() {
    for version in [0u16, 2, 256, u16::MAX] {
        check("unsupported_version", |bytes| bytes[8..10].copy_from_slice(&version.to_be_bytes()));
    }
}

#[test]
fn a_header_length_that_is_not_the_headers_is_malformed() {
    let len = u16::try_from(header_len(&known_answer())).expect("short");
    for wrong in [0, 1, 69, 70, len - 1, len + 1, len + 100, 4096, 4097, u16::MAX] {
        check("vault_malformed", |bytes| bytes[10..12].copy_from_slice(&wrong.to_be_bytes()));
    }
}

#[test]
fn identity_belongs_to_the_slots_and_generation_to_the_payload() {
    check_each("wrong_passphrase", 12..28);
    check_each("vault_damaged", 28..36);
}

#[test]
fn unknown_ciphers_and_impossible_slot_counts_are_malformed() {
    for aead_id in [0, 2, 255] {
        check("vault_malformed", |bytes| bytes[36] = aead_id);
    }
    for count in [0, 1, 2, 4, 8, 9, 255] {
        check("vault_malformed", |bytes| bytes[37] = count);
    }
}

#[test]
fn slot_headers_are_checked() {
    check("no_such_slot", |bytes| bytes[SLOT] = 9);
    check("vault_malformed", |bytes| bytes[SLOT] = 2);
    check("vault_malformed", |bytes| bytes[SLOT] = 4);
    check_each("vault_malformed", [SLOT + 1, SLOT + 2, SLOT + 3]);
    check("vault_malformed", |bytes| bytes[SECOND_SLOT] = 1);
    check("vault_malformed", |bytes| bytes[SECOND_SLOT + 3] = 200);
    check("vault_malformed", |bytes| bytes[SECOND_SLOT + 4] = 0x1b);
    check("vault_malformed", |bytes| bytes[SECOND_SLOT + 4] = 0xff);
}

#[test]
fn hostile_costs_never_reach_the_key_derivation() {
    let set = |offset: usize, value: u32| {
        move |bytes: &mut Vec<u8>| bytes[offset..offset + 4].copy_from_slice(&value.to_be_bytes())
    };
    for m_kib in [0, 7, 1024 * 1024 + 1, u32::MAX] {
        check("cost_out_of_bounds", set(M_KIB, m_kib));
    }
    for t in [0, 17, u32::MAX] {
        check("cost_out_of_bounds", set(T, t));
    }
    for p in [0, 9, 17, 255] {
        check("cost_out_of_bounds", |bytes| bytes[P] = p);
    }
}

#[test]
fn a_changed_cost_within_bounds_does_not_open() {
    check("wrong_passphrase", |bytes| bytes[M_KIB + 3] = 8);
    check("wrong_passphrase", |bytes| bytes[T + 3] = 2);
    check("wrong_passphrase", |bytes| bytes[P] = 2);
}

#[test]
fn every_byte_of_the_slot_counts() {
    check_each("wrong_passphrase", SALT..SECOND_SLOT);
}

#[test]
fn a_changed_slot_nobody_uses_is_damage() {
    // The keyring slot's hint, salt, nonce and key are covered by the payload's tag.
    check_each("vault_damaged", (SECOND_SLOT + 4..SECOND_SLOT + 4 + 6 + 88).step_by(3));
}

#[test]
fn salts_cannot_be_swapped_between_slots() {
    let other_salt = SECOND_SLOT + 4 + 6;
    check("wrong_passphrase", |bytes| {
        for index in 0..16 {
            bytes.swap(SALT + index, other_salt + index);
        }
    });
}

#[test]
fn commitment_nonce_payload_and_tag_are_checked() {
    let file = known_answer();
    let (header, end) = (header_len(&file), file.len());
    check_each("vault_damaged", header - 32..header);
    check_each("vault_damaged", header..header + 24);
    check_each("vault_damaged", (header + 24..end - 16).step_by(61));
    check_each("vault_damaged", end - 16..end);
}

#[test]
fn a_file_cut_anywhere_is_never_an_empty_vault() {
    let len = known_answer().len();
    check("vault_truncated", Vec::clear);
    for cut in (1..len).step_by(64).chain([8, 9, 10, 11, 12, 36, 37, 38, 70]) {
        let mut bytes = known_answer();
        bytes.truncate(cut);
        let code = open_export(&bytes, &passphrase()).expect_err("cut short").code();
        assert!(matches!(code, "vault_truncated" | "vault_malformed"), "cut at {cut}: {code}");
    }
}

#[test]
fn nothing_may_follow_the_payload() {
    check("vault_malformed", |bytes| bytes.push(0));
    check("vault_damaged", |bytes| bytes.resize(bytes.len() + 4096, 0));
    check("vault_malformed", |bytes| bytes.resize(bytes.len() + (1 << 20), 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Costs are left alone here: some edits of them are valid and take a gigabyte and minutes.
    #[test]
    fn an_edited_file_never_opens_to_something_else(
        edits in prop::collection::vec((prop_oneof![0usize..400, 0usize..4600], any::<u8>()), 1..5),
    ) {
        let original = known_answer();
        let mut bytes = original.clone();
        for (at, value) in edits {
            if at < bytes.len() && !(M_KIB..=P).contains(&at) {
                bytes[at] = value;
            }
        }
        if let Ok(entries) = open_export(&bytes, &passphrase()) {
            prop_assert_eq!(&bytes, &original);
            prop_assert_eq!(secrets(&entries).len(), 3);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..6000), as_vault in any::<bool>()) {
        if as_vault {
            let prefix = known_answer();
            let kept = bytes.len().min(12);
            bytes[..kept].copy_from_slice(&prefix[..kept]);
        }
        prop_assert!(open_export(&bytes, &passphrase()).is_err());
    }
}
