//! Hot: text that looks like somebody's secret, although nobody told us of it.
//!
//! Each kind of key is known by how it begins; a few hand-written rules then look at what follows, at most a few hundred
//! bytes of it, so that no text takes longer than another. The shapes are those of the public rules of gitleaks and
//! kingfisher (read 2026-11-25), a little stricter: a key stands by itself and has its exact length.
//!
//! What only stands for a key is none. Documentation and tests are full of `sk-xxxxxxxx`, of `AKIAIOSFODNN7EXAMPLE` and
//! of keys typed along the keyboard's rows. See [`is_dummy`] for how they are told apart.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::TokenRef;
use crate::token::TOKEN_LEN;

/// Whose secret a text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// A key of a project at OpenAI.
    OpenAiProject,
    /// A key of a service account at OpenAI.
    OpenAiServiceAccount,
    /// A key with which an organization at OpenAI is run.
    OpenAiAdmin,
    /// A key of OpenAI as they were before there were projects.
    OpenAiLegacy,
    /// A key of Anthropic's API.
    Anthropic,
    /// A key with which an organization at Anthropic is run.
    AnthropicAdmin,
    /// A key of Google's APIs.
    Google,
    /// A key of Groq.
    Groq,
    /// A key of OpenRouter.
    OpenRouter,
    /// A token of Hugging Face.
    HuggingFace,
    /// A classic personal token of GitHub.
    GitHubPersonal,
    /// A token that GitHub gave to an application for a user.
    GitHubOAuth,
    /// A token of an application at GitHub, as its workflows have.
    GitHubApp,
    /// A personal token of GitHub for some repositories.
    GitHubFineGrained,
    /// The id of an access key of AWS; the key itself looks like any base64.
    AwsKeyId,
    /// A token of Slack.
    Slack,
    /// A key of Stripe for real money.
    StripeLive,
    /// A private key in PEM, not encrypted.
    PrivateKey,
    /// A capability of tokfence, its checksum included.
    Capability,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 19] = [
        Self::OpenAiProject,
        Self::OpenAiServiceAccount,
        Self::OpenAiAdmin,
        Self::OpenAiLegacy,
        Self::Anthropic,
        Self::AnthropicAdmin,
        Self::Google,
        Self::Groq,
        Self::OpenRouter,
        Self::HuggingFace,
        Self::GitHubPersonal,
        Self::GitHubOAuth,
        Self::GitHubApp,
        Self::GitHubFineGrained,
        Self::AwsKeyId,
        Self::Slack,
        Self::StripeLive,
        Self::PrivateKey,
        Self::Capability,
    ];

    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiProject => "openai_project",
            Self::OpenAiServiceAccount => "openai_service_account",
            Self::OpenAiAdmin => "openai_admin",
            Self::OpenAiLegacy => "openai_legacy",
            Self::Anthropic => "anthropic",
            Self::AnthropicAdmin => "anthropic_admin",
            Self::Google => "google",
            Self::Groq => "groq",
            Self::OpenRouter => "openrouter",
            Self::HuggingFace => "huggingface",
            Self::GitHubPersonal => "github_personal",
            Self::GitHubOAuth => "github_oauth",
            Self::GitHubApp => "github_app",
            Self::GitHubFineGrained => "github_fine_grained",
            Self::AwsKeyId => "aws_key_id",
            Self::Slack => "slack",
            Self::StripeLive => "stripe_live",
            Self::PrivateKey => "private_key",
            Self::Capability => "capability",
        }
    }
}

/// Calls `on` for all of `text` that looks like a secret, with where it begins. The text may be JSON or percent-encoded:
/// what stands before a key may be an escape.
pub fn shapes(text: &[u8], mut on: impl FnMut(Shape, usize)) {
    for found in LITERALS.find_iter(text) {
        let rule = &RULES[found.pattern().as_usize()];
        let Some(start) = found.start().checked_sub(rule.before()) else { continue };
        if stands_alone(&text[..start]) && rule.holds(&text[start..found.start()], &text[found.end()..]) {
            on(rule.shape, start);
        }
    }
}

