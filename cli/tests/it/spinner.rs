//! What takes long at a terminal shows that it works, and leaves nothing behind; nobody but a terminal sees any of it.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rexpect::process::WaitStatus;
use rexpect::session::spawn_command;

use crate::support::{Home, PATIENCE, Terminal, eventually, holds_for};

const WAITING: &str = "waiting for the gateway";
/// As long as nobody waits for it, nothing is shown; by then something would be.
const LONG: Duration = Duration::from_millis(900);
const TERM: (&str, &str) = ("TERM", "xterm");

/// A daemon that answers when it is told to.
struct Slow {
    home: Home,
    listener: UnixListener,
}

impl Slow {
    fn start() -> Self {
        let home = Home::new();
        let socket = home.file("control").join("control.sock");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        Self { listener: UnixListener::bind(socket).unwrap(), home }
    }

    /// The next question, which is on its way.
    fn asked(&self) -> UnixStream {
        let (stream, _) = self.listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream
    }
}

fn refuse(mut stream: UnixStream) {
    let refusal = serde_json::json!({ "failed": { "code": "busy", "message": "not now", "hint": null } });
    writeln!(stream, "{refusal}").unwrap();
}

#[test]
fn what_takes_long_is_told_of_until_it_is_done() {
    let slow = Slow::start();
    let mut terminal = Terminal::start(&slow.home, &["lock"], (80, 24), &[TERM]);
    let asked = slow.asked();
    terminal.shows(WAITING);
    refuse(asked);
    terminal.shows("error: not now");
    assert!(matches!(terminal.ends(), WaitStatus::Exited(_, 1)));
    assert_eq!(terminal.contents().trim(), "error: not now");
}

#[test]
fn who_wants_none_of_it_sees_none() {
    let slow = Slow::start();
    for (args, env) in [
        (&["lock", "--quiet"][..], &[TERM][..]),
        (&["lock", "--json"], &[TERM]),
        (&["lock"], &[("TERM", "dumb")]),
        (&["lock"], &[]),
    ] {
        let mut terminal = Terminal::start(&slow.home, args, (80, 24), env);
        let asked = slow.asked();
        assert!(
            holds_for(LONG, || terminal.contents().trim().is_empty()),
            "{args:?}: {}",
            terminal.contents()
        );
        refuse(asked);
        terminal.shows("not now");
        terminal.ends();
    }
}

#[test]
fn what_is_not_a_terminal_gets_the_results_alone() {
    let slow = Slow::start();
    let child = RefCell::new(slow.home.command(["lock"]).env(TERM.0, TERM.1).spawn());
    let asked = slow.asked();
    assert!(holds_for(LONG, || child.borrow_mut().try_wait().unwrap().is_none()));
    refuse(asked);
    let output = child.into_inner().wait_with_output().unwrap();
    assert!(output.stdout.is_empty());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: not now\n");
}

#[test]
fn a_vault_is_made_and_opened_within_sight() {
    let home = Home::new();
    for (args, doing) in [(&["init"][..], "making the vault"), (&["vault", "list"], "opening the vault")] {
        let mut command = home.command(args.iter().copied()).env(TERM.0, TERM.1);
        // As it is made for a user, and not for a test.
        command.inner().env_remove("TOKFENCE_TEST_KDF");
        let command = std::mem::replace(command.inner(), std::process::Command::new("true"));
        let mut terminal = spawn_command(command, Some(PATIENCE.as_millis().try_into().unwrap())).unwrap();
        terminal.exp_string(doing).unwrap();
        terminal.exp_eof().unwrap();
        let ended = eventually("the end", || match terminal.process().status() {
            Some(WaitStatus::StillAlive) => None,
            other => other,
        });
        assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
    }
}
