//! The demo shows what it says, and leaves nothing behind.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::program;

/// The lines of each step, by its name.
fn steps(document: &Value) -> HashMap<String, String> {
    let steps = document["steps"].as_array().unwrap().iter();
    let lines = |step: &Value| {
        let lines = step["lines"].as_array().unwrap().iter();
        lines.map(|line| line.as_str().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
    };
    steps.map(|step| (step["name"].as_str().unwrap().to_owned(), lines(step))).collect()
}

#[track_caller]
fn check_shown(steps: &HashMap<String, String>, name: &str, shown: &[&str]) {
    let lines = steps.get(name).unwrap_or_else(|| panic!("there is no step `{name}`"));
    shown.iter().for_each(|text| assert!(lines.contains(text), "`{text}` is not in `{name}`:\n{lines}"));
}

#[test]
fn the_demo_shows_every_step_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(program());
    command.env_clear().env("TMPDIR", place.path()).env("HOME", place.path());
    let output = command.args(["demo", "--json"]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let steps = steps(&serde_json::from_str(&stdout).unwrap());
    check_shown(&steps, "injection", &["authorization: Bearer sk-demo"]);
    check_shown(&steps, "stream", &["events: the first after"]);
    check_shown(&steps, "refusals", &["the provider heard of none of these"]);
    check_shown(&steps, "log", &["gpt-4o-mini", "$0.000315"]);
    check_shown(
        &steps,
        "budget",
        &[
            "429 {\"error\":{\"code\":\"budget_exceeded\",\"budget\":\"agent:demo-agent/daily\"",
            "\"limit_usd\":\"0.001000\"",
            "\"spent_usd\":\"0.000945\"",
            // What `budget status` shows: limit, spent, held, left.
            "$0.001000  $0.000945  $0.000000  $0.000055",
            "once it is raised       200",
        ],
    );
    check_shown(
        &steps,
        "kill",
        &["ms later", "[tokfence] stopped: ", "finish_reason \"content_filter\", [DONE]", "403 killed"],
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}
