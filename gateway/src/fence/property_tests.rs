//! Any secret, written in any listed way, in any place of an answer in any framing, its words cut into any events and
//! its bytes into any chunks: it is found, and the caller does not get it.
//!
//! `TOKFENCE_TEST_CASES` sets how many cases are tried, of which there are ten thousand otherwise; proptest prints what
//! fails, and tries it first the next time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::*;
use crate::fence::Watched;

const SHAPES: [(&str, usize); 8] = [
    ("sk-proj-", 48),
    ("sk-ant-api03-", 93),
    ("AIza", 35),
    ("gsk_", 52),
    ("sk-or-v1-", 64),
    ("hf_", 34),
    ("", 32),
    ("xai-", 20),
];

/// Secrets of every shape, alike in every run, and the list that looks for them.
static SECRETS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut seed = 7u64;
    let mut letter = |_: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        char::from(letters[usize::try_from(seed >> 33).unwrap() % letters.len()])
    };
    let shapes = SHAPES.iter().cycle().take(32);
    shapes
        .map(|(head, length)| format!("{head}{}", (0..*length).map(&mut letter).collect::<String>()))
        .collect()
});
static WATCH: LazyLock<Arc<Watch>> = LazyLock::new(|| {
    let key =
        |secret: &'static String| (Watched::Key { provider: secret[..2].to_owned() }, secret.as_bytes());
    Arc::new(Watch::new(SECRETS.iter().map(key)))
});

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Plain,
    Reversed,
    HexLower,
    HexUpper,
    Base64,
    Base64Url,
    Rot13,
    Percent,
    Html,
    Escaped,
    Spaced,
    Invisible,
    FullWidth,
}

const ENCODINGS: [Encoding; 13] = [
    Encoding::Plain,
    Encoding::Reversed,
    Encoding::HexLower,
    Encoding::HexUpper,
    Encoding::Base64,
    Encoding::Base64Url,
    Encoding::Rot13,
    Encoding::Percent,
    Encoding::Html,
    Encoding::Escaped,
    Encoding::Spaced,
    Encoding::Invisible,
    Encoding::FullWidth,
];

#[derive(Clone, Copy, Debug)]
enum Frame {
    Chat,
    Responses,
    Anthropic,
    ToolArguments,
    Gemini,
    GeminiList,
    Ollama,
    Unknown,
    Document,
    Text,
}

const FRAMES: [Frame; 10] = [
    Frame::Chat,
    Frame::Responses,
    Frame::Anthropic,
    Frame::ToolArguments,
    Frame::Gemini,
    Frame::GeminiList,
    Frame::Ollama,
    Frame::Unknown,
    Frame::Document,
    Frame::Text,
];

fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let sextet = |bits: &[u8]| (0..6).fold(0, |sextet, at| sextet << 1 | bits.get(at).copied().unwrap_or(0));
    bits.chunks(6).map(|bits| char::from(alphabet[usize::from(sextet(bits))])).collect()
}

impl Encoding {
    /// A text that says `before`, the secret and `after`.
    fn write(self, secret: &str, before: &str, after: &str) -> String {
        const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let each = |write: &dyn Fn(char) -> String| -> String { secret.chars().map(write).collect() };
        let rot13 = |char: char| match char {
            'a'..='m' | 'A'..='M' => char::from_u32(char as u32 + 13).unwrap(),
            'n'..='z' | 'N'..='Z' => char::from_u32(char as u32 - 13).unwrap(),
            other => other,
        };
        let written = match self {
            Self::Plain => secret.to_owned(),
            Self::Reversed => secret.chars().rev().collect(),
            Self::HexLower => each(&|char| format!("{:02x}", char as u32)),
            Self::HexUpper => each(&|char| format!("{:02X}", char as u32)),
            // What stands around it is encoded with it.
            Self::Base64 => return base64(format!("{before}{secret}{after}").as_bytes(), STANDARD),
            Self::Base64Url => return base64(format!("{before}{secret}{after}").as_bytes(), FOR_URLS),
            Self::Rot13 => each(&|char| rot13(char).to_string()),
            Self::Percent => each(&|char| format!("%{:02X}", char as u32)),
            Self::Html => each(&|char| format!("&#{};", char as u32)),
            Self::Escaped => each(&|char| format!("\\u{:04x}", char as u32)),
            Self::Spaced => each(&|char| format!("{char} ")),
            Self::Invisible => each(&|char| format!("{char}\u{200b}")),
            Self::FullWidth => each(&|char| char::from_u32(char as u32 + 0xfee0).unwrap().to_string()),
        };
        format!("{before} {written} {after}")
    }

