//! Hot: the texts of an answer, each scanned by itself, and where they stand among its bytes.

use std::ops::Range;

use policy::scan::{Channel, Hit, Watchlist};

use super::escapes::Escapes;
use super::place::{Place, Positions};
use super::spelled::Spelled;
use crate::wire::tokens::{Container, Leaves, Text};

/// Texts that are told apart; what comes beyond is one text more.
const TEXTS_MAX: usize = 255;
/// Pieces whose places are remembered.
const SEGMENTS_MAX: usize = 512;
/// The text of all that is no value: keys, brackets, numbers, names of events.
const REST: usize = 0;

/// The texts of one answer.
#[derive(Debug)]
pub(super) struct Texts {
    texts: Vec<Known>,
    /// How many end with the beginning of a secret.
    live: usize,
    positions: Positions,
    /// The last one, which the next piece most often belongs to.
    last: usize,
    characters: Characters,
    escapes: Escapes,
    /// Since the last bytes that were let go.
    segments: Vec<Segment>,
    found: Vec<Found>,
    /// Whether there were more than can be told apart.
    pub(super) is_folded: bool,
    /// Whether some of what may be told has no known place any more.
    pub(super) is_lost: bool,
    /// Whether the answer is a list, whose elements are the events.
    is_list: bool,
    /// Whether the last byte ends an escape or a character, if it is part of one.
    is_whole: bool,
    /// Up to here, no text ended with the beginning of a secret.
    pub(super) quiet_to: u64,
    /// The same, between two events.
    pub(super) quiet_event_to: u64,
}

#[derive(Debug)]
struct Known {
    id: u64,
    channel: Channel,
    is_live: bool,
    is_echo: bool,
    /// Whether a secret was found in it that nobody has asked for yet.
    has_found: bool,
}

/// Where a text stands between the bytes of its characters.
#[derive(Debug, Default)]
struct Characters {
    /// So many bytes of the last one are to come.
    missing: usize,
}

/// Bytes of a text, as they stand in the answer.
#[derive(Clone, Debug)]
struct Segment {
    start: u64,
    length: u32,
    text: u16,
    /// Whether they are the inside of a JSON string.
    is_quoted: bool,
}

/// A secret in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    text: usize,
    pub(super) hit: Hit,
    /// Whether it stands in what the provider repeats of the request.
    pub(super) is_echo: bool,
    /// The end of the last event before that is known to hold nothing of it.
    pub(super) quiet_event_to: u64,
}

/// What is being read: some bytes of the answer.
pub(super) struct Pass<'a> {
    pub(super) texts: &'a mut Texts,
    pub(super) list: &'a Watchlist,
    bytes: &'a [u8],
    /// Where they begin in the answer; `None` for what does not stand there.
    start: Option<u64>,
    /// Up to here they were shown to some text.
    done: usize,
}

impl Texts {
    pub(super) fn new() -> Self {
        let rest =
            Known { id: 0, channel: Channel::default(), is_live: false, is_echo: false, has_found: false };
        Self {
            texts: vec![rest],
            live: 0,
            positions: Positions::default(),
            last: REST,
            characters: Characters::default(),
            escapes: Escapes::default(),
            segments: Vec::new(),
            found: Vec::new(),
            is_folded: false,
            is_lost: false,
            is_list: false,
            is_whole: true,
            quiet_to: 0,
            quiet_event_to: 0,
        }
    }

    /// Whether what was read so far can be let go: no text ends with the beginning of a secret, or within an
    /// escape or a character.
    pub(super) fn is_quiet(&self) -> bool {
        self.live == 0 && self.is_whole
    }

    /// Whether a text ends with so much of a secret that it would tell.
    pub(super) fn is_telling(&self, list: &Watchlist) -> bool {
        self.texts.iter().any(|known| known.is_live && known.channel.tail(list).is_telling())
    }

    /// Bytes that are no value's text.
    pub(super) fn rest(&mut self, list: &Watchlist, bytes: &[u8], at: u64) {
        self.feed(list, REST, bytes);
        let whole = self.characters.whole(bytes).min(self.escapes.whole(bytes));
        self.note(REST, at..at + bytes.len() as u64, false, whole);
    }

    /// An event ends here.
    pub(super) fn event_end(&mut self, at: u64) {
        self.positions.clear();
        if self.is_quiet() {
            self.quiet_event_to = at;
        }
    }

