//! What goes by a gateway on an ordinary day, and keys as their owners get them: made from a seed, so that every run
//! tries the same and any case can be tried again. Tests of several crates include this, each a part of it.

#![allow(dead_code, unused_imports, reason = "no test needs all of it")]

mod fragments;
mod keys;
mod traffic;

pub(crate) use fragments::text;
pub(crate) use keys::key;
pub(crate) use traffic::{Api, Case, case};

const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const DIGITS: &str = "0123456789";
const HEX: &str = "0123456789abcdef";
const BASE62: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const FOR_URLS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Numbers that look random and follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).unwrap_or(0)
    }

    /// A number from `start` on and below `end`.
    pub(crate) fn between(&mut self, start: usize, end: usize) -> usize {
        start + self.below(end - start)
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// So many characters of an ASCII alphabet.
    pub(crate) fn of(&mut self, alphabet: &str, count: usize) -> String {
        (0..count).map(|_| char::from(*self.pick(alphabet.as_bytes()))).collect()
    }

    pub(crate) fn hex(&mut self, count: usize) -> String {
        self.of(HEX, count)
    }

    /// Lines, each made by `line`.
    pub(crate) fn lines(
        &mut self,
        min: usize,
        max: usize,
        mut line: impl FnMut(&mut Self) -> String,
    ) -> String {
        let count = self.between(min, max + 1);
        (0..count).map(|_| line(self) + "\n").collect()
    }

    /// A text in pieces of random length, cut between characters.
    pub(crate) fn pieces(&mut self, text: &str, max: usize) -> Vec<String> {
        let mut letters = text.chars().peekable();
        let mut pieces = Vec::new();
        while letters.peek().is_some() {
            let length = self.between(1, max + 1);
            pieces.push(letters.by_ref().take(length).collect());
        }
        pieces
    }

    /// Bytes in chunks of random length.
    pub(crate) fn chunks<'a>(&mut self, mut bytes: &'a [u8], max: usize) -> Vec<&'a [u8]> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(self.between(1, max + 1).min(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }
}
