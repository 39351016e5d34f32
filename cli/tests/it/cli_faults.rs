//! What can go wrong around the commands: an environment that is not text, a start that is refused or replaced, a
//! process that is told to end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Gateway, Home, Output, PASSPHRASE, Request, Setup, eventually};

const NOTHING_LISTENS: &str = "http://127.0.0.1:1";

/// A home with a vault, and a configuration whose port nobody has.
fn home() -> Home {
    let home = Home::new();
    home.write_config(&Setup::default().config(NOTHING_LISTENS));
    home.run(["init", "--non-interactive"]).expect(0);
    home
}

fn recovery_code(output: &Output) -> String {
    output.json()["recovery_code"].as_str().unwrap().to_owned()
}

#[track_caller]
fn set_mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_environment_that_is_not_text_is_no_obstacle_to_init() {
    let home = Home::new();
    let init = home.command(["--json", "init", "--non-interactive", "--import-env"]);
    let output = init
        .env("WEIRD", OsStr::from_bytes(b"\xff"))
        .env("GROQ_API_KEY", OsStr::from_bytes(b"gsk_\xff"))
        .env("OPENAI_API_KEY", "sk-from-the-shell")
        .run()
        .expect(0);
    assert_eq!(output.json()["imported"], serde_json::json!(["OPENAI_API_KEY"]));
}

