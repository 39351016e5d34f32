//! Scanning text for secrets, piece by piece as it goes by.
//!
//! A [`Watchlist`] is built once for a set of secrets: one automaton over every form in which each could be written. A
//! [`Channel`] is the scan of one text, such as the words of one answer: it looks at each byte in several views and
//! remembers a few bytes, however long the text is. Where the text is cut changes nothing.
//!
//! What is not found: a text that somebody was told to encode in a way of his own. A watchlist is a tripwire.

mod forms;
mod views;

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

pub use forms::Form;
use views::Lens;
pub use views::View;

/// The secrets that are looked for, ready to be looked for.
#[derive(Debug)]
pub struct Watchlist {
    plain: Patterns,
    squashed: Patterns,
}

/// Patterns, and what each of them stands for.
#[derive(Debug)]
struct Patterns {
    automaton: NFA,
    meanings: Vec<(usize, Form)>,
    /// By state: how many bytes of some pattern the text ends with.
    depths: Vec<u16>,
}

/// The scan of one text.
#[derive(Clone, Debug)]
pub struct Channel {
    views: [Looking; View::ALL.len()],
    seen: u64,
}

#[derive(Clone, Copy, Debug)]
struct Looking {
    lens: Lens,
    state: aho_corasick::automaton::StateID,
}

/// A secret that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which of the watchlist's secrets, by its place.
    pub secret: usize,
    /// How it was written.
    pub form: Form,
    /// In which view of the text.
    pub view: View,
    /// After how many bytes of the text.
    pub end: u64,
}

/// Secrets that no automaton can be built of: too many, or too long together.
#[derive(Debug, thiserror::Error)]
#[error("the watchlist cannot be built")]
pub struct WatchlistError(#[from] aho_corasick::BuildError);

impl Watchlist {
    /// A list of these secrets. One that is shorter than sixteen bytes would be found by chance, and is not.
    ///
    /// # Errors
    /// [`WatchlistError`] when they are too many for an automaton.
    pub fn new<S: AsRef<[u8]>>(secrets: &[S]) -> Result<Self, WatchlistError> {
        let (mut plain, mut squashed) = (Vec::new(), Vec::new());
        for (index, secret) in secrets.iter().enumerate() {
            for (form, pattern) in forms::patterns(secret.as_ref()) {
                if matches!(form, Form::Plain | Form::Part | Form::Reversed | Form::Hex) {
                    squashed.push((index, form, squash(&pattern)));
                }
                plain.push((index, form, pattern));
            }
        }
        squashed.retain(|(_, _, pattern)| pattern.len() >= forms::BYTES_MIN);
        Ok(Self { plain: Patterns::new(plain)?, squashed: Patterns::new(squashed)? })
    }

    fn patterns(&self, view: View) -> &Patterns {
        if view == View::Squashed { &self.squashed } else { &self.plain }
    }
}

fn squash(pattern: &[u8]) -> Vec<u8> {
    let (mut lens, mut squashed) = (Lens::default(), Vec::new());
    pattern.iter().for_each(|byte| lens.look(View::Squashed, *byte, |byte| squashed.push(byte)));
    squashed
}

impl Patterns {
    fn new(patterns: Vec<(usize, Form, Vec<u8>)>) -> Result<Self, WatchlistError> {
        let texts = || patterns.iter().map(|(_, _, pattern)| pattern);
        let automaton = NFA::builder().match_kind(MatchKind::Standard).build(texts())?;
        let mut depths = Vec::new();
        for pattern in texts() {
            let mut state = start(&automaton);
            for (index, byte) in pattern.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                let place = state.as_usize();
                if depths.len() <= place {
                    depths.resize(place + 1, 0);
                }
                depths[place] = u16::try_from(index + 1).unwrap_or(u16::MAX);
            }
        }
        let meanings = patterns.iter().map(|(secret, form, _)| (*secret, *form)).collect();
        Ok(Self { automaton, meanings, depths })
    }

    fn depth(&self, looking: &Looking) -> usize {
        self.depths.get(looking.state.as_usize()).copied().unwrap_or(0).into()
    }
}

fn start(automaton: &NFA) -> aho_corasick::automaton::StateID {
    automaton.start_state(Anchored::No).expect("it was built to be searched from anywhere")
}

impl Channel {
    /// The scan of a text that begins.
    pub fn new(list: &Watchlist) -> Self {
        let looking = |view| Looking { lens: Lens::default(), state: start(&list.patterns(view).automaton) };
        Self { views: View::ALL.map(looking), seen: 0 }
    }

    /// Looks at the next piece of the text. It must be the list that the channel was made for.
    pub fn feed(&mut self, list: &Watchlist, text: &[u8], mut on_hit: impl FnMut(Hit)) {
        for (view, looking) in View::ALL.into_iter().zip(&mut self.views) {
            let patterns = list.patterns(view);
            for (index, byte) in text.iter().enumerate() {
                let end = self.seen + index as u64 + 1;
                let Looking { lens, state } = looking;
                lens.look(view, *byte, |byte| {
                    *state = patterns.automaton.next_state(Anchored::No, *state, byte);
                    if patterns.automaton.is_match(*state) {
                        for at in 0..patterns.automaton.match_len(*state) {
                            let pattern = patterns.automaton.match_pattern(*state, at);
                            let (secret, form) = patterns.meanings[pattern.as_usize()];
                            on_hit(Hit { secret, form, view, end });
                        }
                    }
                });
            }
        }
        self.seen += text.len() as u64;
    }

    /// How many bytes of some pattern the text ends with, in the view in which they are most: what follows may make a
    /// secret of them. Short ends in the squashed view are ordinary words and do not count.
    pub fn live_prefix(&self, list: &Watchlist) -> usize {
        const SQUASHED_MIN: usize = 12;
        let depth = |(view, looking): (View, &Looking)| {
            let depth = list.patterns(view).depth(looking);
            if view == View::Squashed && depth < SQUASHED_MIN { 0 } else { depth }
        };
        View::ALL.into_iter().zip(&self.views).map(depth).max().unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
