//! The plaintext inside the seal: entries as fixed fields, in one canonical encoding.
//!
//! ```text
//! content_len u32 | entry_count u16 | entries | zeros up to a whole number of blocks
//! entry: len u16 | fields, each: tag u8 | len u16 | value
//! tags:  1 provider  2 kind u8 (1 inference, 2 admin, 3 canary)  3 label  4 secret  5 allowed origin (canonical text)
//!        6 auth style  7 created_at_us i64  8 rotated_at_us i64  9 not_after_us i64 (may be absent)
//! ```
//!
//! `content_len` counts from `entry_count` to the last entry. Entries are in order of provider, then kind, each pair
//! once; fields are in order of their tags. Anything else is refused, so no two plaintexts mean the same.

use zeroize::Zeroizing;

use crate::entry::{Entries, Entry, EntryKind, NewEntry};
use crate::format::{BLOCK_BYTES, PLAINTEXT_BYTES_MAX, Reader};
use crate::{Error, Origin, Secret};

const LEN_BYTES: usize = 4;
const COUNT_BYTES: usize = 2;

/// The padded plaintext of `entries`.
///
/// # Errors
/// [`Error::TooLarge`] when it would not fit the format.
pub(crate) fn encode(entries: &Entries) -> Result<Zeroizing<Vec<u8>>, Error> {
    let content_bytes = COUNT_BYTES + entries.iter().map(|entry| 2 + entry_len(entry)).sum::<usize>();
    let bytes = (LEN_BYTES + content_bytes).next_multiple_of(BLOCK_BYTES);
    let too_large = || Error::TooLarge { bytes, bytes_max: PLAINTEXT_BYTES_MAX };
    if bytes > PLAINTEXT_BYTES_MAX {
        return Err(too_large());
    }
    // Room for the authentication tag as well: a buffer that grows leaves its old content behind, unwiped.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes + crate::format::TAG_BYTES));
    out.extend_from_slice(&u32::try_from(content_bytes).map_err(|_| too_large())?.to_be_bytes());
    out.extend_from_slice(&u16::try_from(entries.len()).map_err(|_| too_large())?.to_be_bytes());
    for entry in entries {
        out.extend_from_slice(&u16::try_from(entry_len(entry)).map_err(|_| too_large())?.to_be_bytes());
        encode_entry(&mut out, entry);
    }
    out.resize(bytes, 0);
    Ok(out)
}

/// Reads a padded plaintext, accepting exactly what [`encode`] writes.
///
/// # Errors
/// [`Error::Format`] for anything that is not canonical, [`Error::InvalidEntry`] for a field that breaks its rule.
pub(crate) fn decode(plaintext: &[u8]) -> Result<Entries, Error> {
    let mut reader = Reader::new(plaintext, || malformed("the content is shorter than it says"));
    let content_bytes = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    let mut content =
        Reader::new(reader.take(content_bytes)?, || malformed("an entry runs past the content"));
    check_padding(reader.take_all(), content_bytes, plaintext.len())?;
    let count = content.u16()?;
    let mut entries = Entries::default();
    for _ in 0..count {
        let len = usize::from(content.u16()?);
        let entry = decode_entry(content.take(len)?)?;
        if !entries.push_in_order(entry) {
            return Err(malformed("entries are repeated or out of order"));
        }
    }
    content.end(malformed("the content is longer than its entries"))?;
    Ok(entries)
}

fn entry_len(entry: &Entry) -> usize {
    let mut len = 0;
    for_each_field(entry, |_, value| len += 3 + value.len());
    len
}

fn encode_entry(out: &mut Vec<u8>, entry: &Entry) {
    for_each_field(entry, |tag, value| {
        out.push(tag);
        out.extend_from_slice(&u16::try_from(value.len()).expect("checked fields are short").to_be_bytes());
        out.extend_from_slice(value);
    });
}

fn for_each_field(entry: &Entry, mut visit: impl FnMut(u8, &[u8])) {
    visit(1, entry.provider().as_bytes());
    visit(2, &[kind_id(entry.kind())]);
    visit(3, entry.label().as_bytes());
    visit(4, entry.secret().expose().as_bytes());
    visit(5, entry.allowed_origin().to_string().as_bytes());
    visit(6, entry.auth_style().as_bytes());
    visit(7, &entry.created_at_us().to_be_bytes());
    visit(8, &entry.rotated_at_us().to_be_bytes());
    if let Some(not_after_us) = entry.not_after_us() {
        visit(9, &not_after_us.to_be_bytes());
    }
}

