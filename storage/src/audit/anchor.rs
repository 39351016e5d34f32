//! The head of the chain in a second place: a file beside the database, replaced after each change.
//!
//! It is written after the commit, so a crash leaves it behind the chain and never ahead of it: a head that the chain
//! does not have was cut off. Such a head stays as it is, whatever is written later, so that it is told of until
//! somebody accepts it; and it is made before the first row, so that its absence says something too.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::chain::AuditHead;
use super::{head, holds};
use crate::error::Error;
use crate::file::beside;

/// Longer than a number and a hash.
const BYTES_MAX: u64 = 256;
/// So long another process may be writing a head; then that of this one is left to the next change.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is in the second place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotedHead {
    /// A head.
    Head(AuditHead),
    /// There is no file.
    Missing,
    /// There is a file that holds no head, or that cannot be read.
    Unreadable,
}

impl fmt::Display for NotedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(head) => head.fmt(f),
            Self::Missing => f.write_str("missing"),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

/// Where the head of the chain in the database at `path` is kept as well.
pub fn anchor_path(path: &Path) -> PathBuf {
    beside(path, ".audit-head")
}

/// What is there.
pub(super) fn read(path: &Path) -> NotedHead {
    let opened = File::options()
        .read(true)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32)
        .open(anchor_path(path));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return NotedHead::Missing,
        Err(_) => return NotedHead::Unreadable,
    };
    let mut text = String::new();
    let head = file.take(BYTES_MAX).read_to_string(&mut text).ok().and_then(|_| text.trim_end().parse().ok());
    head.map_or(NotedHead::Unreadable, NotedHead::Head)
}

/// Whether the file may follow the chain: it holds a head that the chain has. Before the first row it is made.
pub(super) fn is_led(conn: &Connection, path: &Path) -> rusqlite::Result<bool> {
    match read(path) {
        NotedHead::Head(noted) => holds(conn, noted),
        // Without it the first row is as good; who checks the chain is told that it is missing.
        NotedHead::Missing => Ok(head(conn)? == AuditHead::NONE && advance(path, AuditHead::NONE).is_ok()),
        NotedHead::Unreadable => Ok(false),
    }
}

/// Puts the head there, unless a later one is there already.
pub(super) fn advance(path: &Path, head: AuditHead) -> io::Result<()> {
    let folder = File::open(path.parent().unwrap_or(Path::new(".")))?;
    lock(&folder)?;
    match read(path) {
        NotedHead::Head(noted) if noted.seq >= head.seq => Ok(()),
        NotedHead::Head(_) | NotedHead::Missing | NotedHead::Unreadable => replace(path, head),
    }
}

/// Puts the head there, whatever is there.
pub(super) fn write(path: &Path, head: AuditHead) -> Result<(), Error> {
    let written = File::open(path.parent().unwrap_or(Path::new("."))).and_then(|folder| {
        lock(&folder)?;
        replace(path, head)
    });
    written.map_err(|source| Error::Io { action: "write", path: anchor_path(path), source })
}

/// A process that was stopped while it held the lock stops no other for long.
fn lock(folder: &File) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// In one step, and only under the lock: the draft has one name.
fn replace(path: &Path, head: AuditHead) -> io::Result<()> {
    let anchor = anchor_path(path);
    let draft = beside(&anchor, ".new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{head}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, &anchor)
}
