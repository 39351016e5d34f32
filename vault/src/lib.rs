//! The vault: providers' credentials in one small encrypted file.
mod error;
mod secret;
mod origin;
mod entry;
mod format;
mod payload;
mod kdf;
mod random;
mod seal;
mod recovery;
mod passphrase;
mod keyring;
mod slot;
mod file;
mod vault;

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
pub use vault::{Description, SlotInfo, Vault};
