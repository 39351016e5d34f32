//! The chain: how a row is hashed, and what can be wrong with the whole.

use std::fmt;
use std::str::FromStr;

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use super::{AuditRow, NotedHead, from_row};

/// Tells this hash from any other that is made of the same bytes.
const DOMAIN: &[u8] = b"tokfence audit row 1";
/// So many faults are told of; what is wrong beyond them is seen once they are understood.
const FAULTS_MAX: usize = 100;

/// A place in the chain: a row's number and its hash, which covers all rows up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// The number.
    pub seq: i64,
    /// The hash.
    pub hash: [u8; 32],
}

/// Text that is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a head is the number of a row, a colon, and 64 hexadecimal digits")]
pub struct InvalidHead;

/// What is wrong with the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFault {
    /// The row is not as it was written.
    Edited {
        /// Which.
        seq: i64,
    },
    /// Rows are gone, from one to another.
    Missing {
        /// The first.
        from: i64,
        /// The last.
        to: i64,
    },
    /// The row stands where it was not written.
    Moved {
        /// Where.
        seq: i64,
    },
    /// The row was written behind another one than the one that is there: one of the two was made anew, hash and all.
    Rewritten {
        /// The later of the two.
        seq: i64,
    },
    /// The row that somebody noted has another hash: it, or one before it, was made anew.
    HeadDiffers {
        /// Which.
        seq: i64,
    },
    /// Beside the database there is no head that could be compared.
    NoHead,
}

/// What came of checking the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// How many rows there are.
    pub rows: u64,
    /// The last one's number and hash.
    pub head: AuditHead,
    /// How many of the last rows are behind the head that is kept beside the database: a crash leaves one or two.
    pub unanchored: u64,
    /// What is wrong, in the order of the rows.
    pub faults: Vec<AuditFault>,
}

impl AuditHead {
    /// What is before the first row.
    pub const NONE: Self = Self { seq: 0, hash: [0; 32] };
}

/// The hash of a row: over all of it but the hash itself, each part with its length before it, so that nothing can be
/// taken from one part and given to the next.
pub(super) fn hash_of(row: &AuditRow) -> [u8; 32] {
    let parts: [&[u8]; 8] = [
        DOMAIN,
        &row.seq.to_be_bytes(),
        &row.at.to_be_bytes(),
        row.actor.as_bytes(),
        row.action.as_bytes(),
        row.subject.as_bytes(),
        row.detail.as_bytes(),
        &row.prev_hash,
    ];
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Checks the chain row by row, and that it has these heads.
pub(super) fn verify(
    conn: &Connection,
    kept: &NotedHead,
    noted: Option<AuditHead>,
) -> rusqlite::Result<AuditReport> {
    let mut walk = Walk {
        kept: match kept {
            NotedHead::Head(head) => Some(*head),
            NotedHead::Missing | NotedHead::Unreadable => None,
        },
        noted,
        rows: 0,
        last: AuditHead::NONE,
        faults: Vec::new(),
    };
    let mut statement = conn.prepare("SELECT * FROM audit ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        walk.step(&from_row(row)?);
    }
    Ok(walk.end(kept))
}

/// The chain up to a row.
struct Walk {
    kept: Option<AuditHead>,
    noted: Option<AuditHead>,
    rows: u64,
    last: AuditHead,
    faults: Vec<AuditFault>,
}

impl Walk {
    fn step(&mut self, row: &AuditRow) {
        let expected = self.last.seq.saturating_add(1);
        if row.seq > expected {
            self.fault(AuditFault::Missing { from: expected, to: row.seq.saturating_sub(1) });
        }
        let (is_as_written, follows) = (hash_of(row) == row.hash, row.prev_hash == self.last.hash);
        match (is_as_written, follows) {
            (true, true) => {}
            // Behind a gap no row follows.
            (true, false) if row.seq > expected => {}
            (true, false) => self.fault(AuditFault::Rewritten { seq: row.seq }),
            (false, true) => self.fault(AuditFault::Edited { seq: row.seq }),
            (false, false) => self.fault(AuditFault::Moved { seq: row.seq }),
        }
        for head in [self.kept, self.noted].into_iter().flatten() {
            if head.seq == row.seq && head.hash != row.hash {
                self.fault(AuditFault::HeadDiffers { seq: row.seq });
            }
        }
        self.rows += 1;
        self.last = AuditHead { seq: row.seq, hash: row.hash };
    }

    fn end(mut self, kept: &NotedHead) -> AuditReport {
        let furthest = [self.kept, self.noted].into_iter().flatten().map(|head| head.seq).max();
        if let Some(seq) = furthest.filter(|seq| *seq > self.last.seq) {
            self.fault(AuditFault::Missing { from: self.last.seq.saturating_add(1), to: seq });
        }
        let is_absent = matches!(kept, NotedHead::Missing) && self.rows > 0;
        if is_absent || matches!(kept, NotedHead::Unreadable) {
            self.fault(AuditFault::NoHead);
        }
        let behind = self.kept.map_or(0, |head| self.last.seq.saturating_sub(head.seq));
        AuditReport {
            rows: self.rows,
            head: self.last,
            unanchored: u64::try_from(behind).unwrap_or(0),
            faults: self.faults,
        }
    }

    fn fault(&mut self, fault: AuditFault) {
        if self.faults.len() < FAULTS_MAX && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

impl AuditFault {
    /// The stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Edited { .. } => "edited",
            Self::Missing { .. } => "missing",
            Self::Moved { .. } => "moved",
            Self::Rewritten { .. } => "rewritten",
            Self::HeadDiffers { .. } => "head_differs",
            Self::NoHead => "no_head",
        }
    }

    /// The row it is about, the first where there are several.
    pub fn seq(self) -> Option<i64> {
        match self {
            Self::Edited { seq } | Self::Moved { seq } | Self::Rewritten { seq } => Some(seq),
            Self::Missing { from, .. } => Some(from),
            Self::HeadDiffers { seq } => Some(seq),
            Self::NoHead => None,
        }
    }
}

impl fmt::Display for AuditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { seq } => write!(f, "row {seq} was edited"),
            Self::Missing { from, to } if from == to => write!(f, "row {from} is missing"),
            Self::Missing { from, to } => write!(f, "rows {from} to {to} are missing"),
            Self::Moved { seq } => write!(f, "row {seq} is not the one that was written there"),
            Self::Rewritten { seq } => {
                write!(f, "row {seq} was not written behind row {}: one of them was made anew", seq - 1)
            }
            Self::HeadDiffers { seq } => {
                write!(f, "row {seq} is not the one that was noted: it or one before it was made anew")
            }
            Self::NoHead => f.write_str("the head beside the database is missing or cannot be read"),
        }
    }
}

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.seq)?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AuditHead {
    type Err = InvalidHead;

    fn from_str(text: &str) -> Result<Self, InvalidHead> {
        let (seq, digits) = text.split_once(':').ok_or(InvalidHead)?;
        let is_number = !seq.is_empty() && seq.bytes().all(|byte| byte.is_ascii_digit());
        let seq = seq.parse().ok().filter(|_| is_number).ok_or(InvalidHead)?;
        let digits = digits.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidHead);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            let (high, low) = (value(pair[0]).ok_or(InvalidHead)?, value(pair[1]).ok_or(InvalidHead)?);
            *byte = high << 4 | low;
        }
        Ok(Self { seq, hash })
    }
}
