//! Hot: a strict pull scanner for JSON text that is all there, such as a request body.
//!
//! It builds no tree and allocates nothing: the caller asks for the next value, takes it or skips it, and gets
//! positions in the text. It is stricter than RFC 8259 asks for. What JSON parsers are known to read in
//! different ways (lone surrogates, numbers beyond a double, repeated keys, deep nesting) is refused, because
//! the provider's parser is not ours, and a decision must be about the text that the provider will see.

use std::ops::Range;

use super::contents::{Contents, Watch};

/// Containers within containers; the body itself is the first.
pub(crate) const DEPTH_MAX: usize = 64;

/// Members of an object whose keys are compared; real requests have about twenty.
pub(crate) const KEYS_MAX: usize = 128;

/// Where the FNV-1a hash of nothing stands.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Integers with fewer digits than this always fit in a double.
const DIGITS_SURELY_FINITE: usize = 300;

/// What the text did wrong, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Syntax,
    TooDeep,
    Trailing,
    Duplicate,
    TooManyKeys,
}

/// The kind of the next value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// A position in a text, moving forward.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Escapes in strings so far.
    escapes: usize,
    watch: Watch<'a>,
}

/// The keys seen in one object, as hashes of their unescaped characters. Two different keys with one hash refuse
/// a valid body, once in 2⁶⁴; two equal keys always have one hash.
#[derive(Debug)]
struct Seen {
    hashes: [u64; KEYS_MAX],
    count: usize,
}

