//! Where the letters of a text stand among the bytes of an answer.

use std::ops::Range;

use policy::scan::{View, Watchlist};

use crate::wire::tokens::{Container, Leaves, Text, Tokens};

/// A text with the place of each of its bytes.
#[derive(Default)]
pub(super) struct Spelled {
    text: Vec<u8>,
    /// There are as many of them as bytes of text, so they are small.
    places: Vec<Range<u32>>,
    is_escape: bool,
}

impl Spelled {
    /// What stands in no string that is a value. The structure of JSON and of lines has no place there, so that it is
    /// never starred, also where the keys around it are.
    pub(super) fn plain(&mut self, part: &[u8], at: usize) {
        for (byte, at) in part.iter().zip(narrow(at)..) {
            let is_escaped = std::mem::take(&mut self.is_escape);
            self.is_escape = *byte == b'\\' && !is_escaped;
            let is_structure = !is_escaped && b"{}[]:,\" \t\r\n".contains(byte);
            self.text.push(*byte);
            self.places.push(if is_structure { at..at } else { at..at + 1 });
        }
    }

    /// The inside of a JSON string: an escape is the place of what it means.
    pub(super) fn quoted(&mut self, part: &[u8], at: usize) {
        let mut tokens = Tokens::new::<Self>();
        tokens.feed(b"\"", self);
        let mut begin = narrow(at);
        for (byte, at) in part.iter().zip(narrow(at)..) {
            tokens.feed(std::slice::from_ref(byte), self);
            if self.places.len() < self.text.len() {
                self.places.resize(self.text.len(), begin..at + 1);
                begin = at + 1;
            }
        }
    }

    /// The places of so many letters, up to so many bytes before the end; those that touch each other are one.
    pub(super) fn place(&self, view: View, letters: usize, behind: u64) -> Vec<Range<usize>> {
        let end = self.text.len().saturating_sub(usize::try_from(behind).unwrap_or(usize::MAX));
        let first = Watchlist::start_in(&self.text[..end], view, letters);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for place in self.places[first..end].iter().filter(|place| !place.is_empty()) {
            let place = place.start as usize..place.end as usize;
            match merged.last_mut() {
                Some(last) if last.end == place.start => last.end = place.end,
                Some(last) if *last == place => {}
                _ => merged.push(place),
            }
        }
        merged
    }
}

/// A chunk has no four gibibytes, and what is held back has few.
fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Leaves for Spelled {
    type Place = bool;
    const ROOT: bool = true;
    const NOWHERE: bool = false;

    fn member(&self, _object: bool, _key: &[u8]) -> bool {
        false
    }

    fn open(&mut self, _place: bool, _container: Container) {}

    fn text(&mut self, _place: bool, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn string(&mut self, _place: bool, _text: Text<'_>) {}

    fn scalar(&mut self, _place: bool, _text: Text<'_>) {}

    fn document_end(&mut self) {}
}
