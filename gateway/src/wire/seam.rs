//! Hot: where a stream can be ended: between two events, as its caller sees them.
//!
//! Providers cut their chunks where they like, so the end of a chunk is not the end of an event. Of most formats the
//! last bytes tell; only a growing JSON array has to be read through.

use super::Framing;

/// Follows what a caller is shown of a stream.
#[derive(Clone, Debug)]
pub struct Seam(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// The last three bytes; an empty line at the beginning makes the beginning an end.
    Sse([u8; 3]),
    /// The last byte.
    Ndjson(u8),
    Array(Array),
}

/// A JSON array whose elements are the events.
#[derive(Clone, Copy, Debug, Default)]
struct Array {
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
    /// The last byte outside of the elements that is no space: `[`, `,`, the `}` of an element, `]`; 0 at first.
    last: u8,
    /// Something else than an array arrived.
    is_other: bool,
}

/// What has to stand around the event that ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joint {
    pub(super) before: &'static str,
    pub(super) after: &'static str,
}

impl Seam {
    /// For a stream that begins. A JSON document has events only where it `is_array` of them.
    pub fn new(framing: Framing, is_array: bool) -> Option<Self> {
        match framing {
            Framing::Sse => Some(Self(Kind::Sse([b'\n'; 3]))),
            Framing::Ndjson => Some(Self(Kind::Ndjson(b'\n'))),
            Framing::Json => is_array.then(|| Self(Kind::Array(Array::default()))),
        }
    }

    /// The caller is shown these bytes.
    pub fn follow(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Sse(tail) => {
                for byte in &bytes[bytes.len().saturating_sub(tail.len())..] {
                    *tail = [tail[1], tail[2], *byte];
                }
            }
            Kind::Ndjson(last) => *last = bytes.last().copied().unwrap_or(*last),
            Kind::Array(array) => array.follow(bytes),
        }
    }

    /// Whether the caller has seen whole events only.
    pub fn is_between_events(&self) -> bool {
        match &self.0 {
            Kind::Sse([.., b'\n' | b'\r', b'\r'] | [.., b'\n', b'\n'] | [b'\n' | b'\r', b'\r', b'\n']) => {
                true
            }
            Kind::Sse(_) => false,
            Kind::Ndjson(last) => *last == b'\n',
            Kind::Array(array) => array.is_between_elements(),
        }
    }

    pub(super) fn is_sse(&self) -> bool {
        matches!(self.0, Kind::Sse(_))
    }

    pub(super) fn is_lines(&self) -> bool {
        matches!(self.0, Kind::Ndjson(_))
    }

    /// How much of a chunk that follows belongs to its first event; `None` when no event ends in it.
    pub fn first_end(&self, chunk: &[u8]) -> Option<usize> {
        let mut ahead = self.clone();
        let mut seen = 0;
        for at in memchr::memchr3_iter(b'\n', b'\r', b'}', chunk) {
            ahead.follow(&chunk[seen..=at]);
            seen = at + 1;
            if ahead.ends_event(chunk[at]) {
                let is_split_crlf = chunk[at] == b'\r' && chunk.get(seen) == Some(&b'\n');
                return Some(if is_split_crlf { seen + 1 } else { seen });
            }
        }
        None
    }

    /// Whether this byte, which was followed last, is the end of an event.
    fn ends_event(&self, byte: u8) -> bool {
        let is_end = match self.0 {
            Kind::Sse(_) | Kind::Ndjson(_) => byte != b'}',
            Kind::Array(array) => byte == b'}' && array.last == b'}',
        };
        is_end && self.is_between_events()
    }

    /// What joins one more event, the last, to what the caller has seen. `None` where none can follow. An event
    /// that is under way cannot be taken back, but it is ended, so that the last one is read by itself.
    pub(super) fn joint(&self) -> Option<Joint> {
        let joint = |before, after| Some(Joint { before, after });
        match &self.0 {
            // The line feed of a CRLF may be still to come; an empty line more does no harm.
            Kind::Sse([.., b'\r']) if self.is_between_events() => joint("\n", ""),
            Kind::Sse(_) if self.is_between_events() => joint("", ""),
            Kind::Sse(_) => joint("\n\n", ""),
            Kind::Ndjson(b'\n') => joint("", ""),
            Kind::Ndjson(_) => joint("\n", ""),
            Kind::Array(array) if !array.is_between_elements() || array.is_other => None,
            Kind::Array(array) => match array.last {
                0 => joint("[", "\n]"),
                b'[' | b',' => joint("", "\n]"),
                b'}' => joint(",\r\n", "\n]"),
                _ => None,
            },
        }
    }
}

