//! The layout of a vault file, version 1: bytes to structure and back, without I/O and without keys.
//!
//! ```text
//! off  len  field                                          (integers are big-endian and of fixed width)
//! 0    8    magic "TOKVAULT"
//! 8    2    version = 1
//! 10   2    header_len: bytes from 0 to the payload nonce, at most 4096
//! 12   16   vault_id, random, the same for the vault's life
//! 28   8    generation, one more with each write
//! 36   1    aead_id = 1 (XChaCha20-Poly1305)
//! 37   1    slot_count, 1 to 8
//! 38   ..   slots: type u8 | len u16 | body
//!           1 passphrase: kdf_id u8 = 1 (Argon2id 1.3) | m_kib u32 | t u32 | p u8 | salt 16 | nonce 24 | wrapped key 48
//!           2 keyring, 4 recovery: hint_len u8 | hint | salt 16 | nonce 24 | wrapped key 48
//!           3 is reserved for system credentials; it and any other type is kept as it is
//! ..   32   key commitment
//! ..   24   payload nonce
//! ..   n    sealed payload: whole blocks of 4096 bytes and a tag of 16; at most 1 MiB; then the file ends
//! ```
//!
//! There is exactly one encoding of everything: what [`decode`] accepts, [`Header::encode`] gives back byte for byte.

use crate::Error;
use crate::kdf::KdfCost;
use crate::slot::SlotKind;

pub(crate) const MAGIC: &[u8; 8] = b"TOKVAULT";
pub(crate) const VERSION: u16 = 1;
pub(crate) const AEAD_ID: u8 = 1;
pub(crate) const KDF_ID: u8 = 1;
pub(crate) const TAG_BYTES: usize = 16;
/// The payload's plaintext is padded to whole blocks, which hides the number and length of entries.
pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const SLOTS_MAX: usize = 8;
pub(crate) const HINT_BYTES_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 4096;
const FIXED_BYTES: usize = 38;
const COMMITMENT_BYTES: usize = 32;
const PAYLOAD_NONCE_BYTES: usize = 24;
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The largest plaintext whose sealed form fits.
pub(crate) const PLAINTEXT_BYTES_MAX: usize = (PAYLOAD_BYTES_MAX - TAG_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
/// The largest valid file.
pub(crate) const FILE_BYTES_MAX: usize = HEADER_BYTES_MAX + PAYLOAD_NONCE_BYTES + PAYLOAD_BYTES_MAX;
/// As much of a file as [`peek`] wants.
pub(crate) const PEEK_BYTES: usize = 36;

/// Everything before the payload nonce. All of it is authenticated together with the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) vault_id: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) slots: Vec<Slot>,
    pub(crate) commitment: [u8; COMMITMENT_BYTES],
}

/// One way to open the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    Passphrase {
        cost: KdfCost,
        wrapped: WrappedKey,
    },
    Keyring {
        hint: String,
        wrapped: WrappedKey,
    },
    Recovery {
        hint: String,
        wrapped: WrappedKey,
    },
    /// A type this program does not know: carried along unread, so that a newer program still finds it.
    Unknown {
        type_id: u8,
        body: Vec<u8>,
    },
}

/// The vault's data key, encrypted for one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    pub(crate) salt: [u8; 16],
    pub(crate) nonce: [u8; 24],
    pub(crate) sealed: [u8; 48],
}

/// A whole file, its payload still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedFile {
    pub(crate) header: Header,
    /// The header's bytes as they were read: what the payload's tag covers.
    pub(crate) header_bytes: Vec<u8>,
    pub(crate) payload_nonce: [u8; PAYLOAD_NONCE_BYTES],
    pub(crate) payload: Vec<u8>,
}

