//! Scanning text for secrets, piece by piece as it goes by.
//!
//! A [`Watchlist`] is built once for a set of secrets: one automaton over every form in which each could be written. A
//! [`Channel`] is the scan of one text, such as the words of one answer: it looks at each byte in several views and
//! remembers a few bytes, however long the text is. Where the text is cut changes nothing.
//!
//! Patterns and texts are both compared without case and without what separates, so that a key is found with spaces,
//! dashes, quotes, line ends or invisible characters between its letters, in the lines of a base64 dump as in one.
//!
//! Secrets that nobody told us of are known by their looks alone; see [`shapes`].
//!
//! What is not found: a text that somebody was told to encode in a way of his own. A watchlist is a tripwire.

mod channel;
mod forms;
mod shapes;
mod table;
mod views;

use aho_corasick::BuildError;

pub use channel::{Channel, Tail};
pub use forms::Form;
pub use shapes::{Shape, is_dummy, shapes};
use table::{State, Table};
pub use views::View;
use views::{Lens, Squash};

/// Shorter patterns would be found by chance: letters and digits of either case leave 36¹² of this length.
const LETTERS_MIN: usize = 12;
/// A secret of fewer bytes is none.
const BYTES_MIN: usize = 16;
/// One of fewer different letters is a placeholder, such as a row of the letter x, and stands in ordinary text.
const DIFFERENT_MIN: usize = 6;
/// Of a longer secret its parts are looked for, and the forms of its end.
const FORMS_BYTES_MAX: usize = 256;
const END_BYTES: usize = 128;
/// No escape is longer whose length is not told by what it consists of.
const ESCAPE_BYTES_MAX: usize = 12;
/// How many secrets one list may have; an automaton takes some hundred kilobytes for each.
pub const SECRETS_MAX: usize = 512;

/// The secrets that are looked for, ready to be looked for.
#[derive(Debug)]
pub struct Watchlist {
    table: Table,
    /// By pattern.
    meanings: Vec<Meaning>,
    /// By row of the table: what the text ends with.
    tails: Vec<Tail>,
}

/// What a pattern stands for.
#[derive(Clone, Copy, Debug)]
struct Meaning {
    secret: usize,
    form: Form,
    letters: usize,
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
    /// Of how many letters and digits the pattern consists.
    pub letters: usize,
}

/// Secrets that no automaton can be built of.
#[derive(Debug, thiserror::Error)]
pub enum WatchlistError {
    /// There are more than [`SECRETS_MAX`].
    #[error("at most {SECRETS_MAX} secrets can be looked for, not {0}")]
    TooMany(usize),
    /// They are too long together.
    #[error("the watchlist cannot be built")]
    Build(#[from] BuildError),
}

impl Watchlist {
    /// A list of these secrets. Those that [`Watchlist::can_watch`] denies are not found.
    ///
    /// # Errors
    /// [`WatchlistError`] when they are too many for an automaton.
    pub fn new<S: AsRef<[u8]>>(secrets: &[S]) -> Result<Self, WatchlistError> {
        if secrets.len() > SECRETS_MAX {
            return Err(WatchlistError::TooMany(secrets.len()));
        }
        let (mut patterns, mut meanings, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for (index, secret) in secrets.iter().enumerate() {
            for (form, spelled) in patterns_of(secret.as_ref()) {
                let pattern = squash(&spelled);
                if pattern.len() >= LETTERS_MIN {
                    meanings.push(Meaning { secret: index, form, letters: pattern.len() });
                    patterns.push(pattern);
                    raw.push(spelled);
                }
            }
        }
        let table = Table::new(&patterns)?;
        let tails = vec![Tail::default(); table.rows()];
        let mut list = Self { table, meanings, tails };
        list.note_tails(&raw);
        Ok(list)
    }

    /// Whether a secret can be told from ordinary text: it has sixteen bytes, twelve letters and digits among them,
    /// and six that are different.
    pub fn can_watch(secret: &[u8]) -> bool {
        let mut letters = squash(secret);
        let count = letters.len();
        letters.sort_unstable();
        letters.dedup();
        secret.len() >= BYTES_MIN && count >= LETTERS_MIN && letters.len() >= DIFFERENT_MIN
    }

    /// Remembers for each state what a text ends with that leads there.
    fn note_tails(&mut self, patterns: &[Vec<u8>]) {
        let states: Vec<(State, Tail)> = patterns.iter().flat_map(|pattern| self.walk(pattern)).collect();
        for (state, tail) in states {
            let row = Table::row(state);
            self.tails[row] = self.tails[row].max(tail);
        }
    }

    /// The states through which a pattern leads, with what the text ends with at each, but for the last: there it is
    /// whole, and has been found.
    fn walk(&self, pattern: &[u8]) -> Vec<(State, Tail)> {
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let (mut squash, mut state, mut letters) = (Squash::default(), State::default(), 0);
        let mut states = Vec::with_capacity(pattern.len());
        for (index, byte) in pattern.iter().enumerate() {
            if let Some(letter) = squash.look(*byte) {
                state = self.table.next(state, letter);
                letters += 1;
                states.push((state, Tail { letters: count(letters), bytes: count(index + 1) }));
            }
        }
        states.pop();
        states
    }

    fn tail(&self, state: State) -> Tail {
        self.tails[Table::row(state)]
    }

    /// What was found, whole, when the text led to this state.
    fn matches(&self, state: State) -> impl Iterator<Item = Meaning> + use<'_> {
        self.table.matches(state).iter().map(|pattern| self.meanings[*pattern])
    }

