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

/// Gives 0, 1, 2, … and starts over after 255.
#[cfg(any(test, fuzzing))]
#[derive(Default)]
pub(crate) struct CountingRandom(std::sync::atomic::AtomicU8);

#[cfg(any(test, fuzzing))]
impl Random for CountingRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        let next = || self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        out.iter_mut().for_each(|byte| *byte = next());
        Ok(())
    }
}

/// The operating system's generator, the only one outside tests.
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        getrandom::fill(out).map_err(|error| Error::Random { reason: error.to_string() })
    }
}
