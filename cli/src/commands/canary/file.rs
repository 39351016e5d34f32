//! Files of somebody else: lines are added to them and taken out again, and not one other byte is changed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use storage::PlantManner;

use crate::failure::Failure;
use crate::user_file::{open, read, replace};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

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
