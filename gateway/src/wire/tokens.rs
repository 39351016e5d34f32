//! Hot: an incremental JSON tokenizer for answers that go by in pieces.
//!
//! It keeps the path to the current value as a stack of places, small values that the reader of the answer defines,
//! and of each string or number no more than its first bytes. So an event of any size needs the same memory, and
//! where the pieces are cut changes nothing. It is lenient where the request scanner is strict: the answer passes
//! whatever it is, and a fault in one event must not hide the usage in the next.

use std::ops::Range;

use super::scan::{ordinary, unescape_letter};

/// Containers whose place is remembered; what is deeper is nowhere.
const DEPTH_MAX: usize = 64;

/// The longest key, model name or number that is told apart.
const TEXT_MAX: usize = 128;

/// So much of a text is looked at before anybody else is asked to.
const TEXT_SHORT: usize = 32;

/// What takes the values of a JSON text, each with the place it stands at.
///
/// The elements of an array stand where the array does.
pub(crate) trait Leaves {
    /// Where a value stands, as far as the reader cares.
    type Place: Copy + PartialEq;
    /// The place of the text's outermost value.
    const ROOT: Self::Place;
    /// The place of all that is of no interest.
    const NOWHERE: Self::Place;

    /// The place of the member `key` of an object.
    fn member(&self, object: Self::Place, key: &[u8]) -> Self::Place;
    /// An object or array begins.
    fn open(&mut self, place: Self::Place, container: Container);
    /// Some of the text of a string that is a value, without its escapes, as it goes by.
    fn text(&mut self, _place: Self::Place, _text: &[u8]) {}
    /// These of the bytes that were fed spell such a text, its closing quote included; the last escape among them
    /// `is_whole`, or goes on.
    fn spelled(&mut self, _place: Self::Place, _bytes: Range<usize>, _is_whole: bool) {}
    /// A string has ended.
    fn string(&mut self, place: Self::Place, text: Text<'_>);
    /// A number, `true`, `false`, `null`, or a word that is no JSON, has ended.
    fn scalar(&mut self, place: Self::Place, text: Text<'_>);
    /// An object or array has ended, after so many of the bytes that were fed; so many are open still.
    fn close(&mut self, _depth: usize, _end: usize) {}
    /// The outermost container has ended.
    fn document_end(&mut self);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Object,
    Array,
}

/// An unescaped text: its length in bytes, and its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) length: u64,
    beginning: &'a [u8],
}

/// The state between two pieces of a text.
#[derive(Clone, Debug)]
pub(crate) struct Tokens<P> {
    state: State,
    /// Open containers, also those too deep to be remembered.
    depth: usize,
    /// One bit for each remembered container: whether it is an object.
    objects: u64,
    places: [P; DEPTH_MAX],
    /// Where the next value stands.
    next: P,
    /// Whether the next string is a key.
    is_key_next: bool,
    text: [u8; TEXT_MAX],
    text_length: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Between,
    String,
    /// After a backslash.
    Escape,
    /// In `\uXXXX`: the digits read and their value.
    Unicode {
        digits: u8,
        unit: u16,
    },
    Scalar,
}

impl<'a> Text<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self { length: text.len() as u64, beginning: &text[..text.len().min(TEXT_MAX)] }
    }

    /// The text, if it is short enough to be known in full.
    pub(crate) fn whole(self) -> Option<&'a [u8]> {
        (u64::try_from(self.beginning.len()) == Ok(self.length)).then_some(self.beginning)
    }
}

impl<P: Copy + PartialEq> Tokens<P> {
    pub(crate) fn new<L: Leaves<Place = P>>() -> Self {
        Self {
            state: State::Between,
            depth: 0,
            objects: 0,
            places: [L::NOWHERE; DEPTH_MAX],
            next: L::ROOT,
            is_key_next: false,
            text: [0; TEXT_MAX],
            text_length: 0,
        }
    }

    /// Forgets an unfinished text; the next byte begins another one.
    pub(crate) fn restart<L: Leaves<Place = P>>(&mut self) {
        self.state = State::Between;
        self.depth = 0;
        self.next = L::ROOT;
        self.is_key_next = false;
    }

    /// Reads the next piece.
    pub(crate) fn feed<L: Leaves<Place = P>>(&mut self, bytes: &[u8], leaves: &mut L) {
        let mut at = 0;
        while at < bytes.len() {
            at = match self.state {
                State::Between => self.between(bytes, at, leaves),
                State::Scalar => self.in_scalar(bytes, at, leaves),
                State::String | State::Escape | State::Unicode { .. } => self.in_text(bytes, at, leaves),
            };
        }
    }

