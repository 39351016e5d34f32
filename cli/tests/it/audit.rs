//! The audit log: every verb that changes something leaves its row, a crash leaves both or neither, and whoever edits
//! the log with a shell is found.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use policy::Signal;
use rusqlite::Connection;
use rustix::process::{Pid, Signal as Kill, kill_process};
use serde_json::{Value, json};
use storage::{RiskAction, RiskSeen, Store};

use crate::support::{Gateway, Home, KEYS};

const PRICES: &str = r#"{"date": "2999-01-01", "version": "of the test", "providers": {"openai": {
"gpt-4o-mini": {"input": 1000000, "output": 1000000}}}}"#;

/// A command, and the actions that it leaves in the log. What is read on standard input is always a key.
type Verb = (&'static str, &'static [&'static str]);

/// Every verb of the program, in an order in which each can do what it is for. `DIR` is a folder of the test.
const VERBS: &[Verb] = &[
    ("init --non-interactive", &[]),
    ("vault add deepseek -", &["vault_add"]),
    ("vault add deepseek - --admin", &["vault_add"]),
    ("vault rotate deepseek -", &["vault_rotate"]),
    ("vault remove deepseek", &["vault_remove"]),
    ("vault export DIR/export.tfv", &["vault_export"]),
    ("vault import DIR/keys.env --dry-run", &[]),
    ("vault import DIR/keys.env", &["vault_import"]),
    ("vault import DIR/keys.env", &[]),
    ("vault list", &[]),
    ("agent mint ci", &["agent_mint"]),
    ("agent rotate ci", &["capability_rotate"]),
    ("agent revoke ci", &["agent_revoke"]),
    ("agent revoke ci", &[]),
    ("agent restore ci", &["agent_restore"]),
    ("agent restore ci", &[]),
    ("agent list", &[]),
    ("agent show ci", &[]),
    ("run --agent runner -- true", &["run_begin", "run_end"]),
    ("run --decoy --agent runner -- true", &["run_begin", "canary_add", "run_end"]),
    ("env", &["agent_mint"]),
    ("setup", &[]),
    ("setup codex", &["agent_mint"]),
    ("setup codex --test", &[]),
    ("setup codex --undo", &["capability_revoke"]),
    ("scan DIR", &[]),
    ("scan --fix DIR", &["vault_import", "agent_mint"]),
    ("scan DIR", &[]),
    ("budget set global 10 daily", &["budget_set"]),
    ("budget set global 10 daily", &[]),
    ("budget set global 20 daily", &["budget_set"]),
    ("budget status", &[]),
    ("budget clear global", &["budget_clear"]),
    ("ratelimit set agent:ci 60", &["ratelimit_set"]),
    ("ratelimit status", &[]),
    ("ratelimit clear agent:ci", &["ratelimit_clear"]),
    ("revoke openai", &["provider_revoke"]),
    ("restore openai", &["provider_restore"]),
    ("kill", &["kill"]),
    ("kill", &[]),
    ("unkill", &["unkill"]),
    ("unkill", &[]),
    ("lock", &["lock"]),
    ("unlock", &["unlock"]),
    ("canary add spare --kind decoy", &["canary_add"]),
    ("canary plant spare --file DIR/.env", &["canary_plant"]),
    ("canary plant spare --file DIR/.env", &[]),
    ("canary list", &[]),
    // Out of its file, and out of what is looked for.
    ("canary remove spare", &["canary_unplant", "canary_remove"]),
    ("risk status", &[]),
    ("risk explain 1", &[]),
    ("risk clear ci --reason test", &["risk_clear"]),
    ("risk clear ci --reason test", &[]),
    ("risk replay --since 1h --signal key_echo=enforce", &[]),
    ("provider set mine http://127.0.0.1:9 --wire openai --local", &["provider_set"]),
    ("provider list", &[]),
    ("provider show mine", &[]),
    ("provider test mine", &[]),
    ("provider remove mine", &["provider_remove"]),
    ("pricing import DIR/prices.json", &["pricing_import"]),
    ("pricing show gpt-4o-mini", &[]),
    ("pricing list", &[]),
    ("pricing status", &[]),
    ("pricing import --undo", &["pricing_undo"]),
    ("config show", &[]),
    ("config check", &[]),
    ("config path", &[]),
    ("completions bash", &[]),
    ("doctor", &[]),
    ("demo", &[]),
    ("status", &[]),
    ("log", &[]),
    ("stats", &[]),
    // What its keys change is tested with it.
    ("top", &[]),
    ("dashboard", &[]),
    ("widget install --plugins-dir DIR", &[]),
    ("widget render", &[]),
    ("widget uninstall --plugins-dir DIR", &[]),
    ("man", &[]),
    // Nothing to look at; what it revokes is tested with it.
    ("watch --once", &[]),
    ("audit", &[]),
    ("audit verify", &[]),
    ("audit accept --reason test", &["audit_accept"]),
    // What they change is tested with a service manager that does as it is told.
    ("service install --dry-run", &[]),
    ("service status", &[]),
    ("service uninstall", &[]),
    ("upgrade", &["upgrade"]),
    ("restart", &["stop", "start"]),
    ("stop", &["stop"]),
    ("start -d", &["start"]),
];

/// Verbs that need a person at a terminal; `prompts` plays one.
const AT_A_TERMINAL: [&str; 1] = ["vault passphrase"];
/// Verbs that speak with an engine of containers; `launch` plays one, since this machine's may have others in it.
const WITH_AN_ENGINE: [&str; 5] =
    ["launch status", "launch stop", "launch logs", "launch restart", "launch config"];

fn rows(home: &Home) -> Vec<Value> {
    let document = home.run(["--json", "audit", "--limit", "100000"]).expect(0).json();
    document["changes"].as_array().unwrap().clone()
}

fn actions(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["action"].as_str().unwrap()).collect()
}

/// The commands that end a line of the program: `kill`, `agent mint`.
fn leaves(home: &Home, words: &[&str]) -> Vec<String> {
    let help = home.run([words, &["--help"]].concat()).expect(0).stdout;
    let Some((_, list)) = help.split_once("Commands:\n") else { return vec![words.join(" ")] };
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let names = names.filter_map(|line| line.split_whitespace().next());
    let below: Vec<String> = names.flat_map(|name| leaves(home, &[words, &[name]].concat())).collect();
    assert!(!below.is_empty(), "{help}");
    below
}

#[test]
fn every_verb_leaves_the_row_of_what_it_changed_and_no_other() {
    let gateway = Gateway::start();
    let (home, place) = (&gateway.home, tempfile::tempdir().unwrap());
    fs::write(place.path().join("keys.env"), "DEEPSEEK_API_KEY=sk-deepseek-imported-by-a-test\n").unwrap();
    fs::write(place.path().join("found.env"), "XAI_API_KEY=Zk4mQ8vT2xLp9WrB6nYc3HdS\n").unwrap();
    fs::write(place.path().join("prices.json"), PRICES).unwrap();
    let mut told = rows(home).len();
    assert_eq!(actions(&rows(home)), ["init", "vault_import", "agent_mint", "start"], "how a test begins");
    for (line, expected) in VERBS {
        if line.starts_with("risk explain") {
            make_risky(home);
        }
        let dir = place.path().to_str().unwrap();
        let words: Vec<String> = line.split(' ').map(|word| word.replace("DIR", dir)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = home.command(words.iter().copied()).input("sk-typed-by-a-test-0123456789").run();
        let is_change = !expected.is_empty();
        assert!(output.code == Some(0) || !is_change, "{line}: {}", output.stderr);
        let all = rows(home);
        let new = &all[told..];
        assert_eq!(actions(new), *expected, "{line}: {}", output.stderr);
        for row in new {
            let command = row["command"].as_str().unwrap();
            // What starts in the background does so by itself.
            assert!(line.starts_with(command) || row["action"] == "start", "{line}: {row}");
            assert_eq!(row["uid"], rustix::process::getuid().as_raw());
        }
        told = all.len();
    }
    assert_eq!(home.run(["--json", "audit", "verify"]).expect(0).json()["changes"], told);
    let is_here = |leaf: &String| {
        let is_it = |line: &str| line == leaf || line.starts_with(&format!("{leaf} "));
        let elsewhere = [&AT_A_TERMINAL[..], &WITH_AN_ENGINE].concat();
        VERBS.iter().any(|(line, _)| is_it(line)) || elsewhere.contains(&leaf.as_str())
    };
    let left: Vec<String> = leaves(home, &[]).into_iter().filter(|leaf| !is_here(leaf)).collect();
    assert_eq!(left, [""; 0], "verbs of which this test does not know what they change");
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_micros().try_into().unwrap()
}

fn make_risky(home: &Home) {
    let mut store = Store::open_existing(&home.file("tokfence.db")).unwrap();
    let seen = RiskSeen::new(Signal::DecoyAsCredential, "agent:ci".parse().unwrap(), RiskAction::Refused);
    store.report_risk(&RiskSeen { at: now_us(), ..seen }).unwrap();
}

/// A home with five changes, and a shell in its database.
fn history() -> (Home, Connection) {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    for line in ["agent mint ci", "revoke openai", "kill --reason leak", "unkill"] {
        home.run(line.split(' ')).expect(0);
    }
    let shell = Connection::open(home.file("tokfence.db")).unwrap();
    shell
        .execute_batch(
            "DROP TRIGGER audit_is_not_edited; DROP TRIGGER audit_is_not_cut; DROP TRIGGER audit_is_a_chain;",
        )
        .unwrap();
    (home, shell)
}

#[track_caller]
fn check_tampering(sql: &str, code: &str, row: i64) {
    let (home, shell) = history();
    shell.execute_batch(sql).unwrap();
    let document = home.run(["--json", "audit", "verify"]).expect(6).json();
    assert_eq!(document["status"], "broken");
    let fault = &document["faults"][0];
    assert_eq!((&fault["code"], &fault["row"]), (&json!(code), &json!(row)), "{document:#}");
    let text = home.run(["audit", "verify"]).expect(6).stdout;
    assert!(text.contains("chain broken") && text.contains(fault["message"].as_str().unwrap()), "{text}");
}

#[test]
fn who_edits_the_log_with_a_shell_is_found() {
    check_tampering("UPDATE audit SET action = 'kill' WHERE seq = 3", "edited", 3);
    check_tampering("UPDATE audit SET actor = '0/1/somebody else' WHERE seq = 1", "edited", 1);
    check_tampering("DELETE FROM audit WHERE seq = 4", "missing", 4);
    check_tampering("DELETE FROM audit WHERE seq >= 4", "missing", 4);
    check_tampering("DELETE FROM audit", "missing", 1);
    check_tampering(
        "UPDATE audit SET seq = 99 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;
         UPDATE audit SET seq = 3 WHERE seq = 99",
        "moved",
        2,
    );
}

#[test]
fn a_whole_log_says_so_and_its_head_can_be_noted() {
    let (home, shell) = history();
    let whole = home.run(["--json", "audit", "verify"]).expect(0).json();
    assert_eq!((&whole["status"], &whole["changes"]), (&json!("whole"), &json!(5)));
    let head = whole["head"].as_str().unwrap();
    let text = home.run(["audit", "verify"]).expect(0).stdout;
    assert_eq!(text, format!("audit: 5 changes, chain whole, head {head}\n"));
    home.run(["kill"]).expect(0);
    home.run(["audit", "verify", "--head", head]).expect(0);
    let other = format!("5:{}", "0".repeat(64));
    let differs = home.run(["--json", "audit", "verify", "--head", &other]).expect(6).json();
    assert_eq!(differs["faults"][0]["code"], "head_differs");
    home.run(["audit", "verify", "--head", "5:abc"]).expect(2);
    // Without the second place, only a head that was noted tells that the end is gone.
    shell.execute_batch("DELETE FROM audit WHERE seq > 4").unwrap();
    fs::remove_file(home.file("tokfence.db.audit-head")).unwrap();
    home.run(["audit", "accept", "--reason", "I cover up"]).expect(0);
    home.run(["audit", "verify"]).expect(0);
    home.run(["audit", "verify", "--head", head]).expect(6);
}

#[test]
fn a_restored_database_is_told_of_until_that_is_accepted() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let backup = fs::read(home.file("tokfence.db")).unwrap();
    home.run(["kill"]).expect(0);
    fs::write(home.file("tokfence.db"), backup).unwrap();
    let broken = home.run(["audit", "verify"]).expect(6).stdout;
    assert!(broken.starts_with("audit: row 2 is missing\n"), "{broken}");
    home.run(["audit", "accept"]).expect(2);
    home.run(["audit", "accept", "--reason", "restored"]).expect(0);
    home.run(["audit", "verify"]).expect(0);
    let row = rows(&home).pop().unwrap();
    assert_eq!((&row["action"], &row["detail"]["reason"]), (&json!("audit_accept"), &json!("restored")));
    assert!(row["detail"]["before"].as_str().unwrap().starts_with("2:"), "{row}");
}

#[test]
fn the_list_tells_who_did_what_when_and_moves_no_cursor() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    home.run(["kill", "--reason", "a \u{1b}[2Jleak"]).expect(0);
    let list = home.run(["audit"]).expect(0).stdout;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["ROW", "TIME", "WHO", "ACTION", "SUBJECT", "DETAIL"]
    );
    assert!(
        lines[2].contains("kill") && lines[2].contains("served → killed, reason: a \\u{1b}[2Jleak"),
        "{list}"
    );
    for (args, expected) in [
        (&["--action", "kill"][..], &["kill"][..]),
        (&["--limit", "1"], &["kill"]),
        (&["--since", "1h"], &["init", "kill"]),
        (&["--since", "2999-01-01"], &[]),
    ] {
        let document = home.run([&["--json", "audit"], args].concat()).expect(0).json();
        assert_eq!(actions(document["changes"].as_array().unwrap()), expected, "{args:?}");
    }
    home.run(["audit", "--action", "nonsense"]).expect(2);
    Home::new().run(["audit", "verify"]).expect(1);
}

