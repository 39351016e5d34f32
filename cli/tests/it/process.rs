//! The daemon as a process: one a home, started whole or not at all, ended without breaking what runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use storage::{Outcome, Store};

use crate::support::{Client, Gateway, Home, PASSPHRASE, Request, Setup, eventually, holds_for, rows};

const CHAT: &str = "/openai/v1/chat/completions";
const STREAM: &str = r#"{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true}}"#;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A home that is set up, without a daemon.
fn home_with(setup: &Setup) -> Home {
    let home = Home::new();
    home.write_config(&setup.config("http://127.0.0.1:1"));
    home.run(["init", "--non-interactive"]).expect(0);
    home
}

fn home() -> Home {
    home_with(&Setup::default())
}

/// Checks that a start fails with this exit code and message, and that nothing runs and no socket is left.
#[track_caller]
fn check_does_not_start(home: &Home, exit: i32, message: &str) {
    for args in [&["--json", "start", "-d"][..], &["--json", "start"]] {
        let error = home.run(args.iter().copied()).expect(exit).error();
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
        assert_eq!(home.daemon_pid(), None);
        home.run(["status"]).expect(3);
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

#[test]
fn a_second_start_refuses_and_does_not_disturb_the_first() {
    let gateway = Gateway::start();
    let pid = gateway.home.daemon_pid().unwrap();
    for args in [&["--json", "start", "-d"][..], &["--json", "start"]] {
        let error = gateway.run(args.iter().copied()).expect(1).error();
        assert!(error["message"].as_str().unwrap().contains(&pid.to_string()), "{error}");
        assert!(!error["hint"].is_null());
    }
    for mut client in [gateway.tcp(), gateway.unix()] {
        client.ask(&Request::get("/openai/v1/models").bearer(&gateway.token)).expect(200);
    }
    assert_eq!(gateway.run(["--json", "status"]).expect(0).json()["pid"], pid);
}

#[test]
fn starts_at_the_same_time_start_one_daemon() {
    let home = home();
    let codes: Vec<Option<i32>> = std::thread::scope(|scope| {
        let start = || home.run(["--json", "start", "-d"]).code;
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 1))), "{codes:?}");
    home.run(["status"]).expect(0);
}

#[test]
fn sockets_and_files_are_private_and_gone_after_a_stop() {
    let gateway = Gateway::start();
    let home = &gateway.home;
    let (data, control) = (home.file("tokfence.sock"), home.file("control/control.sock"));
    assert!(is_socket(&data) && is_socket(&control));
    let modes = [
        ("", 0o700),
        ("tokfence.sock", 0o660),
        ("control", 0o700),
        ("control/control.sock", 0o600),
        ("vault.tfv", 0o600),
        ("tokfence.db", 0o600),
        ("tokfence.db-wal", 0o600),
        ("log", 0o700),
        ("log/tokfence.log", 0o600),
    ];
    for (name, expected) in modes {
        assert_eq!(mode(&home.file(name)), expected, "{name}: {:o}", mode(&home.file(name)));
    }
    home.run(["stop"]).expect(0);
    assert!(!data.exists() && !control.exists());
    assert_eq!(home.daemon_pid(), None);
    assert!(TcpStream::connect(gateway.address).is_err());
    home.run(["stop"]).expect(3);
}

#[test]
fn status_tells_that_nothing_runs() {
    let home = home();
    assert_eq!(
        home.run(["--json", "status"]).expect(3).json(),
        serde_json::json!({ "running": false, "killed": null, "revoked_providers": [] })
    );
    for args in [&["lock"][..], &["unlock"], &["stop"]] {
        home.run(args.iter().copied()).expect(3);
    }
}

