//! Budgets of a capability's own: given when it is minted, spent by its children too, and gone with it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use super::{amount, answer, cost, gateway, question};
use crate::support::{Gateway, Request, json as json_answer};

const ATTENUATE: &str = "/__tokfence/capabilities/attenuate";

fn id(token: &str) -> &str {
    &token[4..12]
}

/// Asks until the budget refuses, and answers how often it did not and the refusal.
fn exhaust(gateway: &Gateway, token: &str, script: &str) -> (i64, serde_json::Value) {
    for passed in 0.. {
        let response = gateway.tcp().ask(&question(script, 100).bearer(token));
        if response.status() != 200 {
            return (passed, response.expect_refusal(429, "budget_exceeded").json());
        }
        gateway.row(&response.id());
    }
    unreachable!("a budget ends")
}

#[test]
fn a_capability_spends_what_it_was_given_and_others_go_on() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json_answer(answer(10, 100)));
    let token = gateway.mint(&["given", "--budget", "0.005", "--budget", "10/daily"]);
    let (passed, refusal) = exhaust(&gateway, &token, &script);
    assert!((3..=4).contains(&passed), "{passed}");
    assert_eq!(refusal["error"]["budget"], format!("capability:{}/total", id(&token)));
    assert_eq!(refusal["error"]["limit_usd"], "0.005000");
    gateway.tcp().ask(&question(&script, 100).bearer(&gateway.mint(&["given"]))).expect(200);
    let shown = gateway.run(["--json", "agent", "show", "given"]).expect(0).json();
    let mine = shown["capabilities"].as_array().unwrap().iter().find(|one| one["id"] == id(&token)).unwrap();
    assert_eq!(mine["budgets"], json!(["$0.005000/total", "$10.000000/daily"]));
    gateway.run(["agent", "revoke", id(&token)]).expect(0);
    let status = gateway.run(["--json", "budget", "status"]).expect(0).json();
    assert_eq!(status["budgets"], json!([]), "a capability that has ended has no budget");
}

#[test]
fn a_child_spends_its_own_budget_and_its_parents() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json_answer(answer(10, 100)));
    let parent = gateway.mint(&["parent", "--budget", "0.010"]);
    let child = |budget: &str| {
        let request = Request::post(ATTENUATE, json!({ "budgets": [budget] }).to_string()).bearer(&parent);
        gateway.tcp().ask(&request).expect(201).json()["token"].as_str().unwrap().to_owned()
    };
    let small = child("0.003");
    let (passed, refusal) = exhaust(&gateway, &small, &script);
    assert_eq!(refusal["error"]["budget"], format!("capability:{}/total", id(&small)));
    assert!(passed >= 1);
    let (rest, refusal) = exhaust(&gateway, &child("5.00"), &script);
    assert_eq!(refusal["error"]["budget"], format!("capability:{}/total", id(&parent)), "{refusal:#}");
    let status = gateway.run(["--json", "budget", "status"]).expect(0).json();
    let of_parent = status["budgets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["subject"] == format!("capability:{}", id(&parent)));
    assert_eq!(amount(&of_parent.unwrap()["spent"]), (passed + rest) * cost(10, 100));
    for budget in ["x", "5/yearly", "-1"] {
        let request = Request::post(ATTENUATE, json!({ "budgets": [budget] }).to_string()).bearer(&parent);
        gateway.tcp().ask(&request).expect_refusal(400, "invalid_request");
    }
}

#[test]
fn a_run_spends_no_more_than_it_was_given() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json_answer(answer(10, 100)));
    let args =
        ["run", "--agent", "run", "--budget", "0.003", "--", "sh", "-c", "echo $OPENAI_API_KEY; read line"];
    let mut command = gateway.home.command(args);
    let piped = command.inner().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut token = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut token).unwrap();
    let (passed, _) = exhaust(&gateway, token.trim(), &script);
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&format!("{} requests", passed + 1)), "{told}");
    assert!(passed >= 1);
}

#[test]
fn a_budget_that_cannot_be_mints_nothing() {
    let gateway = Gateway::shared();
    for budgets in [&["--budget", "x"][..], &["--budget", "5/yearly"], &["--budget", "1", "--budget", "2"]] {
        let args = [&["agent", "mint", "no-budget"], budgets].concat();
        let output = gateway.run(args).expect(2);
        assert!(output.stderr.contains("--budget 5.00/daily"), "{}", output.stderr);
    }
    gateway.run(["agent", "show", "no-budget"]).expect(5);
}
