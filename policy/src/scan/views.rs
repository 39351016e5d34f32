//! Views of a text: what it would be if somebody decoded it once more. Each is a small machine that takes one byte and
//! gives none or one, so that where the text is cut into pieces changes nothing.

/// How a text is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// As it came.
    Plain,
    /// With the escapes of JSON taken away once more, as the arguments of a tool have them.
    Json,
    /// With `%41` read as `A`, and `+` as itself.
    Percent,
    /// With `&amp;`, `&#65;` and `&#x41;` read as what they stand for.
    Html,
    /// In lower case, without anything that separates or cannot be seen, and full-width letters as ordinary ones.
    Squashed,
}

impl View {
    /// Every view, in the order in which they are tried.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Json, Self::Percent, Self::Html, Self::Squashed];

    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Json => "json",
            Self::Percent => "percent",
            Self::Html => "html",
            Self::Squashed => "squashed",
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
    /// Looks at one byte. `out` gets what the view shows for it, byte by byte.
    pub(super) fn look(&mut self, view: View, byte: u8, mut out: impl FnMut(u8)) {
        match view {
            View::Plain => out(byte),
            View::Json => self.json(byte, &mut out),
            View::Percent => self.percent(byte, &mut out),
            View::Html => self.html(byte, &mut out),
            View::Squashed => self.squash(byte, &mut out),
        }
    }

    /// State 1 is after a backslash, 2 to 5 in the digits of `\u`.
    fn json(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        match (self.state, byte) {
            (0, b'\\') => self.state = 1,
            (0, byte) => out(byte),
            (1, b'u') => *self = Self { state: 2, value: 0 },
            (1, byte) => {
                self.state = 0;
                out(match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 8,
                    b'f' => 12,
                    other => other,
                });
            }
            (_, byte) => match digit(byte, 16) {
                Some(digit) => {
                    (self.value, self.state) = (self.value << 4 | digit, self.state + 1);
                    if self.state == 6 {
                        self.state = 0;
                        show(self.value, out);
                    }
                }
                None => {
                    self.state = 0;
                    self.json(byte, out);
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
                show_byte(self.value << 4 | digit, out);
            }
            (_, byte, _) => {
                self.state = 0;
                self.percent(byte, out);
            }
        }
    }

    /// State 1 is after a `&`, 2 after `&#`, 3 and 4 in decimal and hexadecimal digits, 5 and up in a name. What turns out
    /// to be none is lost here; the plain view has it.
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
            (1 | 5..=8, b'a'..=b'z') => {
                let state = self.state.max(4) + 1;
                *self = Self { state, value: self.value << 8 | u32::from(byte) };
            }
            (5..=9, b';') => {
                let named = named(self.value);
                self.state = 0;
                named.into_iter().for_each(out);
            }
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

    /// State n is after n bytes of a character of several bytes.
    fn squash(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        match (self.state, byte) {
            (_, 0..=0x7f) => {
                self.state = 0;
                if byte.is_ascii_alphanumeric() {
                    out(byte.to_ascii_lowercase());
                }
            }
            (_, 0xc0..) => *self = Self { state: 1, value: u32::from(byte) },
            (0, _) => {}
            (state, _) => {
                *self = Self { state: state + 1, value: self.value << 8 | u32::from(byte) };
                // U+FF01 to U+FF5E are EF BC 81 to EF BD 9E; only these show anything.
                if let (3, 0xef_bc81..=0xef_bcbf | 0xef_bd80..=0xef_bd9e) = (self.state, self.value) {
                    let offset = (self.value >> 8 & 1) * 64 + (self.value & 63);
                    let narrow = u8::try_from(offset + 0x20).unwrap_or(0);
                    if narrow.is_ascii_alphanumeric() {
                        out(narrow.to_ascii_lowercase());
                    }
                }
                if self.state > 3 {
                    self.state = 0;
                }
            }
        }
    }
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

fn show_byte(value: u32, out: &mut impl FnMut(u8)) {
    if let Ok(byte) = u8::try_from(value) {
        out(byte);
    }
}

/// The character of an entity, by the letters of its name one after the other. Those that can be in a key.
fn named(name: u32) -> Option<u8> {
    let is = |text: &[u8]| text.iter().fold(0, |name, byte| name << 8 | u32::from(*byte)) == name;
    let names: [(&[u8], u8); 4] = [(b"amp", b'&'), (b"lt", b'<'), (b"gt", b'>'), (b"quot", b'"')];
    names.into_iter().find(|(text, _)| is(text)).map(|(_, byte)| byte)
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

    #[test]
    fn escapes_are_read_once() {
        check(View::Json, r#"\u0073k-\"a\\b\n"#, "sk-\"a\\b\n");
        check(View::Json, r"\u00e9\ud83d!", "é!");
        check(View::Json, r"\u00", "");
        check(View::Json, r"\u0x", "x");
        check(View::Percent, "%73k-%2f%%41%4", "sk-/A");
        check(View::Html, "&#115;k&#x2d;&amp;&lt;&no;x", "sk-&<x");
        check(View::Html, "&#115k & b", "sk  b");
    }

    #[test]
    fn what_separates_and_what_cannot_be_seen_is_left_out() {
        check(View::Squashed, "S k-_.P r\u{200b}o\u{2060}J \"0\" 1`2", "skproj012");
        check(View::Squashed, "ｓＫ－０９ａｚ", "sk09az");
        check(View::Squashed, "é€😀a", "a");
    }

    proptest! {
        #[test]
        fn plain_text_without_escapes_looks_alike(text in "[a-zA-Z0-9 ._/-]{0,60}") {
            for view in [View::Plain, View::Json, View::Percent, View::Html] {
                prop_assert_eq!(seen(view, text.as_bytes()), text.as_bytes());
            }
        }

        #[test]
        fn no_bytes_make_a_view_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for view in View::ALL {
                prop_assert!(seen(view, &bytes).len() <= bytes.len());
            }
        }
    }
}
