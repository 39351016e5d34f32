//! What must be true of any bytes in the place of a vault, for the fuzzer: the targets in `fuzz/` call these functions, and
//! a fault is a panic. The tests below try each with the fuzzer's seeds and with random bytes.
//!
//! Nothing here waits for a key derivation: the surroundings bring one of their own that takes the passphrase as it is.
//! That can only make a fault easier to find, because then nothing but the seals keeps an edited file from opening.

use std::sync::{Arc, LazyLock};

use arbitrary::{Result as Drawn, Unstructured};
use zeroize::Zeroizing;

use crate::entry::{Entries, Entry, EntryKind, NewEntry};
use crate::format::{self, BLOCK_BYTES, PEEK_BYTES, SLOTS_MAX, SealedFile, Slot, TAG_BYTES, WrappedKey};
use crate::kdf::KdfCost;
use crate::keyring::SystemKeyring;
use crate::random::CountingRandom;
use crate::recovery::RecoveryCode;
use crate::seal::{self, DataKey, KeyBytes};
use crate::slot::{self, NewSlot, Surroundings, Unlock};
use crate::{Error, Secret, payload};

const PASSPHRASE: &str = "correct horse battery";
const NONCE_BYTES: usize = 24;
const FIXED_BYTES: usize = 38;
const EDITS_MAX: usize = 8;

/// A header is read in one way only, and what is read first of it agrees with what is read of the whole file.
pub fn vault_header(data: &[u8]) {
    check_file(data);
    // What follows a header says nothing about it, and the fuzzer need not invent it.
    check_file(&[data, &[7; NONCE_BYTES + BLOCK_BYTES + TAG_BYTES]].concat());
}

/// The bytes of slots, the number of them first, behind a beginning that fits them. What is read is written back the
/// same, and opens with nothing.
pub fn vault_slots(data: &[u8]) {
    let len = FIXED_BYTES + data.len().saturating_sub(1) + 32;
    let Ok(len) = u16::try_from(len) else { return };
    let beginning = [&b"TOKVAULT\0\x01"[..], &len.to_be_bytes(), &[9; 16], &[0; 8], &[1]].concat();
    let end = [3; 32 + NONCE_BYTES + BLOCK_BYTES + TAG_BYTES];
    let Some(file) = check_file(&[&beginning, data, &end].concat()) else { return };
    let around = surroundings();
    for unlock in [Unlock::Passphrase(&Secret::from(PASSPHRASE)), Unlock::Recovery(&known().recovery)] {
        assert!(slot::open(&file.header.slots, &file.header.vault_id, &unlock, &around).is_err());
    }
}

/// Entries are read in one way only, whoever sealed them.
pub fn vault_plaintext(data: &[u8]) {
    check_plaintext(data);
    // With the length and the padding that fit, which the fuzzer need not invent.
    let Ok(len) = u32::try_from(data.len()) else { return };
    let mut plaintext = [&len.to_be_bytes(), data].concat();
    plaintext.resize(plaintext.len().next_multiple_of(BLOCK_BYTES), 0);
    check_plaintext(&plaintext);
}

/// What is sealed opens again as it was, whatever it is.
pub fn vault_roundtrip(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let (Ok(entries), Ok(slots)) = (entries(&mut bytes), slots(&mut bytes)) else { return };
    let (Ok(vault_id), Ok(generation)) = (bytes.arbitrary(), bytes.arbitrary()) else { return };
    let random = CountingRandom::default();
    let data_key = DataKey::generate(&random).expect("the counter does not fail");
    let Ok((header, sealed)) = seal::seal_file(&data_key, vault_id, generation, slots, &entries, &random)
    else {
        return;
    };
    let file = check_file(&sealed).expect("what was sealed is a file");
    assert_eq!(file.header, header);
    let opened = seal::open_payload(&data_key, &file).expect("what was sealed opens");
    assert_eq!(plaintext_of(&opened), plaintext_of(&entries));
}

/// A vault that was edited anywhere does not open, with any secret that opens the original.
pub fn vault_mutate(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let (Ok(by_code), Ok(edited)) = (bytes.arbitrary::<bool>(), edited(&known().file, &mut bytes)) else {
        return;
    };
    let passphrase = Secret::from(PASSPHRASE);
    let unlock = if by_code { Unlock::Recovery(&known().recovery) } else { Unlock::Passphrase(&passphrase) };
    let opened = open(&edited, &unlock);
    assert_eq!(opened.is_ok(), edited == known().file, "{edited:?}");
    if let Ok(entries) = opened {
        assert_eq!(plaintext_of(&entries), plaintext_of(&sample_entries()));
    }
}