/// The text between the quotes of a string that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted<'a>(&'a str);

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, escapes: 0, watch: Watch::new() }
    }

    /// Where the next value starts or the last one ended.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The kind of the next value, which starts at [`Self::at`] afterwards.
    pub(crate) fn kind(&mut self) -> Result<Kind, Fault> {
        self.skip_blanks();
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => self.fail(FaultKind::Syntax),
        }
    }

    /// Reads an object, handing each member to `visit`, which must consume its value. No key may come twice.
    pub(crate) fn object<E: From<Fault>>(
        &mut self,
        mut visit: impl FnMut(&mut Self, Quoted<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut seen = Seen { hashes: [0; KEYS_MAX], count: 0 };
        self.open(b'{')?;
        while self.more(b'}')? {
            let start = self.at;
            let key = self.key()?;
            seen.add(key).map_err(|kind| Fault { at: start, kind })?;
            visit(self, key)?;
            self.after_value(b'}')?;
        }
        Ok(())
    }

    /// Reads a list, handing each element to `visit`, which must consume it.
    pub(crate) fn list(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.open(b'[')?;
        while self.more(b']')? {
            visit(self)?;
            self.after_value(b']')?;
        }
        Ok(())
    }

    /// Checks the next value, whatever it is, and returns where it stands.
    pub(crate) fn skip(&mut self) -> Result<Range<usize>, Fault> {
        self.skip_value(None)
    }

    /// Checks the value of a member of the body or of an object in it, and takes note of what it consists of.
    pub(crate) fn skip_member(&mut self, key: Quoted<'a>) -> Result<(), Fault> {
        let kind = self.kind()?;
        self.watch.begin(key, kind, self.depth == 1);
        self.skip_value(Some(key))?;
        self.watch.end();
        Ok(())
    }

    /// What the text consists of, as far as it was passed by.
    pub(crate) fn contents(&self) -> Contents {
        self.watch.finish(self.text.len())
    }

    fn skip_value(&mut self, key: Option<Quoted<'a>>) -> Result<Range<usize>, Fault> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Object | Kind::Array => self.skip_container(key)?,
            Kind::String => {
                let text = self.string()?;
                self.watch.string(key, text);
            }
            Kind::Number => {
                self.number()?;
            }
            Kind::True => self.literal("true")?,
            Kind::False => self.literal("false")?,
            Kind::Null => self.literal("null")?,
        }
        Ok(start..self.at)
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<Quoted<'a>, Fault> {
        self.skip_blanks();
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.at += ordinary(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) | None => return self.fail(FaultKind::Syntax),
            }
        }
        let quoted = Quoted(&self.text[start..self.at]);
        self.at += 1;
        Ok(quoted)
    }

    /// Reads a number and returns its digits as they stand.
    pub(crate) fn number(&mut self) -> Result<&'a str, Fault> {
        self.skip_blanks();
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        let has_exponent = self.eat(b'e') || self.eat(b'E');
        if has_exponent {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        let number = &self.text[start..self.at];
        // Beyond a double some parsers read infinity and others fail.
        let surely_finite = !has_exponent && number.len() < DIGITS_SURELY_FINITE;
        if !surely_finite && !number.parse().is_ok_and(f64::is_finite) {
            return Err(Fault { at: start, kind: FaultKind::Syntax });
        }
        Ok(number)
    }

    /// Makes sure that nothing but blanks is left.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        if self.at == self.text.len() { Ok(()) } else { self.fail(FaultKind::Trailing) }
    }

    /// Iterative, so that no text can exhaust the stack; the bits of `objects` say which containers are objects.
    fn skip_container(&mut self, mut key: Option<Quoted<'a>>) -> Result<(), Fault> {
        let outside = self.depth;
        let mut objects = 0u64;
        loop {
            let kind = self.kind()?;
            let mut just_opened = true;
            match kind {
                Kind::Object => self.open(b'{')?,
                Kind::Array => self.open(b'[')?,
                _ => just_opened = self.skip_value(key).map(|_| false)?,
            }
            if just_opened {
                self.watch.open(key, self.depth);
                objects = objects << 1 | u64::from(kind == Kind::Object);
            }
            // Close whatever ends here, up to the next value.
            loop {
                let is_object = objects & 1 == 1;
                let closing = if is_object { b'}' } else { b']' };
                if !just_opened {
                    self.after_value(closing)?;
                }
                just_opened = false;
                if self.more(closing)? {
                    key = if is_object { Some(self.key()?) } else { None };
                    break;
                }
                objects >>= 1;
                self.watch.close(self.depth + 1);
                if self.depth == outside {
                    return Ok(());
                }
            }
        }
    }

    fn key(&mut self) -> Result<Quoted<'a>, Fault> {
        let escapes = self.escapes;
        let key = self.string()?;
        if self.escapes != escapes {
            self.watch.escaped_key();
        }
        self.skip_blanks();
        self.expect(b':')?;
        Ok(key)
    }

    fn open(&mut self, bracket: u8) -> Result<(), Fault> {
        self.skip_blanks();
        if self.depth == DEPTH_MAX {
            return self.fail(FaultKind::TooDeep);
        }
        self.expect(bracket)?;
        self.depth += 1;
        Ok(())
    }

    /// Whether an element follows; if not, the closing bracket is consumed.
    fn more(&mut self, closing: u8) -> Result<bool, Fault> {
        self.skip_blanks();
        if self.eat(closing) {
            self.depth -= 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// The comma between elements. A closing bracket is left for [`Self::more`]; one after a comma is a fault.
    fn after_value(&mut self, closing: u8) -> Result<(), Fault> {
        self.skip_blanks();
        if self.peek() == Some(closing) {
            return Ok(());
        }
        self.expect(b',')?;
        self.skip_blanks();
        if self.peek() == Some(closing) { self.fail(FaultKind::Syntax) } else { Ok(()) }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.escapes += 1;
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match unescape_unicode(&self.text.as_bytes()[self.at..]) {
                Some((_, length)) => {
                    self.at += length;
                    Ok(())
                }
                None => self.fail(FaultKind::Syntax),
            },
            _ => self.fail(FaultKind::Syntax),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail(FaultKind::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if count == 0 {
            return self.fail(FaultKind::Syntax);
        }
        self.at += count;
        Ok(())
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.eat(byte) { Ok(()) } else { self.fail(FaultKind::Syntax) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fail<T>(&self, kind: FaultKind) -> Result<T, Fault> {
        Err(Fault { at: self.at, kind })
    }
}

impl<'a> Quoted<'a> {
    /// The string as it is spelled.
    pub(crate) fn raw(self) -> &'a str {
        self.0
    }

    /// The rest of the string after so many bytes of its spelling, which must not be within an escape.
    pub(crate) fn after(self, bytes: usize) -> Self {
        Self(self.0.get(bytes..).unwrap_or_default())
    }

    /// The string, if it is spelled as it means and all of it is ASCII.
    pub(crate) fn ascii(self) -> Option<&'a str> {
        let is_plain = self.0.bytes().all(|byte| byte.is_ascii() && byte != b'\\');
        is_plain.then_some(self.0)
    }

    /// Whether the string means `text`.
    pub(crate) fn is(self, text: &str) -> bool {
        // An escape is longer than what it means.
        self.0 == text
            || (self.0.len() > text.len() && self.0.contains('\\') && self.chars().eq(text.chars()))
    }

    /// The characters that the string means.
    pub(crate) fn chars(self) -> impl Iterator<Item = char> + 'a {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (char, length) = match rest.as_bytes() {
                [b'\\', b'u', ..] => unescape_unicode(rest.as_bytes())?,
                [b'\\', letter, ..] => (unescape_letter(*letter), 2),
                _ => rest.chars().next().map(|char| (char, char.len_utf8()))?,
            };
            rest = &rest[length..];
            Some(char)
        })
    }
}

