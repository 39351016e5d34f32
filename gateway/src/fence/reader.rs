//! Hot: takes an answer apart into its texts, as its bytes go by.

use policy::scan::Watchlist;

use super::place::Place;
use super::texts::{Pass, Texts};
use crate::wire::Framing;
use crate::wire::sse::{Frames, Piece};
use crate::wire::tokens::Tokens;

/// So many bytes are read at once, so that where a secret may begin is known as precisely.
const STRIDE: usize = 4096;

/// The reader of one answer.
#[derive(Debug)]
pub(super) struct Reader {
    kind: Kind,
    tokens: Tokens<Place>,
    pub(super) texts: Texts,
    /// How many bytes were read.
    pub(super) at: u64,
}

#[derive(Debug)]
enum Kind {
    Sse(Frames),
    Ndjson,
    Json,
    /// Something else: one text.
    Text,
}

impl Reader {
    /// For an answer that begins; `None` for one that is no JSON in any framing.
    pub(super) fn new(framing: Option<Framing>) -> Self {
        let kind = match framing {
            Some(Framing::Sse) => Kind::Sse(Frames::default()),
            Some(Framing::Ndjson) => Kind::Ndjson,
            Some(Framing::Json) => Kind::Json,
            None => Kind::Text,
        };
        Self { kind, tokens: Tokens::new::<Pass<'_>>(), texts: Texts::new(), at: 0 }
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, list: &Watchlist, bytes: &[u8]) {
        match self.kind {
            Kind::Sse(_) => self.feed_events(list, bytes),
            Kind::Ndjson => self.feed_lines(list, bytes),
            Kind::Json => self.json(list, bytes),
            Kind::Text => self.rest(list, bytes),
        }
    }

    fn feed_events(&mut self, list: &Watchlist, mut bytes: &[u8]) {
        while let Some((piece, rest)) = self.next_piece(bytes) {
            let whole = &bytes[..bytes.len() - rest.len()];
            bytes = rest;
            match piece {
                Piece::Data(data) => self.json(list, data),
                Piece::DataEnd => {
                    self.rest(list, whole);
                    // Lines of one event are joined by what is no part of either.
                    self.tokens.feed(b"\n", &mut Pass::new(&mut self.texts, list, b"\n", None));
                }
                Piece::EventEnd => {
                    self.rest(list, whole);
                    self.event_end();
                }
                Piece::Other | Piece::LineFeed => self.rest(list, whole),
            }
        }
    }

    fn next_piece<'a>(&mut self, bytes: &'a [u8]) -> Option<(Piece<'a>, &'a [u8])> {
        let Kind::Sse(frames) = &mut self.kind else { return None };
        frames.next(bytes)
    }

    fn feed_lines(&mut self, list: &Watchlist, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            self.json(list, line);
            // What ends a line is no part of a text in it, not even of one that lacks its quote.
            let (end, rest) = rest.split_at(1);
            self.rest(list, end);
            self.event_end();
            bytes = rest;
        }
        self.json(list, bytes);
    }

    fn event_end(&mut self) {
        self.tokens.restart::<Pass<'_>>();
        self.texts.event_end(self.at);
    }

    fn json(&mut self, list: &Watchlist, bytes: &[u8]) {
        for bytes in bytes.chunks(STRIDE) {
            let mut pass = Pass::new(&mut self.texts, list, bytes, Some(self.at));
            self.tokens.feed(bytes, &mut pass);
            pass.finish();
            self.at += bytes.len() as u64;
        }
    }

    fn rest(&mut self, list: &Watchlist, bytes: &[u8]) {
        for bytes in bytes.chunks(STRIDE) {
            self.texts.rest(list, bytes, self.at);
            self.at += bytes.len() as u64;
        }
    }
}
