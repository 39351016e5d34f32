//! [`Vault`]: the file, opened.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::entry::{Entries, Entry, EntryKind};
use crate::file::{self, LOCK_TIMEOUT, Stamp, WriteLock};
use crate::format::{self, Header, SLOTS_MAX, Slot};
use crate::kdf::KdfCost;
use crate::random::draw;
use crate::recovery::RecoveryCode;
use crate::seal::{self, DataKey};
use crate::slot::{self, MadeSlot, NewSlot, SlotKind, Surroundings, Unlock};
use crate::{Error, Secret, payload};

/// An unlocked vault: its entries, and the data key that re-reads and rewrites the file without any slot's secret.
///
/// Every change goes through the file under its lock and starts from what the file holds at that moment, so several
/// processes can edit at once. Dropping the value wipes key and entries.
pub struct Vault {
    path: PathBuf,
    data_key: DataKey,
    header: Header,
    entries: Entries,
    stamp: Stamp,
    around: Surroundings,
}

/// What a vault's file says without being unlocked. Nothing of it is authenticated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The vault's identity, random, the same for its life.
    pub vault_id: [u8; 16],
    /// One more with each write.
    pub generation: u64,
    /// The ways to open it.
    pub slots: Vec<SlotInfo>,
}

/// One way to open a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// What secret it takes.
    pub kind: SlotKind,
    /// A note for people, such as which keyring; may be empty, never holds control characters.
    pub hint: String,
    /// The cost of a guess; passphrase slots only.
    pub cost: Option<KdfCost>,
}

