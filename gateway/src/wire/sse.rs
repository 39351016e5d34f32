//! Hot: server-sent events, cut into pieces as the bytes arrive.
//!
//! Lines end in LF, CR or CRLF; `data:` may be followed by one space; an empty line ends an event. Nothing is
//! buffered: a line of data that arrives in parts is handed on in parts.

const FIELD: &[u8] = b"data:";

/// A part of an event stream. The pieces of a chunk together are the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Some data of the current event.
    Data(&'a [u8]),
    /// The end of a line of data; more lines of the same event may follow.
    DataEnd,
    /// Names, comments, other fields.
    Other,
    /// The empty line after an event.
    EventEnd,
    /// The LF of a CRLF whose CR has ended the line already.
    LineFeed,
}

/// The state between two chunks of an event stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frames {
    line: Line,
    is_after_cr: bool,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    /// So many bytes of `data:` were read, and nothing else.
    Start(usize),
    /// Just after `data:`.
    Space,
    Data,
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Start(0)
    }
}

impl Frames {
    /// The first piece of what is left of a chunk, and the rest of it.
    pub(crate) fn next<'a>(&mut self, bytes: &'a [u8]) -> Option<(Piece<'a>, &'a [u8])> {
        let (first, rest) = bytes.split_first()?;
        if std::mem::take(&mut self.is_after_cr) && *first == b'\n' {
            return Some((Piece::LineFeed, rest));
        }
        if let b'\n' | b'\r' = first {
            self.is_after_cr = *first == b'\r';
            return Some((self.line_end(), rest));
        }
        match self.line {
            Line::Start(matched) => Some((Piece::Other, self.field(matched, bytes))),
            Line::Space => {
                self.line = Line::Data;
                if *first == b' ' { Some((Piece::Other, rest)) } else { self.next(bytes) }
            }
            Line::Data | Line::Other => {
                let run = memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
                let (run, rest) = bytes.split_at(run);
                let piece = if let Line::Data = self.line { Piece::Data(run) } else { Piece::Other };
                Some((piece, rest))
            }
        }
    }

    fn line_end(&mut self) -> Piece<'static> {
        match std::mem::take(&mut self.line) {
            Line::Start(0) => Piece::EventEnd,
            Line::Space | Line::Data => Piece::DataEnd,
            Line::Start(_) | Line::Other => Piece::Other,
        }
    }

    /// Compares the beginning of a line with the name of the one field that counts.
    fn field<'a>(&mut self, matched: usize, bytes: &'a [u8]) -> &'a [u8] {
        let expected = &FIELD[matched..];
        let same = bytes.iter().zip(expected).take_while(|(byte, expected)| byte == expected).count();
        self.line = if same == expected.len() {
            Line::Space
        } else if same == bytes.len() {
            Line::Start(matched + same)
        } else {
            Line::Other
        };
        &bytes[same..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data of each event, lines joined as the standard says, from any chunks.
    fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut frames = Frames::default();
        let (mut events, mut data) = (Vec::new(), Vec::new());
        for mut chunk in chunks {
            while let Some((piece, rest)) = frames.next(chunk) {
                chunk = rest;
                match piece {
                    Piece::Data(part) => data.extend_from_slice(part),
                    Piece::DataEnd => data.push(b'\n'),
                    Piece::EventEnd if data.is_empty() => {}
                    Piece::EventEnd => {
                        data.pop();
                        events.push(String::from_utf8(std::mem::take(&mut data)).unwrap());
                    }
                    Piece::Other | Piece::LineFeed => {}
                }
            }
        }
        events
    }

    #[track_caller]
    fn check_events(stream: &str, expected: &[&str]) {
        assert_eq!(events([stream.as_bytes()]), expected, "{stream:?}");
        assert_eq!(events(stream.as_bytes().chunks(1)), expected, "{stream:?} byte by byte");
    }

    #[test]
    fn lines_end_in_any_way() {
        check_events("data: a\n\ndata:b\n\n", &["a", "b"]);
        check_events("data: a\r\n\r\ndata:b\r\n\r\n", &["a", "b"]);
        check_events("data: a\r\rdata:b\r\r", &["a", "b"]);
        check_events("data: a\r\n\ndata:b\n\r\n", &["a", "b"]);
    }

    #[test]
    fn other_lines_are_no_data() {
        check_events(": hello\n\nevent: x\nid: 7\ndata: a\nretry: 1\n\n", &["a"]);
        check_events("dat: a\ndatas: b\n data: c\ndata\ndata: d\n\n", &["d"]);
    }

    #[test]
    fn one_space_is_not_data_and_lines_are_joined() {
        check_events("data:  a\ndata:\ndata: {\ndata:}\n\n", &[" a\n\n{\n}"]);
    }

    #[test]
    fn an_event_needs_its_empty_line() {
        check_events("data: a\n", &[]);
        check_events("data: a", &[]);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(stream in "(data: ?|event:|:|[a-z ]|\n|\r|\r\n){0,30}", cut in any::<prop::sample::Index>()) {
            let whole = events([stream.as_bytes()]);
            let (left, right) = stream.as_bytes().split_at(cut.index(stream.len() + 1));
            prop_assert_eq!(&events([left, right]), &whole);
            prop_assert_eq!(&events(stream.as_bytes().chunks(1)), &whole);
        }
    }
}