    /// Where in `text`, at whose end something of so many letters was found in this view, it begins. What begins
    /// before the text begins with it.
    pub fn start_in(text: &[u8], view: View, letters: usize) -> usize {
        // Most often there is little between its letters, so that a little of the text is enough.
        let mut bytes = 2 * letters + ESCAPE_BYTES_MAX;
        loop {
            let from = view.sync_before(text, text.len().saturating_sub(bytes));
            let starts = Self::starts(&text[from..], view);
            match starts.len().checked_sub(letters) {
                // What is first may be the middle of an escape.
                Some(at) if from == 0 || at > ESCAPE_BYTES_MAX => {
                    return starts.get(at).map_or(0, |at| from + at);
                }
                _ if from == 0 => return 0,
                _ => bytes *= 4,
            }
        }
    }

    /// Where each letter of a text begins.
    fn starts(text: &[u8], view: View) -> Vec<usize> {
        let (mut lens, mut squash, mut begin) = (Lens::default(), Squash::default(), 0);
        let mut starts = Vec::new();
        for (index, byte) in text.iter().enumerate() {
            if lens.is_idle() && squash.is_idle() {
                begin = index;
            }
            lens.look(view, *byte, |byte| {
                if squash.look(byte).is_some() {
                    starts.push(begin);
                }
            });
        }
        starts
    }

    /// Puts a `*` in the place of each byte of every secret in a text that is all there, and tells what they were.
    pub fn mask(&self, text: &mut [u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        Channel::default().feed(self, text, |hit| hits.push(hit));
        let place = |hit: &Hit| {
            let end = usize::try_from(hit.end).unwrap_or(text.len());
            Self::start_in(&text[..end], hit.view, hit.letters)..end
        };
        let places: Vec<_> = hits.iter().map(place).collect();
        places.into_iter().for_each(|place| text[place].fill(b'*'));
        hits
    }
}

/// Every pattern by which a secret is found, as it is spelled.
fn patterns_of(secret: &[u8]) -> Vec<(Form, Vec<u8>)> {
    if !Watchlist::can_watch(secret) {
        return Vec::new();
    }
    if secret.len() <= FORMS_BYTES_MAX {
        return forms::patterns(secret);
    }
    let whole = forms::patterns(secret).into_iter().filter(|(form, _)| *form == Form::Part);
    let end = forms::patterns(&secret[secret.len() - END_BYTES..]).into_iter();
    whole.chain(end.map(|(form, text)| (if form == Form::Plain { Form::Part } else { form }, text))).collect()
}

fn squash(text: &[u8]) -> Vec<u8> {
    let mut squash = Squash::default();
    text.iter().filter_map(|byte| squash.look(*byte)).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
