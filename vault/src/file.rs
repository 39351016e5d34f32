//! Reading and replacing the vault's file: safe against other users, other processes and crashes.
//!
//! Replacing takes a lock on a file of its own beside the vault (the vault itself is exchanged by the rename, so a lock
//! on it would be on the old inode), writes a temporary file, syncs it, reads it back and has it checked, renames it
//! over the vault and syncs the directory. At every moment the path holds the whole old or the whole new file.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::error::FileFault;
use crate::format::{FILE_BYTES_MAX, PEEK_BYTES};
use crate::random::{Random, draw};
use crate::{Error, format};

/// How long a writer waits for another one.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// How often a reader tries again when the file was replaced between opening and checking it.
const REPLACED_RETRIES_MAX: u32 = 100;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    modified_s: i64,
    modified_ns: i64,
    bytes: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            bytes: metadata.size(),
        }
    }
}

/// Reads the whole file after checking that only its owner can.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, Stamp), Error> {
    let (file, stamp) = open_checked(path)?;
    Ok((read_up_to(file, FILE_BYTES_MAX, path)?, stamp))
}

/// Reads only what identity and generation need.
pub(crate) fn peek(path: &Path) -> Result<(([u8; 16], u64), Stamp), Error> {
    let (file, stamp) = open_checked(path)?;
    let mut bytes = Vec::with_capacity(PEEK_BYTES);
    file.take(PEEK_BYTES as u64).read_to_end(&mut bytes).map_err(|source| io_error("read", path, source))?;
    Ok((format::peek(&bytes)?, stamp))
}

/// Reads a file that others may be able to read as well, such as an export on a memory stick.
pub(crate) fn read_foreign(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|source| open_error(path, source))?;
    read_up_to(file, bytes_max, path)
}

/// Creates a file that must not exist yet, readable by its owner only, and syncs it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = create_new(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(source) = written {
        let _ = fs::remove_file(path);
        return Err(io_error("write", path, source));
    }
    sync_directory(&directory_of(path))
}

/// The right to change the vault at a path; held by one process, and one thread in it, at a time.
///
/// The lock ends with the value, or with the process if that dies first.
#[derive(Debug)]
pub(crate) struct WriteLock {
    path: PathBuf,
    directory: PathBuf,
    temporary_prefix: String,
    _lock: File,
}

impl WriteLock {
    /// Waits for the lock for at most `timeout`, then removes what a writer that died left behind.
    ///
    /// # Errors
    /// [`Error::Busy`] names the process that holds it, if it had time to say so.
    pub(crate) fn acquire(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let lock_path = path.with_extension("lock");
        if lock_path == path || stem.is_empty() {
            return Err(Error::InvalidEntry {
                field: "vault path",
                reason: "it needs a name not ending in .lock",
            });
        }
        let lock = open_lock_file(&lock_path)?;
        wait_for_lock(&lock, &lock_path, timeout)?;
        note_holder(&lock, &lock_path)?;
        let (directory, temporary_prefix) = (directory_of(path), format!("{stem}.new."));
        let held = Self { path: path.to_owned(), directory, temporary_prefix, _lock: lock };
        held.remove_leftovers()?;
        Ok(held)
    }

    /// Puts `bytes` in the place of the file. `verify` gets what was read back from the disk and must refuse it
    /// unless it opens to what was meant; then the old file stays.
    pub(crate) fn replace(
        &self,
        bytes: &[u8],
        random: &dyn Random,
        verify: impl FnOnce(&[u8]) -> Result<(), Error>,
    ) -> Result<Stamp, Error> {
        let suffix = u64::from_be_bytes(draw(random)?);
        let temporary = self.directory.join(format!("{}{suffix:016x}", self.temporary_prefix));
        let replaced = self.write_and_rename(&temporary, bytes, verify);
        if replaced.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        let stamp = replaced?;
        sync_directory(&self.directory)?;
        Ok(stamp)
    }

    fn write_and_rename(
        &self,
        temporary: &Path,
        bytes: &[u8],
        verify: impl FnOnce(&[u8]) -> Result<(), Error>,
    ) -> Result<Stamp, Error> {
        let mut file = create_new(temporary)?;
        file.write_all(bytes).map_err(|source| io_error("write", temporary, source))?;
        // A failed sync is final: the kernel may drop the pages it could not write, so trying again proves nothing.
        file.sync_all().map_err(|source| io_error("sync", temporary, source))?;
        drop(file);
        let (read_back, stamp) = read(temporary)?;
        verify(&read_back)?;
        // A file system that cannot sync a directory must be found out while the old file is still in place: after the
        // rename an error would leave the caller with a vault it believes unchanged.
        sync_directory(&self.directory)?;
        fs::rename(temporary, &self.path).map_err(|source| io_error("replace", &self.path, source))?;
        Ok(stamp)
    }

    /// Under the lock no other writer lives, so every temporary file belongs to one that died.
    fn remove_leftovers(&self) -> Result<(), Error> {
        let listing =
            fs::read_dir(&self.directory).map_err(|source| io_error("list", &self.directory, source))?;
        for item in listing {
            let item = item.map_err(|source| io_error("list", &self.directory, source))?;
            if item.file_name().to_string_lossy().starts_with(&self.temporary_prefix) {
                fs::remove_file(item.path()).map_err(|source| io_error("remove", &item.path(), source))?;
            }
        }
        Ok(())
    }
}