#[test]
fn a_key_that_cannot_be_one_is_left_out_and_the_recovery_code_is_told() {
    let init = |home: &Home, args: &[&str]| {
        let args = [args, &["init", "--non-interactive", "--import-env"]].concat();
        let command = home.command(args.iter().copied()).env("OPENAI_API_KEY", "sk-SENTINEL-a\nb");
        command.env("GROQ_API_KEY", "gsk_good").run().expect(0)
    };
    let home = Home::new();
    let shown = init(&home, &[]).stderr;
    assert!(shown.contains("recovery code") && shown.contains("OPENAI_API_KEY is left out"), "{shown}");
    assert!(!shown.contains("SENTINEL"), "{shown}");

    let home = Home::new();
    let output = init(&home, &["--json"]);
    assert_eq!(output.json()["imported"], serde_json::json!(["GROQ_API_KEY"]));
    assert_eq!(recovery_code(&output).len(), 9 * 4 + 8);
    assert_eq!(output.stderr, "");
    let keys = home.run(["--json", "vault", "list"]).expect(0).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

/// The session of a process, from the kernel. Its name is in brackets and may hold anything.
#[cfg(target_os = "linux")]
fn session_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(3).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_daemon_is_in_a_session_of_its_own() {
    let home = home();
    let pid = home.run(["--json", "start", "-d"]).expect(0).json()["pid"].as_u64().unwrap();
    let pid = u32::try_from(pid).unwrap();
    assert_eq!(session_of(pid), pid);
    home.run(["stop"]).expect(0);
}

/// How many files a process may have open, from the kernel.
#[cfg(target_os = "linux")]
fn open_files_of(pid: &serde_json::Value) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_daemon_may_open_as_many_files_as_its_connections_need() {
    let start = |connections: u32, limits: &str| {
        let home = Home::new();
        let tables = format!("[limits]\nconnections = {connections}\n");
        home.write_config(&Setup { tables, ..Setup::default() }.config(NOTHING_LISTENS));
        home.run(["init", "--non-interactive"]).expect(0);
        let mut shell = std::process::Command::new("sh");
        let mut usual = home.command([]);
        let environment = usual.inner().get_envs();
        shell.env_clear().envs(environment.filter_map(|(name, value)| Some((name, value?))));
        let script = format!("{limits} && exec \"$0\" --json start -d");
        let output = shell.args(["-c", &script, env!("CARGO_BIN_EXE_tokfence")]).output().unwrap();
        let started: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let allowed = open_files_of(&started["pid"]);
        home.run(["stop"]).expect(0);
        (allowed, started["notes"].to_string())
    };
    let (allowed, notes) = start(500, "ulimit -Sn 400");
    assert_eq!((allowed, notes.as_str()), (500 * 2 + 256, "[]"));
    let (allowed, notes) = start(500, "ulimit -n 400");
    assert_eq!(allowed, 400);
    assert!(notes.contains("500 connections need 756 open files, and the system allows 400"), "{notes}");
}

#[test]
fn what_is_unsafe_has_one_exit_code_whoever_finds_it() {
    let starts = [&["--json", "start"][..], &["--json", "start", "-d"], &["--json", "restart"]];
    let exposed = home();
    exposed.write_config("[daemon]\nport = 0\nhost = \"0.0.0.0\"\n");
    let open = home();
    set_mode(&open.file("tokfence.db"), 0o644);
    let folder = home();
    set_mode(folder.path(), 0o755);
    for (home, code) in [(&exposed, "unsafe_address"), (&open, "unsafe_file"), (&folder, "unsafe_home")] {
        for args in starts {
            let error = home.run(args.iter().copied()).expect(7).error();
            assert_eq!(error["code"], code, "{args:?}");
        }
    }
    assert_eq!(open.run(["--json", "agent", "list"]).expect(7).error()["code"], "unsafe_file");
    set_mode(folder.path(), 0o700);
}

#[test]
fn what_cannot_be_the_name_of_an_agent_is_the_name_of_none() {
    let home = home();
    for name in ["a/b", "nobody"] {
        let error = home.run(["--json", "agent", "revoke", name]).expect(5).error();
        assert_eq!(error["code"], "no_such_agent", "{name}");
    }
}

#[test]
fn an_unsafe_file_is_unsafe_to_the_daemon_too() {
    let gateway = Gateway::start_with(&Setup { is_unlocked: false, ..Setup::default() });
    set_mode(&gateway.home.file("vault.tfv"), 0o644);
    let unlock = gateway.home.command(["--json", "unlock", "--passphrase-fd", "0"]).input(PASSPHRASE);
    assert_eq!(unlock.run().expect(7).error()["code"], "unsafe_file");
}

#[test]
fn a_restart_that_cannot_succeed_leaves_the_daemon_as_it_is() {
    let gateway = Gateway::start();
    let home = &gateway.home;
    let config = std::fs::read_to_string(home.file("config.toml")).unwrap();
    let before = home.daemon_pid();
    let restart = || home.command(["--json", "restart"]);
    let check = |output: Output, exit, code: &str| {
        assert_eq!(output.expect(exit).error()["code"], code);
        assert_eq!(home.daemon_pid(), before, "{code}");
        gateway
            .ask(Request::post("/openai/v1/chat/completions", r#"{"model":"m","messages":[]}"#))
            .expect(200);
    };
    check(restart().env("TOKFENCE_VAULT_PASSPHRASE", "wrong").run(), 4, "wrong_passphrase");
    check(restart().without_passphrase().run(), 4, "vault_locked");
    home.write_config("[daemon]\nprot = 0\n");
    check(restart().run(), 1, "invalid_config");
    home.write_config(&config);
    set_mode(&home.file("tokfence.db"), 0o644);
    check(restart().run(), 7, "unsafe_file");
    set_mode(&home.file("tokfence.db"), 0o600);
    assert_eq!(restart().run().expect(0).json()["state"], "ok");
    assert_ne!(home.daemon_pid(), before);
}

#[test]
fn a_refused_second_start_leaves_the_log_of_the_first_alone() {
    let home = home();
    home.run(["start", "-d"]).expect(0);
    let log = home.file("log/tokfence.log");
    let file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.set_len(11 * 1024 * 1024).unwrap();
    home.run(["start", "-d"]).expect(1);
    assert!(!home.file("log/tokfence.log.1").exists());
    home.run(["stop"]).expect(0);
}

#[test]
fn a_passphrase_keeps_the_characters_at_its_end() {
    for end in ["\r", "\n", "\r\n"] {
        let passphrase = format!("{PASSPHRASE}{end}");
        let home = Home::new();
        home.write_config(&Setup::default().config(NOTHING_LISTENS));
        let command =
            |args: &[&str]| home.command(args.iter().copied()).env("TOKFENCE_VAULT_PASSPHRASE", &passphrase);
        command(&["init", "--non-interactive"]).run().expect(0);
        assert_eq!(command(&["--json", "start", "-d"]).run().expect(0).json()["state"], "ok", "{end:?}");
        home.run(["stop"]).expect(0);
    }
}

#[test]
fn without_a_vault_the_way_to_keys_is_init() {
    let home = Home::new();
    home.write_config(&Setup::default().config(NOTHING_LISTENS));
    let started = home.run(["start", "-d"]).expect(0).stdout;
    assert!(started.contains("no vault yet; run `tokfence init`"), "{started}");
    let status = home.run(["status"]).expect(0).stdout;
    assert!(status.contains("keys       no vault yet; run `tokfence init`"), "{status}");
    home.run(["init", "--non-interactive"]).expect(0);
    let status = home.run(["status"]).expect(0).stdout;
    assert!(status.contains("keys       locked until `tokfence unlock`"), "{status}");
    home.run(["stop"]).expect(0);
}

/// Runs a script under `run`, up to the line in which it prints its capability.
fn run_script(gateway: &Gateway, args: &[&str], script: &str) -> (Child, String) {
    let args = [&["run"], args, &["--", "sh", "-c", script]].concat();
    let mut child = gateway.home.command(args).spawn();
    let mut token = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut token).unwrap();
    (child, token.trim().to_owned())
}

#[test]
fn a_signal_of_no_terminal_reaches_the_child_and_ends_its_capability() {
    let gateway = Gateway::start();
    for (signal, name, code) in
        [(Signal::INT, "INT", 21), (Signal::QUIT, "QUIT", 22), (Signal::HUP, "HUP", 23)]
    {
        let script = format!("trap 'exit {code}' {name}; echo $OPENAI_API_KEY; while :; do sleep 0.05; done");
        let (mut child, token) = run_script(&gateway, &["--agent", "signalled"], &script);
        let request = Request::post("/openai/v1/chat/completions", r#"{"model":"m","messages":[]}"#);
        gateway.tcp().ask(&request.clone().bearer(&token)).expect(200);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = eventually(&format!("the end by {name}"), || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{name}");
        gateway.tcp().ask(&request.bearer(&token)).expect_refusal(401, "revoked_capability");
    }
}

#[test]
fn a_provider_without_variables_is_named_with_its_base_url() {
    let tables = format!("[providers.mine]\nupstream = \"{NOTHING_LISTENS}\"\nlocal = true\n");
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    gateway.home.command(["vault", "add", "mine", "-"]).input("mine-key").run().expect(0);
    let expected = format!("`mine`; its base URL is http://{}/mine", gateway.address);
    for args in [&["env"][..], &["run", "--", "true"]] {
        let output = gateway.run(args.iter().copied()).expect(0);
        assert!(output.stderr.contains(&expected), "{args:?}: {}", output.stderr);
    }
    assert_eq!(gateway.run(["--json", "env"]).expect(0).stderr, "");
}