    /// What the caller can read of the secret in this text.
    fn read(self, text: &str) -> String {
        let list = |pattern: &str, base| {
            let parts = text.split(pattern).skip(1).filter_map(move |part| {
                let digits: String = part.chars().take(4).take_while(|char| char.is_digit(base)).collect();
                let digits = if pattern == "%" { digits.get(..2)? } else { digits.as_str() };
                char::from_u32(u32::from_str_radix(digits, base).ok()?)
            });
            parts.collect()
        };
        match self {
            Self::Percent => list("%", 16),
            Self::Html => list("&#", 10),
            Self::Escaped => list("\\u", 16),
            Self::Spaced => text.replace(' ', ""),
            Self::Invisible => text.replace('\u{200b}', ""),
            Self::FullWidth => text
                .chars()
                .map(|char| char::from_u32((char as u32).wrapping_sub(0xfee0)).unwrap_or(char))
                .collect(),
            _ => text.to_owned(),
        }
    }

    /// How the secret looks in what [`Encoding::read`] reads.
    fn look(self, secret: &str) -> String {
        match self {
            Self::Percent | Self::Html | Self::Escaped | Self::Spaced | Self::Invisible | Self::FullWidth => {
                secret.to_owned()
            }
            Self::Base64 | Self::Base64Url => self.write(secret, "", ""),
            _ => self.write(secret, "", "").trim().to_owned(),
        }
    }
}

impl Frame {
    fn framing(self) -> Option<Framing> {
        match self {
            Self::Ollama => Some(Framing::Ndjson),
            Self::GeminiList | Self::Document => Some(Framing::Json),
            Self::Text => None,
            _ => Some(Framing::Sse),
        }
    }

    /// An answer that says these pieces one after the other.
    fn write(self, pieces: &[String]) -> String {
        let data = |event: Value| format!("data: {event}\n\n");
        let event = |piece: &String| match self {
            Self::Chat => {
                data(json!({ "id": "c1", "choices": [{ "index": 0, "delta": { "content": piece } }] }))
            }
            Self::Responses => data(
                json!({ "type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0, "delta": piece }),
            ),
            Self::Anthropic => format!(
                "event: content_block_delta\n{}",
                data(
                    json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "text_delta", "text": piece } })
                )
            ),
            Self::ToolArguments => data(
                json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 2, "function": { "arguments": piece } }] } }] }),
            ),
            Self::Gemini => {
                data(json!({ "candidates": [{ "content": { "parts": [{ "text": piece }] }, "index": 0 }] }))
            }
            Self::GeminiList => {
                json!({ "candidates": [{ "content": { "parts": [{ "text": piece }] }, "index": 0 }] })
                    .to_string()
            }
            Self::Ollama => {
                format!("{}\n", json!({ "model": "m", "message": { "content": piece }, "done": false }))
            }
            Self::Unknown => data(json!({ "outer": [[{ "deep": { "words": piece } }]], "n": 1 })),
            Self::Document | Self::Text => piece.clone(),
        };
        match self {
            Self::GeminiList => format!("[{}]", pieces.iter().map(event).collect::<Vec<_>>().join(",\r\n")),
            Self::Document => {
                json!({ "id": "x", "choices": [{ "message": { "content": pieces.concat() } }] }).to_string()
            }
            _ => pieces.iter().map(event).collect(),
        }
    }

    /// What an answer says.
    fn read(self, answer: &str) -> String {
        let words = |event: &str| {
            let mut words = Vec::new();
            let value = serde_json::from_str(event).unwrap_or_else(|error| panic!("{error}: {event}"));
            leaves(&value, "", &mut |path, text| {
                if ["content", "text", "delta", "arguments", "words"].iter().any(|key| path.ends_with(key)) {
                    words.push(text.to_owned());
                }
            });
            words.concat()
        };
        match self.framing() {
            None => answer.to_owned(),
            Some(Framing::Json) => words(answer),
            Some(Framing::Ndjson) => answer.lines().map(words).collect(),
            Some(Framing::Sse) => {
                answer.lines().filter_map(|line| line.strip_prefix("data: ")).map(words).collect()
            }
        }
    }
}

