//! From a passphrase to a key: Argon2id, with limits that are checked before any work is done.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::Error;
use crate::format::KDF_ID;

/// The cost of trying one passphrase. Immutable; a value that [`KdfCost::new`] made is within the bounds for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    m_kib: u32,
    t: u32,
    p: u8,
}

impl KdfCost {
    /// 256 MiB, 3 passes, 4 lanes: about a second, paid once at each unlock.
    pub const DEFAULT: Self = Self { m_kib: 256 * 1024, t: 3, p: 4 };
    /// 64 MiB, 3 passes, 4 lanes: the least that is written, RFC 9106's second recommended choice.
    pub const FLOOR: Self = Self { m_kib: 64 * 1024, t: 3, p: 4 };
    /// 1 GiB, 16 passes, 16 lanes: the most that is accepted from a file. Beyond it a hostile or rotted header
    /// could take the machine's memory or block the daemon for minutes.
    pub const CEILING: Self = Self { m_kib: 1024 * 1024, t: 16, p: 16 };

    /// A cost for writing: memory in KiB, passes, lanes.
    ///
    /// # Errors
    /// [`Error::Cost`] outside [`KdfCost::FLOOR`] and [`KdfCost::CEILING`].
    pub fn new(m_kib: u32, t: u32, p: u8) -> Result<Self, Error> {
        let cost = Self { m_kib, t, p };
        cost.check_ceiling()?;
        let is_enough = m_kib >= Self::FLOOR.m_kib && t >= Self::FLOOR.t && p >= Self::FLOOR.p;
        if is_enough { Ok(cost) } else { Err(cost.out_of_bounds()) }
    }

    /// Almost free, and so no protection at all: for tests that are about something else.
    #[doc(hidden)]
    pub const fn insecure_for_tests() -> Self {
        Self { m_kib: 64, t: 1, p: 1 }
    }

    /// Memory in KiB.
    pub fn m_kib(self) -> u32 {
        self.m_kib
    }

    /// Number of passes.
    pub fn passes(self) -> u32 {
        self.t
    }

    /// Number of lanes.
    pub fn lanes(self) -> u8 {
        self.p
    }

    /// What a file says, unchecked; [`derive`] checks it.
    pub(crate) const fn from_file(m_kib: u32, t: u32, p: u8) -> Self {
        Self { m_kib, t, p }
    }

    /// The slot's KDF fields as the file has them; they are also authenticated with the wrapped key, so that nobody
    /// can lower the cost of an existing slot unnoticed.
    pub(crate) fn to_bytes(self) -> [u8; 10] {
        let mut out = [KDF_ID; 10];
        out[1..5].copy_from_slice(&self.m_kib.to_be_bytes());
        out[5..9].copy_from_slice(&self.t.to_be_bytes());
        out[9] = self.p;
        out
    }

    pub(crate) fn check_ceiling(self) -> Result<(), Error> {
        let Self { m_kib, t, p } = self;
        let most = Self::CEILING;
        let is_possible = t >= 1 && p >= 1 && m_kib >= 8 * u32::from(p);
        let is_bearable = m_kib <= most.m_kib && t <= most.t && p <= most.p;
        if is_possible && is_bearable { Ok(()) } else { Err(self.out_of_bounds()) }
    }

    fn out_of_bounds(self) -> Error {
        Error::Cost { m_kib: self.m_kib, t: self.t, p: self.p }
    }
}

/// Derives 32 bytes from a passphrase. The working memory is wiped afterwards.
///
/// # Errors
/// [`Error::Cost`] before any work when the cost is out of bounds, [`Error::OutOfMemory`] when it cannot be had.
pub(crate) fn derive(
    passphrase: &[u8],
    salt: &[u8; 16],
    cost: KdfCost,
) -> Result<Zeroizing<[u8; 32]>, Error> {
    cost.check_ceiling()?;
    let KdfCost { m_kib, t, p } = cost;
    let params = Params::new(m_kib, t, u32::from(p), Some(32)).map_err(|_| cost.out_of_bounds())?;
    let mut memory = Zeroizing::new(Vec::new());
    // An ordinary allocation that fails ends the process; this one can be refused.
    memory.try_reserve_exact(params.block_count()).map_err(|_| Error::OutOfMemory { m_kib })?;
    memory.resize(params.block_count(), Block::default());
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, salt, key.as_mut_slice(), memory.as_mut_slice())
        .map_err(|_| cost.out_of_bounds())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused_at_once(m_kib: u32, t: u32, p: u8) {
        let started = std::time::Instant::now();
        let result = derive(b"passphrase", &[0; 16], KdfCost::from_file(m_kib, t, p));
        assert!(matches!(result, Err(Error::Cost { .. })), "{m_kib}/{t}/{p}: {result:?}");
        assert!(started.elapsed().as_millis() < 50, "the limit was checked too late");
    }

    #[test]
    fn hostile_costs_are_refused_before_any_work() {
        for (m_kib, t, p) in [
            (0, 3, 4),
            (u32::MAX, 3, 4),
            (1024 * 1024 + 1, 1, 4),
            (1024, 0, 4),
            (1024, 17, 4),
            (1024, u32::MAX, 4),
            (1024, 3, 0),
            (1024, 3, 17),
            (1024, 3, 255),
            (31, 3, 4),
        ] {
            check_refused_at_once(m_kib, t, p);
        }
    }

    #[test]
    fn costs_below_the_floor_are_never_written() {
        for (m_kib, t, p) in
            [(64 * 1024 - 1, 3, 4), (64 * 1024, 2, 4), (64 * 1024, 3, 3), (1024 * 1024 + 1, 3, 4)]
        {
            assert!(matches!(KdfCost::new(m_kib, t, p), Err(Error::Cost { .. })));
        }
        assert_eq!(KdfCost::new(64 * 1024, 3, 4).expect("the floor itself"), KdfCost::FLOOR);
        assert_eq!(KdfCost::new(1024 * 1024, 16, 16).expect("the ceiling itself"), KdfCost::CEILING);
    }
}