/// How a kind of key is known.
struct Rule {
    shape: Shape,
    /// What every key of this shape has, most often at its beginning.
    literal: &'static str,
    body: Body,
}

/// What stands after the literal.
enum Body {
    /// So many characters, no fewer and no more.
    Run(Alphabet, usize, usize),
    /// OpenAI's: `T3BlbkFJ`, which is `OpenAI` in base64, in the middle of what is random.
    Marked,
    /// The same mark is the literal, and as much is before it as after it.
    AroundMark,
    /// Anthropic's: 93 characters and `AA`.
    EndsInAA,
    /// Slack's: two or three numbers, then what is random.
    Numbered,
    /// The rest of the first line of a PEM text, and the beginning of what it holds.
    Pem,
    /// The rest of a capability.
    Checksummed,
}

#[derive(Clone, Copy)]
enum Alphabet {
    /// Letters of both cases and digits.
    Base62,
    Word,
    WordOrDash,
    Hex,
    Base32,
}

const MARK: &str = "T3BlbkFJ";
/// The characters of an old key of OpenAI on either side of the mark.
const LEGACY_HALF: usize = 20;
/// Newer ones have 58 or 74; what is fewer than on either side of the mark of an old key is none.
const MARKED_MAX: usize = 200;
/// Of a private key so much is looked at.
const PEM_BYTES: usize = 40;
const PEM_LABEL_MAX: usize = 40;
/// Whether a text is random is judged by its first bytes, and by no more.
const JUDGED_BYTES: usize = 64;

const RULES: [Rule; 28] = {
    use Alphabet::{Base32, Base62, Hex, Word, WordOrDash};
    use Body::{AroundMark, Checksummed, EndsInAA, Marked, Numbered, Pem, Run};
    const fn rule(shape: Shape, literal: &'static str, body: Body) -> Rule {
        Rule { shape, literal, body }
    }
    [
        rule(Shape::OpenAiProject, "sk-proj-", Marked),
        rule(Shape::OpenAiServiceAccount, "sk-svcacct-", Marked),
        rule(Shape::OpenAiAdmin, "sk-admin-", Marked),
        rule(Shape::OpenAiLegacy, MARK, AroundMark),
        rule(Shape::Anthropic, "sk-ant-api03-", EndsInAA),
        rule(Shape::AnthropicAdmin, "sk-ant-admin01-", EndsInAA),
        rule(Shape::Google, "AIza", Run(WordOrDash, 35, 35)),
        rule(Shape::Groq, "gsk_", Run(Base62, 52, 52)),
        rule(Shape::OpenRouter, "sk-or-v1-", Run(Hex, 64, 64)),
        rule(Shape::HuggingFace, "hf_", Run(Base62, 34, 34)),
        rule(Shape::GitHubPersonal, "ghp_", Run(Base62, 36, 251)),
        rule(Shape::GitHubOAuth, "gho_", Run(Base62, 36, 251)),
        rule(Shape::GitHubApp, "ghs_", Run(Base62, 36, 251)),
        rule(Shape::GitHubApp, "ghu_", Run(Base62, 36, 251)),
        rule(Shape::GitHubApp, "ghr_", Run(Base62, 36, 251)),
        rule(Shape::GitHubFineGrained, "github_pat_", Run(Word, 82, 82)),
        rule(Shape::AwsKeyId, "AKIA", Run(Base32, 16, 16)),
        rule(Shape::AwsKeyId, "ASIA", Run(Base32, 16, 16)),
        rule(Shape::Slack, "xoxb-", Numbered),
        rule(Shape::Slack, "xoxp-", Numbered),
        rule(Shape::Slack, "xoxa-", Numbered),
        rule(Shape::Slack, "xoxe-", Numbered),
        rule(Shape::Slack, "xoxr-", Numbered),
        rule(Shape::Slack, "xoxs-", Numbered),
        rule(Shape::StripeLive, "sk_live_", Run(Base62, 24, 128)),
        rule(Shape::StripeLive, "rk_live_", Run(Base62, 24, 128)),
        rule(Shape::PrivateKey, "-----BEGIN ", Pem),
        rule(Shape::Capability, "tfk_", Checksummed),
    ]
};

