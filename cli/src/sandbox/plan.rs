//! What a sandboxed command may do with each part of the file system. Each rule is for a path and all below it, and the
//! rule for the longer path wins, whoever made it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::secrets;
use crate::app::App;
use crate::failure::{Exit, Failure};

/// What may be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is empty, and nothing can be put there.
    Hidden,
    /// It is empty, and what is put there goes with the sandbox.
    Fresh,
    Read,
    Write,
}

/// All rules, parents before what is in them, and where the command begins.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rules: BTreeMap<PathBuf, Access>,
    pub(super) working_dir: PathBuf,
}

/// Where programs of the machine put their sockets and whatever else is between them.
const FRESH: [&str; 3] = ["/run", "/tmp", "/var/tmp"];
/// What some systems have there that programs cannot do without.
const NEEDED: [&str; 2] = ["/run/current-system", "/run/opengl-driver"];

impl Plan {
    /// The rules for a command that is run here.
    ///
    /// # Errors
    /// A working folder or an allowance that would give away what the sandbox is for.
    pub(super) fn new(app: &App, read: &[PathBuf], write: &[PathBuf]) -> Result<Self, Failure> {
        let working_dir = std::env::current_dir()
            .and_then(|dir| dir.canonicalize())
            .map_err(|error| Failure::failed("find the working folder", &error))?;
        let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
        let ours = our_files(app)?;
        check_working_dir(&working_dir, home.as_deref(), &ours)?;

        let mut plan = Self { rules: BTreeMap::new(), working_dir };
        plan.add(FRESH.map(PathBuf::from), Access::Fresh);
        plan.add(NEEDED.map(PathBuf::from), Access::Read);
        if let Some(home) = home {
            if plan.access(&home) == Access::Fresh && !plan.rules.contains_key(&home) {
                plan.add([home.clone()], Access::Read);
            }
            plan.add(secrets::IN_HOME.iter().map(|name| home.join(name)), Access::Hidden);
        }
        let sockets = secrets::listening_sockets();
        plan.add(sockets.into_iter().filter(|path| is_socket(path)), Access::Hidden);
        plan.add([plan.working_dir.clone()], Access::Write);
        plan.allow(read, Access::Read, &ours)?;
        plan.allow(write, Access::Write, &ours)?;
        // Last: nobody is allowed these.
        plan.add(ours, Access::Hidden);
        plan.drop_needless();
        Ok(plan)
    }

    /// Adds rules for what is there, under its real name.
    fn add(&mut self, paths: impl IntoIterator<Item = PathBuf>, access: Access) {
        let real = paths.into_iter().filter_map(|path| path.canonicalize().ok());
        self.rules.extend(real.map(|path| (path, access)));
    }

    fn allow(&mut self, paths: &[PathBuf], access: Access, ours: &[PathBuf]) -> Result<(), Failure> {
        for path in paths {
            let real = path
                .canonicalize()
                .map_err(|error| Failure::usage(format!("cannot allow {}: {error}", path.display())))?;
            if ours.iter().any(|kept| real.starts_with(kept)) {
                return Err(unsafe_path(format!("{} is where the gateway keeps its keys", path.display())));
            }
            self.rules.insert(real, access);
        }
        Ok(())
    }

    /// The access that a path has, by the nearest rule above it; without one it can be read.
    fn access(&self, path: &Path) -> Access {
        path.ancestors().find_map(|above| self.rules.get(above).copied()).unwrap_or(Access::Read)
    }

    /// Hiding what is in a hidden or an empty folder would only need a place to be made for it.
    fn drop_needless(&mut self) {
        let hidden = self.rules.iter().filter(|(_, access)| **access == Access::Hidden);
        let is_needless = |path: &PathBuf| {
            let above = path.parent().map(|above| self.access(above));
            matches!(above, Some(Access::Hidden | Access::Fresh))
        };
        let needless: Vec<PathBuf> = hidden.map(|(path, _)| path.clone()).filter(is_needless).collect();
        needless.iter().for_each(|path| {
            self.rules.remove(path);
        });
    }
}

/// What is the gateway's own: its home, and whatever the configuration keeps elsewhere.
fn our_files(app: &App) -> Result<Vec<PathBuf>, Failure> {
    let database = app.config()?.logging.db_path;
    let beside = ["-wal", "-shm"].map(|suffix| {
        let mut name = database.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    });
    let all = [app.home.dir().to_owned(), app.config_path.clone(), database].into_iter().chain(beside);
    Ok(all.filter_map(|path| path.canonicalize().ok()).collect())
}

fn check_working_dir(dir: &Path, home: Option<&Path>, ours: &[PathBuf]) -> Result<(), Failure> {
    let holds = |kept: &Path| kept.starts_with(dir);
    if home.is_some_and(holds) || ours.iter().any(|kept| holds(kept) || dir.starts_with(kept)) {
        let message =
            format!("the working folder {} could be written, and is more than a project", dir.display());
        return Err(unsafe_path(message)
            .with_hint("go to the folder of your project first; --allow-write PATH adds others"));
    }
    Ok(())
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn unsafe_path(message: String) -> Failure {
    Failure::new(Exit::Unsafe, "unsafe_path", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rules: &[(&str, Access)]) -> Plan {
        let rules = rules.iter().map(|(path, access)| (PathBuf::from(path), *access)).collect();
        Plan { rules, working_dir: PathBuf::from("/") }
    }

    #[test]
    fn the_longer_path_wins() {
        let plan = plan(&[
            ("/homes/u/.ssh", Access::Hidden),
            ("/homes/u/.ssh/known_hosts", Access::Read),
            ("/homes/u", Access::Write),
        ]);
        for (path, access) in [
            ("/homes/u/x", Access::Write),
            ("/homes/u/.ssh/id_ed25519", Access::Hidden),
            ("/homes/u/.ssh/known_hosts", Access::Read),
            ("/homes/u/.sshd", Access::Write),
            ("/etc/passwd", Access::Read),
        ] {
            assert_eq!(plan.access(Path::new(path)), access, "{path}");
        }
        let order: Vec<_> = plan.rules.keys().collect();
        assert!(order.is_sorted(), "a parent is mounted before what is in it");
    }

    #[test]
    fn what_is_hidden_already_is_not_hidden_again() {
        let mut plan = plan(&[
            ("/run", Access::Fresh),
            ("/run/docker.sock", Access::Hidden),
            ("/run/here", Access::Write),
            ("/run/here/x.sock", Access::Hidden),
            ("/srv/y.sock", Access::Hidden),
        ]);
        plan.drop_needless();
        let left: Vec<_> = plan.rules.keys().filter_map(|path| path.to_str()).collect();
        assert_eq!(left, ["/run", "/run/here", "/run/here/x.sock", "/srv/y.sock"]);
    }

    #[test]
    fn a_folder_that_holds_the_home_is_no_project() {
        let (home, ours) = (Path::new("/homes/u"), [PathBuf::from("/srv/tokfence")]);
        for dir in ["/", "/homes", "/homes/u", "/srv", "/srv/tokfence", "/srv/tokfence/log"] {
            let failure = check_working_dir(Path::new(dir), Some(home), &ours).unwrap_err();
            assert_eq!(failure.exit, Exit::Unsafe, "{dir}");
        }
        for dir in ["/homes/u/project", "/homes/us", "/srv/tokfences", "/data"] {
            assert!(check_working_dir(Path::new(dir), Some(home), &ours).is_ok(), "{dir}");
        }
    }
}
