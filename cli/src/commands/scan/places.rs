//! Where keys are looked for: the environment, the files of agents and shells, `.env` files, and what was named.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use policy::ProviderId;
use serde_json::{Value, json};
use vault::Secret;
use walkdir::WalkDir;
use zeroize::Zeroizing;

use super::find::{Finder, Found};
use crate::agents::key_files;
use crate::failure::{Exit, Failure};
use crate::user_file;

/// Folders in a folder that was named are looked into down to here.
const DEPTH_MAX: usize = 24;
/// So many files are looked at.
const FILES_MAX: usize = 20_000;
/// In a folder that was named, larger files are passed over: no person writes them.
const WALKED_BYTES_MAX: u64 = 1024 * 1024;
/// A file with a zero in its first bytes is no text.
const BINARY_BYTES: usize = 8192;
/// What is made by machines, or is no text.
const FOLDERS_PASSED_OVER: [&str; 5] = [".git", "node_modules", "target", ".venv", "__pycache__"];

/// A key and where it lies.
pub(super) struct Finding {
    pub(super) place: Place,
    pub(super) provider: ProviderId,
    pub(super) key: Secret<String>,
    pub(super) name: Option<String>,
    pub(super) is_key_name: bool,
    /// Why nothing can be put into its place, if nothing can.
    pub(super) obstacle: Option<&'static str>,
    /// What became of it.
    pub(super) status: &'static str,
    pub(super) reason: Option<String>,
}

/// Where something lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Environment,
    File { path: PathBuf, line: usize, start: usize },
}

/// What was found, and what was not looked at.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) keys: Vec<Finding>,
    pub(super) files: usize,
    /// Each path with the reason.
    pub(super) passed_over: Vec<(PathBuf, String)>,
}

impl Findings {
    /// How many still lie where they lay.
    pub(super) fn left(&self) -> usize {
        self.keys.iter().filter(|key| key.status != "moved").count()
    }

    /// Looks everywhere. Paths that were named must be there.
    pub(super) fn all(finder: &Finder, paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut findings = Self::default();
        findings.look_at_environment(finder, std::env::vars_os());
        // A path may be named in two ways.
        let one_name = |path: PathBuf| user_file::from_root(&path).unwrap_or(path);
        let usual: BTreeSet<PathBuf> = key_files().into_iter().map(one_name).collect();
        let mut files = usual.clone();
        files.extend(env_files(Path::new(".")));
        for path in paths {
            match path.metadata() {
                Ok(found) if found.is_dir() => findings.walk(path, &mut files),
                Ok(_) => drop(files.insert(path.clone())),
                Err(error) => {
                    let message = format!("{} cannot be looked at: {error}", path.display());
                    return Err(Failure::new(Exit::NotFound, "no_such_file", message));
                }
            }
        }
        let files: BTreeSet<PathBuf> = files.into_iter().map(one_name).collect();
        for path in files {
            let is_read_from = usual.contains(&path) || is_env_file(&path);
            findings.look_at_file(finder, &path, is_read_from);
        }
        Ok(findings)
    }

