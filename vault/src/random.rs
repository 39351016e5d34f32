//! Randomness as an argument, so that known-answer files can be made from fixed bytes.

use crate::Error;

/// Where salts, nonces and keys come from.
pub(crate) trait Random: Send + Sync {
    /// Fills `out` completely or fails; never leaves it partly filled with success.
    fn fill(&self, out: &mut [u8]) -> Result<(), Error>;
}

/// Draws `N` bytes.
pub(crate) fn draw<const N: usize>(random: &dyn Random) -> Result<[u8; N], Error> {
    let mut out = [0; N];
    random.fill(&mut out)?;
    Ok(out)
}

/// The operating system's generator, the only one outside tests.
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        getrandom::fill(out).map_err(|error| Error::Random { reason: error.to_string() })
    }
}
