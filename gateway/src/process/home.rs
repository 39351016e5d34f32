//! The home: one private folder (`~/.tokfence`) with everything the gateway keeps.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The folder, and the names of what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

/// A home that is not safe to use.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// It cannot be made or looked at.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a link, or a file.
    #[error("{} is not a folder", path.display())]
    NotADirectory {
        /// Which path.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, not to you", path.display())]
    ForeignOwner {
        /// Which folder.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
    /// Others can look into it.
    #[error("{} can be opened by other users (mode {mode:03o})", path.display())]
    Permissions {
        /// Which folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl HomeError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Permissions { path, .. } => Some(format!("chmod 700 {}", path.display())),
            Self::ForeignOwner { .. } | Self::NotADirectory { .. } => {
                Some("choose another folder with --home or TOKFENCE_HOME".to_owned())
            }
            Self::Io { .. } => None,
        }
    }
}

impl Home {
    /// The home at `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// The price list that was imported.
    pub fn prices(&self) -> PathBuf {
        self.dir.join("prices.json")
    }

    /// The list that was there before the last import.
    pub fn prices_before(&self) -> PathBuf {
        self.dir.join("prices.before.json")
    }

    /// The user's own prices, which count before all others.
    pub fn own_prices(&self) -> PathBuf {
        self.dir.join("prices.toml")
    }

    /// The sealed vault.
    pub fn vault(&self) -> PathBuf {
        self.dir.join("vault.tfv")
    }

    /// Held by the one daemon of this home.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("tokfence.lock")
    }

    /// The folder of the control socket and of the locks of runs: what is never shared with a container.
    pub fn control_dir(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.control_dir().join("control.sock")
    }

    /// The log of a daemon that has no terminal.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log").join("tokfence.log")
    }

    /// Makes the folder if it is missing and checks that it is private.
    ///
    /// # Errors
    /// [`HomeError`], with a hint that mends it. Nothing is mended silently.
    pub fn prepare(&self) -> Result<(), HomeError> {
        make_private_dir(&self.dir)
    }

    /// Checks that the folder exists and is private.
    ///
    /// # Errors
    /// [`HomeError`], with a hint that mends it.
    pub fn check(&self) -> Result<(), HomeError> {
        check_private_dir(&self.dir)
    }
}

/// Makes a folder for this user alone, unless it is there, and checks it.
///
/// # Errors
/// [`HomeError`], with a hint that mends it.
pub fn make_private_dir(path: &Path) -> Result<(), HomeError> {
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(|source| HomeError::Io { path: path.to_owned(), source })?;
    check_private_dir(path)
}

fn check_private_dir(path: &Path) -> Result<(), HomeError> {
    let metadata =
        std::fs::symlink_metadata(path).map_err(|source| HomeError::Io { path: path.to_owned(), source })?;
    let (path, mode) = (path.to_owned(), metadata.permissions().mode() & 0o777);
    if !metadata.is_dir() {
        return Err(HomeError::NotADirectory { path });
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(HomeError::ForeignOwner { path, owner: metadata.uid() });
    }
    if mode & 0o077 != 0 {
        return Err(HomeError::Permissions { path, mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_made_private_and_refused_when_it_is_not() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::new(place.path().join("a"));
        assert!(matches!(home.check(), Err(HomeError::Io { .. })));
        home.prepare().unwrap();
        assert_eq!(std::fs::metadata(home.dir()).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(home.dir(), std::fs::Permissions::from_mode(0o750)).unwrap();
        let error = home.prepare().unwrap_err();
        assert_eq!(error.hint(), Some(format!("chmod 700 {}", home.dir().display())));
        let link = Home::new(place.path().join("link"));
        std::os::unix::fs::symlink(place.path(), link.dir()).unwrap();
        assert!(matches!(link.check(), Err(HomeError::NotADirectory { .. })));
    }
}
