//! Hot: the automaton over every form of every secret, laid out so that a byte of text is one look-up.
//!
//! `aho-corasick` builds it. Here each of its states is a row with a column for every letter, one for what separates,
//! which leads back to the same row, and one for what needs care; what matches comes last. So nothing is asked of a
//! byte but where it leads.

use std::collections::{HashMap, HashSet};

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, BuildError, MatchKind};

use super::views::Squash;

/// Where the scan of a text stands: the place of a row's first column. Every text begins in the first row.
pub(super) type State = u32;

/// What leads to no row, because somebody else has to look at the byte first.
pub(super) const HALT: State = u32::MAX;

/// The letters of squashed text, in the order of their columns.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const SEPARATOR: u8 = 36;
const CARE: u8 = 37;
const COLUMNS: usize = 38;

/// The column of each byte. Escapes, and characters of several bytes, begin with bytes that need care.
const COLUMN_OF: [u8; 256] = {
    let mut columns = [SEPARATOR; 256];
    let mut byte = 0u8;
    loop {
        columns[byte as usize] = match (byte, Squash::ascii(byte)) {
            (b'\\' | b'%' | b'&' | 0x80.., _) => CARE,
            (_, Some(digit @ b'0'..=b'9')) => 26 + digit - b'0',
            (_, Some(letter)) => letter - b'a',
            (_, None) => SEPARATOR,
        };
        if byte == u8::MAX {
            break columns;
        }
        byte += 1;
    }
};

/// The automaton.
#[derive(Debug)]
pub(super) struct Table {
    next: Vec<State>,
    /// What is not below ends a pattern, or is [`HALT`].
    first_match: State,
    /// The patterns that end at each state from there on.
    matches: Vec<Vec<usize>>,
}

impl Table {
    /// For squashed patterns.
    pub(super) fn new(patterns: &[Vec<u8>]) -> Result<Self, BuildError> {
        let automaton = DFA::builder().match_kind(MatchKind::Standard).build(patterns)?;
        let states = states_of(&automaton);
        let first_match = states.iter().position(|state| automaton.is_match(*state)).unwrap_or(states.len());
        let place = |row: usize| u32::try_from(row * COLUMNS).unwrap_or(HALT);
        let places: HashMap<StateID, State> =
            states.iter().enumerate().map(|(row, state)| (*state, place(row))).collect();
        let mut next = Vec::with_capacity(states.len() * COLUMNS);
        for state in &states {
            next.extend(LETTERS.iter().map(|letter| places[&step(&automaton, *state, *letter)]));
            next.extend([places[state], HALT]);
        }
        let patterns_of = |state: &StateID| {
            let at = |index| automaton.match_pattern(*state, index).as_usize();
            (0..automaton.match_len(*state)).map(at).collect()
        };
        let matches = states[first_match..].iter().map(patterns_of).collect();
        Ok(Self { next, first_match: place(first_match), matches })
    }

    /// How many bytes go by before one that needs care. Eight are looked at together; of the marks that this makes the
    /// lowest is right.
    pub(super) fn plain(text: &[u8]) -> usize {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
        let equal = |word: u64, byte: u8| {
            let other = word ^ (ONES * u64::from(byte));
            other.wrapping_sub(ONES) & !other & HIGHEST
        };
        let (words, rest) = text.as_chunks();
        for (index, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            let marks = word & HIGHEST | equal(word, b'\\') | equal(word, b'%') | equal(word, b'&');
            if marks != 0 {
                return index * 8 + marks.trailing_zeros() as usize / 8;
            }
        }
        let needs_care = |byte: &u8| COLUMN_OF[usize::from(*byte)] == CARE;
        text.len() - rest.len() + rest.iter().position(needs_care).unwrap_or(rest.len())
    }

    /// Where a byte leads: [`HALT`] if it needs care.
    #[inline]
    pub(super) fn next(&self, state: State, byte: u8) -> State {
        self.next[state as usize + usize::from(COLUMN_OF[usize::from(byte)])]
    }

