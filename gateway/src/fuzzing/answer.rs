//! What a provider sends. Of the bytes that a function is given, the first eight say where the rest is cut into chunks.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{BYTES_MAX, chunks, cuts};
use crate::fence::{Fence, Passed, Watch, Watched};
use crate::wire::Framing;
use crate::wire::sse::{Frames, Piece};
use crate::wire::tokens::{Container, Leaves, Text, Tokens};

/// What is looked for. One is short enough to be looked for whole only, one is not.
const SECRETS: [&str; 2] =
    ["sk-proj-Zk4mQw8RtY2pLx7V", "sk-ant-api03-hG5fD3sA1qW9eR7tY5uI3oP1aS9dF7gH5jK3lZ1xC9vB7nM5qW3eR1tYAA"];
/// What is deeper has no place, and neither has what stands below a longer key.
const DEPTH_MAX: usize = 64;
const KEY_MAX: usize = 128;

static WATCH: LazyLock<Arc<Watch>> = LazyLock::new(|| {
    let watched = |secret: &'static str| (Watched::Key { provider: secret[..6].to_owned() }, secret);
    Arc::new(Watch::new(SECRETS.map(watched)))
});

/// Events are read as they would be if the whole stream were there and taken apart line by line.
pub fn sse_frame(data: &[u8]) {
    let (cuts, stream) = cuts(data);
    let (mut frames, mut events, mut event) = (Frames::default(), Vec::new(), Vec::new());
    for mut chunk in chunks(cuts, stream) {
        while let Some((piece, rest)) = frames.next(chunk) {
            assert!(chunk.ends_with(rest));
            chunk = rest;
            match piece {
                Piece::Data(data) => event.extend_from_slice(data),
                Piece::DataEnd => event.push(b'\n'),
                Piece::EventEnd => events.push(std::mem::take(&mut event)),
                Piece::Other | Piece::LineFeed => {}
            }
        }
        assert!(chunk.is_empty());
    }
    events.retain(|event| !event.is_empty());
    assert_eq!(events, events_by_lines(stream));
}

/// What the standard says of the data of a stream's whole events.
fn events_by_lines(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut events, mut event, mut line, mut is_after_cr) = (Vec::new(), Vec::new(), Vec::new(), false);
    for byte in stream {
        let is_second = std::mem::replace(&mut is_after_cr, *byte == b'\r') && *byte == b'\n';
        if !matches!(byte, b'\r' | b'\n') {
            line.push(*byte);
        } else if !is_second {
            if let Some(data) = line.strip_prefix(b"data:") {
                event.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
                event.push(b'\n');
            } else if line.is_empty() && !event.is_empty() {
                events.push(std::mem::take(&mut event));
            }
            line.clear();
        }
    }
    events
}

/// The values of valid JSON are those that another parser reads, each at its place; no bytes at all make a fault, and
/// none mean something else where they are cut.
pub fn json_leaves(data: &[u8]) {
    let (cuts, json) = cuts(data);
    let told = leaves(chunks(cuts, json));
    assert_eq!(told, leaves(json.chunks(1)));
    let mut expected = Vec::new();
    let mut parser = serde_json::Deserializer::from_slice(json);
    let parsed = Expected { leaves: &mut expected, place: Seen::ROOT, depth: 0 }.deserialize(&mut parser);
    if parsed.and_then(|()| parser.end()).is_ok() {
        assert_eq!(told, expected);
    }
}

/// What the tokenizer tells of a text that comes in these pieces.
fn leaves<'c>(pieces: impl Iterator<Item = &'c [u8]>) -> Vec<Leaf> {
    let mut seen = Seen::default();
    let mut tokens = Tokens::new::<Seen>();
    for piece in pieces.chain([&b"\n"[..]]) {
        seen.spelled_to = 0;
        seen.chunk = piece.len();
        tokens.feed(piece, &mut seen);
    }
    seen.leaves
}

/// A value and where it stands.
#[derive(Debug, PartialEq)]
enum Leaf {
    String(u64, Vec<u8>),
    Scalar(u64),
}