    /// Where the string stands that is being read, if it is a value whose place is known.
    fn value_under_way<L: Leaves<Place = P>>(&self) -> Option<P> {
        let is_string = matches!(self.state, State::String | State::Escape | State::Unicode { .. });
        (is_string && !self.is_key_next && self.next != L::NOWHERE).then_some(self.next)
    }

    /// Reads what stands between texts and words, up to the next of them.
    fn between<L: Leaves<Place = P>>(&mut self, bytes: &[u8], mut at: usize, leaves: &mut L) -> usize {
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => {}
                b'"' => {
                    let Some(end) = self.plain_string(bytes, at, leaves) else {
                        self.text_length = 0;
                        self.state = State::String;
                        break;
                    };
                    at = end;
                }
                b'{' => self.open(Container::Object, leaves),
                b'[' => self.open(Container::Array, leaves),
                b'}' | b']' => self.close(at, leaves),
                b':' => self.is_key_next = false,
                b',' => self.after_value::<L>(),
                byte => {
                    let Some(end) = self.plain_scalar(bytes, at - 1, leaves) else {
                        self.text_length = 0;
                        self.push(&[*byte]);
                        self.state = State::Scalar;
                        break;
                    };
                    at = end;
                }
            }
        }
        at
    }

    /// Reads a string that is all there and has no escapes, from behind its first quote on, if it is one.
    fn plain_string<L: Leaves<Place = P>>(
        &mut self,
        bytes: &[u8],
        start: usize,
        leaves: &mut L,
    ) -> Option<usize> {
        let end = start + text_end(&bytes[start..])?;
        let text = &bytes[start..end];
        if bytes[end] != b'"' {
            return None;
        }
        if self.is_key_next {
            self.next = self.member(Text::of(text), leaves);
        } else if self.next != L::NOWHERE {
            if !text.is_empty() {
                leaves.text(self.next, text);
            }
            leaves.string(self.next, Text::of(text));
            leaves.spelled(self.next, start..end + 1, true);
        }
        Some(end + 1)
    }

    /// Reads a number or a word of which the end is there, if it is.
    fn plain_scalar<L: Leaves<Place = P>>(
        &self,
        bytes: &[u8],
        start: usize,
        leaves: &mut L,
    ) -> Option<usize> {
        let end = start + bytes[start..].iter().position(ends_scalar)?;
        if self.next != L::NOWHERE {
            leaves.scalar(self.next, Text::of(&bytes[start..end]));
        }
        Some(end)
    }

    fn open<L: Leaves<Place = P>>(&mut self, container: Container, leaves: &mut L) {
        let place = self.next;
        if place != L::NOWHERE {
            leaves.open(place, container);
        }
        if let Some(slot) = self.places.get_mut(self.depth) {
            *slot = place;
            let bit = 1 << self.depth;
            self.objects =
                if container == Container::Object { self.objects | bit } else { self.objects & !bit };
        }
        self.depth += 1;
        self.after_value::<L>();
    }

    fn close<L: Leaves<Place = P>>(&mut self, end: usize, leaves: &mut L) {
        self.depth = self.depth.saturating_sub(1);
        self.is_key_next = false;
        leaves.close(self.depth, end);
        if self.depth == 0 {
            self.next = L::ROOT;
            leaves.document_end();
        }
    }

    /// Sets what comes at the start of a container or after a comma in it.
    fn after_value<L: Leaves<Place = P>>(&mut self) {
        let innermost = self.depth.checked_sub(1);
        let is_object = innermost.is_some_and(|at| at < DEPTH_MAX && self.objects >> at & 1 == 1);
        self.is_key_next = is_object;
        self.next = match innermost {
            None => L::ROOT,
            Some(_) if is_object => L::NOWHERE,
            Some(at) => self.places.get(at).copied().unwrap_or(L::NOWHERE),
        };
    }

    /// Goes on in a string, up to its end or that of the bytes, and tells what spelled it.
    fn in_text<L: Leaves<Place = P>>(&mut self, bytes: &[u8], start: usize, leaves: &mut L) -> usize {
        let place = self.value_under_way::<L>();
        let (mut at, mut whole) = (start, start);
        while let (false, Some(byte)) = (matches!(self.state, State::Between), bytes.get(at)) {
            at = match self.state {
                State::Escape => {
                    self.escape(*byte, leaves);
                    at + 1
                }
                State::Unicode { digits, unit } => {
                    at + usize::from(self.unicode(*byte, digits, unit, leaves))
                }
                State::String | State::Between | State::Scalar => self.in_string(bytes, at, leaves),
            };
            if matches!(self.state, State::Between | State::String) {
                whole = at;
            }
        }
        for (part, is_whole) in [(start..whole, true), (whole..at, false)] {
            if let Some(place) = place.filter(|_| !part.is_empty()) {
                leaves.spelled(place, part, is_whole);
            }
        }
        at
    }

    fn in_string<L: Leaves<Place = P>>(&mut self, bytes: &[u8], at: usize, leaves: &mut L) -> usize {
        let end = memchr::memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len(), |run| at + run);
        self.push_text(&bytes[at..end], leaves);
        match bytes.get(end) {
            None => return end,
            Some(b'"') => {
                self.state = State::Between;
                self.string_end(leaves);
            }
            Some(_) => self.state = State::Escape,
        }
        end + 1
    }

    fn string_end<L: Leaves<Place = P>>(&mut self, leaves: &mut L) {
        if self.is_key_next {
            self.next = self.member(self.text(), leaves);
        } else if self.next != L::NOWHERE {
            leaves.string(self.next, self.text());
        }
    }

    /// Where the value stands that this key leads to.
    fn member<L: Leaves<Place = P>>(&self, key: Text<'_>, leaves: &L) -> P {
        let object = self.places[self.depth - 1];
        let key = if object == L::NOWHERE { None } else { key.whole() };
        key.map_or(L::NOWHERE, |key| leaves.member(object, key))
    }

    fn in_scalar<L: Leaves<Place = P>>(&mut self, bytes: &[u8], at: usize, leaves: &mut L) -> usize {
        let end = bytes[at..].iter().position(ends_scalar).map_or(bytes.len(), |run| at + run);
        self.push(&bytes[at..end]);
        if end < bytes.len() {
            self.state = State::Between;
            if self.next != L::NOWHERE {
                leaves.scalar(self.next, self.text());
            }
        }
        end
    }

    fn escape<L: Leaves<Place = P>>(&mut self, letter: u8, leaves: &mut L) {
        self.state = State::String;
        match letter {
            b'u' => self.state = State::Unicode { digits: 0, unit: 0 },
            _ => self.push_char(unescape_letter(letter), leaves),
        }
    }

    /// Whether the byte is a digit of the escape.
    fn unicode<L: Leaves<Place = P>>(&mut self, digit: u8, digits: u8, unit: u16, leaves: &mut L) -> bool {
        let Some(value) = char::from(digit).to_digit(16).and_then(|value| u16::try_from(value).ok()) else {
            // No such escape; the string goes on, and no key or number is made of it.
            self.push_char(char::REPLACEMENT_CHARACTER, leaves);
            self.state = State::String;
            return false;
        };
        let unit = unit << 4 | value;
        if digits < 3 {
            self.state = State::Unicode { digits: digits + 1, unit };
            return true;
        }
        self.state = State::String;
        match char::from_u32(u32::from(unit)) {
            Some(char) => self.push_char(char, leaves),
            // Half of a pair, which means a character of four bytes; nothing we tell apart has one.
            None => self.push_text(b"??", leaves),
        }
        true
    }

    fn push_char<L: Leaves<Place = P>>(&mut self, char: char, leaves: &mut L) {
        self.push_text(char.encode_utf8(&mut [0; 4]).as_bytes(), leaves);
    }

    /// Some of the text of a string. Of what is of no interest nothing is kept.
    fn push_text<L: Leaves<Place = P>>(&mut self, text: &[u8], leaves: &mut L) {
        let place = self.value_under_way::<L>();
        if self.is_key_next || place.is_some() {
            self.push(text);
        }
        if let Some(place) = place.filter(|_| !text.is_empty()) {
            leaves.text(place, text);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let free =
            usize::try_from(self.text_length).ok().and_then(|at| self.text.get_mut(at..)).unwrap_or_default();
        let taken = free.len().min(bytes.len());
        free[..taken].copy_from_slice(&bytes[..taken]);
        self.text_length = self.text_length.saturating_add(bytes.len() as u64);
    }

    fn text(&self) -> Text<'_> {
        let kept = usize::try_from(self.text_length).unwrap_or(TEXT_MAX).min(TEXT_MAX);
        Text { length: self.text_length, beginning: &self.text[..kept] }
    }
}

/// Where a text ends, or something is to be looked at that may be its end. Most are short, and of those it costs more to
/// call `memchr` than to look.
fn text_end(bytes: &[u8]) -> Option<usize> {
    let (near, far) = bytes.split_at(bytes.len().min(TEXT_SHORT));
    match ordinary(near) {
        TEXT_SHORT => memchr::memchr2(b'"', b'\\', far).map(|end| TEXT_SHORT + end),
        end => (end < bytes.len()).then_some(end),
    }
}

/// Whether the byte is no part of a number or a word.
fn ends_scalar(byte: &u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b':' | b'"' | b'{' | b'[')
}