/// Reads a whole file.
pub(crate) fn decode(bytes: &[u8]) -> Result<SealedFile, Error> {
    let header_len = decode_prefix(bytes)?;
    let header_bytes = bytes.get(..header_len).ok_or(Error::Truncated { bytes: bytes.len() })?;
    let header = decode_header(header_bytes)?;
    let mut rest = Reader::new(&bytes[header_len..], || Error::Format { what: "the payload is missing" });
    let payload_nonce = rest.array().map_err(|_| Error::Truncated { bytes: bytes.len() })?;
    let payload = rest.take_all();
    check_payload_len(payload.len(), bytes.len())?;
    Ok(SealedFile { header, header_bytes: header_bytes.to_vec(), payload_nonce, payload: payload.to_vec() })
}

/// Reads identity and generation from a file's first [`PEEK_BYTES`] bytes.
pub(crate) fn peek(bytes: &[u8]) -> Result<([u8; 16], u64), Error> {
    decode_prefix(bytes)?;
    let mut reader = Reader::new(&bytes[12..], || Error::Truncated { bytes: 0 });
    let short = |_| Error::Truncated { bytes: bytes.len() };
    Ok((reader.array().map_err(short)?, reader.u64().map_err(short)?))
}

impl Header {
    /// The canonical bytes.
    ///
    /// # Errors
    /// [`Error::Format`] when there is no slot, or more than the format holds.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let count = u8::try_from(self.slots.len()).unwrap_or(u8::MAX);
        if count == 0 || usize::from(count) > SLOTS_MAX {
            return Err(Error::Format { what: "a vault has 1 to 8 slots" });
        }
        let slots = self.slots.iter().map(Slot::encode).collect::<Result<Vec<_>, _>>()?.concat();
        let len = FIXED_BYTES + slots.len() + COMMITMENT_BYTES;
        let len_field = u16::try_from(len).ok().filter(|_| len <= HEADER_BYTES_MAX);
        let len_field = len_field.ok_or(Error::Format { what: "the slots do not fit into the header" })?;
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&len_field.to_be_bytes());
        out.extend_from_slice(&self.vault_id);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&[AEAD_ID, count]);
        out.extend_from_slice(&slots);
        out.extend_from_slice(&self.commitment);
        Ok(out)
    }
}

impl Slot {
    pub(crate) fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase { .. } => SlotKind::Passphrase,
            Self::Keyring { .. } => SlotKind::Keyring,
            Self::Recovery { .. } => SlotKind::Recovery,
            Self::Unknown { type_id, .. } => SlotKind::Unknown(*type_id),
        }
    }

    pub(crate) fn hint(&self) -> &str {
        match self {
            Self::Keyring { hint, .. } | Self::Recovery { hint, .. } => hint,
            Self::Passphrase { .. } | Self::Unknown { .. } => "",
        }
    }

    fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        let wrapped = match self {
            Self::Passphrase { cost, wrapped } => {
                body.extend_from_slice(&cost.to_bytes());
                Some(wrapped)
            }
            Self::Keyring { hint, wrapped } | Self::Recovery { hint, wrapped } => {
                check_hint(hint)?;
                body.push(u8::try_from(hint.len()).expect("a checked hint is short"));
                body.extend_from_slice(hint.as_bytes());
                Some(wrapped)
            }
            Self::Unknown { body: opaque, .. } => {
                body.extend_from_slice(opaque);
                None
            }
        };
        if let Some(wrapped) = wrapped {
            body.extend_from_slice(&wrapped.salt);
            body.extend_from_slice(&wrapped.nonce);
            body.extend_from_slice(&wrapped.sealed);
        }
        let len = u16::try_from(body.len()).map_err(|_| Error::Format { what: "a slot is too long" })?;
        let mut out = vec![self.kind().type_id()];
        out.extend_from_slice(&len.to_be_bytes());
        out.append(&mut body);
        Ok(out)
    }
}