/// Every text of a document, with the keys that lead to it.
fn leaves(value: &Value, path: &str, out: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) => out(path, text),
        Value::Array(list) => list.iter().for_each(|value| leaves(value, path, out)),
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| leaves(value, &format!("{path}/{key}"), out));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text in pieces, cut between characters at these places.
fn pieces(text: &str, cuts: &[Index]) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    parts(&letters, cuts).into_iter().map(|piece| piece.iter().collect()).collect()
}

fn parts<'a, T>(whole: &'a [T], cuts: &[Index]) -> Vec<&'a [T]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
    places.extend([0, whole.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect()
}

/// What the caller gets of an answer in these chunks, and what was found.
fn pass(framing: Option<Framing>, chunks: &[&[u8]]) -> (String, Vec<Arc<Watched>>) {
    let mut fence = Fence::new(WATCH.clone(), framing, true, false);
    let (mut got, mut found) = (Vec::new(), Vec::new());
    for (at, chunk) in chunks.iter().enumerate() {
        let passed = fence.pass(Some(Bytes::copy_from_slice(chunk)), at + 1 == chunks.len());
        got.extend_from_slice(&passed.bytes.unwrap_or_default());
        found.extend(passed.findings.into_iter().map(|finding| finding.watched));
    }
    (String::from_utf8(got).unwrap(), found)
}

fn cases() -> u32 {
    std::env::var("TOKFENCE_TEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_secret_is_found_and_not_told(
        secret in 0..SECRETS.len(),
        encoding in select(&ENCODINGS),
        frame in select(&FRAMES),
        before in "[ -~é\u{200d}]{0,30}",
        after in "[ -~é]{0,30}",
        deltas in proptest::collection::vec(any::<Index>(), 0..24),
        chunks in proptest::collection::vec(any::<Index>(), 0..12),
    ) {
        let secret = &SECRETS[secret];
        let said = encoding.write(secret, &before, &after);
        let answer = frame.write(&pieces(&said, &deltas));
        let (got, found) = pass(frame.framing(), &parts(answer.as_bytes(), &chunks));
        let expected = Watched::Key { provider: secret[..2].to_owned() };
        prop_assert!(found.iter().any(|found| **found == expected), "not found in {answer}");
        prop_assert_eq!(got.len(), answer.len());
        let (seen, look) = (encoding.read(&frame.read(&got)), encoding.look(secret));
        let told = look.as_bytes().windows(16).any(|window| seen.contains(std::str::from_utf8(window).unwrap()));
        prop_assert!(!told, "told: {}", got);
    }

    /// What a stream is found to say is what it is found to say when it is put together first.
    #[test]
    fn a_stream_is_scanned_as_if_it_had_been_put_together(
        words in proptest::collection::vec((0usize..3, select(&FRAMES[..4]), any::<Index>(), 4usize..60), 1..12),
        chunks in proptest::collection::vec(any::<Index>(), 0..8),
    ) {
        let mut texts: BTreeMap<(usize, &str), String> = BTreeMap::new();
        let mut stream = String::new();
        for (index, frame, secret, length) in &words {
            // Beginnings and ends of secrets, which together are one or are none.
            let secret = secret.get(&SECRETS);
            let half = secret.len() / 2;
            let piece = if index % 2 == 0 { &secret[..half] } else { &secret[half..] };
            let piece = &piece[..piece.len().min(*length)];
            let event = match frame {
                Frame::Anthropic => json!({ "index": index, "delta": { "text": piece } }),
                Frame::Responses => json!({ "output_index": index / 2, "item_id": "a", "delta": piece }),
                _ => json!({ "choices": [{ "index": index / 2, "delta": { "content": piece } }] }),
            };
            let (name, at) = match frame {
                Frame::Anthropic => ("text", *index),
                Frame::Responses => ("delta", index / 2),
                _ => ("content", index / 2),
            };
            texts.entry((at, name)).or_default().push_str(piece);
            stream.push_str(&format!("data: {event}\n\n"));
        }
        let whole = texts.values().flat_map(|text| WATCH.find(text.as_bytes()));
        let mut expected: Vec<String> = whole.map(|finding| finding.watched.to_string()).collect();
        let (_, found) = pass(Some(Framing::Sse), &parts(stream.as_bytes(), &chunks));
        let mut found: Vec<String> = found.iter().map(ToString::to_string).collect();
        expected.sort();
        expected.dedup();
        found.sort();
        found.dedup();
        prop_assert_eq!(found, expected, "{}", stream);
    }
}
