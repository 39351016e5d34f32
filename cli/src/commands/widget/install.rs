//! The script that a menu bar runs: written, found again and removed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::render::Call;
use super::{Format, Install, Place};
use crate::app::App;
use crate::commands::service::{home_folder, installed_program};
use crate::failure::{Exit, Failure};

/// By its second line a script is known for one of ours.
const MARK: &str = "# Written by `tokfence widget install`; `tokfence widget uninstall` removes it.";
/// Where the name of a folder of scripts is kept, and which it is.
const SWIFTBAR_SETTING: [&str; 3] = ["read", "com.ameba.SwiftBar", "PluginDirectory"];
const XBAR: &str = "Library/Application Support/xbar/plugins";
const ARGOS: &str = ".config/argos";

impl Install {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        let call = Call::new(&installed_program()?, app)?;
        match self.format.unwrap_or_else(Format::here) {
            Format::Swiftbar => self.write(app, &call, "swiftbar"),
            Format::Argos => self.write(app, &call, "argos"),
            Format::Waybar => {
                let snippet = snippet(&call, self.refresh);
                let document = json!({ "status": "shown", "path": null, "refresh_seconds": self.refresh,
                    "program": call.program(), "snippet": snippet });
                app.output.data(&document, || snippet.clone());
                app.output.note("this belongs into waybar's configuration, and \"custom/tokfence\" into one of its lists of modules");
                Ok(())
            }
            Format::Json => Err(Failure::usage("there is no script for `json`")
                .with_hint("let your program run `tokfence widget render --format json`")),
        }
    }

    fn write(&self, app: &App, call: &Call, format: &str) -> Result<(), Failure> {
        let folder = self.place.folder()?;
        let path = folder.join(format!("tokfence.{}s.sh", self.refresh));
        if path.symlink_metadata().is_ok() && !is_ours(&path) {
            let message =
                format!("{} is there already, and was not written by `widget install`", path.display());
            return Err(Failure::new(Exit::Failed, "file_exists", message)
                .with_hint("move it away, or choose another --refresh"));
        }
        let before = ours(&folder);
        let text =
            format!("#!/bin/sh\n{MARK}\nexec {}\n", call.in_shell(&["widget", "render", "--format", format]));
        write(&path, &text).map_err(|error| failed("write", &path, &error))?;
        // One of another pace would be shown beside it.
        for old in before.iter().filter(|old| **old != path) {
            fs::remove_file(old).map_err(|error| failed("remove", old, &error))?;
        }
        let document = json!({ "status": "installed", "path": path, "refresh_seconds": self.refresh,
            "program": call.program(), "snippet": null });
        app.output.done(&document, || format!("installed {}", path.display()));
        Ok(())
    }
}

impl Place {
    pub(super) fn uninstall(&self, app: &App) -> Result<(), Failure> {
        let folders = match &self.plugins_dir {
            Some(folder) => vec![folder.clone()],
            None => known_folders(),
        };
        let found: Vec<PathBuf> = folders.iter().flat_map(|folder| ours(folder)).collect();
        if found.is_empty() {
            let failure = Failure::new(Exit::NotFound, "no_such_widget", "there is no widget to remove");
            return Err(failure.with_hint("tokfence widget uninstall --plugins-dir DIR"));
        }
        for path in &found {
            fs::remove_file(path).map_err(|error| failed("remove", path, &error))?;
        }
        let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
        app.output.done(&json!({ "status": "removed", "files": names }), || {
            format!("removed {}", names.join(", "))
        });
        Ok(())
    }

    /// Where a script is put.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let none = |message: String| {
            Failure::new(Exit::NotFound, "no_such_folder", message)
                .with_hint("tokfence widget install --plugins-dir DIR, or --format waybar")
        };
        match &self.plugins_dir {
            Some(folder) if folder.is_dir() => Ok(folder.clone()),
            Some(folder) => Err(none(format!("there is no folder {}", folder.display()))),
            None => known_folders()
                .into_iter()
                .next()
                .ok_or_else(|| none("no folder of scripts of a menu bar was found".to_owned())),
        }
    }
}

/// The folders of the menu bars of this system, those that are there.
fn known_folders() -> Vec<PathBuf> {
    let Ok(home) = home_folder() else { return Vec::new() };
    let folders = match cfg!(target_os = "macos") {
        true => swiftbar_folder().into_iter().chain([home.join(XBAR)]).collect(),
        false => vec![home.join(ARGOS)],
    };
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// The folder that SwiftBar asked for when it was first started.
fn swiftbar_folder() -> Option<PathBuf> {
    let told = Command::new("defaults").args(SWIFTBAR_SETTING).output().ok()?;
    let path = PathBuf::from(String::from_utf8(told.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

/// Our scripts in a folder.
fn ours(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_ours(path)).collect();
    found.sort();
    found
}

/// Whether it is a script that `install` wrote: by its name and by its second line. What a link leads to is somebody else's.
fn is_ours(path: &Path) -> bool {
    let is_named = || {
        let name = path.file_name()?.to_str()?;
        let seconds = name.strip_prefix("tokfence.")?.strip_suffix("s.sh")?;
        Some(!seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() < 64 * 1024);
    let is_marked =
        || fs::read_to_string(path).is_ok_and(|text| text.lines().nth(1).is_some_and(|line| line == MARK));
    is_named().unwrap_or(false) && is_file && is_marked()
}

/// Writes a script whole or not at all. The draft is hidden, so that no menu bar runs it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new().prefix(".tokfence").tempfile_in(folder)?;
    draft.write_all(text.as_bytes())?;
    fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o755))?;
    draft.persist(path).map(drop).map_err(|error| error.error)
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(&format!("{doing} {}", path.display()), error)
}

/// What belongs into the configuration of waybar.
fn snippet(call: &Call, refresh: u32) -> String {
    let module = json!({
        "exec": call.in_shell(&["widget", "render", "--format", "waybar"]),
        "return-type": "json",
        "interval": refresh,
    });
    format!("\"custom/tokfence\": {module:#}")
}
