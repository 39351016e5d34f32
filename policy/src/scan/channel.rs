//! Hot: the scan of one text.

use super::table::{HALT, State, Table};
use super::views::{Lens, Squash, View};
use super::{Hit, Watchlist};

/// The scan of one text. It must be fed with the same list all along.
///
/// The views differ from the plain one only from an escape on, and soon agree with it again; so most bytes are looked
/// at once.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    plain: Walk,
    apart: [Option<Apart>; 3],
    seen: u64,
}

/// Where a view of a text stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Walk {
    squash: Squash,
    state: State,
}

/// A view that differs from the plain one at the moment.
#[derive(Clone, Copy, Debug)]
struct Apart {
    view: View,
    lens: Lens,
    walk: Walk,
}

/// The beginning of a secret with which a text ends, in the view in which it is most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Its letters and digits.
    pub letters: u16,
    /// The bytes of the secret that it covers, or of the form in which the secret is written.
    pub bytes: u16,
}

impl Tail {
    /// Whether a secret may be coming: more than ordinary words happen to have in common with one.
    pub fn is_live(self) -> bool {
        self.letters >= 8 || self.bytes >= 12
    }

    /// Whether so much of a secret is there that it would be told if no more came.
    pub fn is_telling(self) -> bool {
        self.bytes >= 16
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self { letters: self.letters.max(other.letters), bytes: self.bytes.max(other.bytes) }
    }
}

/// So many bytes are passed at once, if there is nothing in them.
const BLOCK_MAX: usize = 1024;
/// Fewer are not worth it.
const BLOCK_MIN: usize = 128;

impl Channel {
    /// Looks at the next piece of the text.
    pub fn feed(&mut self, list: &Watchlist, mut text: &[u8], mut on_hit: impl FnMut(Hit)) {
        while !text.is_empty() {
            if self.plain.squash.is_idle() && self.apart.iter().all(Option::is_none) {
                text = self.run(list, text, &mut on_hit);
            }
            if let Some((byte, rest)) = text.split_first() {
                self.step(list, *byte, &mut on_hit);
                text = rest;
            }
        }
    }

    /// What the text ends with.
    pub fn tail(&self, list: &Watchlist) -> Tail {
        let apart = self.apart.iter().flatten().map(|apart| apart.walk);
        apart.fold(list.tail(self.plain.state), |tail, walk| tail.max(list.tail(walk.state)))
    }

    /// The view that ends with most letters of a secret, and how many they are.
    pub fn deepest(&self, list: &Watchlist) -> (View, usize) {
        let plain = (View::Plain, list.tail(self.plain.state).letters);
        let apart = self.apart.iter().flatten().map(|one| (one.view, list.tail(one.walk.state).letters));
        let (view, letters) =
            apart.fold(plain, |deepest, other| if other.1 > deepest.1 { other } else { deepest });
        (view, letters.into())
    }

    /// How many bytes of the text were looked at.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Goes on while all views are one, by blocks as far as there is nothing in them, then to a byte that needs care or
    /// to the end of the block. Answers what is left.
    fn run<'t>(&mut self, list: &Watchlist, mut text: &'t [u8], on_hit: &mut impl FnMut(Hit)) -> &'t [u8] {
        loop {
            let block = &text[..text.len().min(BLOCK_MAX)];
            let plain = if block.len() < BLOCK_MIN { 0 } else { Table::plain(block) };
            let passed =
                if plain < BLOCK_MIN { None } else { list.table.pass(self.plain.state, &block[..plain]) };
            let Some(state) = passed else {
                let length = self.walk(list, block, on_hit);
                return &text[length..];
            };
            self.plain.state = state;
            self.seen += plain as u64;
            text = &text[plain..];
        }
    }

    /// Goes on byte by byte. Answers how many were looked at.
    fn walk(&mut self, list: &Watchlist, text: &[u8], on_hit: &mut impl FnMut(Hit)) -> usize {
        let mut length = 0;
        loop {
            let (state, passed) = list.table.advance(self.plain.state, &text[length..]);
            self.plain.state = state;
            length += passed;
            let Some(byte) = text.get(length) else { break };
            let next = list.table.next(state, *byte);
            if next == HALT {
                break;
            }
            self.plain.state = next;
            length += 1;
            // What separates leads nowhere, not even to the same end once more.
            if !Table::is_separator(*byte) {
                report(list, next, View::Plain, self.seen + length as u64, on_hit);
            }
        }
        self.seen += length as u64;
        length
    }

    /// Goes on by one byte, each view for itself.
    fn step(&mut self, list: &Watchlist, byte: u8, on_hit: &mut impl FnMut(Hit)) {
        self.seen += 1;
        let end = self.seen;
        if let Some(view) = View::parting_at(byte) {
            let slot = &mut self.apart[view as usize - 1];
            slot.get_or_insert(Apart { view, lens: Lens::default(), walk: self.plain });
        }
        self.plain.step(list, byte, View::Plain, end, on_hit);
        for slot in &mut self.apart {
            let Some(apart) = slot else { continue };
            let Apart { view, lens, walk } = apart;
            lens.look(*view, byte, |byte| walk.step(list, byte, *view, end, on_hit));
            if lens.is_idle() && *walk == self.plain {
                *slot = None;
            }
        }
    }
}

impl Walk {
    fn step(&mut self, list: &Watchlist, byte: u8, view: View, end: u64, on_hit: &mut impl FnMut(Hit)) {
        let Some(letter) = self.squash.look(byte) else { return };
        self.state = list.table.next(self.state, letter);
        if list.table.is_special(self.state) {
            report(list, self.state, view, end, on_hit);
        }
    }
}

#[cold]
fn report(list: &Watchlist, state: State, view: View, end: u64, on_hit: &mut impl FnMut(Hit)) {
    for meaning in list.matches(state) {
        on_hit(Hit { secret: meaning.secret, form: meaning.form, view, end, letters: meaning.letters });
    }
}