#[test]
fn the_sockets_of_a_daemon_that_was_killed_are_replaced() {
    let gateway = Gateway::start();
    gateway.home.signal(Signal::KILL);
    gateway.home.wait_for_end();
    assert!(is_socket(&gateway.socket()));
    gateway.run(["status"]).expect(3);
    gateway.run(["start", "-d"]).expect(0);
    gateway.unix().ask(&Request::get("/openai/v1/models").bearer(&gateway.token)).expect(200);
}

#[test]
fn a_lock_file_of_a_dead_daemon_is_no_obstacle() {
    let home = home();
    // The number of a process that lives, as it may be given to another after a crash.
    std::fs::write(home.file("tokfence.lock"), format!("{}\n", std::process::id())).unwrap();
    home.run(["status"]).expect(3);
    let serving = home.run(["--json", "start", "-d"]).expect(0).json();
    assert_eq!(home.daemon_pid().map(Into::into), serving["pid"].as_u64());
    home.run(["stop"]).expect(0);
}

#[test]
fn a_damaged_vault_leaves_a_daemon_that_serves_without_keys() {
    let home = home();
    let sound = std::fs::read(home.file("vault.tfv")).unwrap();
    for damaged in [&sound[..sound.len() / 2], &[][..], b"something else"] {
        std::fs::write(home.file("vault.tfv"), damaged).unwrap();
        for with_passphrase in [true, false] {
            let start = home.command(["--json", "start", "-d"]);
            let start = if with_passphrase { start } else { start.without_passphrase() };
            let serving = start.run().expect(0).json();
            assert_eq!(serving["state"], "locked");
            assert!(
                serving["notes"][0].as_str().unwrap().contains("the keys are not loaded: the"),
                "{serving}"
            );
            home.run(["kill"]).expect(0);
            assert_eq!(home.run(["--json", "status"]).expect(0).json()["state"], "killed");
            home.run(["unkill"]).expect(0);
            home.run(["unlock"]).expect(1);
            assert_eq!(std::fs::read(home.file("vault.tfv")).unwrap(), damaged);
            home.run(["stop"]).expect(0);
        }
    }
}

