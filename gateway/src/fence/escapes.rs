//! Hot: where bytes end within an escape of JSON.

/// Where the text of all that is no value stands within an escape, as keys have them. Half of one cannot be shown: were
/// the other half masked, the key would be no JSON any more.
#[derive(Debug, Default)]
pub(super) struct Escapes {
    /// So many bytes of the last one were read, if it is not all there.
    read: usize,
}

impl Escapes {
    /// The longest escape: `\uXXXX`.
    const BYTES_MAX: usize = 6;

    /// How many of the next bytes are no part of an escape that goes on.
    pub(super) fn whole(&mut self, bytes: &[u8]) -> usize {
        let done = self.go_on(bytes);
        if self.read > 0 {
            return 0;
        }
        let end = bytes.len();
        let recent = end.saturating_sub(Self::BYTES_MAX - 1).max(done);
        let Some(last) = bytes[recent..].iter().rposition(|byte| *byte == b'\\') else { return end };
        let last = recent + last;
        // Of backslashes in a row, each second one is what the one before it escapes.
        let row = bytes[done..=last].iter().rev().take_while(|byte| **byte == b'\\').count();
        let (is_escape, after) = (row % 2 == 1, &bytes[last + 1..]);
        let goes_on = match after {
            [] => true,
            [b'u', digits @ ..] => {
                digits.iter().all(u8::is_ascii_hexdigit) && after.len() + 1 < Self::BYTES_MAX
            }
            [..] => false,
        };
        if !is_escape || !goes_on {
            return end;
        }
        self.read = after.len() + 1;
        last
    }

    /// Reads on in the escape that the bytes before ended with, and answers where it ends.
    fn go_on(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let (1.., Some(byte)) = (self.read, bytes.get(done)) {
            let (is_part, goes_on) = match self.read {
                1 => (true, *byte == b'u'),
                read => (byte.is_ascii_hexdigit(), byte.is_ascii_hexdigit() && read + 1 < Self::BYTES_MAX),
            };
            done += usize::from(is_part);
            self.read = if goes_on { self.read + 1 } else { 0 };
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&str], whole: usize) {
        let mut escapes = Escapes::default();
        let last = pieces.iter().map(|piece| escapes.whole(piece.as_bytes())).last();
        assert_eq!(last, Some(whole), "{pieces:?}");
    }

    #[test]
    fn an_escape_is_whole_when_all_of_it_is_there() {
        check(&["abc"], 3);
        check(&["a\\n"], 3);
        check(&["a\\u0041"], 7);
        for part in ["\\", "\\u", "\\u0", "\\u00", "\\u004"] {
            check(&[&format!("abc{part}")], 3);
        }
        check(&["a\\u00g"], 6);
    }

    #[test]
    fn an_escape_goes_on_in_the_next_piece() {
        check(&["a\\", "u"], 0);
        check(&["a\\", "u", "00", "4"], 0);
        check(&["a\\", "u", "00", "41b"], 3);
        check(&["a\\", "\\"], 1);
        check(&["a\\", "\\\\"], 1);
        check(&["a\\u0", "x\\"], 1);
        check(&["a\\u0", "\\"], 0);
    }

    #[test]
    fn an_escaped_backslash_begins_nothing() {
        check(&["a\\\\"], 3);
        check(&["a\\\\u0"], 5);
        check(&["a\\\\\\u0"], 3);
    }
}