impl Description {
    /// The vault's identity as 32 hexadecimal digits.
    pub fn vault_id_hex(&self) -> String {
        self.vault_id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the vault has a slot of this kind.
    pub fn has(&self, kind: SlotKind) -> bool {
        self.slots.iter().any(|slot| slot.kind == kind)
    }
}

impl Vault {
    /// Makes a new, empty vault at `path`, which must be free, with the given ways to open it (at least one, at most
    /// one of each kind). Returns the recovery code if one was asked for; it is never shown again.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::WeakPassphrase`], [`Error::KeyringUnavailable`], [`Error::Busy`] and file errors.
    pub fn create(path: &Path, unlocks: &[NewSlot<'_>]) -> Result<(Self, Option<RecoveryCode>), Error> {
        Self::create_with(path, unlocks, Surroundings::system())
    }

    /// Opens the vault at `path`. With a passphrase this takes about a second and up to a gigabyte of memory, so it is
    /// done once; [`Vault::refresh`] needs neither.
    ///
    /// # Errors
    /// [`Error::WrongSecret`] when the secret is not the right one, [`Error::Damaged`] when it is and the rest does not
    /// fit, [`Error::NoSuchSlot`], and everything a file can have wrong.
    pub fn open(path: &Path, unlock: &Unlock<'_>) -> Result<Self, Error> {
        Self::open_with(path, unlock, Surroundings::system())
    }

    /// Opens the vault at `path` with the data key of a process that has it open, in whose place this one comes. Takes no
    /// derivation of a key.
    ///
    /// # Errors
    /// [`Error::Rekeyed`] when the vault has another key by now, and everything a file can have wrong.
    pub fn open_with_data_key(path: &Path, data_key: &Secret<[u8; 32]>) -> Result<Self, Error> {
        let (bytes, stamp) = file::read(path)?;
        let file = format::decode(&bytes)?;
        let data_key = DataKey::from_bytes(data_key);
        if !data_key.matches(&file.header) {
            return Err(Error::Rekeyed);
        }
        let entries = seal::open_payload(&data_key, &file)?;
        let path = path.to_owned();
        Ok(Self { path, data_key, header: file.header, entries, stamp, around: Surroundings::system() })
    }

    /// The key that opens this vault without any slot's secret, for the process that takes this one's place. It must go
    /// nowhere else.
    pub fn data_key(&self) -> Secret<[u8; 32]> {
        self.data_key.to_bytes()
    }

    /// What the file at `path` says without being unlocked. Checks owner, mode, type and the whole layout.
    ///
    /// # Errors
    /// Whatever is wrong with the file, short of what only its key can tell.
    pub fn describe(path: &Path) -> Result<Description, Error> {
        let (bytes, _) = file::read(path)?;
        Ok(describe(&format::decode(&bytes)?.header))
    }

    pub(crate) fn create_with(
        path: &Path,
        unlocks: &[NewSlot<'_>],
        around: Surroundings,
    ) -> Result<(Self, Option<RecoveryCode>), Error> {
        let lock = WriteLock::acquire(path, LOCK_TIMEOUT)?;
        if file::is_occupied(path) {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let random = around.random.as_ref();
        let vault_id = draw(random)?;
        let data_key = DataKey::generate(random)?;
        let (slots, recovery) = make_slots(unlocks, &data_key, &vault_id, &around)?;
        let draft = Draft { data_key, slots, entries: Entries::default() };
        let made = draft.slots.clone();
        let vault = Self::write(&lock, path, vault_id, 1, draft, &around);
        if vault.is_err() {
            discard_unused(path, &made, &vault_id, &around);
        }
        vault.map(|vault| (vault, recovery))
    }

    pub(crate) fn open_with(path: &Path, unlock: &Unlock<'_>, around: Surroundings) -> Result<Self, Error> {
        let (bytes, stamp) = file::read(path)?;
        let file = format::decode(&bytes)?;
        let data_key = slot::open(&file.header.slots, &file.header.vault_id, unlock, &around)?;
        let entries = seal::open_payload(&data_key, &file)?;
        Ok(Self { path: path.to_owned(), data_key, header: file.header, entries, stamp, around })
    }

    /// Where the vault is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identity, generation and slots as of the last read or write.
    pub fn description(&self) -> Description {
        describe(&self.header)
    }

    /// The vault's generation as of the last read or write. A lower one after [`Vault::refresh`] means that an older
    /// copy was put back.
    pub fn generation(&self) -> u64 {
        self.header.generation
    }

    /// All entries as of the last read or write.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The credential of `kind` for `provider`, as of the last read or write.
    pub fn entry(&self, provider: &str, kind: EntryKind) -> Option<&Entry> {
        self.entries.get(provider, kind)
    }

    /// Reads the file again if it has changed, with the key in memory; `true` when it had. Cheap enough to poll: an
    /// unchanged file costs one open and 36 bytes. After an error the old entries are still there.
    ///
    /// # Errors
    /// [`Error::Replaced`] when the file is another vault, [`Error::Rekeyed`] when its data key was rotated, and
    /// everything a file can have wrong.
    pub fn refresh(&mut self) -> Result<bool, Error> {
        let ((vault_id, generation), stamp) = file::peek(&self.path)?;
        let known = (self.header.vault_id, self.header.generation, self.stamp);
        if (vault_id, generation, stamp) == known {
            return Ok(false);
        }
        let (header, entries, stamp) = self.read_current()?;
        (self.header, self.entries, self.stamp) = (header, entries, stamp);
        Ok(true)
    }

    /// Changes entries: locks the file, reads it again, applies `change` to what it holds now, and replaces it. When
    /// `change` fails, nothing is written.
    ///
    /// # Errors
    /// What `change` returns, [`Error::Busy`], [`Error::TooLarge`], what [`Vault::refresh`] returns, and file errors.
    pub fn edit<T>(&mut self, change: impl FnOnce(&mut Entries) -> Result<T, Error>) -> Result<T, Error> {
        self.rewrite(|draft, _| change(&mut draft.entries))
    }

    /// Stores `entry` in place of one with the same provider and kind; `true` when there was one.
    ///
    /// # Errors
    /// As [`Vault::edit`].
    pub fn put(&mut self, entry: Entry) -> Result<bool, Error> {
        self.edit(|entries| Ok(entries.put(entry).is_some()))
    }

    /// Replaces only the secret of an entry, dated `now_us` (microseconds since 1970, UTC).
    ///
    /// # Errors
    /// [`Error::NoSuchEntry`], [`Error::InvalidEntry`], and as [`Vault::edit`].
    pub fn rotate_secret(
        &mut self,
        provider: &str,
        kind: EntryKind,
        secret: Secret<String>,
        now_us: i64,
    ) -> Result<(), Error> {
        self.edit(|entries| match entries.get_mut(provider, kind) {
            Some(entry) => entry.rotate(secret, now_us),
            None => Err(Error::NoSuchEntry { provider: provider.to_owned(), kind }),
        })
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// [`Error::NoSuchEntry`], and as [`Vault::edit`].
    pub fn remove(&mut self, provider: &str, kind: EntryKind) -> Result<(), Error> {
        self.edit(|entries| match entries.remove(provider, kind) {
            Some(_) => Ok(()),
            None => Err(Error::NoSuchEntry { provider: provider.to_owned(), kind }),
        })
    }

    /// Adds a way to open the vault. Returns the recovery code if that is what was added.
    ///
    /// # Errors
    /// [`Error::SlotExists`], and as [`Vault::create`] and [`Vault::edit`].
    pub fn add_slot(&mut self, new: &NewSlot<'_>) -> Result<Option<RecoveryCode>, Error> {
        let kind = new.kind();
        let mut added = None;
        let result = self.rewrite(|draft, this| {
            if draft.slots.iter().any(|slot| slot.kind() == kind) {
                return Err(Error::SlotExists { slot: kind });
            }
            let MadeSlot { slot, recovery } = slot::make(new, &draft.data_key, &this.vault_id, this.around)?;
            added = Some(slot.clone());
            draft.slots.push(slot);
            Ok(recovery)
        });
        if result.is_err() {
            discard_unused(&self.path, added.as_slice(), &self.header.vault_id, &self.around);
        }
        result
    }

    /// Removes a way to open the vault, never the last one that this program understands.
    ///
    /// # Errors
    /// [`Error::NoSuchSlot`], [`Error::LastSlot`], and as [`Vault::edit`].
    pub fn remove_slot(&mut self, kind: SlotKind) -> Result<(), Error> {
        let removed = self.rewrite(|draft, _| {
            let at = draft.slots.iter().position(|slot| slot.kind() == kind);
            let removed = draft.slots.remove(at.ok_or(Error::NoSuchSlot { slot: kind })?);
            if draft.slots.iter().all(|slot| matches!(slot, Slot::Unknown { .. })) {
                return Err(Error::LastSlot { slot: kind });
            }
            Ok(removed)
        })?;
        discard_unused(&self.path, &[removed], &self.header.vault_id, &self.around);
        Ok(())
    }

    /// Replaces the passphrase. The data key stays; a copy of the old file still opens with the old passphrase, so after
    /// a leak rotate the providers' credentials too.
    ///
    /// # Errors
    /// [`Error::WrongSecret`] when `old` is not the passphrase, [`Error::NoSuchSlot`] when there is none,
    /// [`Error::WeakPassphrase`], and as [`Vault::edit`].
    pub fn change_passphrase(
        &mut self,
        old: &Secret<String>,
        new: &Secret<String>,
        cost: KdfCost,
    ) -> Result<(), Error> {
        self.rewrite(|draft, this| {
            slot::open(&draft.slots, &this.vault_id, &Unlock::Passphrase(old), this.around)?;
            let new = NewSlot::Passphrase { passphrase: new, cost };
            let made = slot::make(&new, &draft.data_key, &this.vault_id, this.around)?;
            for slot in draft.slots.iter_mut().filter(|slot| slot.kind() == SlotKind::Passphrase) {
                *slot = made.slot.clone();
            }
            Ok(())
        })
    }

    /// Draws a new data key and re-encrypts everything. The vault keeps exactly the slots given here: the others cannot
    /// be wrapped again without their secrets, and are dropped, unknown types included. Other processes that have the
    /// vault open get [`Error::Rekeyed`].
    ///
    /// # Errors
    /// As [`Vault::create`] and [`Vault::edit`].
    pub fn rotate_dek(&mut self, unlocks: &[NewSlot<'_>]) -> Result<Option<RecoveryCode>, Error> {
        let (mut made, mut dropped) = (Vec::new(), Vec::new());
        let result = self.rewrite(|draft, this| {
            draft.data_key = DataKey::generate(this.around.random.as_ref())?;
            let (slots, recovery) = make_slots(unlocks, &draft.data_key, &this.vault_id, this.around)?;
            made.clone_from(&slots);
            dropped = std::mem::replace(&mut draft.slots, slots);
            Ok(recovery)
        });
        let unused = if result.is_ok() { &dropped } else { &made };
        discard_unused(&self.path, unused, &self.header.vault_id, &self.around);
        result
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.around
    }

    /// The one way to a new file: lock, read, change, write with the next generation.
    fn rewrite<T>(
        &mut self,
        change: impl FnOnce(&mut Draft, &Site<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let lock = WriteLock::acquire(&self.path, LOCK_TIMEOUT)?;
        let (header, entries, _) = self.read_current()?;
        let generation = header.generation.checked_add(1).ok_or(Error::GenerationExhausted)?;
        let mut draft = Draft { data_key: self.data_key.duplicate(), slots: header.slots, entries };
        let outcome = change(&mut draft, &Site { vault_id: header.vault_id, around: &self.around })?;
        *self = Self::write(&lock, &self.path, header.vault_id, generation, draft, &self.around)?;
        Ok(outcome)
    }

    fn write(
        lock: &WriteLock,
        path: &Path,
        vault_id: [u8; 16],
        generation: u64,
        draft: Draft,
        around: &Surroundings,
    ) -> Result<Self, Error> {
        let Draft { data_key, slots, entries } = draft;
        let random = around.random.as_ref();
        let (header, bytes) = seal::seal_file(&data_key, vault_id, generation, slots, &entries, random)?;
        let stamp =
            lock.replace(&bytes, random, |read_back| verify(&data_key, read_back, &header, &entries))?;
        Ok(Self { path: path.to_owned(), data_key, header, entries, stamp, around: around.clone() })
    }

    fn read_current(&self) -> Result<(Header, Entries, Stamp), Error> {
        let (bytes, stamp) = file::read(&self.path)?;
        let file = format::decode(&bytes)?;
        if file.header.vault_id != self.header.vault_id {
            return Err(Error::Replaced);
        }
        if !self.data_key.matches(&file.header) {
            return Err(Error::Rekeyed);
        }
        let entries = seal::open_payload(&self.data_key, &file)?;
        Ok((file.header, entries, stamp))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.header.generation;
        f.debug_struct("Vault")
            .field("path", &self.path)
            .field("generation", &generation)
            .finish_non_exhaustive()
    }
}

/// A file's content while it is being changed.
struct Draft {
    data_key: DataKey,
    slots: Vec<Slot>,
    entries: Entries,
}

/// Where a change takes place.
struct Site<'a> {
    vault_id: [u8; 16],
    around: &'a Surroundings,
}

fn make_slots(
    unlocks: &[NewSlot<'_>],
    data_key: &DataKey,
    vault_id: &[u8; 16],
    around: &Surroundings,
) -> Result<(Vec<Slot>, Option<RecoveryCode>), Error> {
    if unlocks.is_empty() || unlocks.len() > SLOTS_MAX {
        return Err(Error::Format { what: "a vault has 1 to 8 slots" });
    }
    let (mut slots, mut code) = (Vec::<Slot>::new(), None);
    for new in unlocks {
        let kind = new.kind();
        let is_taken = slots.iter().any(|slot| slot.kind() == kind);
        let made = if is_taken {
            Err(Error::SlotExists { slot: kind })
        } else {
            slot::make(new, data_key, vault_id, around)
        };
        let made =
            made.inspect_err(|_| slots.iter().for_each(|slot| slot::discard(slot, vault_id, around)))?;
        slots.push(made.slot);
        code = code.or(made.recovery);
    }
    Ok((slots, code))
}

/// Removes from the keyring what belongs to slots that are not in the file. The file is asked, not the outcome of the
/// write: a write can fail after the rename, when only the directory's sync went wrong, and then the file needs its
/// items. When in doubt they stay.
fn discard_unused(path: &Path, slots: &[Slot], vault_id: &[u8; 16], around: &Surroundings) {
    let in_file = match file::read(path).and_then(|(bytes, _)| format::decode(&bytes)) {
        Ok(file) => file.header.slots,
        Err(Error::NotFound { .. }) => Vec::new(),
        Err(_) => return,
    };
    slots
        .iter()
        .filter(|slot| !in_file.contains(slot))
        .for_each(|slot| slot::discard(slot, vault_id, around));
}

/// Opens what was read back from the disk and compares it with what was meant to be written.
fn verify(data_key: &DataKey, read_back: &[u8], header: &Header, entries: &Entries) -> Result<(), Error> {
    let (read_header, read_entries) = seal::open_bytes(data_key, read_back)?;
    let is_same = read_header == *header && payload::encode(&read_entries)? == payload::encode(entries)?;
    if is_same {
        Ok(())
    } else {
        Err(Error::Damaged { what: "what was written does not read back the same" })
    }
}

fn describe(header: &Header) -> Description {
    let info = |slot: &Slot| SlotInfo {
        kind: slot.kind(),
        hint: slot.hint().to_owned(),
        cost: match slot {
            Slot::Passphrase { cost, .. } => Some(*cost),
            Slot::Keyring { .. } | Slot::Recovery { .. } | Slot::Unknown { .. } => None,
        },
    };
    let slots = header.slots.iter().map(info).collect();
    Description { vault_id: header.vault_id, generation: header.generation, slots }
}