#[test]
fn a_file_in_the_place_of_a_socket_is_left_alone() {
    for name in ["tokfence.sock", "control/control.sock"] {
        let home = home();
        std::fs::create_dir_all(home.file("control")).unwrap();
        std::fs::set_permissions(home.file("control"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(home.file(name), "mine").unwrap();
        check_does_not_start(&home, 1, "socket");
        assert_eq!(std::fs::read_to_string(home.file(name)).unwrap(), "mine");
        let other = if name == "tokfence.sock" { "control/control.sock" } else { "tokfence.sock" };
        assert!(!home.file(other).exists(), "{other} is left behind");
    }
}

#[test]
fn a_start_that_fails_late_leaves_no_socket() {
    let home = home();
    home.write_config(
        "[daemon]\nport = 0\n[metrics]\nlisten = \"\"\n[providers.openai]\nca_file = \"no-such-file\"\n",
    );
    check_does_not_start(&home, 1, "no-such-file");
    assert!(!home.file("tokfence.sock").exists() && !home.file("control/control.sock").exists());
}

#[test]
fn a_taken_port_is_an_error_and_nothing_is_left_running() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = home();
    let port = taken.local_addr().unwrap().port();
    home.write_config(&format!("[daemon]\nport = {port}\n[metrics]\nlisten = \"\"\n"));
    check_does_not_start(&home, 1, &port.to_string());
    assert!(!home.file("tokfence.sock").exists() && !home.file("control/control.sock").exists());
}

#[test]
fn a_fault_in_the_configuration_is_told_with_its_line() {
    let home = home();
    home.write_config("[daemon]\nport = 0\nprot = 1\n[limits]\nheader = \"1 lightyear\"\n");
    for args in [&["--json", "start", "-d"][..], &["--json", "start"]] {
        let error = home.run(args.iter().copied()).expect(1).error();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("prot") && message.contains("header") && message.contains('5'), "{message}");
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let home = home();
    home.write_config("[daemon]\nhost = \"0.0.0.0\"\nport = 0\n[metrics]\nlisten = \"\"\n");
    home.run(["--json", "start", "-d"]).expect(7);
    assert_eq!(home.daemon_pid(), None);
}

#[test]
fn a_home_that_others_can_open_is_refused_and_not_changed() {
    for bits in [0o755, 0o750, 0o701] {
        let home = home();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(bits)).unwrap();
        for args in [
            &["--json", "start", "-d"][..],
            &["--json", "start"],
            &["--json", "init"],
            &["--json", "agent", "mint", "a"],
        ] {
            let error = home.run(args.iter().copied()).expect(7).error();
            let hint = error["hint"].as_str().unwrap();
            assert_eq!(hint, format!("chmod 700 {}", home.path().display()));
        }
        assert_eq!(mode(home.path()), bits);
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_vault_that_others_can_read_is_refused_and_not_changed() {
    let home = home();
    std::fs::set_permissions(home.file("vault.tfv"), std::fs::Permissions::from_mode(0o644)).unwrap();
    home.run(["--json", "start", "-d"]).expect(7);
    assert_eq!(mode(&home.file("vault.tfv")), 0o644);
}

#[test]
fn a_daemon_in_the_foreground_is_seen_and_stopped_like_any_other() {
    let home = home();
    let (mut child, serving) = foreground(&home);
    assert_eq!(serving["pid"], child.id());
    let status = home.run(["--json", "status"]).expect(0).json();
    assert_eq!((&status["pid"], &status["address"]), (&serving["pid"], &serving["address"]));
    home.run(["start", "-d"]).expect(1);
    home.run(["stop"]).expect(0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(!stderr.contains("ERROR") && !stderr.contains("panicked"), "{stderr}");
}

/// A daemon in the foreground, and what it said when it served.
fn foreground(home: &Home) -> (std::process::Child, serde_json::Value) {
    let mut child = home.command(["--json", "start"]).spawn();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let serving = serde_json::from_str(&line).unwrap();
    (child, serving)
}

/// A line of `/proc/PID/status`, without its name.
#[cfg(target_os = "linux")]
fn status_of(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn a_daemon_leaves_no_core_dump_and_gains_no_rights() {
    let home = home();
    let check = |pid: u32| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
        assert_eq!(status_of(pid, "NoNewPrivs:"), "1");
    };
    home.run(["start", "-d"]).expect(0);
    check(home.daemon_pid().unwrap());
    home.run(["stop"]).expect(0);
    let (mut child, _) = foreground(&home);
    check(child.id());
    home.run(["stop"]).expect(0);
    child.wait().unwrap();
}

/// Whether a process keeps its memory and environment to itself: then the kernel gives them to root.
#[cfg(target_os = "linux")]
fn keeps_to_itself(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid() == 0
}

#[test]
#[cfg(target_os = "linux")]
fn nobody_reads_the_memory_of_a_daemon() {
    if rustix::process::geteuid().is_root() {
        // Root's own processes look the same either way; `tests/faults` runs the daemon as somebody else.
        return;
    }
    let home = home();
    home.run(["start", "-d"]).expect(0);
    assert!(keeps_to_itself(home.daemon_pid().unwrap()));
    assert!(!keeps_to_itself(std::process::id()), "the look itself must be able to fail");
}

#[test]
fn a_daemon_in_the_foreground_keeps_no_passphrase_in_its_environment() {
    let home = home();
    for args in [&[][..], &["--passphrase-fd", "0"]] {
        let mut command = home.command([&["--json", "start"], args].concat());
        let mut child = {
            let inner = command.inner();
            inner.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            inner.spawn().unwrap()
        };
        writeln!(child.stdin.take().unwrap(), "{PASSPHRASE}").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let serving: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&serving["state"], &serving["pid"]), (&"ok".into(), &child.id().into()));
        // Only root sees it at all, and elsewhere than on Linux nobody; then there is nothing to find.
        let environment = std::fs::read(format!("/proc/{}/environ", child.id())).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("TOKFENCE_VAULT_PASSPHRASE"), "{environment}");
        home.run(["stop"]).expect(0);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn an_interrupt_ends_a_daemon_in_the_foreground() {
    for signal in [Signal::INT, Signal::TERM] {
        let home = home();
        let (mut child, _) = foreground(&home);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!home.file("tokfence.sock").exists());
    }
}

#[test]
fn a_restart_serves_again_with_another_process() {
    let gateway = Gateway::start();
    let before = gateway.home.daemon_pid();
    gateway.run(["restart"]).expect(0);
    let status = gateway.run(["--json", "status"]).expect(0).json();
    assert_ne!(gateway.home.daemon_pid(), before);
    let mut client = Client::tcp(status["address"].as_str().unwrap().parse().unwrap());
    client.ask(&Request::get("/openai/v1/models").bearer(&gateway.token)).expect(200);
}

fn begin_stream(gateway: &Gateway, script: &str) -> (Client, Vec<u8>) {
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, STREAM).bearer(&gateway.token).script(script).bytes());
    client.head();
    let mut seen = Vec::new();
    client.read_until(&mut seen, "first");
    (client, seen)
}

