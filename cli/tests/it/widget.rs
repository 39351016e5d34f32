//! `widget`: what a menu bar is given, and the script that it runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{Gateway, Home, KEYS, Request, program};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

/// A folder for scripts in this home.
fn plugins(home: &Home, name: &str) -> String {
    let folder = home.file(name);
    fs::create_dir_all(&folder).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn files(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_menu_shows_what_is_spent_and_offers_what_can_be_done() {
    let gateway = Gateway::start();
    gateway.run(["budget", "set", "agent:tester", "10", "daily"]).expect(0);
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
    gateway.rest();
    let render = |format: &str| gateway.run(["widget", "render", "--format", format]).expect(0).stdout;
    for format in ["swiftbar", "argos"] {
        let text = render(format);
        assert!(text.starts_with("$0.00 · 1 | "), "{text}");
        assert!(text.contains("agent:tester/daily: $0.0000") && text.contains("param3='kill'"), "{text}");
    }
    let shown: serde_json::Value = serde_json::from_str(&render("waybar")).unwrap();
    assert_eq!((&shown["text"], &shown["class"]), (&"$0.00 · 1".into(), &"ok".into()));
    let document = gateway.run(["--json", "widget", "render"]).expect(0).json();
    assert_eq!(document["overview"]["today"]["requests"], 1);

    gateway.run(["revoke", "groq", "--reason", "prices | bash=/bin/sh"]).expect(0);
    gateway.run(["kill", "--reason", "a leak"]).expect(0);
    let text = render("argos");
    assert!(text.starts_with("KILLED · $0.00 · 1 | ") && text.contains("param3='unkill'"), "{text}");
    assert!(text.contains("groq is revoked: prices ¦ bash=/bin/sh | "), "{text}");
    for key in &KEYS {
        assert!(!text.contains(key.key));
    }
}

#[test]
fn a_gateway_that_is_down_is_shown_as_such_and_is_no_failure() {
    let home = Home::new();
    let bare = home.run(["widget", "render", "--format", "swiftbar"]).expect(0).stdout;
    assert!(bare.starts_with("tokfence off | ") && bare.contains("param3='start' param4='-d'"), "{bare}");
    home.run(["init", "--non-interactive"]).expect(0);
    home.run(["kill", "--reason", "a leak"]).expect(0);
    let document = home.run(["widget", "render", "--format", "json"]).expect(0).json();
    assert_eq!((&document["running"], &document["state"]), (&false.into(), &"down".into()));
    assert!(document["lines"][1].as_str().unwrap().contains("a leak"), "{document}");
    let shown = home.run(["widget", "render", "--format", "waybar"]).expect(0).json();
    assert_eq!(shown["text"], "tokfence off");
}

#[test]
fn an_installed_script_renders_for_its_home_whatever_is_in_the_path() {
    let home = Home::new();
    let folder = plugins(&home, "plug ins");
    let odd = home.file("it's $HOME \"home\" | here");
    let odd = odd.to_str().unwrap();
    let installed = home
        .run(["--json", "--home", odd, "widget", "install", "--plugins-dir", &folder, "--format", "argos"])
        .expect(0)
        .json();
    assert_eq!((&installed["status"], &installed["refresh_seconds"]), (&"installed".into(), &20.into()));
    let path = Path::new(installed["path"].as_str().unwrap());
    assert_eq!(path.file_name().unwrap(), "tokfence.20s.sh");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    let script = fs::read_to_string(path).unwrap();
    assert!(script.starts_with("#!/bin/sh\n") && script.contains(program()), "{script}");
    // As a menu bar runs it: with nothing of this shell.
    let output = Command::new(path).env_clear().env("HOME", home.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("tokfence off | "), "{text}");
    assert!(text.contains("cannot be called from a menu"), "{text}");
    assert!(!home.file("tokfence.db").exists(), "it was that home, and no other");
}

#[test]
fn another_pace_replaces_the_script_and_uninstall_removes_ours_alone() {
    let home = Home::new();
    let folder = plugins(&home, "plugins");
    let install =
        |refresh: &str| home.run(["widget", "install", "--plugins-dir", &folder, "--refresh", refresh]);
    install("20").expect(0);
    install("20").expect(0);
    install("60").expect(0);
    assert_eq!(files(&folder), ["tokfence.60s.sh"]);

    // Others have files like ours.
    let other = |name: &str, text: &str| fs::write(Path::new(&folder).join(name), text).unwrap();
    other("tokfence.5s.sh", "#!/bin/sh\necho mine\n");
    other("tokfence.sh", "#!/bin/sh\n");
    other("weather.10m.sh", "#!/bin/sh\n");
    symlink(Path::new(&folder).join("tokfence.60s.sh"), Path::new(&folder).join("tokfence.7s.sh")).unwrap();
    let refused = home
        .run(["--json", "widget", "install", "--plugins-dir", &folder, "--refresh", "5"])
        .expect(1)
        .error();
    assert_eq!(refused["code"], "file_exists");
    let removed = home.run(["--json", "widget", "uninstall", "--plugins-dir", &folder]).expect(0).json();
    assert_eq!(removed["files"].as_array().unwrap().len(), 1);
    assert_eq!(files(&folder), ["tokfence.5s.sh", "tokfence.7s.sh", "tokfence.sh", "weather.10m.sh"]);
    let error = home.run(["--json", "widget", "uninstall", "--plugins-dir", &folder]).expect(5).error();
    assert_eq!(error["code"], "no_such_widget");
}

#[test]
#[cfg(target_os = "linux")]
fn the_folder_of_the_menu_bar_is_found_and_never_made() {
    let home = Home::new();
    let missing = home.run(["--json", "widget", "install"]).expect(5).error();
    assert_eq!(missing["code"], "no_such_folder");
    assert!(!home.file(".config").exists());
    home.run(["widget", "install", "--plugins-dir", "/nonexistent"]).expect(5);
    let folder = plugins(&home, ".config/argos");
    home.run(["widget", "install"]).expect(0);
    assert_eq!(files(&folder), ["tokfence.20s.sh"]);
    home.run(["widget", "uninstall"]).expect(0);
    assert!(files(&folder).is_empty());
}

#[test]
fn waybar_is_told_what_to_run() {
    let home = Home::new();
    let shown = home.run(["widget", "install", "--format", "waybar", "--refresh", "30"]).expect(0).stdout;
    let module: serde_json::Value = serde_json::from_str(&format!("{{{shown}}}")).unwrap();
    let module = &module["custom/tokfence"];
    assert_eq!((&module["interval"], &module["return-type"]), (&30.into(), &"json".into()));
    let output = Command::new("sh").arg("-c").arg(module["exec"].as_str().unwrap()).output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["class"], "down");
    assert!(!home.file("config.toml").exists());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let home = Home::new();
    for args in [
        vec!["widget", "install", "--refresh", "4"],
        vec!["widget", "install", "--refresh", "soon"],
        vec!["widget", "install", "--format", "json"],
        vec!["widget", "render", "--format", "html"],
        vec!["widget"],
    ] {
        home.run(args.clone()).expect(2);
    }
}
