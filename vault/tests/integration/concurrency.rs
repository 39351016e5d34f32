//! Several writers at once, and writers that die.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vault::EntryKind;

use crate::support::{entry, fresh, open};

const PATH_VARIABLE: &str = "VAULT_TEST_PATH";
const NAME_VARIABLE: &str = "VAULT_TEST_NAME";
const COUNT_VARIABLE: &str = "VAULT_TEST_COUNT";

/// Another process that opens the vault and adds `count` entries, one edit each.
fn spawn_writer(path: &Path, name: &str, count: usize) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "concurrency::child_writer", "--ignored"])
        .env(PATH_VARIABLE, path)
        .env(NAME_VARIABLE, name)
        .env(COUNT_VARIABLE, count.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("spawns")
}

#[test]
#[ignore = "the other process of the tests in this file"]
fn child_writer() {
    let variable = |name| std::env::var(name).expect("set by the parent");
    let (path, name, count) = (variable(PATH_VARIABLE), variable(NAME_VARIABLE), variable(COUNT_VARIABLE));
    let mut vault = open(Path::new(&path)).expect("opens");
    for index in 0..count.parse::<usize>().expect("a number") {
        let _ = vault.put(entry(&format!("{name}-{index}"), "sk-0001-0001")).expect("puts");
    }
}

#[test]
fn no_edit_of_any_process_is_lost() {
    let (_directory, path, mut reader) = fresh();
    let (processes, edits) = (4, 6);
    let writers: Vec<_> =
        (0..processes).map(|index| spawn_writer(&path, &format!("p{index}"), edits)).collect();
    for mut writer in writers {
        while writer.try_wait().expect("waits").is_none() {
            reader.refresh().expect("a reader sees a whole file at every moment");
        }
        assert!(writer.wait().expect("waits").success());
    }
    reader.refresh().expect("refreshes");
    assert_eq!(reader.entries().len(), processes * edits);
    assert_eq!(reader.generation(), 1 + u64::try_from(processes * edits).expect("small"));
}

#[test]
fn no_edit_of_any_thread_is_lost() {
    let (_directory, path, mut vault) = fresh();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let path = &path;
            scope.spawn(move || {
                let mut vault = open(path).expect("opens");
                for index in 0..5 {
                    vault.put(entry(&format!("{name}-{index}"), "sk-0001-0001")).expect("puts");
                }
            });
        }
    });
    assert!(vault.refresh().expect("refreshes"));
    assert_eq!(vault.entries().len(), 20);
}

#[test]
fn a_writer_killed_anywhere_leaves_a_vault_that_opens() {
    let (directory, path, mut vault) = fresh();
    vault.put(entry("first", "sk-first-0001")).expect("puts");
    for round in 0u64..12 {
        let mut writer = spawn_writer(&path, &format!("r{round}"), 10_000);
        std::thread::sleep(Duration::from_millis(20 + 7 * round));
        writer.kill().expect("kills");
        writer.wait().expect("waits");
        let opened = open(&path).expect("the vault opens whenever its writer died");
        assert!(opened.entry("first", EntryKind::Inference).is_some());
    }
    vault.put(entry("last", "sk-last-0001")).expect("the lock died with its holder");
    assert_eq!(
        std::fs::read_dir(directory.path()).expect("lists").count(),
        2,
        "only vault and lock are left"
    );
}
