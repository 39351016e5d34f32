//! Units of systemd.

use std::path::{Path, PathBuf};

use super::{Plan, ServiceFile, home_folder, installed_program, words};
use crate::app::App;
use crate::failure::{Exit, Failure};

const UNIT: &str = "tokfence.service";
const USER_UNIT: &str = include_str!("../../../../conf/service/user.service");
const SYSTEM_UNIT: &str = include_str!("../../../../conf/service/system.service");
/// The user of the service of the machine.
const SYSUSERS: &str = "# The user that runs tokfence, and the group of those who may use its socket.\n\
                        u tokfence - \"tokfence gateway\" /var/lib/tokfence\n";
const SYSTEM_CONFIG: &str = "# tokfence as a service of the machine. Callers of the group `tokfence` reach it here:\n\
                             [daemon]\nsocket_path = \"/run/tokfence/tokfence.sock\"\n";
/// Where a sealed passphrase is looked for.
const CREDENTIAL: &str = "/etc/credstore.encrypted/tokfence.vault-passphrase";

/// A service of this user.
pub(super) fn user(app: &App) -> Result<Plan, Failure> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = match base {
        Some(base) => base,
        None => home_folder()?.join(".config"),
    };
    let command = command(&installed_program()?, app.home.dir(), &app.config_path)?;
    let unit = ServiceFile {
        path: base.join("systemd/user").join(UNIT),
        text: USER_UNIT.replace("@COMMAND@", &command),
        is_settings: false,
    };
    let systemctl = |args: &[&str]| words(&[&["systemctl", "--user"], args].concat());
    Ok(Plan {
        files: vec![unit],
        register: vec![systemctl(&["daemon-reload"])],
        start: vec![systemctl(&["enable", "--now", UNIT])],
        stop: vec![systemctl(&["disable", "--now", UNIT])],
        forget: vec![systemctl(&["daemon-reload"])],
        is_active: systemctl(&["is-active", "--quiet", UNIT]),
        next: vec![
            "a vault that opens with the keyring opens by itself; any other with `tokfence unlock`"
                .to_owned(),
            "`loginctl enable-linger` lets it run while you are not logged in".to_owned(),
        ],
    })
}

/// A service of the machine, below `root`.
pub(super) fn system(_app: &App, root: &Path) -> Result<Plan, Failure> {
    let program = installed_program()?;
    if ["/home", "/root"].iter().any(|private| program.starts_with(private)) && root == Path::new("/") {
        let message = format!("the service's user cannot run {}", program.display());
        let failure = Failure::new(Exit::Unsafe, "unsafe_program", message);
        return Err(
            failure.with_hint(format!("install -m 755 {} /usr/local/bin/, and run that", program.display()))
        );
    }
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let (home, config) = (Path::new("/var/lib/tokfence"), Path::new("/etc/tokfence/config.toml"));
    let has_credential = below(CREDENTIAL).exists();
    let credential = if has_credential {
        format!("LoadCredentialEncrypted=vault-passphrase:{CREDENTIAL}\n")
    } else {
        String::new()
    };
    let text = SYSTEM_UNIT
        .replace("@COMMAND@", &command(&program, home, config)?)
        .replace("@CREDENTIAL@\n", &credential);
    let file = |path: &str, text: &str, is_settings| ServiceFile {
        path: below(path),
        text: text.to_owned(),
        is_settings,
    };
    let files = vec![
        file("/etc/sysusers.d/tokfence.conf", SYSUSERS, false),
        file("/etc/tokfence/config.toml", SYSTEM_CONFIG, true),
        file("/etc/systemd/system/tokfence.service", &text, false),
    ];
    let as_service = "sudo -u tokfence tokfence --home /var/lib/tokfence --config /etc/tokfence/config.toml";
    let mut next = vec![
        format!("make its vault: {as_service} init"),
        "let somebody use it: usermod -aG tokfence USER, with the socket /run/tokfence/tokfence.sock"
            .to_owned(),
    ];
    if !has_credential {
        next.push(format!(
            "let it open the vault by itself: systemd-creds encrypt --name=vault-passphrase - {CREDENTIAL}, and install again"
        ));
    }
    Ok(Plan { files, next, ..supervisor(root) })
}

/// How the machine's systemd is told; in an image nothing runs, and its files are changed instead.
fn supervisor(root: &Path) -> Plan {
    let in_root = format!("--root={}", root.display());
    let is_image = root != Path::new("/");
    let systemctl = |args: &[&str]| match is_image {
        true => words(&[&["systemctl", &in_root], args].concat()),
        false => words(&[&["systemctl"], args].concat()),
    };
    let now: &[&str] = if is_image { &[] } else { &["--now"] };
    let mut reload = vec![systemctl(&["daemon-reload"])];
    if is_image {
        reload.clear();
    }
    let mut register = vec![words(&["systemd-sysusers", &in_root, "tokfence.conf"])];
    register.extend(reload.clone());
    Plan {
        files: Vec::new(),
        register,
        start: vec![systemctl(&[&["enable"], now, &[UNIT]].concat())],
        stop: vec![systemctl(&[&["disable"], now, &[UNIT]].concat())],
        forget: reload,
        is_active: systemctl(&["is-active", "--quiet", UNIT]),
        next: Vec::new(),
    }
}

/// How the program is called for this home, quoted for a unit.
fn command(program: &Path, home: &Path, config: &Path) -> Result<String, Failure> {
    let [program, home, config] = [program, home, config].map(quoted);
    Ok(format!("{} --home {} --config {}", program?, home?, config?))
}

/// A path as one word of a unit's command line, in which `%`, `$` and quotes mean something.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|text| !text.contains(['\n', '\r']));
    let text = text.ok_or_else(|| Failure::usage(format!("{} cannot stand in a unit", path.display())))?;
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        let quoted = |path: &str| quoted(Path::new(path)).unwrap();
        assert_eq!(quoted("/usr/bin/tokfence"), "\"/usr/bin/tokfence\"");
        assert_eq!(quoted("/a b/%h/$X/\"q\"\\"), "\"/a b/%%h/$$X/\\\"q\\\"\\\\\"");
        assert!(super::quoted(Path::new("/a\nExecStart=/bin/sh")).is_err());
    }
}
