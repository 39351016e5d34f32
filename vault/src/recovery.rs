//! The printed code that opens the vault when everything else is lost.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::random::Random;
use crate::{Error, Secret};

/// Crockford's base 32: no I, L, O and U, so that handwriting survives.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_BYTES: usize = 20;
const CODE_SYMBOLS: usize = 32;
const CHECK_SYMBOLS: usize = 4;
const SYMBOLS: usize = CODE_SYMBOLS + CHECK_SYMBOLS;
const GROUP: usize = 4;

/// A recovery code: 160 random bits, written as nine groups of four letters and digits, the last one a check.
///
/// The check tells a typing error apart from a code that belongs to another vault.
#[derive(Debug)]
pub struct RecoveryCode(Secret<[u8; CODE_BYTES]>);

impl RecoveryCode {
    pub(crate) fn generate(random: &dyn Random) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; CODE_BYTES]);
        random.fill(bytes.as_mut_slice())?;
        Ok(Self(Secret::new(*bytes)))
    }

    /// Reads a code as a person types it: any case, spaces and dashes anywhere, `O` for `0`, `I` and `L` for `1`.
    ///
    /// # Errors
    /// [`Error::MistypedRecoveryCode`] when length, characters or check are wrong.
    pub fn parse(text: &Secret<String>) -> Result<Self, Error> {
        let mut symbols = Zeroizing::new(Vec::with_capacity(text.expose().len()));
        for c in text.expose().chars().filter(|c| !c.is_whitespace() && *c != '-') {
            symbols.push(
                symbol(c)
                    .ok_or(Error::MistypedRecoveryCode { what: "it has a character that no code has" })?,
            );
        }
        if symbols.len() != SYMBOLS {
            return Err(Error::MistypedRecoveryCode { what: "its length is wrong" });
        }
        let mut bytes = Zeroizing::new([0; CODE_BYTES]);
        for (group, out) in symbols.chunks(8).zip(bytes.chunks_mut(5)) {
            let bits = group.iter().fold(0u64, |bits, &symbol| bits << 5 | u64::from(symbol));
            out.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        if symbols[CODE_SYMBOLS..] != check_symbols(&bytes) {
            return Err(Error::MistypedRecoveryCode { what: "its last group does not fit the others" });
        }
        Ok(Self(Secret::new(*bytes)))
    }

    /// The code for printing: nine groups joined by dashes.
    pub fn to_text(&self) -> Secret<String> {
        let bytes = self.bytes();
        let mut symbols = Zeroizing::new(Vec::with_capacity(SYMBOLS));
        for group in bytes.chunks(5) {
            let bits = group.iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
            symbols.extend((0..8).rev().map(|index| low_symbol(bits >> (5 * index))));
        }
        symbols.extend_from_slice(&check_symbols(bytes));
        let mut text = String::with_capacity(SYMBOLS + SYMBOLS / GROUP);
        for (index, &symbol) in symbols.iter().enumerate() {
            if index > 0 && index % GROUP == 0 {
                text.push('-');
            }
            text.push(char::from(ALPHABET[usize::from(symbol)]));
        }
        Secret::new(text)
    }

    pub(crate) fn bytes(&self) -> &[u8; CODE_BYTES] {
        self.0.expose()
    }
}

fn symbol(c: char) -> Option<u8> {
    let c = match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET.iter().position(|&letter| char::from(letter) == c).and_then(|index| u8::try_from(index).ok())
}

fn low_symbol(bits: u64) -> u8 {
    u8::try_from(bits & 31).expect("five bits fit")
}

fn check_symbols(bytes: &[u8; CODE_BYTES]) -> [u8; CHECK_SYMBOLS] {
    let digest = Sha256::new().chain_update(b"tokfence/v1/recovery-check").chain_update(bytes).finalize();
    let bits = u64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
    [low_symbol(bits >> 15), low_symbol(bits >> 10), low_symbol(bits >> 5), low_symbol(bits)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn a_printed_code_reads_back_however_it_is_typed() {
        for _ in 0..100 {
            let code = RecoveryCode::generate(&SystemRandom).expect("random");
            let text = code.to_text();
            assert_eq!(text.expose().len(), 44);
            let typed = text.expose().to_lowercase().replace('0', "o").replace('1', "l").replace('-', " ");
            assert_eq!(RecoveryCode::parse(&Secret::new(typed)).expect("reads").bytes(), code.bytes());
        }
    }

    #[test]
    fn the_text_is_fixed() {
        let bytes = std::array::from_fn(|index| u8::try_from(index).expect("small"));
        let text = RecoveryCode(Secret::new(bytes)).to_text();
        assert_eq!(text.expose(), "000G-40R4-0M30-E209-185G-R38E-1W81-24GK-X00C");
    }

    #[test]
    fn typing_errors_are_told_apart_from_wrong_codes() {
        let text = RecoveryCode::generate(&SystemRandom).expect("random").to_text();
        let mut changed = text.expose().clone();
        let other = if changed.starts_with('7') { "8" } else { "7" };
        changed.replace_range(..1, other);
        for wrong in [&changed, &text.expose()[1..], &format!("{}0", text.expose()), "", "U", "ä"] {
            assert!(matches!(
                RecoveryCode::parse(&Secret::from(wrong)),
                Err(Error::MistypedRecoveryCode { .. })
            ));
        }
    }
}
