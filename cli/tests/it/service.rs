//! `service`: what is written, what the service manager is told, and what it tells the daemon. The manager of the test
//! writes down how it was called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Command, Gateway, Home, PASSPHRASE, PATIENCE, Setup};

/// A home whose commands find a service manager that does as it is told and keeps a list.
struct Managed {
    home: Home,
    tools: tempfile::TempDir,
}

impl Managed {
    fn new() -> Self {
        let managed = Self { home: Home::new(), tools: tempfile::tempdir().unwrap() };
        for tool in ["systemctl", "systemd-sysusers"] {
            managed.tool(tool, 0);
        }
        managed
    }

    /// A tool that ends with this code.
    fn tool(&self, name: &str, code: u8) {
        let path = self.tools.path().join(name);
        let list = self.list();
        let script =
            format!("#!/bin/sh\necho \"{name} $*\" >> {}\necho broken >&2\nexit {code}\n", list.display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn list(&self) -> PathBuf {
        self.tools.path().join("calls")
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.list()).unwrap_or_default();
        let _ = fs::remove_file(self.list());
        text.lines().map(str::to_owned).collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let path = format!("{}:/usr/bin:/bin", self.tools.path().display());
        self.home.command(args.iter().copied()).env("PATH", path)
    }
}

#[test]
fn a_service_of_the_user_is_installed_seen_and_removed() {
    let managed = Managed::new();
    managed.home.run(["init", "--non-interactive"]).expect(0);
    let unit = managed.home.file(".config/systemd/user/tokfence.service");
    managed.command(&["service", "status"]).run().expect(3);
    managed.command(&["service", "uninstall"]).run().expect(5);
    let shown = managed.command(&["service", "install", "--dry-run"]).run().expect(0).stdout;
    assert!(shown.contains("ExecStart=") && !unit.exists() && managed.calls().is_empty(), "{shown}");

    managed.command(&["service", "install"]).run().expect(0);
    assert_eq!(
        managed.calls(),
        ["systemctl --user daemon-reload", "systemctl --user enable --now tokfence.service"]
    );
    let text = fs::read_to_string(&unit).unwrap();
    let home = managed.home.path().display();
    assert!(text.contains(&format!("--home \"{home}\" --config \"{home}/config.toml\" start\n")), "{text}");
    assert!(!text.contains('@'), "{text}");
    let status = managed.command(&["--json", "service", "status"]).run().expect(0).json();
    assert_eq!(status, json!({ "installed": true, "active": true }));
    managed.tool("systemctl", 3);
    let status = managed.command(&["--json", "service", "status"]).run().expect(3).json();
    assert_eq!(status, json!({ "installed": true, "active": false }));
    managed.tool("systemctl", 0);
    managed.calls();

    managed.command(&["service", "uninstall"]).run().expect(0);
    assert_eq!(
        managed.calls(),
        ["systemctl --user disable --now tokfence.service", "systemctl --user daemon-reload"]
    );
    assert!(!unit.exists());
    let audit = managed.home.run(["--json", "audit"]).expect(0).json();
    let actions: Vec<&str> =
        audit["changes"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert!(actions.contains(&"service_install") && actions.contains(&"service_uninstall"), "{actions:?}");
}

#[test]
fn what_the_manager_says_when_it_cannot_is_passed_on() {
    let managed = Managed::new();
    managed.tool("systemctl", 1);
    let error = managed.command(&["--json", "service", "install"]).run().expect(1).error();
    assert_eq!(error["message"], "`systemctl --user daemon-reload` failed: broken");
}

#[test]
fn a_service_of_the_machine_has_a_user_of_its_own_and_keeps_its_settings() {
    let managed = Managed::new();
    let root = tempfile::tempdir().unwrap();
    let below = |path: &str| root.path().join(path);
    let install = ["service", "install", "--system", "--root", root.path().to_str().unwrap()];
    let said = managed.command(&install).run().expect(0).stderr;
    assert!(said.contains("systemd-creds encrypt"), "{said}");
    let in_root = format!("--root={}", root.path().display());
    let calls = [
        format!("systemd-sysusers {in_root} tokfence.conf"),
        format!("systemctl {in_root} enable tokfence.service"),
    ];
    assert_eq!(managed.calls(), calls, "nothing is told to the machine that runs");
    let unit = below("etc/systemd/system/tokfence.service");
    let text = fs::read_to_string(&unit).unwrap();
    for line in ["User=tokfence", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("LoadCredential") && !text.contains("@C"), "{text}");
    assert!(fs::read_to_string(below("etc/sysusers.d/tokfence.conf")).unwrap().contains("u tokfence"));

    // A credential that is there is used, and settings that were changed stay.
    fs::create_dir_all(below("etc/credstore.encrypted")).unwrap();
    fs::write(below("etc/credstore.encrypted/tokfence.vault-passphrase"), "sealed").unwrap();
    fs::write(below("etc/tokfence/config.toml"), "# mine\n").unwrap();
    managed.command(&install).run().expect(0);
    assert!(
        fs::read_to_string(&unit).unwrap().contains("LoadCredentialEncrypted=vault-passphrase:/etc/cred")
    );
    let uninstall = ["service", "uninstall", "--system", "--root", root.path().to_str().unwrap()];
    managed.command(&uninstall).run().expect(0);
    assert!(!unit.exists());
    assert_eq!(fs::read_to_string(below("etc/tokfence/config.toml")).unwrap(), "# mine\n");
}

/// systemd's own reader of units finds nothing wrong, where there is one.
#[test]
fn systemd_understands_the_units() {
    let managed = Managed::new();
    let root = tempfile::tempdir().unwrap();
    managed
        .command(&["service", "install", "--system", "--root", root.path().to_str().unwrap()])
        .run()
        .expect(0);
    managed.command(&["service", "install"]).run().expect(0);
    let units: [&Path; 2] = [
        &root.path().join("etc/systemd/system/tokfence.service"),
        &managed.home.file(".config/systemd/user/tokfence.service"),
    ];
    for unit in units {
        let Ok(output) = std::process::Command::new("systemd-analyze").arg("verify").arg(unit).output()
        else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("tokfence")).collect();
        assert!(ours.is_empty(), "{said}");
    }
}

/// The manager learns who serves, after an upgrade as well.
#[test]
fn the_manager_is_told_who_serves() {
    let home = Home::new();
    home.write_config(&Setup::default().config("http://127.0.0.1:9"));
    home.run(["init", "--non-interactive"]).expect(0);
    let socket = home.file("notify.sock");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let count = manager.recv(&mut text).expect("the manager is told");
        String::from_utf8(text[..count].to_vec()).unwrap()
    };
    let mut child = home.command(["start"]).env("NOTIFY_SOCKET", &socket).spawn();
    assert_eq!(told(), format!("READY=1\nMAINPID={}\n", child.id()));
    let upgraded = home.run(["--json", "upgrade"]).expect(0).json();
    assert_eq!(told(), format!("READY=1\nMAINPID={}\n", upgraded["pid"]));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// What systemd unsealed for the service opens the vault.
#[test]
fn a_credential_opens_the_vault() {
    let gateway = Gateway::start();
    gateway.run(["stop"]).expect(0);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vault-passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let start = gateway.home.command(["--json", "start", "-d"]).without_passphrase();
    let serving = start.env("CREDENTIALS_DIRECTORY", folder.path()).run().expect(0).json();
    assert_eq!(serving["state"], "ok");
    gateway.run(["stop"]).expect(0);
    // Without it there is nobody to ask.
    let start = gateway.home.command(["--json", "start", "-d"]).without_passphrase();
    let empty = tempfile::tempdir().unwrap();
    let serving = start.env("CREDENTIALS_DIRECTORY", empty.path()).run().expect(0).json();
    assert_eq!(serving["state"], "locked");
}