    /// What was found since the last call.
    pub(super) fn take_found(&mut self) -> Vec<Found> {
        let found = std::mem::take(&mut self.found);
        found.iter().for_each(|found| self.texts[found.text].has_found = false);
        found
    }

    /// The bytes before this place were let go.
    pub(super) fn forget_before(&mut self, at: u64) {
        self.segments.retain(|segment| segment.end() > at);
        self.is_lost &= !self.segments.is_empty();
    }

    /// What texts end with now is let go, because it tells nothing. They are looked at again when they go on.
    pub(super) fn dismiss(&mut self, at: u64) {
        self.texts.iter_mut().for_each(|known| known.is_live = false);
        self.live = 0;
        self.quiet_to = at;
    }

    fn feed(&mut self, list: &Watchlist, text: usize, bytes: &[u8]) {
        let Self { texts, found, quiet_event_to, .. } = self;
        let known = &mut texts[text];
        let (is_echo, quiet_event_to) = (known.is_echo, *quiet_event_to);
        known.channel.feed(list, bytes, |hit| {
            known.has_found = true;
            found.push(Found { text, hit, is_echo, quiet_event_to });
        });
        let is_live = known.channel.tail(list).is_live();
        if is_live != known.is_live {
            known.is_live = is_live;
            self.live = if is_live { self.live + 1 } else { self.live - 1 };
        }
    }

    /// Bytes of a text stand here; what may be let go is known up to so many of them.
    fn note(&mut self, text: usize, at: Range<u64>, is_quoted: bool, whole: usize) {
        let whole = at.start + whole as u64;
        self.is_whole = whole == at.end;
        if self.live == 0 {
            self.quiet_to = whole;
        }
        let (Ok(text), Ok(length)) = (u16::try_from(text), u32::try_from(at.end - at.start)) else { return };
        let follows =
            |last: &&mut Segment| (last.text, last.is_quoted, last.end()) == (text, is_quoted, at.start);
        match self.segments.last_mut().filter(follows) {
            Some(last) if last.length.checked_add(length).is_some() => last.length += length,
            _ if length == 0 => {}
            _ => {
                self.make_room();
                self.segments.push(Segment { start: at.start, length, text, is_quoted });
            }
        }
    }

    /// Forgets the places of old pieces when they are too many, first of texts that end with nothing. What is forgotten of
    /// others cannot be masked any more.
    fn make_room(&mut self) {
        if self.segments.len() < SEGMENTS_MAX {
            return;
        }
        let mut before_recent = SEGMENTS_MAX - SEGMENTS_MAX / 4;
        let texts = &self.texts;
        self.segments.retain(|segment| {
            let is_recent = before_recent == 0;
            before_recent = before_recent.saturating_sub(1);
            let known = &texts[usize::from(segment.text)];
            is_recent || known.is_live || known.has_found
        });
        if self.segments.len() > SEGMENTS_MAX * 3 / 4 {
            self.segments.drain(..SEGMENTS_MAX / 4);
            self.is_lost = true;
        }
    }

    fn of(&mut self, place: Place) -> usize {
        let id = place.id();
        if self.texts[self.last].id != id {
            self.last = self.find(id, place.is_echo());
        }
        self.last
    }

    fn find(&mut self, id: u64, is_echo: bool) -> usize {
        if let Some(at) = self.texts.iter().position(|known| known.id == id) {
            return at;
        }
        if self.texts.len() > TEXTS_MAX {
            self.is_folded = true;
            return TEXTS_MAX;
        }
        self.texts.push(Known { id, channel: Channel::default(), is_live: false, is_echo, has_found: false });
        self.texts.len() - 1
    }

    /// Where secrets that were found stand in `bytes`, which are the last of those that were read; what is before them is
    /// not told.
    pub(super) fn places_of(&self, found: &[&Found], bytes: &[u8], start: u64) -> Vec<Range<usize>> {
        let mut texts: Vec<usize> = found.iter().map(|found| found.text).collect();
        texts.sort_unstable();
        texts.dedup();
        let places = texts.into_iter().flat_map(|text| {
            let (seen, spelled) = (self.texts[text].channel.seen(), self.spelled(text, bytes, start));
            let found = found.iter().filter(move |found| found.text == text);
            found.flat_map(move |Found { hit, .. }| spelled.place(hit.view, hit.letters, seen - hit.end))
        });
        places.collect()
    }