#[test]
fn a_stream_that_runs_is_finished_before_the_daemon_ends() {
    let gateway = Gateway::start();
    let (script, go) = gateway.mock.held_stream();
    let (mut client, mut seen) = begin_stream(&gateway, &script);
    gateway.home.signal(Signal::TERM);
    eventually("the listener to close", || TcpStream::connect(gateway.address).is_err().then_some(()));
    assert!(holds_for(Duration::from_millis(200), || gateway.home.daemon_pid().is_some()));
    go.send(()).unwrap();
    client.read_until(&mut seen, "[DONE]");
    assert_eq!(client.try_part().unwrap(), None);
    gateway.home.wait_for_end();
    let rows = rows(&Store::open_existing(&gateway.home.file("tokfence.db")).unwrap());
    assert_eq!(rows.iter().map(|row| row.request.outcome).collect::<Vec<_>>(), [Outcome::Completed]);
}

#[test]
fn a_stream_that_outlives_the_grace_period_is_cut_and_has_its_row() {
    let gateway =
        Gateway::start_with(&Setup { daemon: "shutdown_grace = \"1s\"".to_owned(), ..Setup::default() });
    let (script, go) = gateway.mock.held_stream();
    let (mut client, _) = begin_stream(&gateway, &script);
    let started = Instant::now();
    gateway.run(["stop"]).expect(0);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert!(client.try_body().is_err(), "the caller must see that the stream is not whole");
    let rows = rows(&Store::open_existing(&gateway.home.file("tokfence.db")).unwrap());
    assert_eq!(rows.len(), 1);
    assert_ne!(rows[0].request.outcome, Outcome::Completed);
    assert!(rows[0].request.usage.output > 0);
    drop(go);
}

#[test]
fn idle_connections_do_not_hold_a_stop_up() {
    let gateway = Gateway::start();
    let mut idle = [gateway.tcp(), gateway.unix(), gateway.tcp()];
    idle[2].ask(&Request::get("/openai/v1/models").bearer(&gateway.token)).expect(200);
    let started = Instant::now();
    gateway.run(["stop"]).expect(0);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn init_twice_changes_nothing() {
    let home = home();
    let vault = std::fs::read(home.file("vault.tfv")).unwrap();
    let again = home.run(["--json", "init", "--non-interactive"]).expect(0).json();
    assert_eq!(again["vault"], "unchanged");
    assert_eq!(std::fs::read(home.file("vault.tfv")).unwrap(), vault);
    let bare = Home::new();
    bare.command(["init", "--non-interactive"]).without_passphrase().run().expect(2);
    assert!(!bare.file("vault.tfv").exists());
}