fn kind_id(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Inference => 1,
        EntryKind::Admin => 2,
        EntryKind::Canary => 3,
    }
}

fn decode_entry(bytes: &[u8]) -> Result<Entry, Error> {
    let mut reader = Reader::new(bytes, || malformed("a field is missing or cut short"));
    let provider = text(field(&mut reader, 1)?)?.to_owned();
    let kind = match field(&mut reader, 2)? {
        [1] => EntryKind::Inference,
        [2] => EntryKind::Admin,
        [3] => EntryKind::Canary,
        _ => return Err(malformed("the entry's kind is unknown")),
    };
    let label = text(field(&mut reader, 3)?)?.to_owned();
    let secret = Secret::new(text(field(&mut reader, 4)?)?.to_owned());
    let allowed_origin = origin(text(field(&mut reader, 5)?)?)?;
    let auth_style = text(field(&mut reader, 6)?)?.to_owned();
    let created_at_us = time(field(&mut reader, 7)?)?;
    let rotated_at_us = time(field(&mut reader, 8)?)?;
    let not_after_us = if reader.is_empty() { None } else { Some(time(field(&mut reader, 9)?)?) };
    reader.end(malformed("an entry has more than its fields"))?;
    let parts = NewEntry { provider, kind, label, secret, allowed_origin, auth_style };
    Ok(Entry::new(parts, created_at_us)?.with_times(created_at_us, rotated_at_us, not_after_us))
}

fn field<'a>(reader: &mut Reader<'a>, expected_tag: u8) -> Result<&'a [u8], Error> {
    if reader.u8()? != expected_tag {
        return Err(malformed("a field is unknown or out of order"));
    }
    let len = usize::from(reader.u16()?);
    reader.take(len)
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| malformed("a text is not UTF-8"))
}

fn origin(text: &str) -> Result<Origin, Error> {
    let origin: Origin = text.parse()?;
    if origin.to_string() == text {
        Ok(origin)
    } else {
        Err(malformed("an origin is not in its canonical form"))
    }
}

fn time(bytes: &[u8]) -> Result<i64, Error> {
    bytes.try_into().map(i64::from_be_bytes).map_err(|_| malformed("a time is not eight bytes"))
}

fn check_padding(padding: &[u8], content_bytes: usize, plaintext_bytes: usize) -> Result<(), Error> {
    let is_canonical = (LEN_BYTES + content_bytes).next_multiple_of(BLOCK_BYTES) == plaintext_bytes;
    if is_canonical && padding.iter().all(|&b| b == 0) {
        Ok(())
    } else {
        Err(malformed("the padding is wrong"))
    }
}