impl Array {
    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            bytes = rest;
            if std::mem::take(&mut self.is_escaped) {
                continue;
            }
            if self.is_in_string {
                match first {
                    b'"' => self.is_in_string = false,
                    b'\\' => self.is_escaped = true,
                    // The text of a string is most of a stream.
                    _ => bytes = &rest[memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())..],
                }
                continue;
            }
            self.structure(*first);
        }
    }

    /// A byte outside of strings.
    fn structure(&mut self, byte: u8) {
        if byte.is_ascii_whitespace() {
            return;
        }
        self.is_other |= self.depth == 0 && (self.last != 0 || byte != b'[');
        match byte {
            b'"' => self.is_in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth <= 1 {
            self.last = byte;
        }
    }

    fn is_between_elements(&self) -> bool {
        let is_whole =
            self.depth <= 1 && !self.is_in_string && matches!(self.last, 0 | b'[' | b',' | b'}' | b']');
        is_whole || self.is_other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(framing: Framing, text: &str) -> Seam {
        let mut seam = Seam::new(framing, true).unwrap();
        seam.follow(text.as_bytes());
        seam
    }

    /// Checks what is known after this text, however it arrives.
    #[track_caller]
    fn check(framing: Framing, text: &str, is_between_events: bool) {
        assert_eq!(after(framing, text).is_between_events(), is_between_events, "{text:?}");
        let mut seam = Seam::new(framing, true).unwrap();
        text.bytes().for_each(|byte| seam.follow(&[byte]));
        assert_eq!(seam.is_between_events(), is_between_events, "{text:?} byte by byte");
    }

    #[track_caller]
    fn check_first_end(framing: Framing, seen: &str, chunk: &str, expected: Option<&str>) {
        let end = after(framing, seen).first_end(chunk.as_bytes());
        assert_eq!(end.map(|end| &chunk[..end]), expected, "{seen:?} then {chunk:?}");
    }

    #[test]
    fn an_empty_line_ends_an_event() {
        for text in
            ["", "data: a\n\n", "data: a\r\n\r\n", "data: a\r\r", "data: a\n\r\n", "data: a\r\n\n", ": x\n\n"]
        {
            check(Framing::Sse, text, true);
        }
        for text in ["d", "data: a\n", "data: a\r\n", "data: a\r", "data: a\n\nevent: b\n", "\n\n "] {
            check(Framing::Sse, text, false);
        }
    }

    #[test]
    fn a_line_feed_ends_a_line() {
        check(Framing::Ndjson, "", true);
        check(Framing::Ndjson, "{}\n", true);
        check(Framing::Ndjson, "{}\n{", false);
        check(Framing::Ndjson, "{}", false);
    }

    #[test]
    fn an_array_is_whole_between_its_elements() {
        for text in ["", "[", "[\n", "[{}", "[{\"a\":[{}]}", "[{}\n,\r\n", "[{}]", "[{\"a\":\"}\\\"{\"}"] {
            check(Framing::Json, text, true);
        }
        for text in ["[{", "[{\"a\":[{}]", "[{}\n,\r\n{\"a", "[{\"a\":\"}\\\"}", "[{\"a\":{}", "[1"] {
            check(Framing::Json, text, false);
        }
    }

    #[test]
    fn the_first_event_of_a_chunk_is_found() {
        check_first_end(Framing::Sse, "", "data: a\n\ndata: b\n\n", Some("data: a\n\n"));
        check_first_end(Framing::Sse, "data: {", "}\n\ndata: b\n\n", Some("}\n\n"));
        check_first_end(Framing::Sse, "data: a\n", "\ndata: b\n\n", Some("\n"));
        check_first_end(Framing::Sse, "data: a", "\r\n\r\ndata: b", Some("\r\n\r\n"));
        check_first_end(Framing::Sse, "data: a", "a\nid: {}\n", None);
        check_first_end(Framing::Ndjson, "{\"a\":", "{}}\n{}\n", Some("{}}\n"));
        check_first_end(Framing::Ndjson, "{\"a\":", "{}}", None);
        check_first_end(Framing::Json, "[{\"a\":", "{}\n}\n,\r\n{}", Some("{}\n}"));
        check_first_end(Framing::Json, "[{\"a\":", "\"}", None);
        check_first_end(Framing::Json, "[{}", "\n,\n{\"b\":1}]", Some("\n,\n{\"b\":1}"));
    }

    #[track_caller]
    fn check_joint(framing: Framing, text: &str, expected: Option<(&str, &str)>) {
        let joint = after(framing, text).joint();
        assert_eq!(joint.map(|joint| (joint.before, joint.after)), expected, "{text:?}");
    }

    #[test]
    fn the_last_event_stands_by_itself() {
        check_joint(Framing::Sse, "data: a\n\n", Some(("", "")));
        check_joint(Framing::Sse, "data: a", Some(("\n\n", "")));
        check_joint(Framing::Sse, "data: a\r\n\r", Some(("\n", "")));
        check_joint(Framing::Ndjson, "{}", Some(("\n", "")));
        check_joint(Framing::Json, "", Some(("[", "\n]")));
        check_joint(Framing::Json, "[", Some(("", "\n]")));
        check_joint(Framing::Json, "[{}\n", Some((",\r\n", "\n]")));
        check_joint(Framing::Json, "[{},", Some(("", "\n]")));
    }

    #[test]
    fn nothing_follows_what_is_no_array_or_is_over() {
        for text in ["[{", "[{}]", "{\"error\":{}}", "{", "\"", "[{}]["] {
            check_joint(Framing::Json, text, None);
        }
        // What cannot be ended in order need not be waited for.
        check(Framing::Json, "{\"error\":{", true);
        assert!(Seam::new(Framing::Json, false).is_none());
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(text in "[\\[\\]{},\"\\\\ \r\na]{0,30}", cut in any::<prop::sample::Index>()) {
            let (left, right) = text.as_bytes().split_at(cut.index(text.len() + 1));
            for framing in [Framing::Sse, Framing::Ndjson, Framing::Json] {
                let mut parts = Seam::new(framing, true).unwrap();
                parts.follow(left);
                parts.follow(right);
                let whole = after(framing, &text);
                prop_assert_eq!(parts.is_between_events(), whole.is_between_events());
                prop_assert_eq!(parts.joint(), whole.joint());
            }
        }

        #[test]
        fn the_first_end_is_an_end(seen in "[\\[{}\"\r\na]{0,12}", chunk in "[\\[\\]{},\"\r\na]{0,20}") {
            for framing in [Framing::Sse, Framing::Ndjson, Framing::Json] {
                let mut seam = after(framing, &seen);
                if let Some(end) = seam.first_end(chunk.as_bytes()) {
                    seam.follow(&chunk.as_bytes()[..end]);
                    prop_assert!(seam.is_between_events());
                }
            }
        }
    }
}