/// Whether anything at all is at `path`, a dangling symbolic link included.
pub(crate) fn is_occupied(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn open_checked(path: &Path) -> Result<(File, Stamp), Error> {
    for _ in 0..REPLACED_RETRIES_MAX {
        // Without NONBLOCK, a pipe in the file's place would make this wait for somebody to write into it.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(raw(flags)).open(path);
        let file = opened.map_err(|source| open_error(path, source))?;
        let metadata = file.metadata().map_err(|source| io_error("inspect", path, source))?;
        // No name left: a writer replaced the file after it was opened here. The new one is at the path.
        if metadata.nlink() != 0 {
            check_safe(&metadata, path)?;
            return Ok((file, Stamp::of(&metadata)));
        }
    }
    Err(Error::Busy { pid: None })
}

fn check_safe(metadata: &Metadata, path: &Path) -> Result<(), Error> {
    let fault = if !metadata.is_file() {
        FileFault::NotRegular
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        FileFault::Owner(metadata.uid())
    } else if metadata.nlink() != 1 {
        FileFault::HardLinks(metadata.nlink())
    } else if metadata.mode() & 0o077 != 0 {
        FileFault::Mode(metadata.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(Error::UnsafeFile { path: path.to_owned(), fault })
}

fn open_lock_file(path: &Path) -> Result<File, Error> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(raw(flags))
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => io_error("create", path, source),
            _ => open_error(path, source),
        })?;
    check_safe(&file.metadata().map_err(|source| io_error("inspect", path, source))?, path)?;
    Ok(file)
}

fn wait_for_lock(lock: &File, path: &Path, timeout: Duration) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", path, source)),
            Err(TryLockError::WouldBlock) if started.elapsed() >= timeout => {
                let text = fs::read_to_string(path).unwrap_or_default();
                return Err(Error::Busy { pid: text.trim().parse().ok() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
        }
    }
}

fn note_holder(mut lock: &File, path: &Path) -> Result<(), Error> {
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(|source| io_error("write", path, source))
}

fn create_new(path: &Path) -> Result<File, Error> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let created =
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(raw(flags)).open(path);
    created.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
        _ => io_error("create", path, source),
    })
}

fn read_up_to(file: File, bytes_max: usize, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| io_error("read", path, source))?;
    if bytes.len() > bytes_max { Err(Error::Format { what: "the file is too large" }) } else { Ok(bytes) }
}

fn sync_directory(directory: &Path) -> Result<(), Error> {
    let synced = File::open(directory).and_then(|file| file.sync_all());
    synced.map_err(|source| io_error("sync", directory, source))
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn open_error(path: &Path, source: io::Error) -> Error {
    let unsafe_file = |fault| Error::UnsafeFile { path: path.to_owned(), fault };
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: path.to_owned() },
        _ if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) => {
            unsafe_file(FileFault::SymbolicLink)
        }
        // Sockets, and pipes or directories opened for writing, refuse to be opened at all.
        _ if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) => {
            unsafe_file(FileFault::NotRegular)
        }
        _ => io_error("open", path, source),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// The standard library takes the flags as a signed number, as C does.
fn raw(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_held_lock_names_its_holder() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("vault.tfv");
        let held = WriteLock::acquire(&path, SHORT).expect("free");
        let error = WriteLock::acquire(&path, SHORT).expect_err("held");
        assert!(matches!(error, Error::Busy { pid: Some(pid) } if pid == std::process::id()), "{error:?}");
        drop(held);
        assert!(WriteLock::acquire(&path, SHORT).is_ok());
        fs::write(directory.path().join("vault.lock"), "what is this").expect("writes");
        let _held = WriteLock::acquire(&path, SHORT).expect("free, whatever it says");
    }

    #[test]
    fn a_refused_replacement_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("vault.tfv");
        let lock = WriteLock::acquire(&path, SHORT).expect("free");
        lock.replace(b"old", &SystemRandom, |_| Ok(())).expect("replaces");
        let refused = lock.replace(b"new", &SystemRandom, |read_back| {
            assert_eq!(read_back, b"new");
            Err(Error::Rekeyed)
        });
        assert!(matches!(refused, Err(Error::Rekeyed)));
        assert_eq!(read(&path).expect("reads").0, b"old");
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 2, "vault and lock");
    }

    #[test]
    fn leftovers_of_dead_writers_are_removed_and_nothing_else_is() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        for name in ["vault.new.0123456789abcdef", "vault.newer", "other.new.1", "vault.tfv.new.1"] {
            fs::write(at(name), "x").expect("writes");
        }
        drop(WriteLock::acquire(&at("vault.tfv"), SHORT).expect("free"));
        assert!(!at("vault.new.0123456789abcdef").exists());
        assert!(at("vault.newer").exists() && at("other.new.1").exists() && at("vault.tfv.new.1").exists());
    }

    #[test]
    fn a_vault_cannot_be_its_own_lock() {
        let error = WriteLock::acquire(Path::new("vault.lock"), SHORT).expect_err("the name is taken");
        assert_eq!(error.code(), "invalid_entry");
    }
}