/// Reads a file and checks that its bytes are the only ones that say what it says.
fn check_file(bytes: &[u8]) -> Option<SealedFile> {
    let file = format::decode(bytes).ok()?;
    assert_eq!(file.header.encode().expect("what was read can be written"), file.header_bytes);
    assert!([&file.header_bytes[..], &file.payload_nonce, &file.payload].concat() == bytes);
    let peeked = format::peek(&bytes[..PEEK_BYTES]).expect("a whole file has a beginning");
    assert_eq!(peeked, (file.header.vault_id, file.header.generation));
    Some(file)
}

fn check_plaintext(plaintext: &[u8]) {
    if let Ok(entries) = payload::decode(plaintext) {
        assert!(plaintext_of(&entries).as_slice() == plaintext);
    }
}

fn plaintext_of(entries: &Entries) -> Zeroizing<Vec<u8>> {
    payload::encode(entries).expect("it was read from as many bytes")
}

fn open(bytes: &[u8], unlock: &Unlock<'_>) -> Result<Entries, Error> {
    let file = format::decode(bytes)?;
    let data_key = slot::open(&file.header.slots, &file.header.vault_id, unlock, &surroundings())?;
    seal::open_payload(&data_key, &file)
}

/// A vault with two ways to open it, and the second of them.
struct Known {
    file: Vec<u8>,
    recovery: RecoveryCode,
}

fn known() -> &'static Known {
    static KNOWN: LazyLock<Known> = LazyLock::new(|| make_known().expect("nothing of it can fail"));
    &KNOWN
}

fn make_known() -> Result<Known, Error> {
    let (around, vault_id) = (surroundings(), [5; 16]);
    let data_key = DataKey::generate(around.random.as_ref())?;
    let (passphrase, cost) = (Secret::from(PASSPHRASE), KdfCost::FLOOR);
    let first =
        slot::make(&NewSlot::Passphrase { passphrase: &passphrase, cost }, &data_key, &vault_id, &around)?;
    let second = slot::make(&NewSlot::Recovery, &data_key, &vault_id, &around)?;
    let slots = vec![first.slot, second.slot];
    let random = around.random.as_ref();
    let (_, file) = seal::seal_file(&data_key, vault_id, 3, slots, &sample_entries(), random)?;
    Ok(Known { file, recovery: second.recovery.expect("a code was asked for") })
}

/// The keyring is never asked: no slot of its kind is made or opened here.
fn surroundings() -> Surroundings {
    let random = Arc::new(CountingRandom::default());
    Surroundings { random, keyring: Arc::new(SystemKeyring), derive: as_it_is }
}

/// The cost is checked as always; after that the passphrase is the key.
fn as_it_is(passphrase: &[u8], _salt: &[u8; 16], cost: KdfCost) -> Result<KeyBytes, Error> {
    cost.check_ceiling()?;
    let mut key = KeyBytes::default();
    key.iter_mut().zip(passphrase).for_each(|(to, from)| *to = *from);
    Ok(key)
}

fn sample_entries() -> Entries {
    let mut entries = Entries::default();
    for (provider, kind) in [("openai", EntryKind::Inference), ("openai", EntryKind::Admin)] {
        let parts = NewEntry {
            provider: provider.to_owned(),
            kind,
            label: "Büro".to_owned(),
            secret: Secret::from("sk-test-0001"),
            allowed_origin: "https://api.openai.com".parse().expect("an origin"),
            auth_style: "bearer".to_owned(),
        };
        entries.put(Entry::new(parts, 1_764_000_000_000_000).expect("all of it is valid"));
    }
    entries
}

/// Entries of any texts; those that break a rule are left out.
fn entries(bytes: &mut Unstructured<'_>) -> Drawn<Entries> {
    let mut entries = Entries::default();
    for _ in 0..bytes.int_in_range(0..=40)? {
        let kind = *bytes.choose(&[EntryKind::Inference, EntryKind::Admin, EntryKind::Canary])?;
        let origins = ["https://api.openai.com", "http://127.0.0.1:11434", "https://[::1]:8443"];
        let parts = NewEntry {
            provider: format!("p{}", bytes.int_in_range(0..=99)?),
            kind,
            label: bytes.arbitrary()?,
            secret: Secret::new(bytes.arbitrary()?),
            allowed_origin: bytes.choose(&origins)?.parse().expect("an origin"),
            auth_style: bytes.arbitrary()?,
        };
        let times = (bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?);
        if let Ok(entry) = Entry::new(parts, 0) {
            entries.put(entry.with_times(times.0, times.1, times.2));
        }
    }
    Ok(entries)
}