    /// Where a text leads in which no pattern ends and nothing needs care; none if something does.
    ///
    /// One walk waits for memory at each byte. So the text is cut in four, and four walks go side by side, the later
    /// ones as if nothing were before them. What was before matters for a few letters only: where each part begins,
    /// the walk that knows it goes on until it has come to where the other one was.
    pub(super) fn pass(&self, from: State, text: &[u8]) -> Option<State> {
        let (a, rest) = text.split_at(text.len() / 4);
        let (b, rest) = rest.split_at(a.len());
        let (c, d) = rest.split_at(a.len());
        let mut at = [from, State::default(), State::default(), State::default()];
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            let bytes = [*a, *b, *c, *d];
            at = std::array::from_fn(|lane| self.next(at[lane], bytes[lane]));
            if at.iter().any(|state| self.is_special(*state)) {
                return None;
            }
        }
        let at_end = self.walk(at[3], &d[a.len()..])?;
        let at_b = self.join(at[0], b, at[1])?;
        let at_c = self.join(at_b, c, at[2])?;
        self.join(at_c, d, at_end)
    }

    /// Where a part leads when it is come to in the state `from`; a walk that knew nothing ended it in `at_end`.
    fn join(&self, mut from: State, part: &[u8], at_end: State) -> Option<State> {
        let mut unknowing = State::default();
        for byte in part {
            if from == unknowing {
                return Some(at_end);
            }
            from = self.next(from, *byte);
            if self.is_special(from) {
                return None;
            }
            unknowing = self.next(unknowing, *byte);
        }
        Some(from)
    }

    fn walk(&self, from: State, text: &[u8]) -> Option<State> {
        let (state, length) = self.advance(from, text);
        (length == text.len()).then_some(state)
    }

    /// Where a text leads before a byte at which a pattern ends or that needs care, and how many bytes that are.
    pub(super) fn advance(&self, from: State, text: &[u8]) -> (State, usize) {
        let (mut state, mut length) = (from, 0);
        // The compiler writes the eight steps out.
        let (eights, _) = text.as_chunks::<8>();
        'walk: for eight in eights {
            let mut at = state;
            for byte in eight {
                at = self.next(at, *byte);
                if self.is_special(at) {
                    break 'walk;
                }
            }
            state = at;
            length += eight.len();
        }
        for byte in &text[length..] {
            let next = self.next(state, *byte);
            if self.is_special(next) {
                break;
            }
            state = next;
            length += 1;
        }
        (state, length)
    }

    /// Whether a byte leads back to the same row.
    pub(super) fn is_separator(byte: u8) -> bool {
        COLUMN_OF[usize::from(byte)] == SEPARATOR
    }

    /// Whether a pattern ends here, or the scan halts.
    #[inline]
    pub(super) fn is_special(&self, state: State) -> bool {
        state >= self.first_match
    }

    /// The patterns that end here, by their places.
    pub(super) fn matches(&self, state: State) -> &[usize] {
        let at = (state as usize).checked_sub(self.first_match as usize).map(|past| past / COLUMNS);
        at.and_then(|at| self.matches.get(at)).map_or(&[], Vec::as_slice)
    }

    /// The row of a state, counted from 0.
    #[inline]
    pub(super) fn row(state: State) -> usize {
        state as usize / COLUMNS
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.next.len() / COLUMNS
    }
}

/// The states that squashed text can lead to: first the one it begins in, last those that match.
fn states_of(automaton: &DFA) -> Vec<StateID> {
    let start = automaton
        .start_state(Anchored::No)
        .expect("a searcher that is built to begin anywhere has a state to begin in");
    let (mut states, mut known) = (vec![start], HashSet::from([start]));
    let mut at = 0;
    while let Some(state) = states.get(at).copied() {
        at += 1;
        for letter in LETTERS {
            let next = step(automaton, state, *letter);
            if known.insert(next) {
                states.push(next);
            }
        }
    }
    // No pattern is empty, so the first one stays the first.
    states.sort_by_key(|state| automaton.is_match(*state));
    states
}

fn step(automaton: &DFA, state: StateID, letter: u8) -> StateID {
    automaton.next_state(Anchored::No, state, letter)
}