    /// Where the beginnings of secrets stand with which texts end, if they tell too much. What is repeated of a request
    /// tells nothing.
    pub(super) fn telling_ends(&self, list: &Watchlist, bytes: &[u8], start: u64) -> Vec<Range<usize>> {
        let telling =
            self.texts.iter().enumerate().filter(|(_, known)| {
                known.is_live && !known.is_echo && known.channel.tail(list).is_telling()
            });
        let places = telling.flat_map(|(text, known)| {
            let (view, letters) = known.channel.deepest(list);
            self.spelled(text, bytes, start).place(view, letters, 0)
        });
        places.collect()
    }

    /// What these bytes of the answer, from `start` on, say of a text.
    fn spelled(&self, text: usize, bytes: &[u8], start: u64) -> Spelled {
        let mut spelled = Spelled::default();
        for segment in self.segments.iter().filter(|segment| usize::from(segment.text) == text) {
            let at = segment.start.max(start);
            let (Some(from), Some(to)) = (index(at, start), index(segment.end(), start)) else { continue };
            let Some(part) = bytes.get(from..to) else { continue };
            if segment.is_quoted { spelled.quoted(part, from) } else { spelled.plain(part, from) }
        }
        spelled
    }
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }
}

impl Characters {
    /// How many of the next bytes are whole characters.
    fn whole(&mut self, bytes: &[u8]) -> usize {
        let Some(lead) = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80) else {
            self.missing = self.missing.saturating_sub(bytes.len());
            return if self.missing > 0 { 0 } else { bytes.len() };
        };
        let length = match bytes[lead].leading_ones() {
            ones @ 2..=4 => ones as usize,
            _ => 1,
        };
        self.missing = length.saturating_sub(bytes.len() - lead);
        if self.missing > 0 { lead } else { bytes.len() }
    }
}

fn index(at: u64, start: u64) -> Option<usize> {
    usize::try_from(at.checked_sub(start)?).ok()
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        texts: &'a mut Texts,
        list: &'a Watchlist,
        bytes: &'a [u8],
        start: Option<u64>,
    ) -> Self {
        Self { texts, list, bytes, start, done: 0 }
    }

    /// Shows what is left to the rest.
    pub(super) fn finish(mut self) {
        self.rest_to(self.bytes.len());
    }

    fn rest_to(&mut self, end: usize) {
        if let Some(start) = self.start.filter(|_| end > self.done) {
            self.texts.rest(self.list, &self.bytes[self.done..end], start + self.done as u64);
        }
        self.done = end;
    }
}

impl Leaves for Pass<'_> {
    type Place = Place;
    const ROOT: Place = Place::ROOT;
    const NOWHERE: Place = Place::NOWHERE;

    fn member(&self, object: Place, key: &[u8]) -> Place {
        object.member(key, &self.texts.positions)
    }

    fn open(&mut self, place: Place, container: Container) {
        self.texts.is_list |= place == Place::ROOT && container == Container::Array;
    }

    fn close(&mut self, depth: usize, end: usize) {
        if let (true, 1, Some(start)) = (self.texts.is_list, depth, self.start) {
            self.rest_to(end);
            self.texts.event_end(start + end as u64);
        }
    }

    fn text(&mut self, place: Place, text: &[u8]) {
        let at = self.texts.of(place);
        self.texts.feed(self.list, at, text);
    }

    fn spelled(&mut self, place: Place, bytes: Range<usize>, is_whole: bool) {
        let Some(start) = self.start else { return };
        self.rest_to(bytes.start);
        self.done = bytes.end;
        let whole = self.texts.characters.whole(&self.bytes[bytes.clone()]);
        let whole = if is_whole { whole } else { 0 };
        let text = self.texts.of(place);
        self.texts.note(text, start + bytes.start as u64..start + bytes.end as u64, true, whole);
    }

    fn string(&mut self, place: Place, text: Text<'_>) {
        self.scalar(place, text);
    }

    fn scalar(&mut self, place: Place, text: Text<'_>) {
        if let Some(value) = text.whole() {
            self.texts.positions.note(place, value);
        }
    }

    fn document_end(&mut self) {
        self.texts.positions.clear();
    }
}
