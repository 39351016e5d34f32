//! Whether git tracks a file, and so gives it to everybody who has the repository.

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether git tracks the file; `None` where that cannot be found out.
pub(super) fn is_tracked(path: &Path) -> Option<bool> {
    let (folder, name) = (path.parent()?, path.file_name()?);
    if !folder.ancestors().any(|folder| folder.join(".git").symlink_metadata().is_ok()) {
        return Some(false);
    }
    let mut git = Command::new("git");
    // A repository may name programs to be run. It belongs to an agent perhaps, so none is.
    git.args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--literal-pathspecs"]);
    git.args(["ls-files", "--error-unmatch", "--"]).arg(name).current_dir(folder);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"] {
        git.env_remove(variable);
    }
    git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match git.status().ok()?.code()? {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_repository_nothing_is_tracked_and_in_a_broken_one_it_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        assert_eq!(is_tracked(&path), Some(false));
        std::fs::write(folder.path().join(".git"), "gitdir: nowhere\n").unwrap();
        assert_eq!(is_tracked(&path), None);
    }
}
