//! How canaries are made: from given random bytes, in the shapes by which thieves and their tools know a key.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// How a mark in a prompt begins.
pub(super) const PROMPT_PREFIX: &str = "tkc-";
const PROMPT_CHARS: usize = 26;
/// Stands between the two halves of a pair; in no half of one.
const PAIR_SEPARATOR: char = ':';

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const FOR_URLS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const STANDARD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8] = b"0123456789abcdef";
const UPPER_BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const LOWER_BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Whose keys a decoy looks like. The shapes are those of the public rules of gitleaks (read 2026-11-25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DecoyShape {
    /// A key of an OpenAI project.
    OpenAi,
    /// A key of Anthropic's API.
    Anthropic,
    /// A key of Google's APIs.
    Google,
    /// A key of Groq.
    Groq,
    /// A key of OpenRouter.
    OpenRouter,
    /// A token of Hugging Face.
    HuggingFace,
    /// The id of a key of AWS and the key, with `:` between.
    Aws,
    /// A personal token of GitHub.
    GitHub,
}

/// Text that names no shape of a decoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a decoy is like one of openai, anthropic, google, groq, openrouter, huggingface, aws, github")]
pub struct UnknownDecoyShape;

impl DecoyShape {
    /// Every shape, in the order they are shown.
    pub const ALL: [Self; 8] = [
        Self::OpenAi,
        Self::Anthropic,
        Self::Google,
        Self::Groq,
        Self::OpenRouter,
        Self::HuggingFace,
        Self::Aws,
        Self::GitHub,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Groq => "groq",
            Self::OpenRouter => "openrouter",
            Self::HuggingFace => "huggingface",
            Self::Aws => "aws",
            Self::GitHub => "github",
        }
    }

    /// How every key of this shape begins.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::OpenAi => "sk-proj-",
            Self::Anthropic => "sk-ant-api03-",
            Self::Google => "AIza",
            Self::Groq => "gsk_",
            Self::OpenRouter => "sk-or-v1-",
            Self::HuggingFace => "hf_",
            Self::Aws => "AKIA",
            Self::GitHub => "ghp_",
        }
    }

    /// The variables under which a decoy of this shape is believable and which no SDK reads, one for each half of a
    /// pair.
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Self::OpenAi => &["OPENAI_API_KEY_BACKUP"],
            Self::Anthropic => &["ANTHROPIC_API_KEY_BACKUP"],
            Self::Google => &["GEMINI_API_KEY_BACKUP"],
            Self::Groq => &["GROQ_API_KEY_BACKUP"],
            Self::OpenRouter => &["OPENROUTER_API_KEY_BACKUP"],
            Self::HuggingFace => &["HF_TOKEN_BACKUP"],
            Self::Aws => &["AWS_ACCESS_KEY_ID_BACKUP", "AWS_SECRET_ACCESS_KEY_BACKUP"],
            Self::GitHub => &["GITHUB_TOKEN_BACKUP"],
        }
    }
}

/// A key that looks real and opens nothing, from fresh random bytes.
pub fn decoy(shape: DecoyShape, random: [u8; 32]) -> String {
    let mut draw = Draw::new(random);
    let prefix = shape.prefix();
    match shape {
        // Scanners want a letter or a digit at the end.
        DecoyShape::OpenAi => {
            let (head, tail, last) = (draw.text(FOR_URLS, 74), draw.text(FOR_URLS, 73), draw.text(BASE62, 1));
            format!("{prefix}{head}T3BlbkFJ{tail}{last}")
        }
        DecoyShape::Anthropic => format!("{prefix}{}AA", draw.text(FOR_URLS, 93)),
        // All keys in use go on with `Sy`.
        DecoyShape::Google => format!("{prefix}Sy{}{}", draw.text(FOR_URLS, 32), draw.text(BASE62, 1)),
        // Real ones have a mark in the middle as well.
        DecoyShape::Groq => format!("{prefix}{}WGdyb3FY{}", draw.text(BASE62, 20), draw.text(BASE62, 24)),
        DecoyShape::OpenRouter => format!("{prefix}{}", draw.text(HEX, 64)),
        DecoyShape::HuggingFace => format!("{prefix}{}", draw.text(LETTERS, 34)),
        DecoyShape::Aws => {
            format!("{prefix}{}{PAIR_SEPARATOR}{}", draw.text(UPPER_BASE32, 16), draw.text(STANDARD, 40))
        }
        DecoyShape::GitHub => format!("{prefix}{}", draw.text(BASE62, 36)),
    }
}

/// The mark for a system prompt, from fresh random bytes: it looks like the number of a document.
pub fn prompt_mark(random: [u8; 32]) -> String {
    format!("{PROMPT_PREFIX}{}", Draw::new(random).text(LOWER_BASE32, PROMPT_CHARS))
}

/// The halves of a pair, or the whole.
pub(super) fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split(PAIR_SEPARATOR)
}

/// Characters drawn evenly from what 32 random bytes are stretched to.
struct Draw {
    seed: [u8; 32],
    blocks: u32,
    bytes: std::vec::IntoIter<u8>,
}

impl Draw {
    fn new(seed: [u8; 32]) -> Self {
        Self { seed, blocks: 0, bytes: Vec::new().into_iter() }
    }

    fn text(&mut self, alphabet: &[u8], chars: usize) -> String {
        (0..chars).map(|_| self.char(alphabet)).collect()
    }

    fn char(&mut self, alphabet: &[u8]) -> char {
        // Above the last whole turn through the alphabet its first characters would come too often.
        let even = 256 - 256 % alphabet.len();
        loop {
            let byte = usize::from(self.byte());
            if byte < even {
                return char::from(alphabet[byte % alphabet.len()]);
            }
        }
    }

    fn byte(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.bytes.next() {
                return byte;
            }
            let block = Sha256::new().chain_update(self.seed).chain_update(self.blocks.to_be_bytes());
            self.bytes = block.finalize().to_vec().into_iter();
            self.blocks += 1;
        }
    }
}

impl fmt::Display for DecoyShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DecoyShape {
    type Err = UnknownDecoyShape;

    fn from_str(text: &str) -> Result<Self, UnknownDecoyShape> {
        Self::ALL.into_iter().find(|shape| shape.as_str() == text).ok_or(UnknownDecoyShape)
    }
}
