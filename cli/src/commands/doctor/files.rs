//! What is in the home: whether it is whole, and who can get at it.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gateway::config::Config;
use storage::Store;
use vault::Vault;

use super::{Check, Findings};
use crate::app::App;
use crate::failure::{Exit, Failure};

/// Folders in the home are at most this deep; a deeper one is not ours.
const DEPTH_MAX: usize = 4;
/// So many files are named; the hint mends all of them.
const NAMES_MAX: usize = 5;
const DATA_SOCKET_MODE: u32 = 0o660;
const CONTROL_SOCKET_MODE: u32 = 0o600;

pub(super) fn home(app: &App) -> Check {
    let dir = app.home.dir();
    match app.home.check() {
        Ok(()) => Check::ok("home", format!("{} is private", dir.display())),
        Err(_) if !dir.exists() => {
            Check::fail("home", format!("{} does not exist", dir.display())).with_hint("tokfence init")
        }
        Err(error) => Check::failure("home", error.into()),
    }
}

pub(super) fn config(app: &App, config: Result<&Config, &Failure>) -> Check {
    let path = app.config_path.display();
    match config {
        Err(failure) => {
            let check = Check::fail("config", failure.message.clone());
            check.with_hint("mend the file, then: tokfence config check")
        }
        Ok(config) if !config.notes.is_empty() => Check::warn("config", config.notes.join("\n"))
            .with_hint(format!("remove what is no longer used from {path}")),
        Ok(_) if !app.config_path.exists() => Check::ok("config", "no file; everything is as by default"),
        Ok(_) => Check::ok("config", format!("{path} is valid")),
    }
}

pub(super) fn vault(app: &App) -> Check {
    match Vault::describe(&app.home.vault()) {
        Ok(description) => {
            let slots: Vec<String> = description.slots.iter().map(|slot| slot.kind.to_string()).collect();
            Check::ok("vault", format!("sealed; opened by {}", slots.join(", ")))
        }
        Err(error @ vault::Error::NotFound { .. }) => {
            Check::warn("vault", error.to_string()).with_hint("tokfence init")
        }
        Err(error) => {
            let check = Check::failure("vault", error.into());
            let hint = check
                .hint
                .clone()
                .unwrap_or_else(|| "restore the vault from a backup or an export".to_owned());
            check.with_hint(hint)
        }
    }
}

pub(super) fn database(findings: &Findings) -> Check {
    let opened = Store::open_existing(&findings.config.logging.db_path);
    match opened.and_then(|store| store.verify().map(|()| store)) {
        Ok(store) => Check::ok("database", format!("{} is sound", store.path().display())),
        Err(error @ storage::Error::NotFound { .. }) => {
            Check::warn("database", error.to_string()).with_hint("tokfence init")
        }
        Err(error) => {
            let check = Check::failure("database", error.into());
            let hint = check.hint.clone().unwrap_or_else(|| "restore the database from a backup".to_owned());
            check.with_hint(hint)
        }
    }
}

/// The modes of the sockets. While the daemon does not run there need not be any.
pub(super) fn sockets(app: &App, findings: &Findings) -> Vec<Check> {
    let data = match &findings.daemon {
        Ok(status) => PathBuf::from(&status.socket),
        Err(_) => findings.config.daemon.socket_path.clone(),
    };
    let is_running = findings.daemon.is_ok();
    let wanted = [(data, DATA_SOCKET_MODE), (app.home.control_socket(), CONTROL_SOCKET_MODE)];
    let found: Vec<Check> =
        wanted.iter().filter_map(|(path, mode)| check_socket(path, *mode, is_running)).collect();
    if found.is_empty() {
        vec![Check::ok("sockets", "only their owner and group can use them")]
    } else {
        found
    }
}

/// What is wrong with a socket, if anything is.
fn check_socket(path: &Path, mode_max: u32, is_running: bool) -> Option<Check> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_running => None,
        Err(error) => Some(Check::fail("sockets", format!("{shown}: {error}")).with_hint("tokfence restart")),
        Ok(found) if !found.file_type().is_socket() => {
            let check = Check::fail("sockets", format!("{shown} is not a socket"));
            Some(check.with_hint(format!("move {shown} away, then: tokfence restart")))
        }
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            let check = Check::fail("sockets", format!("{shown} has mode {mode:04o}, not {mode_max:04o}"));
            (mode & !mode_max != 0).then(|| check.with_hint(format!("chmod {mode_max:o} '{shown}'")))
        }
    }
}

/// Files that other users could read if the home were open. The home keeps them out; a copy of the file would not.
pub(super) fn others(app: &App) -> Check {
    let mut open = Vec::new();
    collect_open(app.home.dir(), DEPTH_MAX, &mut open);
    open.sort();
    if open.is_empty() {
        return Check::ok("files", "nothing in the home is open to other users");
    }
    let shown = |path: &PathBuf| path.strip_prefix(app.home.dir()).unwrap_or(path).display().to_string();
    let names: Vec<String> = open.iter().take(NAMES_MAX).map(shown).collect();
    let more =
        if open.len() > NAMES_MAX { format!(" and {} more", open.len() - NAMES_MAX) } else { String::new() };
    Check::warn("files", format!("other users may use {}{more}", names.join(", ")))
        .with_hint(format!("chmod -R o-rwx '{}'", app.home.dir().display()))
}