/// What the tokenizer told.
#[derive(Default)]
struct Seen {
    leaves: Vec<Leaf>,
    text: Vec<u8>,
    chunk: usize,
    spelled_to: usize,
}

impl Leaves for Seen {
    type Place = u64;
    const ROOT: u64 = 1;
    const NOWHERE: u64 = 0;

    fn member(&self, object: u64, key: &[u8]) -> u64 {
        member(object, key)
    }

    fn open(&mut self, place: u64, _container: Container) {
        assert_ne!(place, Self::NOWHERE);
    }

    fn text(&mut self, _place: u64, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn spelled(&mut self, _place: u64, bytes: std::ops::Range<usize>, _is_whole: bool) {
        assert!(self.spelled_to <= bytes.start && bytes.start <= bytes.end && bytes.end <= self.chunk);
        self.spelled_to = bytes.end;
    }

    fn string(&mut self, place: u64, text: Text<'_>) {
        let all = std::mem::take(&mut self.text);
        assert_eq!(all.len() as u64, text.length);
        assert!(text.whole().is_none_or(|whole| whole == all));
        self.leaves.push(Leaf::String(place, without_pairs(&all)));
    }

    fn scalar(&mut self, place: u64, _text: Text<'_>) {
        self.leaves.push(Leaf::Scalar(place));
    }

    fn document_end(&mut self) {}
}

/// Places as numbers; never that of nowhere or of the root.
fn member(object: u64, key: &[u8]) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
    without_pairs(key).into_iter().fold(object ^ 0xcbf2_9ce4_8422_2325, mix).max(2)
}

/// What two escapes of a pair spell is not told apart from other characters of four bytes.
fn without_pairs(text: &[u8]) -> Vec<u8> {
    let (mut text, mut at) = (text.to_vec(), 0);
    while at < text.len() {
        let length = if text[at] >= 0xf0 { 4.min(text.len() - at) } else { 1 };
        if length == 4 {
            text[at..at + 4].fill(b'?');
        }
        at += length;
    }
    text
}

/// The values as serde_json reads them, in their order, keys that come twice included.
struct Expected<'l> {
    leaves: &'l mut Vec<Leaf>,
    place: u64,
    depth: usize,
}

impl Expected<'_> {
    fn push(self, leaf: Leaf) {
        if self.place != Seen::NOWHERE {
            self.leaves.push(leaf);
        }
    }

    fn within(&mut self, place: u64) -> Expected<'_> {
        let place = if self.depth < DEPTH_MAX { place } else { Seen::NOWHERE };
        Expected { leaves: self.leaves, place, depth: self.depth + 1 }
    }
}

impl<'de> DeserializeSeed<'de> for Expected<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Expected<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let leaf = Leaf::String(self.place, without_pairs(text.as_bytes()));
        self.push(leaf);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        let leaf = Leaf::Scalar(self.place);
        self.push(leaf);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let place = self.place;
        while list.next_element_seed(self.within(place))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        let place = self.place;
        while let Some(Key(key)) = object.next_key()? {
            let is_known = place != Seen::NOWHERE && key.len() <= KEY_MAX;
            let place = if is_known { member(place, key.as_bytes()) } else { Seen::NOWHERE };
            object.next_value_seed(self.within(place))?;
        }
        Ok(())
    }
}

struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Key)
    }
}

/// What is found in a stream does not depend on where it is cut. Of a secret that stands in two texts of it, either may be
/// the one that is told of.
pub fn scan_stream(data: &[u8]) {
    let (cuts, stream) = cuts(data);
    let (framing, stream) = answer(stream);
    let whole = pass(framing, false, [&stream[..]].into_iter());
    let parts = pass(framing, false, chunks(cuts, &stream));
    assert_eq!(parts, whole);
    assert_eq!((parts.bytes, parts.is_stopped), (stream, false));
}

