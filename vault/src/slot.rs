//! The kinds of slots, and how each turns a secret into the key that wraps the data key.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::format::{Slot, WrappedKey};
use crate::kdf::{self, KdfCost};
use crate::keyring::{SecretStore, SystemKeyring};
use crate::random::{Random, SystemRandom, draw};
use crate::recovery::RecoveryCode;
use crate::seal::{self, DataKey, KeyBytes, SlotContext};
use crate::{Error, Secret, passphrase};

/// What kind of secret a slot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotKind {
    /// A passphrase, through Argon2id.
    Passphrase,
    /// A random secret that the operating system's keyring holds.
    Keyring,
    /// A printed [`RecoveryCode`].
    Recovery,
    /// A type this program does not know; kept as it is. Carries the type's number.
    Unknown(u8),
}

impl SlotKind {
    pub(crate) fn type_id(self) -> u8 {
        match self {
            Self::Passphrase => 1,
            Self::Keyring => 2,
            Self::Recovery => 4,
            Self::Unknown(type_id) => type_id,
        }
    }

    pub(crate) fn from_type_id(type_id: u8) -> Self {
        match type_id {
            1 => Self::Passphrase,
            2 => Self::Keyring,
            4 => Self::Recovery,
            _ => Self::Unknown(type_id),
        }
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase => f.write_str("passphrase"),
            Self::Keyring => f.write_str("keyring secret"),
            Self::Recovery => f.write_str("recovery code"),
            Self::Unknown(type_id) => write!(f, "type-{type_id} secret"),
        }
    }
}

/// A way to open the vault that is to be set up.
#[derive(Debug, Clone, Copy)]
pub enum NewSlot<'a> {
    /// A passphrase of at least [`crate::PASSPHRASE_CHARS_MIN`] characters, and the cost of guessing it.
    Passphrase {
        /// As typed; it is normalised here.
        passphrase: &'a Secret<String>,
        /// See [`KdfCost::DEFAULT`].
        cost: KdfCost,
    },
    /// A fresh random secret, stored in the operating system's keyring.
    Keyring,
    /// A fresh recovery code, which is handed back once.
    Recovery,
}

/// The secret that opens the vault.
#[derive(Debug, Clone, Copy)]
pub enum Unlock<'a> {
    /// The passphrase, as typed.
    Passphrase(&'a Secret<String>),
    /// Whatever the operating system's keyring holds for this vault.
    Keyring,
    /// The printed code.
    Recovery(&'a RecoveryCode),
}

impl Unlock<'_> {
    /// The kind of slot this secret is for.
    pub fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::Keyring => SlotKind::Keyring,
            Self::Recovery(_) => SlotKind::Recovery,
        }
    }
}

impl NewSlot<'_> {
    /// The kind of slot this makes.
    pub fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase { .. } => SlotKind::Passphrase,
            Self::Keyring => SlotKind::Keyring,
            Self::Recovery => SlotKind::Recovery,
        }
    }
}

/// What the vault takes from its surroundings; tests bring their own.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) random: Arc<dyn Random>,
    pub(crate) keyring: Arc<dyn SecretStore>,
    /// From a passphrase to a key. Outside the crate's own tests it is [`kdf::derive`].
    pub(crate) derive: Derive,
}

/// Makes a slot's key of a passphrase, the slot's salt and its cost.
pub(crate) type Derive = fn(&[u8], &[u8; 16], KdfCost) -> Result<KeyBytes, Error>;

impl Surroundings {
    pub(crate) fn system() -> Self {
        Self { random: Arc::new(SystemRandom), keyring: Arc::new(SystemKeyring), derive: kdf::derive }
    }
}

/// A slot ready to be written, with what came into being beside it.
pub(crate) struct MadeSlot {
    pub(crate) slot: Slot,
    pub(crate) recovery: Option<RecoveryCode>,
}