impl Seen {
    fn add(&mut self, key: Quoted<'_>) -> Result<(), FaultKind> {
        // FNV-1a over the characters, so that `"a"` and `"\u0061"` are one key.
        let add = |hash: u64, char: char| (hash ^ u64::from(char)).wrapping_mul(0x0100_0000_01b3);
        let hash = match key.ascii() {
            Some(key) => key.bytes().map(char::from).fold(FNV_OFFSET, add),
            None => key.chars().fold(FNV_OFFSET, add),
        };
        if self.hashes[..self.count].contains(&hash) {
            return Err(FaultKind::Duplicate);
        }
        *self.hashes.get_mut(self.count).ok_or(FaultKind::TooManyKeys)? = hash;
        self.count += 1;
        Ok(())
    }
}

/// How many bytes go by before one that is not itself in a string: a quote, a backslash, a control character. Eight are
/// looked at together; of the marks that this makes the lowest is right.
pub(super) fn ordinary(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHEST;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let marks = equal(word, b'"') | equal(word, b'\\') | below(word, b' ');
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    bytes.len() - rest.len() + rest.iter().position(ends).unwrap_or(rest.len())
}

/// The text without its JSON escapes, piece by piece. What is no escape is left out: this is for whoever searches a
/// text, not for one who shows it.
pub(crate) fn unescaped(text: &[u8], mut out: impl FnMut(&[u8])) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out(&rest[..at]);
        rest = match &rest[at..] {
            [_, b'u', ..] => match unescape_unicode(&rest[at..]) {
                Some((char, length)) => {
                    out(char.encode_utf8(&mut [0; 4]).as_bytes());
                    &rest[at + length..]
                }
                None => &rest[at + 2..],
            },
            [_, letter, after @ ..] => {
                out(unescape_letter(*letter).encode_utf8(&mut [0; 4]).as_bytes());
                after
            }
            [..] => &[],
        };
    }
    out(rest);
}

/// What `\n` and its like mean.
pub(crate) fn unescape_letter(letter: u8) -> char {
    match letter {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        other => char::from(other),
    }
}

/// The character of `\uXXXX` or of a surrogate pair `\uXXXX\uXXXX`, and the length of what spelled it.
fn unescape_unicode(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0u32, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    };
    let first = unit(0)?;
    if let 0xd800..=0xdbff = first {
        let second = unit(6).filter(|unit| matches!(unit, 0xdc00..=0xdfff))?;
        let char = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?;
        return Some((char, 12));
    }
    Some((char::from_u32(first)?, 6))
}
