//! The daemon looks at accounts by itself, where it is told to, for as long as it has the keys.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use super::account::{DAY, HOUR, MONDAY, Use, Watched};
use crate::support::{Mock, eventually, holds_for};

/// A gateway that looks by itself, and use of its account that it has not seen.
fn watched(tables: &str) -> Watched {
    let watched =
        Watched::with(&format!("[watch]\nenabled = true\ninterval = \"10s\"\n{tables}")).admin("openai");
    watched.honest((0..20).map(|number| Use::openai(MONDAY + 8 * HOUR + number * HOUR / 4)));
    watched.book([Use { input: 8, ..Use::openai(MONDAY + 3 * HOUR) }]);
    watched.at(MONDAY + 20 * HOUR);
    watched
}

fn log(watched: &Watched) -> String {
    std::fs::read_to_string(watched.home.file("log/tokfence.log")).unwrap_or_default()
}

/// The looks that are being taken in this home.
#[cfg(target_os = "linux")]
fn looks(watched: &Watched) -> usize {
    let home = watched.home.path().display().to_string();
    let arguments = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = arguments.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    arguments.filter(|words| words.contains(&home) && words.contains("--for-daemon")).count()
}

#[test]
fn a_theft_is_told_of_without_anybody_asking() {
    let listener = Mock::start();
    let tables =
        format!("auto_revoke = true\n[notifications]\nwebhook = \"http://{}/hook\"\n", listener.address);
    let watched = watched(&tables);
    watched.run(&["start", "-d"]).expect(0);
    let told = eventually("the notice", || listener.unasked().pop());
    let told: Value = serde_json::from_str(&told.text()).unwrap();
    assert_eq!((&told["kind"], &told["details"]["signal"]), (&json!("leak"), &json!("idle_use")), "{told}");
    eventually("the line in the log", || {
        log(&watched).contains("use that did not go through the gateway").then_some(())
    });
    let status = watched.run(&["--json", "status"]).expect(0).json();
    assert_eq!(status["revoked_providers"][0]["provider"], "openai", "{status:#}");
    let changes = watched.run(&["--json", "audit", "--action", "provider_revoke"]).expect(0).json();
    assert_eq!(changes["changes"][0]["command"], "watch", "{changes:#}");
    // A second look finds the same, and tells nobody.
    let asked = watched.mock.unasked().len();
    eventually("the second look", || (watched.mock.unasked().len() > asked).then_some(()));
    assert_eq!(listener.unasked().len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_theft_is_shown_on_the_desktop() {
    let watched = watched("[notifications]\ndesktop = true\n");
    let (path, shown) = crate::notifications::notify_send(&watched.home);
    watched.command(&["start", "-d"]).env("PATH", path).run().expect(0);
    let note =
        eventually("the note", || std::fs::read_to_string(&shown).ok().filter(|text| text.contains('\n')));
    assert!(note.starts_with("--app-name tokfence --urgency critical -- tokfence: openai: "), "{note}");
}

#[test]
fn nobody_looks_without_being_told_to_or_without_the_keys() {
    let watched = watched("");
    let text = std::fs::read_to_string(watched.home.file("config.toml")).unwrap();
    watched.home.write_config(&text.replace("enabled = true", "enabled = false"));
    watched.command(&["start", "-d"]).without_passphrase().run().expect(0);
    let asks = || !watched.mock.unasked().is_empty();
    watched.run(&["unlock"]).expect(0);
    assert!(holds_for(Duration::from_millis(800), || !asks()), "nobody asked for it");
    watched.run(&["lock"]).expect(0);
    watched.home.write_config(&text);
    // Whatever changes anything makes the daemon read its configuration again.
    watched.run(&["revoke", "groq"]).expect(0);
    assert!(holds_for(Duration::from_millis(800), || !asks()), "it had no keys");
    watched.run(&["unlock"]).expect(0);
    eventually("a look", || asks().then_some(()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_look_ends_when_the_keys_are_gone_and_with_the_daemon() {
    // It takes connections and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("[watch.openai]\nusage_endpoint = \"http://{}/\"\n", silent.local_addr().unwrap());
    let watched = watched(&endpoint);
    watched.run(&["start", "-d"]).expect(0);
    eventually("a look", || (looks(&watched) == 1).then_some(()));
    watched.run(&["lock"]).expect(0);
    eventually("its end", || (looks(&watched) == 0).then_some(()));
    eventually("its line in the log", || log(&watched).contains("ended before it was done").then_some(()));
    watched.run(&["restart"]).expect(0);
    eventually("a look", || (looks(&watched) == 1).then_some(()));
    watched.home.signal(rustix::process::Signal::KILL);
    eventually("its end", || (looks(&watched) == 0).then_some(()));
}

#[test]
fn a_look_that_fails_is_in_the_log() {
    let watched = watched("");
    watched.run(&["vault", "remove", "openai", "--admin"]).expect(0);
    watched.run(&["vault", "remove", "openrouter"]).expect(0);
    watched.at(MONDAY + DAY);
    watched.run(&["start", "-d"]).expect(0);
    eventually("the line in the log", || {
        log(&watched).contains("there is no account to look at").then_some(())
    });
}

#[test]
fn what_the_configuration_says_is_the_default_of_the_command() {
    let watched =
        Watched::with("[watch]\nthreshold_tokens = 1000000\nthreshold_usd = \"100.00\"\n").admin("openai");
    watched.honest((0..48).map(|number| Use::openai(MONDAY + 8 * HOUR + number * HOUR / 4)));
    watched.book([Use { input: 90_000, ..Use::openai(MONDAY + 10 * HOUR + HOUR / 8) }]);
    watched.at(MONDAY + 20 * HOUR);
    let report = watched.watch(&["--provider", "openai"]).expect(0).json();
    assert_eq!(report["thresholds"]["tokens"], 1_000_000, "{report:#}");
    watched.watch(&["--provider", "openai", "--threshold-tokens", "1000"]).expect(6);
}