/// What is masked has its length, stays JSON where it was some, and holds no secret any more. What is no JSON is read in
/// many ways; as it stands there is no secret in it. What is too scattered to be masked ends the answer.
pub fn mask(data: &[u8]) {
    let (cuts, stream) = cuts(data);
    let (framing, stream) = answer(stream);
    let Got { bytes: got, found, is_stopped } = pass(framing, true, chunks(cuts, &stream));
    for secret in SECRETS {
        assert!(got.windows(secret.len()).all(|part| part != secret.as_bytes()));
    }
    if is_stopped {
        return;
    }
    assert_eq!(got.len(), stream.len());
    // An answer that ends within a secret is masked without that one was found.
    assert!(found.is_empty() || got != stream);
    let is_json = |text: &Vec<u8>| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let (before, after) = (documents(framing, &stream), documents(framing, &got));
    let is_whole = before.iter().all(is_json);
    before.iter().zip(&after).for_each(|(before, after)| assert!(!is_json(before) || is_json(after)));
    if is_whole {
        // Stars count as a word: two halves of a secret with a word between are none, wherever the word comes from.
        let seen: Vec<u8> = got.iter().map(|byte| if *byte == b'*' { b'z' } else { *byte }).collect();
        let left = pass(framing, false, [&seen[..]].into_iter()).found;
        assert!(left.is_empty(), "{left:?} in {}", String::from_utf8_lossy(&got));
    }
}

/// The JSON texts of an answer.
fn documents(framing: Option<Framing>, answer: &[u8]) -> Vec<Vec<u8>> {
    match framing {
        Some(Framing::Sse) => events_by_lines(answer),
        Some(Framing::Ndjson) => answer.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect(),
        Some(Framing::Json) => vec![answer.to_vec()],
        None => Vec::new(),
    }
}

/// What the caller gets of an answer, what was found in it, and whether it was ended.
#[derive(Debug, Default, PartialEq)]
struct Got {
    bytes: Vec<u8>,
    found: Vec<String>,
    is_stopped: bool,
}

fn pass<'c>(framing: Option<Framing>, enforces: bool, chunks: impl Iterator<Item = &'c [u8]>) -> Got {
    let mut fence = Fence::new(WATCH.clone(), framing, enforces, false);
    let mut got = Got::default();
    let mut take = |passed: Passed| {
        got.bytes.extend_from_slice(&passed.bytes.unwrap_or_default());
        got.found.extend(passed.findings.into_iter().map(|finding| finding.watched.to_string()));
        got.is_stopped |= passed.must_stop;
    };
    chunks.for_each(|chunk| take(fence.pass(Some(Bytes::copy_from_slice(chunk)), false)));
    take(fence.pass(None, true));
    got.found.sort();
    got
}

/// The framing of an answer, and the answer. A fuzzer does not come upon a secret; so some bytes stand for one, or for a
/// part or another form of it.
fn answer(data: &[u8]) -> (Option<Framing>, Vec<u8>) {
    let (kind, data) = data.split_first().unwrap_or((&0, &[]));
    let framing = match kind % 4 {
        0 => Some(Framing::Sse),
        1 => Some(Framing::Ndjson),
        2 => Some(Framing::Json),
        _ => None,
    };
    let secret = SECRETS[usize::from(kind >> 2 & 1)];
    let (left, right) = secret.split_at(secret.len() / 2);
    let each = |write: fn(u8) -> String| secret.bytes().map(write).collect::<String>().into_bytes();
    let mut answer = Vec::new();
    for byte in data {
        match byte {
            1 => answer.extend_from_slice(secret.as_bytes()),
            2 => answer.extend_from_slice(left.as_bytes()),
            3 => answer.extend_from_slice(right.as_bytes()),
            4 => answer.extend(each(|byte| format!("{byte:02x}"))),
            5 => answer.extend(each(|byte| format!("%{byte:02X}"))),
            6 => answer.extend(each(|byte| format!("\\u{byte:04x}"))),
            7 => answer.extend(each(|byte| format!("\\\\u{byte:04x}"))),
            8 => answer.extend(each(|byte| format!("&#{byte};"))),
            other => answer.push(*other),
        }
    }
    answer.truncate(BYTES_MAX);
    (framing, answer)
}
