//! Reading the vault of the Go program, `vault.enc`, so that its users can move over. It is never written.
//!
//! JSON `{salt, nonce, ciphertext}`, each in standard base64. The key is Argon2id (3 passes, 192 MiB, 4 lanes, version
//! 1.3) of the passphrase, whose outer spaces were trimmed; the ciphertext is AES-256-GCM without associated data; the
//! plaintext is JSON `{"providers": {name: key}}`.

use std::collections::BTreeMap;
use std::path::Path;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::kdf::{self, KdfCost};
use crate::slot::SlotKind;
use crate::{Error, Secret, file};

const COST: KdfCost = KdfCost::from_file(192 * 1024, 3, 4);
const FILE_BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct Envelope {
    salt: String,
    nonce: String,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Plaintext {
    /// `null` when the old program had nothing to store.
    providers: Option<BTreeMap<String, String>>,
}

/// Provider names and credentials of the old vault at `path`, in order of the names, which are as they were stored.
///
/// # Errors
/// [`Error::WrongSecret`] when the passphrase does not open it (this format cannot tell that from damage),
/// [`Error::Legacy`] when it is not such a file, an empty one included; file errors.
pub fn open(path: &Path, passphrase: &Secret<String>) -> Result<Vec<(String, Secret<String>)>, Error> {
    decode(&file::read_foreign(path, FILE_BYTES_MAX)?, passphrase)
}

fn decode(bytes: &[u8], passphrase: &Secret<String>) -> Result<Vec<(String, Secret<String>)>, Error> {
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|_| malformed("it is not its JSON"))?;
    let salt: [u8; 16] =
        base64(&envelope.salt)?.try_into().map_err(|_| malformed("its salt is not 16 bytes"))?;
    let nonce: [u8; 12] =
        base64(&envelope.nonce)?.try_into().map_err(|_| malformed("its nonce is not 12 bytes"))?;
    let mut buffer = Zeroizing::new(base64(&envelope.ciphertext)?);
    let key = kdf::derive(passphrase.expose().trim().as_bytes(), &salt, COST)?;
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key))
        .decrypt_in_place(&Nonce::from(nonce), &[], &mut *buffer)
        .map_err(|_| Error::WrongSecret { slot: SlotKind::Passphrase })?;
    let plaintext: Plaintext =
        serde_json::from_slice(&buffer).map_err(|_| malformed("its content is not JSON"))?;
    let providers = plaintext.providers.unwrap_or_default();
    Ok(providers.into_iter().map(|(name, key)| (name, Secret::new(key))).collect())
}

fn base64(text: &str) -> Result<Vec<u8>, Error> {
    STANDARD.decode(text).map_err(|_| malformed("a field is not base64"))
}

fn malformed(what: &'static str) -> Error {
    Error::Legacy { what }
}