static LITERALS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .match_kind(MatchKind::LeftmostFirst)
        .build(RULES.iter().map(|rule| rule.literal))
        .expect("an automaton of a few short literals is small")
});

impl Rule {
    /// How much of a key stands before its literal.
    fn before(&self) -> usize {
        if let Body::AroundMark = self.body { "sk-".len() + LEGACY_HALF } else { 0 }
    }

    /// Whether this, on both sides of the literal, is a key.
    fn holds(&self, before: &[u8], after: &[u8]) -> bool {
        match self.body {
            Body::Run(alphabet, min, max) => {
                word(after, max).is_some_and(|run| run.len() >= min && alphabet.spells(run) && !is_dummy(run))
            }
            Body::Marked => word(after, MARKED_MAX).is_some_and(is_marked),
            Body::AroundMark => word(after, LEGACY_HALF)
                .is_some_and(|after| before.starts_with(b"sk-") && is_pair(&before["sk-".len()..], after)),
            Body::EndsInAA => {
                word(after, 95).is_some_and(|run| run.len() == 95 && run.ends_with(b"AA") && !is_dummy(run))
            }
            Body::Numbered => word(after, 100).is_some_and(is_numbered),
            Body::Pem => is_private_key(after),
            Body::Checksummed => is_capability(self.literal, after),
        }
    }
}

impl Alphabet {
    /// Whether a key of this alphabet may be `run`. A name in a program is all small or all capital letters.
    fn spells(self, run: &[u8]) -> bool {
        let is_mixed = || run.iter().any(u8::is_ascii_uppercase) && run.iter().any(u8::is_ascii_lowercase);
        run.iter().all(|byte| self.has(*byte)) && (!matches!(self, Self::Base62) || is_mixed())
    }

    fn has(self, byte: u8) -> bool {
        match self {
            Self::Base62 => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::WordOrDash => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            Self::Base32 => matches!(byte, b'A'..=b'Z' | b'2'..=b'7'),
        }
    }
}

