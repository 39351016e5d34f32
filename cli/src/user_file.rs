//! Files that belong to somebody else, such as an agent's configuration: no link is followed, and what is written
//! is there whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::failure::{Exit, Failure};
use crate::format::hex;

/// What is larger is nothing that a person writes keys, prompts or settings into.
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What holds a capability is for its owner alone.
pub(crate) const PRIVATE: u32 = 0o600;

/// The path from the root, every link in its folder followed; the file itself need not exist.
pub(crate) fn from_root(path: &Path) -> Result<PathBuf, Failure> {
    let name = path.file_name().ok_or_else(|| Failure::usage(format!("{} names no file", path.display())))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::canonicalize(folder) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("there is no folder {}", folder.display());
            Err(Failure::new(Exit::NotFound, "no_such_file", message))
        }
        Err(error) => Err(Failure::failed(&format!("look at {}", folder.display()), &error)),
    }
}

/// The content of a file; `None` where there is none.
///
/// # Errors
/// Refuses links, which could lead to a file that nobody meant, and what is no regular file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |error: io::Error| Failure::failed(&format!("read {}", path.display()), &error);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.is_symlink() => return Err(unsafe_file(path, "is a symbolic link")),
        Ok(found) if !found.is_file() => return Err(unsafe_file(path, "is not a regular file")),
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(unsafe_file(path, "is larger than 16 MiB")),
        Ok(_) => {}
    }
    let mut content = Vec::new();
    let file = open(OpenOptions::new().read(true), path).map_err(failed)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

/// Whatever becomes of the path in the meantime, no link is followed.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

fn unsafe_file(path: &Path, fault: &str) -> Failure {
    let message = format!("{} {fault}, and is left alone", path.display());
    Failure::new(Exit::Unsafe, "unsafe_file", message).with_hint("name the file itself")
}

/// By which a content is known again.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> io::Result<u32> {
    Ok(path.symlink_metadata()?.permissions().mode() & 0o7777)
}

/// Puts a new file in the place of the old one in one step, with the same mode and owner.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, mode(path)?)
}

/// Puts a file in its place in one step, with this mode. One that is there already keeps its owner.
pub(crate) fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new().prefix(".tokfence.").suffix(".tmp").tempfile_in(folder)?;
    draft.write_all(content)?;
    if let Ok(old) = path.symlink_metadata() {
        let new = draft.as_file().metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(draft.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    draft.as_file().set_permissions(Permissions::from_mode(mode))?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    // The rename is only safe from a power failure when the folder is on the disk too.
    File::open(folder)?.sync_all()
}
