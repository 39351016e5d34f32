//! In which forms a secret is looked for: as it is, backwards, and as the usual encodings would write it.

use std::collections::BTreeSet;

/// A secret that is longer is also found by parts of this length, so that leaving out or changing its end does not hide it.
const WINDOW: usize = 24;
/// So a signed token begins, and all of them go on alike; only the end is one's own.
const SIGNED_TOKEN: &[u8] = b"eyJ";

/// How a secret was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// As it is.
    Plain,
    /// A part of it.
    Part,
    /// Backwards.
    Reversed,
    /// In hexadecimal digits.
    Hex,
    /// In base64, standard or for URLs, beginning at any byte of what was encoded.
    Base64,
    /// With each letter thirteen places further.
    Rot13,
}

impl Form {
    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Part => "part",
            Self::Reversed => "reversed",
            Self::Hex => "hex",
            Self::Base64 => "base64",
            Self::Rot13 => "rot13",
        }
    }
}

/// Every pattern by which `secret` is found, with its form. Letters' case does not count: texts are looked at without
/// it.
pub(super) fn patterns(secret: &[u8]) -> Vec<(Form, Vec<u8>)> {
    let mut patterns = vec![
        (Form::Plain, secret.to_vec()),
        (Form::Reversed, secret.iter().rev().copied().collect()),
        (Form::Hex, hex(secret)),
        (Form::Rot13, secret.iter().map(|byte| rot13(*byte)).collect()),
    ];
    patterns.extend((0..3).map(|before| (Form::Base64, base64_core(secret, before))));
    if secret.len() > WINDOW {
        let last = secret.len() - WINDOW;
        let own = if secret.starts_with(SIGNED_TOKEN) { vec![last] } else { vec![0, last / 2, last] };
        // Of a secret that is hardly longer, two of them are the same.
        let starts: BTreeSet<usize> = own.into_iter().collect();
        patterns.extend(starts.into_iter().map(|start| (Form::Part, secret[start..start + WINDOW].to_vec())));
    }
    patterns
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn rot13(byte: u8) -> u8 {
    let turn = |first: u8| first + (byte - first + 13) % 26;
    match byte {
        b'a'..=b'z' => turn(b'a'),
        b'A'..=b'Z' => turn(b'A'),
        other => other,
    }
}

/// The alphabet for URLs differs in two characters that are not looked at.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The base64 of `bytes` after `before` unknown bytes and before others: only the characters that depend on nothing
/// but `bytes`.
fn base64_core(bytes: &[u8], before: usize) -> Vec<u8> {
    let padded: Vec<u8> = std::iter::repeat_n(0, before).chain(bytes.iter().copied()).collect();
    let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
    let sextet = |index: usize| {
        let bit = index * 6;
        let pair = u16::from(padded[bit / 8]) << 8 | u16::from(*padded.get(bit / 8 + 1).unwrap_or(&0));
        ALPHABET[usize::from(pair >> (10 - bit % 8) & 63)]
    };
    (first..end).map(sextet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"sk-proj-0123456789abcdefXYZ";

    fn of(form: Form) -> Vec<String> {
        let found = patterns(SECRET).into_iter().filter(|(other, _)| *other == form);
        found.map(|(_, pattern)| String::from_utf8(pattern).unwrap()).collect()
    }

    #[test]
    fn a_secret_is_written_in_every_form() {
        assert_eq!(of(Form::Plain), ["sk-proj-0123456789abcdefXYZ"]);
        assert_eq!(of(Form::Reversed), ["ZYXfedcba9876543210-jorp-ks"]);
        assert_eq!(of(Form::Rot13), ["fx-cebw-0123456789nopqrsKLM"]);
        assert_eq!(of(Form::Hex), ["736b2d70726f6a2d3031323334353637383961626364656658595a"]);
        let parts = ["sk-proj-0123456789abcdef", "k-proj-0123456789abcdefX", "proj-0123456789abcdefXYZ"];
        assert_eq!(of(Form::Part), parts);
        assert!(!patterns(&SECRET[..24]).iter().any(|(form, _)| *form == Form::Part), "it is a part itself");
    }

    #[test]
    fn base64_is_known_but_for_its_edges() {
        // Made with `printf '%ssk-proj-0123456789abcdefXYZ' P | base64` for P of no, one and two letters.
        let whole = [
            "c2stcHJvai0wMTIzNDU2Nzg5YWJjZGVmWFla",
            "YXNrLXByb2otMDEyMzQ1Njc4OWFiY2RlZlhZWg==",
            "YWFzay1wcm9qLTAxMjM0NTY3ODlhYmNkZWZYWVo=",
        ];
        let cores = of(Form::Base64);
        for text in whole {
            assert!(cores.iter().any(|core| text.contains(core.as_str())), "{text}: {cores:?}");
        }
        assert_eq!(cores.len(), 3);
    }

    #[test]
    fn a_long_secret_is_found_by_its_parts() {
        let long = [&[b'x'; 20][..], b"0123456789012345678901234567890123456789"].concat();
        assert_eq!(patterns(&long).iter().filter(|(form, _)| *form == Form::Part).count(), 3);
        let token = [b"eyJhbGciOiJIUzI1NiJ9.".as_slice(), &long].concat();
        assert_eq!(patterns(&token).iter().filter(|(form, _)| *form == Form::Part).count(), 1);
    }
}
