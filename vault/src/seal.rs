//! The cryptography: a random data key seals the payload, slot keys wrap the data key.
//!
//! - data key (DEK): 32 random bytes. It is never used directly, only through HKDF-SHA256 with the vault's id as salt.
//! - payload: XChaCha20-Poly1305 with every header byte as associated data, so nothing in the file can be edited.
//! - commitment: derived from the data key and compared before the payload is tried, because Poly1305 does not bind a
//!   ciphertext to one key.
//! - wrapped key: its associated data names the vault, the slot's type, its KDF fields and its salt, so a slot cannot
//!   be moved to another vault nor made cheaper to guess. It leaves out the header's length and the generation:
//!   otherwise adding one slot would need the secrets of all others.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::entry::Entries;
use crate::format::{self, Header, MAGIC, SealedFile, Slot, VERSION, WrappedKey};
use crate::random::{Random, draw};
use crate::{Error, Secret, payload};

/// Thirty-two secret bytes, wiped when dropped.
pub(crate) type KeyBytes = Zeroizing<[u8; 32]>;

/// The vault's data key.
pub(crate) struct DataKey(KeyBytes);

impl DataKey {
    pub(crate) fn generate(random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = KeyBytes::default();
        random.fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    pub(crate) fn from_bytes(bytes: &Secret<[u8; 32]>) -> Self {
        Self(KeyBytes::new(*bytes.expose()))
    }

    pub(crate) fn to_bytes(&self) -> Secret<[u8; 32]> {
        Secret::new(*self.0)
    }

    /// A second copy, for the moment in which a file is rewritten and the change may still fail.
    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether `header` was written under this key. Compared in constant time.
    pub(crate) fn matches(&self, header: &Header) -> bool {
        self.commitment(&header.vault_id).ct_eq(&header.commitment).into()
    }

    fn commitment(&self, vault_id: &[u8; 16]) -> [u8; 32] {
        *derive_key(self.0.as_slice(), vault_id, b"tokfence/v1/commit")
    }

    fn payload_key(&self, vault_id: &[u8; 16]) -> KeyBytes {
        derive_key(self.0.as_slice(), vault_id, b"tokfence/v1/payload")
    }
}

/// HKDF-SHA256 to 32 bytes.
pub(crate) fn derive_key(secret: &[u8], salt: &[u8], info: &[u8]) -> KeyBytes {
    let mut out = KeyBytes::default();
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(info, out.as_mut_slice())
        .expect("32 bytes are within what HKDF-SHA256 gives");
    out
}

/// What a wrapped key is bound to.
pub(crate) struct SlotContext<'a> {
    pub(crate) vault_id: &'a [u8; 16],
    pub(crate) type_id: u8,
    /// Empty for slots without a key derivation cost.
    pub(crate) kdf_fields: &'a [u8],
}

impl SlotContext<'_> {
    fn associated_data(&self, salt: &[u8; 16]) -> Vec<u8> {
        let version = VERSION.to_be_bytes();
        [MAGIC.as_slice(), &version, self.vault_id, &[self.type_id], self.kdf_fields, salt].concat()
    }
}

/// Encrypts the data key under a slot's key.
pub(crate) fn wrap(
    data_key: &DataKey,
    slot_key: &KeyBytes,
    salt: [u8; 16],
    context: &SlotContext<'_>,
    random: &dyn Random,
) -> Result<WrappedKey, Error> {
    let nonce = draw::<24>(random)?;
    let mut buffer = Zeroizing::new(Vec::with_capacity(48));
    buffer.extend_from_slice(data_key.0.as_slice());
    encrypt(slot_key, &nonce, &context.associated_data(&salt), &mut buffer);
    let sealed = buffer.as_slice().try_into().expect("a key and a tag are 48 bytes");
    Ok(WrappedKey { salt, nonce, sealed })
}

/// Decrypts the data key; `None` when the slot's key is the wrong one or the slot was edited, which look alike.
pub(crate) fn unwrap(
    wrapped: &WrappedKey,
    slot_key: &KeyBytes,
    context: &SlotContext<'_>,
) -> Option<DataKey> {
    let mut buffer = Zeroizing::new(wrapped.sealed.to_vec());
    decrypt(slot_key, &wrapped.nonce, &context.associated_data(&wrapped.salt), &mut buffer)?;
    let mut key = KeyBytes::default();
    key.copy_from_slice(&buffer);
    Some(DataKey(key))
}

/// The bytes of a whole file holding `entries`.
pub(crate) fn seal_file(
    data_key: &DataKey,
    vault_id: [u8; 16],
    generation: u64,
    slots: Vec<Slot>,
    entries: &Entries,
    random: &dyn Random,
) -> Result<(Header, Vec<u8>), Error> {
    let plaintext = payload::encode(entries)?;
    let header = Header { vault_id, generation, slots, commitment: data_key.commitment(&vault_id) };
    let bytes = seal_plaintext(data_key, &header, plaintext, random)?;
    Ok((header, bytes))
}

/// Seals any plaintext under any header; on its own only for building faulty files in tests.
pub(crate) fn seal_plaintext(
    data_key: &DataKey,
    header: &Header,
    mut plaintext: Zeroizing<Vec<u8>>,
    random: &dyn Random,
) -> Result<Vec<u8>, Error> {
    let nonce = draw::<24>(random)?;
    let mut file = header.encode()?;
    encrypt(&data_key.payload_key(&header.vault_id), &nonce, &file, &mut plaintext);
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&plaintext);
    Ok(file)
}

/// The entries inside a file.
///
/// # Errors
/// [`Error::Damaged`] when commitment or tag do not match, and what [`payload::decode`] refuses.
pub(crate) fn open_payload(data_key: &DataKey, file: &SealedFile) -> Result<Entries, Error> {
    if !data_key.matches(&file.header) {
        return Err(Error::Damaged { what: "the key commitment does not match" });
    }
    let key = data_key.payload_key(&file.header.vault_id);
    let mut buffer = Zeroizing::new(file.payload.clone());
    decrypt(&key, &file.payload_nonce, &file.header_bytes, &mut buffer)
        .ok_or(Error::Damaged { what: "the payload's tag does not match" })?;
    payload::decode(&buffer)
}

/// Reads a file's bytes with a key at hand.
pub(crate) fn open_bytes(data_key: &DataKey, bytes: &[u8]) -> Result<(Header, Entries), Error> {
    let file = format::decode(bytes)?;
    let entries = open_payload(data_key, &file)?;
    Ok((file.header, entries))
}

fn encrypt(key: &KeyBytes, nonce: &[u8; 24], associated_data: &[u8], buffer: &mut Vec<u8>) {
    XChaCha20Poly1305::new(&Key::from(**key))
        .encrypt_in_place(&XNonce::from(*nonce), associated_data, buffer)
        .expect("a buffer of at most 1 MiB can be encrypted");
}

fn decrypt(key: &KeyBytes, nonce: &[u8; 24], associated_data: &[u8], buffer: &mut Vec<u8>) -> Option<()> {
    XChaCha20Poly1305::new(&Key::from(**key))
        .decrypt_in_place(&XNonce::from(*nonce), associated_data, buffer)
        .ok()
}