fn collect_open(folder: &Path, depth: usize, open: &mut Vec<PathBuf>) {
    // A folder that cannot be read is told by the check of the home.
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for entry in entries {
        let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else { continue };
        if metadata.is_symlink() {
            continue; // The mode of a link means nothing.
        }
        if metadata.permissions().mode() & 0o007 != 0 {
            open.push(entry.path());
        }
        if metadata.is_dir() && depth > 1 {
            collect_open(&entry.path(), depth - 1, open);
        }
    }
}

/// Whether the vault could be opened by a passphrase, for the check of the keyring.
pub(super) fn has_slot(app: &App, kind: vault::SlotKind) -> bool {
    Vault::describe(&app.home.vault()).is_ok_and(|description| description.has(kind))
}

/// Whether the daemon could not be asked because there is none.
pub(super) fn is_down(failure: &Failure) -> bool {
    failure.exit == Exit::NotRunning
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok as Fine, Warn};
    use super::super::tests::Place;
    use super::super::{Check, Verdict};
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::net::UnixListener;
    use vault::{KdfCost, NewSlot, Secret};

    #[track_caller]
    fn check(found: &Check, verdict: Verdict, message: &str, hint: &str) {
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.message.contains(message), "{found:?}");
        assert!(found.hint.clone().unwrap_or_default().contains(hint), "{found:?}");
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_home_must_be_there_and_private() {
        let place = Place::new();
        check(&home(&place.app), Fine, "is private", "");
        chmod(place.app.home.dir(), 0o755);
        check(&home(&place.app), Fail, "mode 755", "chmod 700");
        std::fs::remove_dir(place.app.home.dir()).unwrap();
        check(&home(&place.app), Fail, "does not exist", "tokfence init");
    }

    #[test]
    fn a_configuration_must_be_valid_and_up_to_date() {
        let place = Place::new();
        let examine = || config(&place.app, place.app.config().as_ref());
        check(&examine(), Fine, "no file", "");
        std::fs::write(&place.app.config_path, "[daemon]\nport = 0\n").unwrap();
        check(&examine(), Fine, "is valid", "");
        std::fs::write(&place.app.config_path, "[daemon]\nimmune_enabled = true\n").unwrap();
        check(&examine(), Warn, "immune_enabled", "remove what is no longer used");
        std::fs::write(&place.app.config_path, "\nport = 1\n").unwrap();
        check(&examine(), Fail, "line 2", "tokfence config check");
    }

    #[test]
    fn a_vault_is_described_without_opening_it() {
        let place = Place::new();
        let path = place.app.home.vault();
        check(&vault(&place.app), Warn, "there is no vault", "tokfence init");
        let passphrase = Secret::from("six words are easy to keep");
        let slot = NewSlot::Passphrase { passphrase: &passphrase, cost: KdfCost::FLOOR };
        Vault::create(&path, &[slot, NewSlot::Recovery]).unwrap();
        check(&vault(&place.app), Fine, "opened by passphrase, recovery code", "");
        chmod(&path, 0o644);
        check(&vault(&place.app), Fail, "0644", "chmod");
        chmod(&path, 0o600);
        std::fs::write(&path, "").unwrap();
        check(&vault(&place.app), Fail, "cut short", "backup");
    }

    #[test]
    fn a_database_is_read_through() {
        let place = Place::new();
        let path = place.findings().config.logging.db_path;
        check(&database(&place.findings()), Warn, "there is no database", "tokfence init");
        drop(Store::open(&path).unwrap());
        check(&database(&place.findings()), Fine, "is sound", "");
        std::fs::write(&path, "no database at all").unwrap();
        check(&database(&place.findings()), Fail, "tokfence.db", "");
    }

    #[test]
    fn a_socket_that_is_too_open_is_found() {
        let place = Place::new();
        let path = place.findings().config.daemon.socket_path;
        check(&sockets(&place.app, &place.findings())[0], Fine, "owner and group", "");
        let _listener = UnixListener::bind(&path).unwrap();
        chmod(&path, 0o660);
        check(&sockets(&place.app, &place.findings())[0], Fine, "owner and group", "");
        chmod(&path, 0o666);
        check(&sockets(&place.app, &place.findings())[0], Fail, "mode 0666, not 0660", "chmod 660");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        check(&sockets(&place.app, &place.findings())[0], Fail, "not a socket", "move");
        assert!(
            check_socket(&place.app.home.control_socket(), 0o600, true).is_some(),
            "a running daemon has one"
        );
    }

    #[test]
    fn files_that_others_may_read_are_named() {
        let place = Place::new();
        check(&others(&place.app), Fine, "nothing", "");
        let log = place.app.home.log_file();
        std::fs::create_dir(log.parent().unwrap()).unwrap();
        chmod(log.parent().unwrap(), 0o700);
        std::fs::write(&log, "").unwrap();
        chmod(&log, 0o644);
        check(&others(&place.app), Warn, "log/tokfence.log", "chmod -R o-rwx");
        chmod(&log, 0o640);
        check(&others(&place.app), Fine, "nothing", "");
        for number in 0..7 {
            let path = place.app.home.dir().join(format!("file{number}"));
            std::fs::write(&path, "").unwrap();
            chmod(&path, 0o604);
        }
        check(&others(&place.app), Warn, "file4 and 2 more", "chmod");
    }
}
