//! The vault: providers' credentials in one small encrypted file, and [`Secret`], the type they travel in.
//!
//! A random data key seals all entries; *slots* wrap that key, one for each way to open the vault: a passphrase, the
//! system's keyring, a printed recovery code. Changing a passphrase rewrites one slot; [`Vault::rotate_dek`] draws a new
//! data key. The layout is in `format`, the cryptography in `seal`, the care taken with files in `file`.
//!
//! What always holds: a key derivation runs only when a vault is created, opened with a passphrase, or given a new one;
//! a file that is empty, short or foreign is an error and stays untouched; of two processes that edit at once both
//! succeed; the crate reads no clock (callers pass `now_us`) and knows neither HTTP nor money.
//!
//! ```
//! use vault::{Entry, EntryKind, KdfCost, NewEntry, NewSlot, Secret, Unlock, Vault};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("vault.tfv");
//! # let cost = KdfCost::insecure_for_tests();
//! # let now_us = 1_764_000_000_000_000;
//! let passphrase = Secret::from("six words are easy to keep");
//! // Callers use `KdfCost::DEFAULT` for `cost`.
//! let slots = [NewSlot::Passphrase { passphrase: &passphrase, cost }, NewSlot::Recovery];
//! let (mut vault, recovery_code) = Vault::create(&path, &slots)?;
//! # assert!(recovery_code.is_some());
//! vault.put(Entry::new(
//!     NewEntry {
//!         provider: "openai".to_owned(),
//!         kind: EntryKind::Inference,
//!         label: String::new(),
//!         secret: Secret::from("sk-0123456789"),
//!         allowed_origin: "https://api.openai.com".parse()?,
//!         auth_style: "bearer".to_owned(),
//!     },
//!     now_us,
//! )?)?;
//!
//! let mut vault = Vault::open(&path, &Unlock::Passphrase(&passphrase))?;
//! let credential = vault.entry("openai", EntryKind::Inference).expect("just stored");
//! assert_eq!(credential.secret().last4(), "6789");
//! assert!(!vault.refresh()?, "nobody changed the file");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(any(test, fuzzing)), warn(clippy::panic, clippy::unreachable))]

mod secret;
mod origin;
mod entry;
mod format;
mod payload;
mod kdf;
mod random;
mod seal;
mod slot;
mod keyring;
mod passphrase;
mod recovery;
mod file;
mod vault;
mod transfer;
pub mod dotenv;
pub mod legacy;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod sealed_vectors;

pub use entry::{
    AUTH_STYLE_BYTES_MAX, Entries, Entry, EntryKind, LABEL_BYTES_MAX, NewEntry, SECRET_BYTES_MAX,
    check_provider,
};
pub use error::{Error, FileFault};
pub use kdf::KdfCost;
pub use keyring::keyring_status;
pub use origin::{Origin, Scheme};
pub use passphrase::{PASSPHRASE_CHARS_MIN, generate_passphrase};
pub use recovery::RecoveryCode;
pub use secret::Secret;
pub use slot::{NewSlot, SlotKind, Unlock};
pub use transfer::{ImportReport, OnConflict, open_export};
pub use vault::{Description, SlotInfo, Vault};
