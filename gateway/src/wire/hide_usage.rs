//! Hot: takes the usage chunk out of a stream whose caller did not ask for it.
//!
//! When the gateway asks for usage on the caller's behalf, an OpenAI-style stream ends with one more chunk, whose
//! `choices` are empty, and a plain loop over `choices[0]` breaks on it. Exactly that event is left out; all other
//! bytes stay as they are. (The `"usage":null` that some providers then add to the other chunks stays, too: SDKs
//! expect it, and taking it out would mean rewriting every event.)
//!
//! An event is held back only while it is cut and has not yet shown a choice, which comes early in each chunk.

use bytes::Bytes;

use super::sse::{Frames, Piece};
use super::tokens::{Container, Leaves, Text, Tokens};

/// A usage chunk has a few hundred bytes; an event that is larger is none.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// A filter over one response body of server-sent events.
#[derive(Debug)]
pub struct HideUsage {
    frames: Frames,
    tokens: Tokens<Place>,
    event: Event,
    /// The undecided event's bytes from earlier chunks.
    held: Vec<u8>,
    is_last_hidden: bool,
}

/// What is known of the current event.
#[derive(Clone, Copy, Debug, Default)]
struct Event {
    has_choices: bool,
    has_choice: bool,
    has_usage: bool,
    is_too_large: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Root,
    Choices,
    Usage,
}

/// What remains of a chunk: its beginning, as long as nothing was taken out or put before it.
struct Shown<'a> {
    chunk: &'a Bytes,
    end: usize,
    copied: Option<Vec<u8>>,
}

impl HideUsage {
    /// A filter for a stream that begins.
    pub fn new() -> Self {
        Self {
            frames: Frames::default(),
            tokens: Tokens::new::<Event>(),
            event: Event::default(),
            held: Vec::new(),
            is_last_hidden: false,
        }
    }

    /// The bytes to send for this chunk: most often the chunk itself, without a copy; sometimes fewer, or none.
    pub fn feed(&mut self, chunk: Bytes) -> Bytes {
        let mut shown = Shown { chunk: &chunk, end: 0, copied: None };
        let mut rest = &chunk[..];
        let mut event_start = 0;
        while let Some((piece, after)) = self.frames.next(rest) {
            let start = chunk.len() - rest.len();
            let end = chunk.len() - after.len();
            rest = after;
            match piece {
                Piece::Data(data) => self.tokens.feed(data, &mut self.event),
                Piece::DataEnd => self.tokens.feed(b"\n", &mut self.event),
                Piece::Other => {}
                Piece::LineFeed => {
                    // The first byte after an event belongs to that event.
                    if start == event_start && self.held.is_empty() {
                        if !self.is_last_hidden {
                            shown.push(&mut self.held, start, end);
                        }
                        event_start = end;
                    }
                }
                Piece::EventEnd => {
                    if self.event_end() {
                        self.held.clear();
                    } else {
                        shown.push(&mut self.held, event_start, end);
                    }
                    event_start = end;
                    continue;
                }
            }
            self.is_last_hidden = false;
        }
        self.hold_or_show(&mut shown, event_start);
        shown.into_bytes()
    }

    /// The bytes to send after the last chunk: an event that never ended.
    pub fn finish(mut self) -> Bytes {
        if self.event_end() { Bytes::new() } else { Bytes::from(self.held) }
    }

    /// Whether the event that ends here is to be hidden.
    fn event_end(&mut self) -> bool {
        self.tokens.restart::<Event>();
        self.is_last_hidden = std::mem::take(&mut self.event).is_hidden();
        self.is_last_hidden
    }

    /// The part of an unfinished event at the end of a chunk.
    fn hold_or_show(&mut self, shown: &mut Shown<'_>, event_start: usize) {
        let part = &shown.chunk[event_start..];
        if self.held.len() + part.len() > HELD_BYTES_MAX {
            self.event.is_too_large = true;
        }
        if self.event.is_shown() {
            shown.push(&mut self.held, event_start, shown.chunk.len());
        } else {
            self.held.extend_from_slice(part);
        }
    }
}

impl Default for HideUsage {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    fn is_hidden(self) -> bool {
        self.has_choices && self.has_usage && !self.is_shown()
    }

    fn is_shown(self) -> bool {
        self.has_choice || self.is_too_large
    }
}

impl Leaves for Event {
    type Place = Place;
    const ROOT: Place = Place::Root;
    const NOWHERE: Place = Place::Nowhere;

    fn member(&self, object: Place, key: &[u8]) -> Place {
        match (object, key) {
            (Place::Root, b"choices") => Place::Choices,
            (Place::Root, b"usage") => Place::Usage,
            _ => Place::Nowhere,
        }
    }

    fn open(&mut self, place: Place, container: Container) {
        match place {
            Place::Choices if !self.has_choices && container == Container::Array => self.has_choices = true,
            Place::Choices => self.has_choice = true,
            Place::Usage => self.has_usage |= container == Container::Object,
            Place::Nowhere | Place::Root => {}
        }
    }

    fn string(&mut self, place: Place, _: Text<'_>) {
        self.has_choice |= place == Place::Choices;
    }

    fn scalar(&mut self, place: Place, _: Text<'_>) {
        self.has_choice |= place == Place::Choices;
    }

