//! What a person is asked at a terminal, and what the terminal shows of the answers.

use rexpect::session::{PtySession, spawn_command};

use crate::support::{Command, Home, PASSPHRASE, PATIENCE};

const KEY: &str = "sk-typed-by-a-person-0123456789";

/// Starts a command of the program in a pseudo-terminal of its own, with nothing in the environment to answer for
/// the person.
pub(crate) fn at_terminal(home: &Home, args: &[&str]) -> PtySession {
    command_at_terminal(home.command(args.iter().copied()))
}

/// The same of a command that was put together elsewhere.
pub(crate) fn command_at_terminal(command: Command) -> PtySession {
    let mut command = command.without_passphrase();
    let command = std::mem::replace(command.inner(), std::process::Command::new("true"));
    spawn_command(command, Some(PATIENCE.as_millis().try_into().unwrap())).unwrap()
}

/// Waits for a question and types the answer.
#[track_caller]
pub(crate) fn answer(terminal: &mut PtySession, question: &str, answer: &str) {
    terminal.exp_string(question).unwrap();
    terminal.send_line(answer).unwrap();
}

/// Everything the terminal shows from here to the program's end.
#[track_caller]
pub(crate) fn rest(mut terminal: PtySession) -> String {
    terminal.exp_eof().unwrap()
}

#[test]
fn init_asks_for_the_passphrase_twice_and_shows_it_never() {
    let home = Home::new();
    let mut terminal = at_terminal(&home, &["init"]);
    answer(&mut terminal, "New passphrase for the vault: ", PASSPHRASE);
    answer(&mut terminal, "The same again: ", PASSPHRASE);
    let shown = rest(terminal);
    assert!(shown.contains("recovery code"), "{shown}");
    assert!(!shown.contains(PASSPHRASE), "{shown}");
    home.run(["vault", "list"]).expect(0);
}

#[test]
fn two_passphrases_that_differ_make_no_vault() {
    let home = Home::new();
    let mut terminal = at_terminal(&home, &["init"]);
    answer(&mut terminal, "New passphrase for the vault: ", PASSPHRASE);
    answer(&mut terminal, "The same again: ", "something else entirely");
    let shown = rest(terminal);
    assert!(shown.contains("the two passphrases differ"), "{shown}");
    assert!(!home.file("vault.tfv").exists());
}

#[test]
fn a_key_is_asked_for_and_not_echoed() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let mut terminal = at_terminal(&home, &["vault", "add", "openai"]);
    answer(&mut terminal, "Key of openai: ", KEY);
    answer(&mut terminal, "Passphrase of the vault: ", PASSPHRASE);
    let shown = rest(terminal);
    assert!(shown.contains("stored the key of openai") && shown.contains("6789"), "{shown}");
    assert!(!shown.contains(KEY) && !shown.contains(PASSPHRASE), "{shown}");
}

#[test]
fn a_wrong_passphrase_at_the_terminal_stores_nothing() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let mut terminal = at_terminal(&home, &["vault", "add", "openai"]);
    answer(&mut terminal, "Key of openai: ", KEY);
    answer(&mut terminal, "Passphrase of the vault: ", "not the passphrase");
    let shown = rest(terminal);
    assert!(shown.contains("error:") && shown.contains("hint:"), "{shown}");
    assert!(home.run(["vault", "list", "--json"]).expect(0).json()["keys"].as_array().unwrap().is_empty());
}

#[test]
fn a_daemon_started_at_a_terminal_asks_there_and_serves_unlocked() {
    let home = Home::new();
    home.write_config("[daemon]\nport = 0\n");
    home.run(["init", "--non-interactive"]).expect(0);
    let mut terminal = at_terminal(&home, &["start", "-d"]);
    answer(&mut terminal, "Passphrase of the vault: ", PASSPHRASE);
    let shown = rest(terminal);
    assert!(shown.contains("serving http://127.0.0.1:"), "{shown}");
    assert_eq!(home.run(["status", "--json"]).expect(0).json()["state"], "ok");
    home.run(["stop"]).expect(0);
}

#[test]
fn the_passphrase_is_changed_by_who_knows_the_old_one() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let new = "an entirely new passphrase";
    let mut terminal = at_terminal(&home, &["vault", "passphrase"]);
    answer(&mut terminal, "Present passphrase of the vault: ", PASSPHRASE);
    answer(&mut terminal, "New passphrase for the vault: ", new);
    answer(&mut terminal, "The same again: ", new);
    assert!(rest(terminal).contains("the passphrase is changed"));
    let changes = home.run(["--json", "audit"]).expect(0).json();
    let last = changes["changes"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["row"], &last["action"]), (&2.into(), &"vault_passphrase".into()), "{changes}");
    home.run(["vault", "list"]).expect(4);
    home.command(["vault", "list"]).env("TOKFENCE_VAULT_PASSPHRASE", new).run().expect(0);
}