fn malformed(what: &'static str) -> Error {
    Error::Format { what }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::tests::sample;

    fn two_entries() -> Entries {
        let mut entries = Entries::default();
        entries.put(sample("anthropic", EntryKind::Inference, "sk-ant-0001").with_times(
            -5,
            7,
            Some(i64::MAX),
        ));
        entries.put(sample("openai", EntryKind::Admin, "sk-admin-ключ"));
        entries
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut Vec<u8>)) {
        let mut plaintext = encode(&two_entries()).expect("encodes").to_vec();
        change(&mut plaintext);
        assert!(decode(&plaintext).is_err());
    }

    fn position(plaintext: &[u8], needle: &[u8]) -> usize {
        plaintext.windows(needle.len()).position(|window| window == needle).expect("present")
    }

    #[test]
    fn the_empty_vault_is_one_block_of_almost_nothing() {
        let plaintext = encode(&Entries::default()).expect("encodes");
        assert_eq!((plaintext.len(), &plaintext[..8]), (4096, &[0, 0, 0, 2, 0, 0, 0, 0][..]));
        assert!(decode(&plaintext).expect("decodes").is_empty());
    }

    #[test]
    fn anything_but_the_canonical_form_is_refused() {
        check_refused(|bytes| *bytes.last_mut().expect("not empty") = 1);
        check_refused(|bytes| bytes.resize(8192, 0));
        check_refused(|bytes| bytes.truncate(100));
        check_refused(|bytes| bytes.truncate(3));
        check_refused(|bytes| bytes[..4].copy_from_slice(&u32::MAX.to_be_bytes()));
        check_refused(|bytes| bytes[3] += 1);
        check_refused(|bytes| bytes[3] -= 1);
        check_refused(|bytes| bytes[5] = 1);
        check_refused(|bytes| bytes[5] = 3);
        check_refused(|bytes| bytes[7] += 1);
        check_refused(|bytes| bytes[8] = 2);
        check_refused(|bytes| {
            let at = position(bytes, b"sk-ant");
            bytes[at] = 0xff;
        });
        check_refused(|bytes| {
            let at = position(bytes, b"sk-ant");
            bytes[at] = b'\n';
        });
        check_refused(|bytes| {
            let at = position(bytes, b"https://api");
            bytes[at..at + 11].copy_from_slice(b"HTTPS://api");
        });
        check_refused(|bytes| {
            let at = position(bytes, b"anthropic");
            bytes[at] = b'z';
        });
        check_refused(|bytes| {
            let at = position(bytes, b"anthropic") + 9;
            assert_eq!(bytes[at..at + 4], [2, 0, 1, 1], "the kind field follows");
            bytes[at + 3] = 4;
        });
    }

    #[test]
    fn duplicates_are_refused() {
        let mut twice = Vec::new();
        let entry = sample("openai", EntryKind::Inference, "sk-1");
        for _ in 0..2 {
            twice.extend_from_slice(&u16::try_from(entry_len(&entry)).expect("short").to_be_bytes());
            encode_entry(&mut twice, &entry);
        }
        let mut plaintext = u32::try_from(2 + twice.len()).expect("short").to_be_bytes().to_vec();
        plaintext.extend_from_slice(&[0, 2]);
        plaintext.append(&mut twice);
        plaintext.resize(4096, 0);
        let error = decode(&plaintext).expect_err("two entries of one provider and kind");
        assert!(matches!(error, Error::Format { what: "entries are repeated or out of order" }), "{error}");
    }

    #[test]
    fn too_much_is_refused_before_anything_is_written() {
        let mut entries = Entries::default();
        for index in 0..80 {
            entries.put(sample(&format!("p{index}"), EntryKind::Inference, &"x".repeat(16 * 1024)));
        }
        assert!(matches!(encode(&entries), Err(Error::TooLarge { .. })));
    }

    prop_compose! {
        fn any_entry()(
            provider in "[a-z0-9][a-z0-9_-]{0,20}",
            kind in prop::sample::select(vec![EntryKind::Inference, EntryKind::Admin, EntryKind::Canary]),
            label in "[^\\p{Cc}]{0,20}",
            secret in "[!-~ä]([ -~]{0,60}[!-~ä])?",
            port in 1u16..,
            times in any::<(i64, i64, Option<i64>)>(),
        ) -> Entry {
            let allowed_origin = format!("https://host.example:{port}").parse().expect("origin");
            let parts = NewEntry { provider, kind, label, secret: Secret::new(secret), allowed_origin, auth_style: String::new() };
            Entry::new(parts, 0).expect("valid").with_times(times.0, times.1, times.2)
        }
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(list in prop::collection::vec(any_entry(), 0..40)) {
            let mut entries = Entries::default();
            for entry in list {
                entries.put(entry);
            }
            let plaintext = encode(&entries).expect("encodes");
            let decoded = decode(&plaintext).expect("decodes");
            prop_assert_eq!(decoded.len(), entries.len());
            prop_assert_eq!(encode(&decoded).expect("encodes"), plaintext);
        }

        #[test]
        fn accepted_bytes_are_canonical(edits in prop::collection::vec((0usize..600, any::<u8>()), 1..6)) {
            let mut plaintext = encode(&two_entries()).expect("encodes").to_vec();
            for (at, value) in edits {
                plaintext[at] = value;
            }
            if let Ok(entries) = decode(&plaintext) {
                prop_assert_eq!(encode(&entries).expect("encodes").to_vec(), plaintext);
            }
        }
    }
}