/// Whether a word can begin after `before`: it ends with no letter, digit or `_`, unless that is the end of an escape. One
/// dash may be between, as in a diff. So one word has one beginning, and is looked at once.
fn stands_alone(before: &[u8]) -> bool {
    match before {
        [rest @ .., b'-'] => !rest.ends_with(b"-") && stands_alone(rest),
        [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f'] => true,
        [.., b'\\', b'u', a, b, c, d] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => true,
        [.., b'%', a, b] if [a, b].iter().all(|digit| digit.is_ascii_hexdigit()) => true,
        [.., last] => !Alphabet::Word.has(*last),
        [] => true,
    }
}

/// The letters, digits, `_` and `-` with which `text` begins, unless they are more than `max`.
fn word(text: &[u8], max: usize) -> Option<&[u8]> {
    let text = &text[..text.len().min(max + 1)];
    let length = text.iter().take_while(|byte| Alphabet::WordOrDash.has(**byte)).count();
    (length <= max).then(|| &text[..length])
}

fn is_marked(run: &[u8]) -> bool {
    let mut parts = run.windows(MARK.len());
    let Some(at) = parts.position(|part| part == MARK.as_bytes()) else { return false };
    let (before, after) = (&run[..at], &run[at + MARK.len()..]);
    before.len().min(after.len()) >= LEGACY_HALF && !is_dummy(before) && !is_dummy(after)
}

fn is_pair(before: &[u8], after: &[u8]) -> bool {
    let is_half = |half: &[u8]| {
        half.len() == LEGACY_HALF && half.iter().all(u8::is_ascii_alphanumeric) && !is_dummy(half)
    };
    is_half(before) && is_half(after)
}

fn is_numbered(run: &[u8]) -> bool {
    let parts: Vec<&[u8]> = run.split(|byte| *byte == b'-').collect();
    let Some((random, numbers)) = parts.split_last() else { return false };
    let is_number = |part: &&[u8]| matches!(part.len(), 10..=13) && part.iter().all(u8::is_ascii_digit);
    matches!(numbers.len(), 2 | 3)
        && numbers.iter().all(is_number)
        && matches!(random.len(), 24..=40)
        && random.iter().all(u8::is_ascii_alphanumeric)
        && !is_dummy(random)
}

/// The rest of a line such as `-----BEGIN RSA PRIVATE KEY-----`, and after it base64, not dots and not nothing. The
/// line end may be written in any way.
fn is_private_key(after: &[u8]) -> bool {
    let head = &after[..after.len().min(PEM_LABEL_MAX)];
    let Some(end) = head.windows(5).position(|part| part == b"-----") else { return false };
    let label = &head[..end];
    if !(label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK")) {
        return false;
    }
    let rest = &after[end + 5..];
    let mut begin = 0;
    while begin < 16 {
        begin += match rest.get(begin..).unwrap_or_default() {
            [b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'\'' | b'+' | b'\\', ..] => 1,
            [b'n' | b'r', ..] if begin > 0 && rest[begin - 1] == b'\\' => 1,
            _ => break,
        };
    }
    let Some(key) = rest.get(begin..begin + PEM_BYTES) else { return false };
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    key.iter().all(is_base64) && different(key) >= 8
}

fn is_capability(prefix: &str, after: &[u8]) -> bool {
    let rest = after.get(..TOKEN_LEN - prefix.len()).and_then(|rest| std::str::from_utf8(rest).ok());
    rest.is_some_and(|rest| TokenRef::parse(&format!("{prefix}{rest}")).is_ok())
}

/// Words by which people say that a key is none. Shorter ones would also be drawn by chance.
const DUMMY_WORDS: [&[u8]; 4] = [b"EXAMPLE", b"REDACTED", b"PLACEHOLDER", b"CHANGEME"];

/// Whether the random part of a key is none: it says so, or more than half of it is foretold by what is before it.
///
/// Foretold is a character that is the same as the one before it or next to it in the alphabet, as in `xxxx`, `0123` and
/// `fedc`, or one that goes on as the same two characters did before, as in `testtest` and `deadbeefdeadbeef`. In random
/// characters of the smallest alphabet here, hexadecimal digits, that is less than a fifth, and half of it does not come
/// up by chance once in a million keys; what people type is nearly all foretold.
pub fn is_dummy(random: &[u8]) -> bool {
    let says_so = |word: &&[u8]| random.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    let judged = &random[..random.len().min(JUDGED_BYTES)];
    let near = judged.windows(2).map(|pair| pair[0].abs_diff(pair[1]) <= 1);
    // Three characters that came before are the same bit; others seldom are.
    let mut seen = [0u64; 64];
    let again = judged.windows(3).map(|part| {
        let hash = part.iter().fold(0, |hash, byte| hash * 37 + usize::from(*byte)) % 4096;
        let is_seen = seen[hash / 64] >> (hash % 64) & 1 == 1;
        seen[hash / 64] |= 1 << (hash % 64);
        is_seen
    });
    let foretold =
        near.zip(std::iter::once(false).chain(again)).filter(|(near, again)| *near || *again).count();
    foretold * 2 > judged.len() || DUMMY_WORDS.iter().any(says_so)
}

fn different(text: &[u8]) -> usize {
    let mut letters = text.to_vec();
    letters.sort_unstable();
    letters.dedup();
    letters.len()
}

#[cfg(test)]
#[path = "shapes_tests.rs"]
mod tests;
