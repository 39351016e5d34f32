//! The comparison and the soak from end to end, as short as they can be: that they measure and report, not what they find.

#![allow(missing_docs, reason = "tests are named by what they show")]
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The built gateway, where a build of the whole workspace puts it. Without one the comparison is that of the floor.
fn has_gateway(bench: &str) -> bool {
    Path::new(bench).with_file_name("tokfence").is_file()
}

#[test]
fn a_quick_comparison_reports_every_section() {
    let bench = env!("CARGO_BIN_EXE_bench");
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name);
    let output = Command::new(bench)
        .args(["compare", "--quick"])
        .arg("--json")
        .arg(file("report.json"))
        .arg("--markdown")
        .arg(file("report.md"))
        .arg("--plot")
        .arg(file("report.svg"))
        .output()
        .expect("bench runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |name: &str| fs::read_to_string(file(name)).expect("a report");
    let report: Value = serde_json::from_str(&text("report.json")).expect("JSON");
    let gateway = has_gateway(bench).then_some("everything");
    for section in
        ["json", "json_single", "json_rate", "prompt_50k", "prompt_1m", "sse", "sse_66", "paced", "memory"]
    {
        for subject in ["floor"].into_iter().chain(gateway) {
            assert!(report["sections"][section][subject].is_object(), "no {subject} in {section}");
        }
    }
    if gateway.is_some() {
        let over = &report["sections"]["overrun"]["everything"]["admitted_over"]["median"];
        assert_eq!(over.as_f64(), Some(0.0), "a budget was overrun");
        assert!(text("report.md").contains("**targets, with everything on**"));
    }
    assert!(text("report.svg").contains("</svg>"));
}

#[test]
fn a_short_soak_counts_everything_and_judges_what_it_can() {
    let bench = env!("CARGO_BIN_EXE_bench");
    if !has_gateway(bench) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    let output = Command::new(bench)
        .args(["soak", "--minutes", "0.05", "--rate", "40", "--streams", "4", "--edits", "120"])
        .args(["--agents", "2", "--json"])
        .arg(&file)
        .output()
        .expect("bench runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&fs::read_to_string(file).expect("a report")).expect("JSON");
    let check = |name: &str| {
        let checks = report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["what"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    // 120 requests, four streams of five seconds, and the one with which the gateway was tried.
    assert_eq!(check("rows in the log")["found"], "125, of which 0 refused, failed or unpriced");
    assert_eq!(check("budgets against their rows")["found"], "3 compared, 0 differ");
    for name in ["requests", "changes of the rules", "sum of the rows"] {
        assert_eq!(check(name)["is_met"], true, "{name}");
    }
    assert!(check("growth of resident memory after the warm-up")["is_met"].is_null(), "seconds say nothing");
}