    fn document_end(&mut self) {}
}

impl Shown<'_> {
    /// Adds what was held and then a part of the chunk.
    fn push(&mut self, held: &mut Vec<u8>, start: usize, end: usize) {
        if held.is_empty() && self.copied.is_none() && start == self.end {
            self.end = end;
            return;
        }
        let copied = self.copied.get_or_insert_with(|| self.chunk[..self.end].to_vec());
        copied.append(held);
        copied.extend_from_slice(&self.chunk[start..end]);
    }

    fn into_bytes(self) -> Bytes {
        let (chunk, end) = (self.chunk, self.end);
        self.copied.map_or_else(|| chunk.slice(..end), Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHOICE: &str =
        r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"choices: []"}}],"usage":null}"#;
    const USAGE: &str = r#"data: {"id":"1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    const DONE: &str = "data: [DONE]";

    fn filtered<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut filter = HideUsage::new();
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(&filter.feed(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&filter.finish());
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(stream: &str, expected: &str) {
        assert_eq!(filtered([stream.as_bytes()]), expected);
        assert_eq!(filtered(stream.as_bytes().chunks(1)), expected, "byte by byte");
        for cut in 0..stream.len() {
            let (left, right) = stream.as_bytes().split_at(cut);
            assert_eq!(filtered([left, right]), expected, "cut at {cut}");
        }
    }

    #[track_caller]
    fn check_unchanged(stream: &str) {
        check(stream, stream);
    }

    #[test]
    fn the_usage_chunk_disappears_with_its_empty_line() {
        for end in ["\n\n", "\r\n\r\n", "\r\r", "\r\n\n"] {
            let stream = format!("{CHOICE}{end}{USAGE}{end}{DONE}{end}");
            check(&stream, &format!("{CHOICE}{end}{DONE}{end}"));
            check(&format!("{USAGE}{end}{DONE}{end}"), &format!("{DONE}{end}"));
        }
    }

    #[test]
    fn everything_else_stays() {
        check_unchanged(&format!("{CHOICE}\n\n{DONE}\n\n"));
        check_unchanged(": comment\n\nevent: ping\ndata: {}\n\ndata: no json\n\n");
        // Azure's first chunk, and usage in a chunk that has a choice.
        check_unchanged("data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n");
        check_unchanged("data: {\"choices\":[{\"index\":0}],\"usage\":{\"prompt_tokens\":1}}\n\n");
        check_unchanged("data: {\"choices\":null,\"usage\":{\"prompt_tokens\":1}}\n\n");
        check_unchanged("data: {\"choices\":[],\"usage\":null}\n\n");
        check_unchanged("data: {\"nested\":{\"choices\":[],\"usage\":{}}}\n\n");
        check_unchanged("data: {\"choices\":[");
        check_unchanged("");
    }

    #[test]
    fn an_untouched_chunk_is_not_copied() {
        let chunk = Bytes::from(format!("{CHOICE}\n\n{CHOICE}\n\n"));
        let shown = HideUsage::new().feed(chunk.clone());
        assert_eq!(shown.as_ptr(), chunk.as_ptr());
        assert_eq!(shown.len(), chunk.len());
    }

    #[test]
    fn a_cut_event_is_not_held_once_it_has_a_choice() {
        let mut filter = HideUsage::new();
        let part = &CHOICE[..CHOICE.len() - 10];
        assert_eq!(filter.feed(Bytes::copy_from_slice(part.as_bytes())), part);
        assert_eq!(filter.feed(Bytes::copy_from_slice(b"more")), "more");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut filter = HideUsage::new();
        let opening = Bytes::from_static(b"data: {\"x\":\"");
        assert!(filter.feed(opening.clone()).is_empty());
        let large = Bytes::from(vec![b'a'; HELD_BYTES_MAX]);
        assert_eq!(filter.feed(large.clone()).len(), opening.len() + large.len());
        assert_eq!(filter.feed(large.clone()).len(), large.len());
        let end = "\",\"choices\":[],\"usage\":{}}\n\n";
        assert_eq!(filter.feed(Bytes::from(end)), end);
        assert!(filter.feed(Bytes::from(format!("{USAGE}\n\n"))).is_empty());
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            events in proptest::collection::vec(prop_oneof![Just(CHOICE), Just(USAGE), Just(DONE), Just(": x"), Just("")], 0..6),
            ends in proptest::collection::vec(prop_oneof![Just("\n"), Just("\r"), Just("\r\n"), Just("")], 12),
            size in 1usize..40,
        ) {
            let lines = events.iter().zip(ends.chunks(2)).map(|(event, ends)| format!("{event}{}{}", ends[0], ends[1]));
            let stream: String = lines.collect();
            let whole = filtered([stream.as_bytes()]);
            prop_assert_eq!(filtered(stream.as_bytes().chunks(size)), whole);
        }

        #[test]
        fn a_stream_without_usage_passes_unchanged(stream in "(data: ?|[\\[\\]{}\":,a-z ]|\n|\r){0,60}") {
            prop_assert_eq!(filtered([stream.as_bytes()]), &stream[..]);
            prop_assert_eq!(filtered(stream.as_bytes().chunks(3)), stream);
        }
    }
}
