//! What is kept of a launched agent: a folder in the home, parts of which its container sees.
//!
//! ```text
//!  launch/NAME/  launch.json     how it was launched, for `restart`, `status` and `stop`
//!                bridge.lock     held by the process that carries connections in and out
//!                home/           the agent's home, with OpenClaw's configuration        ┐
//!                workspace/      where it works, unless another folder is named         │ mounted
//!                sockets/        gateway.sock leads out, agent.sock leads in            │
//!                env             the variables of `run`, with the capability: 0600      ┘
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gateway::home::make_private_dir;
use rustix::fs::{Gid, Uid, chown};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::failure::{Exit, Failure};

/// How an agent was launched.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Launched {
    pub(super) image: String,
    /// What the image was, when it was launched.
    pub(super) digest: String,
    pub(super) port: u16,
    /// Where the agent works, if that is not in the folder.
    pub(super) workspace: Option<PathBuf>,
    /// Its capability, by the id.
    pub(super) capability: String,
    /// The user of the container, as this machine counts.
    pub(super) owner: (u32, u32),
}

/// The folder of one agent.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(app: &App, name: &str) -> Self {
        Self(app.home.dir().join("launch").join(name))
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(super) fn openclaw(&self) -> PathBuf {
        self.home().join(".openclaw").join("openclaw.json")
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.0.join("workspace")
    }

    pub(super) fn sockets(&self) -> PathBuf {
        self.0.join("sockets")
    }

    pub(super) fn gateway_socket(&self) -> PathBuf {
        self.sockets().join("gateway.sock")
    }

    pub(super) fn agent_socket(&self) -> PathBuf {
        self.sockets().join("agent.sock")
    }

    pub(super) fn env(&self) -> PathBuf {
        self.0.join("env")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("bridge.lock")
    }

    /// Makes the folders that are missing.
    pub(super) fn prepare(&self, owner: (u32, u32)) -> Result<(), Failure> {
        make_private_dir(&self.0)?;
        for dir in [self.home(), self.home().join(".openclaw"), self.workspace(), self.sockets()] {
            if !dir.exists() {
                std::fs::create_dir(&dir).map_err(|error| failed("make", &dir, &error))?;
                std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
                    .map_err(|error| failed("close", &dir, &error))?;
                give(&dir, owner)?;
            }
        }
        Ok(())
    }

    /// Writes a file that its owner alone reads, in one step.
    pub(super) fn write(&self, path: &Path, text: &str, owner: (u32, u32)) -> Result<(), Failure> {
        let folder = path.parent().unwrap_or(&self.0);
        let written = || -> io::Result<()> {
            let mut draft = tempfile::NamedTempFile::new_in(folder)?;
            draft.write_all(text.as_bytes())?;
            draft.as_file().sync_all()?;
            draft.persist(path)?;
            Ok(())
        };
        written().map_err(|error| failed("write", path, &error))?;
        give(path, owner)
    }

    pub(super) fn save(&self, launched: &Launched) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(launched).map_err(|error| Failure::failed("write", &error))?;
        self.write(&self.0.join("launch.json"), &text, own())
    }

    /// How it was launched.
    ///
    /// # Errors
    /// Where it never was.
    pub(super) fn load(&self) -> Result<Launched, Failure> {
        let path = self.0.join("launch.json");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let failure =
                    Failure::new(Exit::NotFound, "no_such_launch", "nothing of this name was launched");
                return Err(failure.with_hint("tokfence launch"));
            }
            read => read.map_err(|error| failed("read", &path, &error))?,
        };
        serde_json::from_str(&text).map_err(|error| failed("read", &path, &error))
    }

    /// The process that holds the lock of the bridge, if one does.
    pub(super) fn bridge(&self) -> Option<u32> {
        let is_held = File::open(self.lock()).ok()?.try_lock().is_err();
        std::fs::read_to_string(self.lock()).ok()?.trim().parse().ok().filter(|_| is_held)
    }
}

/// The user and the group of this process.
pub(super) fn own() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Gives a file to the user of the container. That is somebody else only where root launches.
pub(super) fn give(path: &Path, (user, group): (u32, u32)) -> Result<(), Failure> {
    if (user, group) == own() {
        return Ok(());
    }
    let given = chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    given.map_err(|error| failed("give away", path, &error))
}

fn failed(doing: &str, path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::failed(&format!("{doing} {}", path.display()), error)
}
