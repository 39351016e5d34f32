//! Passphrases: one normal form, a least length, and a generator.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::random::{Random, SystemRandom, draw};
use crate::{Error, Secret};

/// Fewest characters a new passphrase may have.
pub const PASSPHRASE_CHARS_MIN: usize = 12;

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aiou";
const WORDS: usize = 6;

/// A random passphrase of six pronounceable words, like `lusab-babad-gutih-tugad-mitig-ruhob`: 96 bits.
///
/// A word is consonant, vowel, consonant, vowel, consonant out of 16 and 4, which is 16 bits exactly, so every
/// passphrase is equally likely.
///
/// # Errors
/// [`Error::Random`] when the system gives no randomness.
pub fn generate_passphrase() -> Result<Secret<String>, Error> {
    generate(&SystemRandom)
}

fn generate(random: &dyn Random) -> Result<Secret<String>, Error> {
    let bytes = Zeroizing::new(draw::<{ 2 * WORDS }>(random)?);
    let mut text = String::with_capacity(6 * WORDS);
    for pair in bytes.chunks(2) {
        if !text.is_empty() {
            text.push('-');
        }
        let bits = u16::from_be_bytes([pair[0], pair[1]]);
        for (letters, shift) in
            [(CONSONANTS.as_slice(), 12), (VOWELS, 10), (CONSONANTS, 6), (VOWELS, 4), (CONSONANTS, 0)]
        {
            text.push(char::from(letters[usize::from(bits >> shift) % letters.len()]));
        }
    }
    Ok(Secret::new(text))
}

/// The NFC form, so that a passphrase typed on another system or keyboard is the same bytes. Spaces are kept.
pub(crate) fn normalise(passphrase: &Secret<String>) -> Zeroizing<String> {
    // NFC can triple the length in UTF-8; a string that grew would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(3 * passphrase.expose().len()));
    text.extend(passphrase.expose().nfc());
    text
}

/// The normal form of a passphrase that is about to be set.
///
/// # Errors
/// [`Error::WeakPassphrase`] when it is too short.
pub(crate) fn check_new(passphrase: &Secret<String>) -> Result<Zeroizing<String>, Error> {
    let text = normalise(passphrase);
    let chars = text.chars().count();
    if chars < PASSPHRASE_CHARS_MIN {
        return Err(Error::WeakPassphrase { chars, chars_min: PASSPHRASE_CHARS_MIN });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_and_decomposed_letters_are_the_same_passphrase() {
        let composed = normalise(&Secret::from("caf\u{e9} au lait"));
        assert_eq!(composed, normalise(&Secret::from("cafe\u{301} au lait")));
        assert_eq!(*normalise(&Secret::from("  two  spaces ")), "  two  spaces ");
    }

    #[test]
    fn length_counts_characters_after_normalisation() {
        assert!(check_new(&Secret::from("twelve chars")).is_ok());
        assert!(check_new(&Secret::from("eleven char")).is_err());
        let decomposed = "e\u{301}".repeat(6);
        assert!(matches!(check_new(&Secret::new(decomposed)), Err(Error::WeakPassphrase { chars: 6, .. })));
    }

    #[test]
    fn generated_passphrases_are_long_and_differ() {
        let one = generate_passphrase().expect("random");
        assert_eq!((one.expose().len(), one.expose().split('-').count()), (35, 6));
        assert!(check_new(&one).is_ok());
        assert_ne!(one.expose(), generate_passphrase().expect("random").expose());
    }
}