    fn look_at_environment(
        &mut self,
        finder: &Finder,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) {
        // What is not UTF-8 is no key.
        let texts =
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        for (name, value) in texts {
            let Some(found) = finder.find_in_variable(&name, &value) else { continue };
            let key = Secret::from(&value[found.range.clone()]);
            self.keys.push(Finding::new(Place::Environment, found, key, None));
        }
        self.keys.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Adds the files of a folder and of the folders in it.
    fn walk(&mut self, folder: &Path, files: &mut BTreeSet<PathBuf>) {
        let is_passed_over = |name: &str| FOLDERS_PASSED_OVER.contains(&name);
        let walk = WalkDir::new(folder).max_depth(DEPTH_MAX).follow_links(false).into_iter();
        let mut passed_over = Vec::new();
        let entries = walk.filter_entry(|entry| {
            let is_wanted = entry.depth() == 0
                || !entry.file_type().is_dir()
                || !entry.file_name().to_str().is_some_and(is_passed_over);
            if !is_wanted {
                passed_over.push((entry.path().to_owned(), "is made by a program".to_owned()));
            }
            is_wanted
        });
        for entry in entries {
            if files.len() >= FILES_MAX {
                let reason = format!("has more than {FILES_MAX} files; the rest was not looked at");
                self.passed_over.push((folder.to_owned(), reason));
                break;
            }
            match entry {
                Ok(entry) if entry.file_type().is_symlink() => {
                    self.pass_over(entry.path(), "is a symbolic link");
                }
                Ok(entry) if !entry.file_type().is_file() => {}
                Ok(entry) if entry.metadata().is_ok_and(|found| found.len() > WALKED_BYTES_MAX) => {
                    self.pass_over(entry.path(), "is larger than 1 MiB");
                }
                Ok(entry) => drop(files.insert(entry.into_path())),
                Err(error) => {
                    let path = error.path().unwrap_or(folder).to_owned();
                    self.passed_over.push((path, "cannot be read".to_owned()));
                }
            }
        }
        self.passed_over.extend(passed_over);
    }

    fn look_at_file(&mut self, finder: &Finder, path: &Path, is_read_from: bool) {
        let mut obstacle =
            (!is_read_from).then_some("no agent or shell reads this file; take it out by hand");
        let content = match user_file::read(path) {
            Ok(Some(content)) => content,
            Ok(None) => return,
            Err(failure) => match through_link(path) {
                Some(content) => {
                    obstacle =
                        Some("the file is a link, which nothing is written through; take it out by hand");
                    content
                }
                None => return self.passed_over.push((path.to_owned(), reason_of(&failure, path))),
            },
        };
        let content = Zeroizing::new(content);
        if content.iter().take(BINARY_BYTES).any(|byte| *byte == 0) {
            return self.pass_over(path, "is no text");
        }
        self.files += 1;
        for found in finder.find(&content) {
            let line = 1 + content[..found.range.start].iter().filter(|byte| **byte == b'\n').count();
            let Ok(key) = std::str::from_utf8(&content[found.range.clone()]) else { continue };
            let place = Place::File { path: path.to_owned(), line, start: found.range.start };
            self.keys.push(Finding::new(place, found, Secret::from(key), obstacle));
        }
    }

    fn pass_over(&mut self, path: &Path, reason: &str) {
        self.passed_over.push((path.to_owned(), reason.to_owned()));
    }
}

/// What a link leads to. Reading it does no harm; it is never written through.
fn through_link(path: &Path) -> Option<Vec<u8>> {
    if !path.symlink_metadata().ok()?.is_symlink() || !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut content = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(user_file::FILE_BYTES_MAX).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Why a file was passed over, without its name, which is said beside it.
fn reason_of(failure: &Failure, path: &Path) -> String {
    if failure.exit != Exit::Unsafe {
        return "cannot be read".to_owned();
    }
    let reason = failure.message.trim_start_matches(&format!("{} ", path.display()));
    reason.trim_end_matches(", and is left alone").to_owned()
}

/// The `.env` files of a folder.
fn env_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| folder.join(entry.file_name()))
        .filter(|path| is_env_file(path))
        .take(FILES_MAX)
        .collect()
}

fn is_env_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == ".env"
        || name.starts_with(".env.")
        || (name.ends_with(".env") && name.len() > 4)
        || name == ".envrc"
}

impl Finding {
    fn new(place: Place, found: Found, key: Secret<String>, obstacle: Option<&'static str>) -> Self {
        Self {
            place,
            provider: found.provider,
            key,
            name: found.name,
            is_key_name: found.is_key_name,
            obstacle,
            status: "found",
            reason: None,
        }
    }

    /// The key as it may be shown: how it begins and how it ends.
    pub(super) fn masked(&self) -> String {
        let key = self.key.expose();
        let shown = if key.len() >= 32 { 7 } else { 2 };
        let begin: String = key.chars().take(shown).collect();
        format!("{begin}…{}", self.key.last4())
    }

    pub(super) fn location(&self) -> String {
        match &self.place {
            Place::Environment => "environment".to_owned(),
            Place::File { path, line, .. } => format!("{}:{line}", path.display()),
        }
    }

    pub(super) fn document(&self) -> Value {
        let (kind, path, line) = match &self.place {
            Place::Environment => ("environment", None, None),
            Place::File { path, line, .. } => ("file", Some(path.display().to_string()), Some(*line)),
        };
        json!({
            "provider": self.provider.as_str(), "key": self.masked(), "place": kind, "path": path, "line": line,
            "name": self.name, "status": self.status, "reason": self.reason,
        })
    }
}