/// Slots of any kind, at most one of each; a header with ones that break a rule is not written.
fn slots(bytes: &mut Unstructured<'_>) -> Drawn<Vec<Slot>> {
    let mut slots: Vec<Slot> = Vec::new();
    for _ in 0..bytes.int_in_range(1..=SLOTS_MAX)? {
        let mut wrapped = || -> Drawn<WrappedKey> {
            let (salt, nonce) = (bytes.arbitrary()?, bytes.arbitrary()?);
            let mut sealed = [0; 48];
            bytes.fill_buffer(&mut sealed)?;
            Ok(WrappedKey { salt, nonce, sealed })
        };
        let wrapped = wrapped()?;
        let slot = match bytes.int_in_range(0..=3)? {
            0 => {
                let cost = KdfCost::from_file(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?);
                Slot::Passphrase { cost, wrapped }
            }
            1 => Slot::Keyring { hint: bytes.arbitrary()?, wrapped },
            2 => Slot::Recovery { hint: bytes.arbitrary()?, wrapped },
            _ => Slot::Unknown { type_id: bytes.int_in_range(5..=255)?, body: bytes.arbitrary()? },
        };
        if slots.iter().all(|other| other.kind() != slot.kind()) {
            slots.push(slot);
        }
    }
    Ok(slots)
}

/// The file after a few edits: bytes set, put in, taken out, copied, cut off or appended.
fn edited(file: &[u8], bytes: &mut Unstructured<'_>) -> Drawn<Vec<u8>> {
    let mut edited = file.to_vec();
    for _ in 0..bytes.int_in_range(0..=EDITS_MAX)? {
        // Most of the file is padding; faults are rather to be found before it.
        let most = if bytes.ratio(3u8, 4u8)? { 400 } else { edited.len() };
        let at = bytes.int_in_range(0..=most.min(edited.len()))?;
        let byte: u8 = bytes.arbitrary()?;
        match bytes.int_in_range(0..=5)? {
            0 => edited.insert(at, byte),
            1 => edited.truncate(at),
            2 => edited.push(byte),
            3 => {
                let from = bytes.int_in_range(0..=edited.len())?;
                let part = edited[from..(from + usize::from(byte)).min(edited.len())].to_vec();
                let length = part.len().min(edited.len() - at);
                edited[at..at + length].copy_from_slice(&part[..length]);
            }
            kind if at < edited.len() => {
                edited[at] = if kind == 4 { byte } else { edited[at] ^ (1 << (byte % 8)) };
            }
            _ => {}
        }
    }
    Ok(edited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Target = (&'static str, fn(&[u8]));
    const TARGETS: [Target; 5] = [
        ("vault_header", vault_header),
        ("vault_slots", vault_slots),
        ("vault_plaintext", vault_plaintext),
        ("vault_roundtrip", vault_roundtrip),
        ("vault_mutate", vault_mutate),
    ];

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/").to_owned() + name;
        let files = std::fs::read_dir(folder).expect("a folder of seeds");
        files.map(|file| std::fs::read(file.expect("listed").path()).expect("read")).collect()
    }

    #[test]
    fn the_seeds_of_the_fuzzer_are_no_faults() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name}");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    /// Otherwise everything above would hold of a vault that never opens.
    #[test]
    fn the_vault_that_is_edited_opens_as_it_is() {
        for unlock in [Unlock::Passphrase(&Secret::from(PASSPHRASE)), Unlock::Recovery(&known().recovery)] {
            let entries = open(&known().file, &unlock).expect("nobody edited it");
            assert_eq!(plaintext_of(&entries), plaintext_of(&sample_entries()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            TARGETS.iter().for_each(|(_, target)| target(&bytes));
        }

        #[test]
        fn no_seed_with_other_bytes_in_it_is_a_fault(
            which in any::<prop::sample::Index>(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            for (name, target) in TARGETS {
                let seeds = seeds(name);
                let mut seed = seeds[which.index(seeds.len())].clone();
                for (at, byte) in &edits {
                    let at = at.index(seed.len());
                    seed[at] = *byte;
                }
                target(&seed);
            }
        }
    }
}
