//! Views of a text: what it would be if somebody decoded it once more, without what separates. Each is a small machine
//! that takes one byte at a time, so that where the text is cut into pieces changes nothing.

/// How a text is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// As it came.
    Plain,
    /// With the escapes of JSON and of most languages taken away once more, as the arguments of a tool have them.
    Escaped,
    /// With `%41` read as `A`.
    Percent,
    /// With `&amp;`, `&#65;` and `&#x41;` read as what they stand for.
    Html,
}

impl View {
    /// Every view.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Escaped, Self::Percent, Self::Html];

    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Escaped => "escaped",
            Self::Percent => "percent",
            Self::Html => "html",
        }
    }

    /// A place in a text, at `from` or before it, from which it is looked at as from its beginning, but for the first few
    /// bytes: no run of backslashes and no number of any length is cut there.
    pub(super) fn sync_before(self, text: &[u8], from: usize) -> usize {
        let goes_on = |byte: &u8| match self {
            Self::Plain | Self::Percent => false,
            Self::Escaped => *byte == b'\\',
            Self::Html => byte.is_ascii_alphanumeric() || matches!(byte, b'#' | b'&'),
        };
        text[..from].iter().rposition(|byte| !goes_on(byte)).map_or(0, |last| last + 1).min(from)
    }

    /// The view that differs from the plain one from this byte on.
    pub(super) fn parting_at(byte: u8) -> Option<Self> {
        match byte {
            b'\\' => Some(Self::Escaped),
            b'%' => Some(Self::Percent),
            b'&' => Some(Self::Html),
            _ => None,
        }
    }
}

/// What a view remembers between two bytes: never more than an escape that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lens {
    state: u8,
    value: u32,
}

impl Lens {
    /// Whether the last byte ended whatever it was part of.
    pub(super) fn is_idle(self) -> bool {
        self.state == 0
    }

    /// Looks at one byte. `out` gets what the view shows for it, byte by byte.
    pub(super) fn look(&mut self, view: View, byte: u8, mut out: impl FnMut(u8)) {
        match view {
            View::Plain => out(byte),
            View::Escaped => self.escaped(byte, &mut out),
            View::Percent => self.percent(byte, &mut out),
            View::Html => self.html(byte, &mut out),
        }
    }

    /// State 1 is after a backslash, 2 to 5 in the digits of `\u`, 8 and 9 in those of `\x`.
    fn escaped(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        match (self.state, byte) {
            (0, b'\\') => self.state = 1,
            (0, byte) => out(byte),
            (1, b'u') => *self = Self { state: 2, value: 0 },
            (1, b'x') => *self = Self { state: 8, value: 0 },
            (1, byte) => {
                self.state = 0;
                out(match byte {
                    b'n' | b't' | b'r' | b'b' | b'f' => b' ',
                    other => other,
                });
            }
            (_, byte) => match digit(byte, 16) {
                Some(digit) => {
                    (self.value, self.state) = (self.value << 4 | digit, self.state + 1);
                    if let 6 | 10 = self.state {
                        self.state = 0;
                        show(self.value, out);
                    }
                }
                None => {
                    self.state = 0;
                    self.escaped(byte, out);
                }
            },
        }
    }

    /// State 1 is after a `%`, 2 after one digit.
    fn percent(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        match (self.state, byte, digit(byte, 16)) {
            (0, b'%', _) => self.state = 1,
            (0, byte, _) => out(byte),
            (1, _, Some(digit)) => *self = Self { state: 2, value: digit },
            (2, _, Some(digit)) => {
                self.state = 0;
                if let Ok(byte) = u8::try_from(self.value << 4 | digit) {
                    out(byte);
                }
            }
            (_, byte, _) => {
                self.state = 0;
                self.percent(byte, out);
            }
        }
    }

    /// State 1 is after a `&`, 2 after `&#`, 3 and 4 in decimal and hexadecimal digits, 5 and up in a name. What is named
    /// is never a letter or a digit; what turns out to be no escape is lost here, and the plain view has it.
    fn html(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        match (self.state, byte) {
            (0, b'&') => *self = Self { state: 1, value: 0 },
            (0, byte) => out(byte),
            (1, b'#') => self.state = 2,
            (2, b'x' | b'X') => self.state = 4,
            (2 | 3, b'0'..=b'9') => self.digits(byte, 10, 3),
            (4, byte) if digit(byte, 16).is_some() => self.digits(byte, 16, 4),
            (3 | 4, byte) => {
                let value = self.value;
                self.state = 0;
                show(value, out);
                if byte != b';' {
                    self.html(byte, out);
                }
            }
            (1 | 5..=8, b'a'..=b'z') => self.state = self.state.max(4) + 1,
            (5..=9, b';') => self.state = 0,
            (_, byte) => {
                self.state = 0;
                self.html(byte, out);
            }
        }
    }