/// Makes a slot for `data_key`. For a keyring slot this already stores the item, because a slot whose item could not
/// be stored must never reach the file; [`discard`] takes it back if the file is not written after all.
pub(crate) fn make(
    new: &NewSlot<'_>,
    data_key: &DataKey,
    vault_id: &[u8; 16],
    around: &Surroundings,
) -> Result<MadeSlot, Error> {
    let random = around.random.as_ref();
    let salt = draw::<16>(random)?;
    let hint = String::new();
    match new {
        NewSlot::Passphrase { passphrase, cost } => {
            let text = passphrase::check_new(passphrase)?;
            let key = (around.derive)(text.as_bytes(), &salt, *cost)?;
            let wrapped = seal::wrap(data_key, &key, salt, &context(vault_id, 1, &cost.to_bytes()), random)?;
            Ok(MadeSlot { slot: Slot::Passphrase { cost: *cost, wrapped }, recovery: None })
        }
        NewSlot::Keyring => {
            let mut secret = Zeroizing::new([0; 32]);
            random.fill(secret.as_mut_slice())?;
            store_checked(around.keyring.as_ref(), &account(vault_id, &salt), &secret)?;
            let wrapped =
                seal::wrap(data_key, &keyring_key(&secret, &salt), salt, &context(vault_id, 2, &[]), random)?;
            Ok(MadeSlot {
                slot: Slot::Keyring { hint: around.keyring.name().to_owned(), wrapped },
                recovery: None,
            })
        }
        NewSlot::Recovery => {
            let code = RecoveryCode::generate(random)?;
            let wrapped =
                seal::wrap(data_key, &recovery_key(&code, &salt), salt, &context(vault_id, 4, &[]), random)?;
            Ok(MadeSlot { slot: Slot::Recovery { hint, wrapped }, recovery: Some(code) })
        }
    }
}

/// Takes back what [`make`] left outside the file. Best effort: an item that no slot refers to opens nothing.
pub(crate) fn discard(slot: &Slot, vault_id: &[u8; 16], around: &Surroundings) {
    if let Slot::Keyring { wrapped, .. } = slot {
        let _ = around.keyring.delete(&account(vault_id, &wrapped.salt));
    }
}

/// Finds the slot `unlock` is for and takes the data key out of it.
///
/// # Errors
/// [`Error::NoSuchSlot`], [`Error::WrongSecret`], and the failures of key derivation and keyring.
pub(crate) fn open(
    slots: &[Slot],
    vault_id: &[u8; 16],
    unlock: &Unlock<'_>,
    around: &Surroundings,
) -> Result<DataKey, Error> {
    let kind = unlock.kind();
    let slot = slots.iter().find(|slot| slot.kind() == kind).ok_or(Error::NoSuchSlot { slot: kind })?;
    let opened = match (slot, unlock) {
        (Slot::Passphrase { cost, wrapped }, Unlock::Passphrase(passphrase)) => {
            let text = passphrase::normalise(passphrase);
            let key = (around.derive)(text.as_bytes(), &wrapped.salt, *cost)?;
            seal::unwrap(wrapped, &key, &context(vault_id, 1, &cost.to_bytes()))
        }
        (Slot::Keyring { wrapped, .. }, Unlock::Keyring) => {
            let secret = around.keyring.load(&account(vault_id, &wrapped.salt))?;
            seal::unwrap(wrapped, &keyring_key(&secret, &wrapped.salt), &context(vault_id, 2, &[]))
        }
        (Slot::Recovery { wrapped, .. }, Unlock::Recovery(code)) => open_recovery(wrapped, code, vault_id),
        (
            Slot::Passphrase { .. } | Slot::Keyring { .. } | Slot::Recovery { .. } | Slot::Unknown { .. },
            _,
        ) => None,
    };
    opened.ok_or(Error::WrongSecret { slot: kind })
}

fn open_recovery(wrapped: &WrappedKey, code: &RecoveryCode, vault_id: &[u8; 16]) -> Option<DataKey> {
    seal::unwrap(wrapped, &recovery_key(code, &wrapped.salt), &context(vault_id, 4, &[]))
}

fn context<'a>(vault_id: &'a [u8; 16], type_id: u8, kdf_fields: &'a [u8]) -> SlotContext<'a> {
    SlotContext { vault_id, type_id, kdf_fields }
}

fn keyring_key(secret: &[u8; 32], salt: &[u8; 16]) -> KeyBytes {
    seal::derive_key(secret, salt, b"tokfence/v1/slot/keyring")
}

/// A plain HKDF is enough here: 160 random bits cannot be searched, whatever one guess costs.
fn recovery_key(code: &RecoveryCode, salt: &[u8; 16]) -> KeyBytes {
    seal::derive_key(code.bytes(), salt, b"tokfence/v1/slot/recovery")
}

/// The keyring item's name. It holds the slot's salt, so that a new keyring slot never overwrites the item of the one
/// still in the file: until the file is replaced, both open.
fn account(vault_id: &[u8; 16], salt: &[u8; 16]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("vault-{}-{}", hex(vault_id), hex(&salt[..8]))
}

/// Stores and reads back: a keyring that forgets at once must be found out before the vault depends on it.
fn store_checked(keyring: &dyn SecretStore, account: &str, secret: &[u8; 32]) -> Result<(), Error> {
    keyring.store(account, secret)?;
    if *keyring.load(account)? == *secret {
        return Ok(());
    }
    let _ = keyring.delete(account);
    Err(Error::KeyringUnavailable { reason: "it did not give back what was stored".to_owned() })
}
