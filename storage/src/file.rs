//! The database as a file: who may touch it, and how a new one comes to be.
//!
//! Nothing here opens an existing database file: closing any descriptor of it would drop the POSIX locks that
//! SQLite holds in this process. What exists is only looked at.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, FileFault};

/// Which file a path led to, to notice when it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that is at `path` now.
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        let metadata = fs::symlink_metadata(path).map_err(|_| Error::Replaced { path: path.to_owned() })?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// The path with its directory resolved. SQLite is told to follow no link at all, and a link above the directory
/// (such as `/tmp` on macOS) is none of its business.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let io = |source| Error::Io { action: "use the directory of", path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| io(io::ErrorKind::InvalidInput.into()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(parent).map_err(io)?.join(name))
}

/// Checks the database and the two files SQLite keeps beside it. Answers whether there is a database.
pub(crate) fn check(path: &Path) -> Result<bool, Error> {
    let exists = check_one(path)?;
    let wal_exists = check_one(&beside(path, "-wal"))?;
    check_one(&beside(path, "-shm"))?;
    if wal_exists && !exists {
        // A database made anew would swallow what this log holds of the old one.
        let what = "the file is missing, but its write-ahead log is there".to_owned();
        return Err(Error::Damaged { path: path.to_owned(), what });
    }
    Ok(exists)
}

/// Makes a new file with `fill` and puts it at `path` in one step, so that no crash leaves an empty file there
/// that could be taken for a database. A file that appears at `path` meanwhile wins.
pub(crate) fn create(path: &Path, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let failed = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    static MADE: AtomicU32 = AtomicU32::new(0);
    let count = MADE.fetch_add(1, Ordering::Relaxed);
    let workshop = beside(path, &format!(".new-{}-{count}", std::process::id()));
    let _ = fs::remove_dir_all(&workshop); // left by a process that had our number and crashed
    DirBuilder::new().mode(0o700).create(&workshop).map_err(failed("create"))?;
    let draft = workshop.join("draft");
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(failed("create"))
        .and_then(|_| fill(&draft))
        .and_then(|()| publish(&draft, path).map_err(failed("create")));
    let removed = fs::remove_dir_all(&workshop).map_err(failed("clean up after creating"));
    made.and(removed)
}

fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn check_one(path: &Path) -> Result<bool, Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(Error::Io { action: "look at", path: path.to_owned(), source }),
    };
    match fault(&metadata, rustix::process::geteuid().as_raw()) {
        Some(fault) => Err(Error::UnsafeFile { path: path.to_owned(), fault }),
        None => Ok(true),
    }
}

fn fault(metadata: &Metadata, owner: u32) -> Option<FileFault> {
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_symlink() {
        Some(FileFault::SymbolicLink)
    } else if !metadata.is_file() {
        Some(FileFault::NotRegular)
    } else if metadata.uid() != owner {
        Some(FileFault::Owner(metadata.uid()))
    } else if mode & 0o077 != 0 {
        Some(FileFault::Mode(mode))
    } else {
        None
    }
}

/// The path of a file that belongs to the one at `path`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[track_caller]
    fn check_fault(path: &Path, expected: FileFault) {
        let error = check(path).unwrap_err();
        assert!(matches!(error, Error::UnsafeFile { fault, .. } if fault == expected), "{error}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn open_permissions_are_refused_with_the_command_that_mends_them() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.db");
        fs::write(&path, "").unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            check_fault(&path, FileFault::Mode(mode));
        }
        assert_eq!(check(&path).unwrap_err().hint().unwrap(), format!("chmod 600 '{}'", path.display()));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(check(&path).unwrap());
    }

    #[test]
    fn links_and_directories_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let (link, directory) = (home.path().join("link"), home.path().join("directory"));
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        fs::create_dir(&directory).unwrap();
        check_fault(&link, FileFault::SymbolicLink);
        check_fault(&directory, FileFault::NotRegular);
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.db");
        fs::write(&path, "").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(fault(&metadata, metadata.uid() + 1), Some(FileFault::Owner(metadata.uid())));
    }

    #[test]
    fn the_file_of_a_faster_process_wins() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.db");
        let fill = |draft: &Path| {
            fs::write(&path, "theirs").unwrap();
            fs::write(draft, "ours").unwrap();
            Ok(())
        };
        create(&path, fill).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_log_without_its_database_is_not_given_a_new_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.db");
        fs::write(beside(&path, "-wal"), "").unwrap();
        fs::set_permissions(beside(&path, "-wal"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(check(&path).unwrap_err().code(), "database_damaged");
    }
}