    fn digits(&mut self, byte: u8, base: u32, state: u8) {
        let digit = digit(byte, base).unwrap_or(0);
        *self = Self { state, value: self.value.saturating_mul(base).saturating_add(digit).min(0x11_0000) };
    }
}

/// What is left of a text without what separates: letters and digits, all in lower case, full-width ones as ordinary
/// ones. Spaces, quotes, dashes and what cannot be seen are no part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Squash {
    /// So many bytes of a character of several bytes were read, and these are they.
    state: u8,
    value: u32,
}

impl Squash {
    /// Whether the last byte ended a character.
    pub(super) fn is_idle(self) -> bool {
        self.state == 0
    }

    /// What a byte that is a character of its own leaves.
    pub(super) const fn ascii(byte: u8) -> Option<u8> {
        if byte.is_ascii_alphanumeric() { Some(byte.to_ascii_lowercase()) } else { None }
    }

    /// What is left at this byte.
    pub(super) fn look(&mut self, byte: u8) -> Option<u8> {
        match (self.state, byte) {
            (_, 0..=0x7f) => {
                self.state = 0;
                return Self::ascii(byte);
            }
            (_, 0xc0..) => *self = Self { state: 1, value: u32::from(byte) },
            (0, _) => {}
            (state, _) => {
                *self = Self { state: state + 1, value: self.value << 8 | u32::from(byte) };
                let lead = self.value >> (8 * u32::from(state)) & 0xff;
                let length = if lead < 0xe0 {
                    2
                } else if lead < 0xf0 {
                    3
                } else {
                    4
                };
                if self.state >= length {
                    self.state = 0;
                    return full_width(self.value);
                }
            }
        }
        None
    }
}

/// U+FF01 to U+FF5E, which are EF BC 81 to EF BD 9E, as the character that each is the wide form of.
fn full_width(utf8: u32) -> Option<u8> {
    if !matches!(utf8, 0xef_bc81..=0xef_bcbf | 0xef_bd80..=0xef_bd9e) {
        return None;
    }
    let offset = (utf8 >> 8 & 1) * 64 + (utf8 & 63);
    Squash::ascii(u8::try_from(offset + 0x20).ok()?)
}

fn digit(byte: u8, base: u32) -> Option<u32> {
    char::from(byte).to_digit(base)
}

/// A code point as UTF-8; what is none shows nothing.
fn show(code: u32, out: &mut impl FnMut(u8)) {
    if let Some(char) = char::from_u32(code) {
        char.encode_utf8(&mut [0; 4]).bytes().for_each(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(view: View, text: &[u8]) -> Vec<u8> {
        let (mut lens, mut seen) = (Lens::default(), Vec::new());
        text.iter().for_each(|byte| lens.look(view, *byte, |byte| seen.push(byte)));
        seen
    }

    #[track_caller]
    fn check(view: View, text: &str, expected: &str) {
        assert_eq!(String::from_utf8(seen(view, text.as_bytes())).unwrap(), expected, "{text}");
    }

    #[track_caller]
    fn check_squash(text: &str, expected: &str) {
        let mut squash = Squash::default();
        let left: Vec<u8> = text.bytes().filter_map(|byte| squash.look(byte)).collect();
        assert_eq!(String::from_utf8(left).unwrap(), expected, "{text}");
        assert!(squash.is_idle());
    }

    #[test]
    fn escapes_are_read_once() {
        check(View::Escaped, r#"\u0073k-\"a\\b\n"#, "sk-\"a\\b ");
        check(View::Escaped, r"\u00e9\ud83d!", "é!");
        check(View::Escaped, r"\u00", "");
        check(View::Escaped, r"\u0x", "x");
        check(View::Escaped, r"\x73\x6B-", "sk-");
        check(View::Percent, "%73k-%2f%%41%4", "sk-/A");
        check(View::Html, "&#115;k&#x2d;&amp;&lt;&no;x", "sk-x");
        check(View::Html, "&#115k & b", "sk  b");
    }

    #[test]
    fn what_separates_and_what_cannot_be_seen_is_left_out() {
        check_squash("S k-_.P r\u{200b}o\u{2060}J \"0\" 1`2", "skproj012");
        check_squash("ｓＫ－０９ａｚ", "sk09az");
        check_squash("é€😀a\u{fe0f}b", "ab");
    }

    proptest! {
        #[test]
        fn plain_text_without_escapes_looks_alike(text in "[a-zA-Z0-9 ._/-]{0,60}") {
            for view in View::ALL {
                prop_assert_eq!(seen(view, text.as_bytes()), text.as_bytes());
            }
        }

        #[test]
        fn no_bytes_make_a_view_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for view in View::ALL {
                prop_assert!(seen(view, &bytes).len() <= bytes.len());
            }
            let mut squash = Squash::default();
            prop_assert!(bytes.iter().filter_map(|byte| squash.look(*byte)).count() <= bytes.len());
        }
    }
}
