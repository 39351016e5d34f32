//! Files of somebody else: lines are added to them and taken out again, and not one other byte is changed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use storage::PlantManner;

use crate::failure::{Exit, Failure};

/// What is larger is nothing that a person writes keys or prompts into.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The path from the root, every link in its folder followed; the file itself need not exist.
pub(super) fn from_root(path: &Path) -> Result<PathBuf, Failure> {
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
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
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
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

fn unsafe_file(path: &Path, fault: &str) -> Failure {
    let message = format!("{} {fault}, and is left alone", path.display());
    Failure::new(Exit::Unsafe, "unsafe_file", message).with_hint("name the file itself")
}

/// What has to be done to a file with this content besides adding lines.
pub(super) fn manner(content: Option<&[u8]>) -> PlantManner {
    match content {
        None => PlantManner::Made,
        Some(content) if content.is_empty() || content.ends_with(b"\n") => PlantManner::Appended,
        Some(_) => PlantManner::EndedLine,
    }
}

/// Adds lines at the end of a file, in one write.
pub(super) fn append(path: &Path, lines: &str, manner: PlantManner) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    match manner {
        PlantManner::Made => options.write(true).create_new(true).mode(0o600),
        PlantManner::EndedLine | PlantManner::Appended => options.append(true),
    };
    let before = if manner == PlantManner::EndedLine { "\n" } else { "" };
    let mut write = || {
        let mut file = open(&mut options, path)?;
        file.write_all(format!("{before}{lines}").as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| Failure::failed(&format!("write to {}", path.display()), &error))
}

/// Takes lines out of a file that were added to it in this manner. Answers whether they stood there unchanged; where
/// they did not, nothing is done.
pub(super) fn take_out(path: &Path, lines: &str, manner: PlantManner) -> Result<bool, Failure> {
    let Some(content) = read(path)? else { return Ok(false) };
    let Some(rest) = without(&content, lines, manner) else { return Ok(false) };
    let done = if rest.is_empty() && manner == PlantManner::Made {
        fs::remove_file(path)
    } else {
        replace(path, &rest)
    };
    done.map_err(|error| Failure::failed(&format!("change {}", path.display()), &error))?;
    Ok(true)
}

/// Whether any of the texts stands in a file. One that cannot be read may hold them.
pub(super) fn may_hold<'a>(path: &Path, mut texts: impl Iterator<Item = &'a str>) -> bool {
    match read(path) {
        Ok(Some(content)) => {
            texts.any(|text| content.windows(text.len()).any(|part| part == text.as_bytes()))
        }
        Ok(None) => false,
        Err(_) => true,
    }
}

/// The content without the lines, if they stand in it as they were added, one after the other.
pub(super) fn without(content: &[u8], lines: &str, manner: PlantManner) -> Option<Vec<u8>> {
    // The end of the last line may be missing: editors take it off at the end of a file.
    let text = lines.strip_suffix('\n').unwrap_or(lines).as_bytes();
    let is_there = |at: &usize| {
        let begins_line = *at == 0 || content[at - 1] == b'\n';
        let after = content[*at..].strip_prefix(text);
        begins_line && after.is_some_and(|after| after.is_empty() || after.starts_with(b"\n"))
    };
    let mut begin = (0..content.len()).find(is_there).filter(|_| !text.is_empty())?;
    let end = content.len().min(begin + text.len() + 1);
    if manner == PlantManner::EndedLine && end == content.len() {
        begin = begin.saturating_sub(1);
    }
    Some([&content[..begin], &content[end..]].concat())
}

/// Puts a new file in the place of the old one in one step, with the same mode and owner.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let old = path.symlink_metadata()?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new().prefix(".tokfence.").suffix(".tmp").tempfile_in(folder)?;
    draft.write_all(content)?;
    let new = draft.as_file().metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(draft.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    draft.as_file().set_permissions(old.permissions())?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const LINE: &str = "KEY_BACKUP=sk-1\n";

    #[track_caller]
    fn check_without(content: &str, manner: PlantManner, expected: Option<&str>) {
        let rest = without(content.as_bytes(), LINE, manner).map(|rest| String::from_utf8(rest).unwrap());
        assert_eq!(rest.as_deref(), expected, "{content:?}");
    }

    #[test]
    fn only_the_lines_that_were_added_are_taken_out() {
        use PlantManner::{Appended, EndedLine};
        check_without("A=1\nKEY_BACKUP=sk-1\n", Appended, Some("A=1\n"));
        check_without("KEY_BACKUP=sk-1\nB=2", Appended, Some("B=2"));
        check_without("A=1\nKEY_BACKUP=sk-1\nB=2\n", EndedLine, Some("A=1\nB=2\n"));
        check_without("A=1\nKEY_BACKUP=sk-1\n", EndedLine, Some("A=1"));
        check_without("A=1\nKEY_BACKUP=sk-1", EndedLine, Some("A=1"));
        check_without("KEY_BACKUP=sk-1\nKEY_BACKUP=sk-1\n", Appended, Some(LINE));
        for changed in [
            "",
            "A=1\n",
            "KEY_BACKUP=sk-12\n",
            "#KEY_BACKUP=sk-1\n",
            " KEY_BACKUP=sk-1\n",
            "KEY_BACKUP=sk-1\r\n",
        ] {
            check_without(changed, Appended, None);
        }
    }

    #[test]
    fn what_is_added_and_taken_out_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        for before in ["", "A=1", "A=1\n", "A=1\n\n", "A=1\r\n", "\n", "\u{0}\u{ff}"] {
            fs::write(&path, before).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let manner = manner(read(&path).unwrap().as_deref());
            append(&path, LINE, manner).unwrap();
            assert!(fs::read_to_string(&path).unwrap().ends_with(LINE));
            assert!(take_out(&path, LINE, manner).unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
            assert!(!take_out(&path, LINE, manner).unwrap(), "they are gone");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_was_made_goes_unless_something_was_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        append(&path, LINE, manner(read(&path).unwrap().as_deref())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(append(&path, LINE, PlantManner::Made).is_err(), "somebody else made it meanwhile");
        assert!(take_out(&path, LINE, PlantManner::Made).unwrap());
        assert!(!path.exists());
        fs::write(&path, format!("{LINE}A=1\n")).unwrap();
        assert!(take_out(&path, LINE, PlantManner::Made).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "A=1\n");
    }

    #[test]
    fn links_and_folders_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        fs::write(&target, LINE).unwrap();
        symlink(&target, &link).unwrap();
        for path in [link.as_path(), folder.path()] {
            assert_eq!(read(path).unwrap_err().code, "unsafe_file");
            assert!(take_out(path, LINE, PlantManner::Appended).is_err());
        }
        assert!(append(&link, LINE, PlantManner::Appended).is_err(), "even a link that came later");
        assert_eq!(fs::read_to_string(&target).unwrap(), LINE);
    }
}