#[test]
fn the_vault_works_where_the_database_does_not_and_says_what_is_not_told() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    fs::write(home.file("tokfence.db"), "this is no database".repeat(1_000)).unwrap();
    let output = home.command(["vault", "add", "openai", "-"]).input(KEYS[0].key).run().expect(0);
    assert!(output.stderr.contains("the audit log does not tell of this"), "{}", output.stderr);
    for file in ["tokfence.db", "tokfence.db-wal", "tokfence.db-shm"] {
        let _ = fs::remove_file(home.file(file));
    }
    let output = home.command(["vault", "rotate", "openai", "-"]).input(KEYS[0].key).run().expect(0);
    assert!(!output.stderr.contains("audit log"), "there is none: {}", output.stderr);
    assert!(!home.file("tokfence.db").exists(), "and none is made");
}

/// Whenever a command is killed, what it changed and the row of it are both there or both not.
#[test]
fn a_command_that_is_killed_leaves_change_and_row_or_neither() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let mut finished = 0;
    for number in 0..40 {
        let name = format!("a{number}");
        let mut child = home.command(["agent", "mint", &name]).spawn();
        // Not to wait for anything: the moment of the kill is what varies.
        std::thread::sleep(Duration::from_millis(number * 3));
        let _ = kill_process(Pid::from_child(&child), Kill::KILL);
        finished += u32::from(child.wait().unwrap().success());
    }
    home.run(["agent", "mint", "last"]).expect(0);
    let store = Store::open_existing(&home.file("tokfence.db")).unwrap();
    let agents: BTreeSet<String> =
        store.agent_names().unwrap().iter().map(|name| format!("agent:{name}")).collect();
    let rows = rows(&home);
    let minted = rows.iter().filter(|row| row["action"] == "agent_mint");
    let told: BTreeSet<String> = minted.map(|row| row["subject"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, agents);
    assert!(agents.len() > finished as usize, "what was acknowledged is there");
    home.run(["audit", "verify"]).expect(0);
}
