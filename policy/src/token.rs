//! The capability token, as text: `tfk_` + public id (8) + `_` + secret (43) + checksum (6).
//!
//! The secret is 32 random bytes in base 62. The checksum is the CRC-32 of everything before it, also in
//! base 62: a scanner recognises a token without asking us, and garbage is refused without a look-up. It is
//! not security; that is the secret, of which only the SHA-256 is ever stored.

use sha2::{Digest, Sha256};

use crate::CapabilityId;

const PREFIX: &str = "tfk_";
const ID_LEN: usize = 8;
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 6;
pub(crate) const TOKEN_LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Text that is not a capability token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a capability of tokfence")]
pub struct InvalidToken;

/// A token that a caller presented: well-formed, not yet known to be good.
#[derive(Clone, Copy)]
pub struct TokenRef<'a> {
    id: CapabilityId,
    secret: &'a str,
}

/// A new token: its text is shown to its owner once and never stored.
pub struct MintedToken {
    /// The public part.
    pub id: CapabilityId,
    /// The whole token.
    pub text: String,
    /// SHA-256 of the secret part; what is stored.
    pub secret_hash: [u8; 32],
}

impl<'a> TokenRef<'a> {
    /// Whether `text` claims to be a token of ours, well-formed or not.
    pub fn looks_like(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Whether a whole token stands anywhere in `text`, whatever is around it.
    pub fn is_within(text: &str) -> bool {
        let mut candidates = text.match_indices(PREFIX).filter_map(|(at, _)| text.get(at..at + TOKEN_LEN));
        candidates.any(|part| TokenRef::parse(part).is_ok())
    }

    /// Parses the text of a token and checks its checksum.
    ///
    /// # Errors
    /// [`InvalidToken`] when the form or the checksum is wrong.
    pub fn parse(text: &'a str) -> Result<Self, InvalidToken> {
        let well_formed =
            text.len() == TOKEN_LEN && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = text.strip_prefix(PREFIX).filter(|_| well_formed).ok_or(InvalidToken)?;
        let (body, checksum) = text.split_at(TOKEN_LEN - CHECKSUM_LEN);
        if checksum != self::checksum(body) {
            return Err(InvalidToken);
        }
        let id = rest[..ID_LEN].parse().map_err(|_| InvalidToken)?;
        let secret = rest[ID_LEN..].strip_prefix('_').ok_or(InvalidToken)?;
        Ok(Self { id, secret: &secret[..SECRET_LEN] })
    }

    /// The public part, by which the capability is found.
    pub fn id(&self) -> CapabilityId {
        self.id
    }

    /// SHA-256 of the secret part. A slow hash would gain nothing: the secret has 256 random bits.
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }
}

impl MintedToken {
    /// Makes a token from fresh random bytes: eight for the id, thirty-two for the secret.
    pub fn from_random(id: [u8; 8], secret: [u8; 32]) -> Self {
        let id = encode(u64::from_be_bytes(id).into(), ID_LEN);
        Self::assemble(&id, secret)
    }

    /// Makes another token for a capability that exists, from fresh random bytes.
    pub fn for_id(id: CapabilityId, secret: [u8; 32]) -> Self {
        Self::assemble(id.as_str(), secret)
    }

    fn assemble(id: &str, secret: [u8; 32]) -> Self {
        let (high, low) = secret.split_at(16);
        let half = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().expect("half of 32 bytes"));
        // 62^22 > 2^128 > 62^21: the second half is cut to 21 digits, which leaves more than 250 random bits.
        let secret = format!("{}{}", encode(half(high), 22), encode(half(low), 21));
        let body = format!("{PREFIX}{id}_{secret}");
        let text = format!("{body}{}", checksum(&body));
        let token = TokenRef::parse(&text).expect("a token is made the way it is parsed");
        Self { id: token.id(), secret_hash: token.secret_hash(), text }
    }
}

/// The lowest `width` base-62 digits of `number`.
fn encode(mut number: u128, width: usize) -> String {
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let place = usize::try_from(number % 62).expect("a remainder of 62");
        *digit = BASE62[place];
        number /= 62;
    }
    String::from_utf8(digits).expect("base 62 is ASCII")
}

fn checksum(body: &str) -> String {
    encode(crc32fast::hash(body.as_bytes()).into(), CHECKSUM_LEN)
}

impl std::fmt::Debug for TokenRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRef").field("id", &self.id.as_str()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for MintedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedToken").field("id", &self.id.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debug_output_never_shows_the_secret() {
        let token = MintedToken::from_random([7; 8], [9; 32]);
        let shown = format!("{token:?} {:?}", TokenRef::parse(&token.text).unwrap());
        assert!(!shown.contains(&token.text[13..56]), "{shown}");
    }

    proptest! {
        #[test]
        fn a_minted_token_is_62_characters_and_parses(id: [u8; 8], secret: [u8; 32]) {
            let token = MintedToken::from_random(id, secret);
            prop_assert_eq!(token.text.len(), 62);
            let parsed = TokenRef::parse(&token.text).unwrap();
            prop_assert_eq!(parsed.id(), token.id);
            prop_assert_eq!(parsed.secret_hash(), token.secret_hash);
        }

        #[test]
        fn one_wrong_character_is_noticed(secret: [u8; 32], at in 0usize..62, with in "[0-9A-Za-z_]") {
            let token = MintedToken::from_random([1; 8], secret).text;
            let mut broken = token.clone();
            broken.replace_range(at..=at, &with);
            prop_assert_eq!(TokenRef::parse(&broken).is_ok(), broken == token);
        }

        #[test]
        fn a_token_is_found_within_any_text(secret: [u8; 32], before in "[ -~]{0,9}", after in "[ -~]{0,9}") {
            let token = MintedToken::from_random([1; 8], secret).text;
            let text = format!("{before}{token}{after}");
            prop_assert!(TokenRef::is_within(&text));
            prop_assert!(!TokenRef::is_within(&text.replacen(&token[..30], "", 1)));
        }

        #[test]
        fn no_text_can_panic_the_parser(text in ".{0,80}") {
            let _ = TokenRef::parse(&text);
            let _ = TokenRef::is_within(&format!("tfk_{text}"));
        }
    }
}
