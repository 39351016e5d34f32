//! What `setup` wrote, remembered so that it can be taken back: where each file is, where what it held before is kept,
//! and by its hash whether it is still as it was written. No capability and no key is in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway::home::make_private_dir;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::user_file::{self, PRIVATE};

/// Behind the name of a file: what it held before.
const BACKUP_ENDING: &str = "before-tokfence";
/// So many backups lie beside a file at most.
const BACKUPS_MAX: usize = 100;

/// What was done for one agent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// The capability that was made for it.
    pub(super) capability: String,
    pub(super) files: Vec<Written>,
}

/// One file that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    /// What it held before; none where it was made.
    pub(super) backup: Option<PathBuf>,
    /// The permissions it had.
    mode: Option<u32>,
    /// Of what was written.
    sha256: String,
    /// Folders that were made for it, the innermost first.
    folders: Vec<PathBuf>,
}

impl Record {
    fn path(app: &App, kind: &str) -> PathBuf {
        app.home.dir().join("setup").join(format!("{kind}.json"))
    }

    /// What was remembered of an agent.
    pub(super) fn load(app: &App, kind: &str) -> Result<Option<Self>, Failure> {
        let path = Self::path(app, kind);
        let Some(text) = user_file::read(&path)? else { return Ok(None) };
        let record = serde_json::from_slice(&text);
        record.map(Some).map_err(|error| Failure::failed(&format!("{} is damaged", path.display()), &error))
    }

    pub(super) fn save(&self, app: &App, kind: &str) -> Result<(), Failure> {
        app.home.prepare()?;
        let path = Self::path(app, kind);
        make_private_dir(path.parent().unwrap_or(app.home.dir()))?;
        let failed = |error: io::Error| Failure::failed(&format!("write {}", path.display()), &error);
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        user_file::put(&path, text.as_bytes(), PRIVATE).map_err(failed)
    }

    pub(super) fn forget(app: &App, kind: &str) -> Result<(), Failure> {
        let path = Self::path(app, kind);
        fs::remove_file(&path).map_err(|error| Failure::failed(&format!("remove {}", path.display()), &error))
    }

    pub(super) fn of(&self, path: &Path) -> Option<&Written> {
        self.files.iter().find(|written| written.path == path)
    }
}

impl Written {
    /// Remembers a file before it is written: what it holds now is copied to a place beside it.
    pub(super) fn begin(path: &Path, old: Option<&[u8]>, new: &[u8]) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::failed(&format!("keep what {} holds", path.display()), &error);
        let folders = path.ancestors().skip(1).take_while(|folder| !folder.exists());
        let mut written = Self {
            path: path.to_owned(),
            backup: None,
            mode: None,
            sha256: user_file::sha256(new),
            folders: folders.map(Path::to_owned).collect(),
        };
        if let Some(old) = old {
            written.mode = Some(user_file::mode(path).map_err(failed)?);
            written.backup = Some(back_up(path, old).map_err(failed)?);
        }
        Ok(written)
    }

    /// The same for other content that takes the place of what was written.
    pub(super) fn again(&self, new: &[u8]) -> Self {
        Self { sha256: user_file::sha256(new), ..self.clone() }
    }

    /// Whether this is what was written.
    pub(super) fn is_as_written(&self, content: Option<&[u8]>) -> bool {
        content.is_some_and(|content| user_file::sha256(content) == self.sha256)
    }

    /// What the file held before.
    pub(super) fn before(&self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(backup) = &self.backup else { return Ok(None) };
        let content = user_file::read(backup)?;
        content.map(Some).ok_or_else(|| {
            let message =
                format!("{} is gone, and with it what {} held", backup.display(), self.path.display());
            Failure::new(Exit::NotFound, "no_such_file", message)
        })
    }

    /// Whether there is something to take back; an error where the file was changed meanwhile.
    pub(super) fn check_undo(&self) -> Result<bool, Failure> {
        let current = user_file::read(&self.path)?;
        if self.is_as_written(current.as_deref()) {
            return self.before().map(|_| true);
        }
        if current == self.before()? {
            return Ok(false);
        }
        let message = format!("{} was changed since it was set up, and is left alone", self.path.display());
        let hint = match &self.backup {
            Some(backup) => format!("what it held before is in {}", backup.display()),
            None => "there was no such file before; take out what belongs to tokfence by hand".to_owned(),
        };
        Err(Failure::new(Exit::Unsafe, "changed_since", message).with_hint(hint))
    }

    /// Puts back what was there.
    pub(super) fn undo(&self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::failed(&format!("put back {}", self.path.display()), &error);
        match self.before()? {
            Some(content) => user_file::put(&self.path, &content, self.mode.unwrap_or(PRIVATE)),
            None => fs::remove_file(&self.path),
        }
        .map_err(failed)?;
        self.clear();
        Ok(())
    }

    /// Removes what was only needed to take the change back.
    pub(super) fn clear(&self) {
        // What cannot be removed lies there and harms nothing; a folder in which somebody put something stays.
        if let Some(backup) = &self.backup {
            let _ = fs::remove_file(backup);
        }
        self.folders.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// Copies what a file holds to a place beside it that is free.
fn back_up(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let places = (1..=BACKUPS_MAX).map(|number| match number {
        1 => path.with_file_name(format!("{name}.{BACKUP_ENDING}")),
        number => path.with_file_name(format!("{name}.{BACKUP_ENDING}-{number}")),
    });
    let mut places = places.filter(|place| place.symlink_metadata().is_err());
    let place = places.next().ok_or_else(|| io::Error::other("there are too many backups beside it"))?;
    user_file::put(&place, content, PRIVATE)?;
    Ok(place)
}