/// Checks magic, version and the header's length, in the order that lets the error say the most.
fn decode_prefix(bytes: &[u8]) -> Result<usize, Error> {
    let short = Error::Truncated { bytes: bytes.len() };
    let seen = bytes.len().min(MAGIC.len());
    if bytes[..seen] != MAGIC[..seen] {
        return Err(Error::Foreign);
    }
    let Some(fields) = bytes.get(8..12) else { return Err(short) };
    let version = u16::from_be_bytes([fields[0], fields[1]]);
    if version != VERSION {
        return Err(Error::UnsupportedVersion { version });
    }
    let header_len = usize::from(u16::from_be_bytes([fields[2], fields[3]]));
    if !(FIXED_BYTES + COMMITMENT_BYTES..=HEADER_BYTES_MAX).contains(&header_len) {
        return Err(Error::Format { what: "the header's length is out of range" });
    }
    Ok(header_len)
}

fn decode_header(bytes: &[u8]) -> Result<Header, Error> {
    let mut reader =
        Reader::new(&bytes[12..], || Error::Format { what: "a slot runs past the end of the header" });
    let vault_id = reader.array()?;
    let generation = reader.u64()?;
    if reader.u8()? != AEAD_ID {
        return Err(Error::Format { what: "the cipher is unknown" });
    }
    let count = usize::from(reader.u8()?);
    if !(1..=SLOTS_MAX).contains(&count) {
        return Err(Error::Format { what: "a vault has 1 to 8 slots" });
    }
    let slots = (0..count).map(|_| decode_slot(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    check_distinct(&slots)?;
    let commitment = reader.array()?;
    reader.end(Error::Format { what: "the header is longer than its slots" })?;
    Ok(Header { vault_id, generation, slots, commitment })
}

fn decode_slot(reader: &mut Reader<'_>) -> Result<Slot, Error> {
    let kind = SlotKind::from_type_id(reader.u8()?);
    let len = usize::from(reader.u16()?);
    let body = reader.take(len)?;
    let mut body = Reader::new(body, || Error::Format { what: "a slot is too short" });
    let slot = match kind {
        SlotKind::Unknown(type_id) => Slot::Unknown { type_id, body: body.take_all().to_vec() },
        SlotKind::Passphrase => {
            if body.u8()? != KDF_ID {
                return Err(Error::Format { what: "the key derivation function is unknown" });
            }
            let cost = KdfCost::from_file(body.u32()?, body.u32()?, body.u8()?);
            Slot::Passphrase { cost, wrapped: decode_wrapped(&mut body)? }
        }
        SlotKind::Keyring => {
            Slot::Keyring { hint: decode_hint(&mut body)?, wrapped: decode_wrapped(&mut body)? }
        }
        SlotKind::Recovery => {
            Slot::Recovery { hint: decode_hint(&mut body)?, wrapped: decode_wrapped(&mut body)? }
        }
    };
    body.end(Error::Format { what: "a slot is too long" })?;
    Ok(slot)
}

fn decode_hint(body: &mut Reader<'_>) -> Result<String, Error> {
    let len = usize::from(body.u8()?);
    let text =
        std::str::from_utf8(body.take(len)?).map_err(|_| Error::Format { what: "a hint is not UTF-8" })?;
    check_hint(text)?;
    Ok(text.to_owned())
}

/// Hints are shown before anything is authenticated, so they must not be able to drive a terminal.
fn check_hint(hint: &str) -> Result<(), Error> {
    if hint.len() > HINT_BYTES_MAX || hint.chars().any(char::is_control) {
        return Err(Error::Format { what: "a hint is too long or holds control characters" });
    }
    Ok(())
}

fn decode_wrapped(body: &mut Reader<'_>) -> Result<WrappedKey, Error> {
    Ok(WrappedKey { salt: body.array()?, nonce: body.array()?, sealed: body.array()? })
}

/// One slot a known type, so that "the passphrase" means one thing; unknown types may repeat, but not verbatim.
fn check_distinct(slots: &[Slot]) -> Result<(), Error> {
    for (index, slot) in slots.iter().enumerate() {
        let clashes = |other: &Slot| match slot {
            Slot::Unknown { .. } => other == slot,
            Slot::Passphrase { .. } | Slot::Keyring { .. } | Slot::Recovery { .. } => {
                other.kind() == slot.kind()
            }
        };
        if slots[..index].iter().any(clashes) {
            return Err(Error::Format { what: "a slot appears twice" });
        }
    }
    Ok(())
}

fn check_payload_len(payload_bytes: usize, file_bytes: usize) -> Result<(), Error> {
    if payload_bytes < BLOCK_BYTES + TAG_BYTES {
        return Err(Error::Truncated { bytes: file_bytes });
    }
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(Error::Format { what: "the payload is larger than 1 MiB" });
    }
    if !(payload_bytes - TAG_BYTES).is_multiple_of(BLOCK_BYTES) {
        return Err(Error::Format {
            what: "the payload is not whole blocks: the file was cut short or extended",
        });
    }
    Ok(())
}

/// Takes fixed-width fields from a byte slice; running out is the error it was made with.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    short: fn() -> Error,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], short: fn() -> Error) -> Self {
        Self { bytes, short }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(self.short)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn take_all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N).map(|bytes| bytes.try_into().expect("take gives exactly N bytes"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn end(&self, otherwise: Error) -> Result<(), Error> {
        if self.bytes.is_empty() { Ok(()) } else { Err(otherwise) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_wrapped() -> impl Strategy<Value = WrappedKey> {
        let parts = (any::<[u8; 16]>(), any::<[u8; 24]>(), prop::array::uniform::<_, 48>(any::<u8>()));
        parts.prop_map(|(salt, nonce, sealed)| WrappedKey { salt, nonce, sealed })
    }

    fn any_slot() -> impl Strategy<Value = Slot> {
        let hint = || "[^\\p{Cc}]{0,16}";
        prop_oneof![
            (any::<(u32, u32, u8)>(), any_wrapped()).prop_map(|((m_kib, t, p), wrapped)| {
                Slot::Passphrase { cost: KdfCost::from_file(m_kib, t, p), wrapped }
            }),
            (hint(), any_wrapped()).prop_map(|(hint, wrapped)| Slot::Keyring { hint, wrapped }),
            (hint(), any_wrapped()).prop_map(|(hint, wrapped)| Slot::Recovery { hint, wrapped }),
            (5u8.., prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(type_id, body)| Slot::Unknown { type_id, body }),
        ]
    }

    prop_compose! {
        fn any_file()(
            ids in any::<([u8; 16], u64)>(),
            mut slots in prop::collection::vec(any_slot(), 1..=SLOTS_MAX),
            commitment in any::<[u8; 32]>(),
            payload_nonce in any::<[u8; 24]>(),
            blocks in 1usize..4,
        ) -> SealedFile {
            slots.sort_by_key(Slot::kind);
            slots.dedup_by_key(|slot| slot.kind());
            let header = Header { vault_id: ids.0, generation: ids.1, slots, commitment };
            let header_bytes = header.encode().expect("within the limits");
            SealedFile { header, header_bytes, payload_nonce, payload: vec![7; blocks * BLOCK_BYTES + TAG_BYTES] }
        }
    }

    fn bytes_of(file: &SealedFile) -> Vec<u8> {
        [file.header_bytes.as_slice(), &file.payload_nonce, &file.payload].concat()
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(file in any_file()) {
            let bytes = bytes_of(&file);
            prop_assert_eq!(peek(&bytes[..PEEK_BYTES]).expect("peeks"), (file.header.vault_id, file.header.generation));
            prop_assert_eq!(decode(&bytes).expect("decodes"), file);
        }

        #[test]
        fn accepted_bytes_are_canonical(file in any_file(), edits in prop::collection::vec((0usize..300, any::<u8>()), 1..4)) {
            let mut bytes = bytes_of(&file);
            for (at, value) in edits {
                bytes[at] = value;
            }
            if let Ok(decoded) = decode(&bytes) {
                prop_assert_eq!(decoded.header.encode().expect("encodes"), decoded.header_bytes.clone());
                prop_assert_eq!(bytes_of(&decoded), bytes);
            }
        }
    }
}
