//! Price lists: what is imported or written by hand counts from the next request on, and what is not valid changes
//! nothing.

use std::fs;

use policy::NanoUsd;
use serde_json::Value;

use crate::support::{Gateway, Home, Request, json};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;
const ANSWER: &str =
    r#"{"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;

/// A list with one price, in nano-dollars a token.
fn list(date: &str, input: u64) -> String {
    let price = format!(r#"{{"input": {input}000000, "output": 1000000}}"#);
    format!(
        "{{\"date\": \"{date}\", \"version\": \"of the test\",\n\"providers\": {{\"openai\": {{\n\"gpt-4o-mini\": {price}}}}}}}"
    )
}

/// Writes the list and imports it.
fn import(home: &Home, text: &str) -> crate::support::Output {
    fs::write(home.file("list.json"), text).unwrap();
    let path = home.file("list.json").display().to_string();
    home.run(["--json", "pricing", "import", &path])
}

#[track_caller]
fn check_cost(gateway: &Gateway, nanos: i64) {
    let script = gateway.mock.plays(json(ANSWER));
    let id = gateway.ask(Request::post(CHAT, BODY).script(&script)).expect(200).id();
    assert_eq!(gateway.row(&id).request.cost, Some(NanoUsd::from_nanos(nanos)));
}

fn show(home: &Home, args: &[&str]) -> Value {
    let args = [&["--json", "pricing", "show", "--provider", "openai"], args].concat();
    home.run(args.iter().copied()).expect(0).json()["prices"][0].clone()
}

#[test]
fn a_list_counts_from_the_next_request_on_and_can_be_taken_back() {
    let gateway = Gateway::start();
    let home = &gateway.home;
    check_cost(&gateway, 150_000 + 60_000);
    let told = import(home, &list("2999-01-01", 7)).expect(0).json();
    assert_eq!((&told["status"], &told["is"]["date"]), (&"imported".into(), &"2999-01-01".into()));
    check_cost(&gateway, 7_000 + 100);
    assert_eq!(show(home, &["gpt-4o-mini"])["origin"], "imported");
    assert_eq!(show(home, &["gpt-4o"])["origin"], "embedded");
    import(home, &list("2999-01-02", 9)).expect(0);
    check_cost(&gateway, 9_000 + 100);

    let undo = || gateway.run(["pricing", "import", "--undo"]);
    undo().expect(0);
    check_cost(&gateway, 7_000 + 100);
    undo().expect(0);
    check_cost(&gateway, 150_000 + 60_000);
    undo().expect(5);
}

#[test]
fn a_list_that_is_not_valid_changes_nothing() {
    let gateway = Gateway::start();
    let home = &gateway.home;
    import(home, &list("2999-01-01", 7)).expect(0);
    let kept = fs::read(home.file("prices.json")).unwrap();
    let refused = |text: &str, told: &str| {
        let error = import(home, text).expect(1).error();
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
        assert_eq!(fs::read(home.file("prices.json")).unwrap(), kept, "{told}");
    };
    let good = list("2999-01-02", 8);
    refused(
        &good.replace("8000000", "8.5"),
        "`providers.openai.gpt-4o-mini.input`: invalid type: floating point `8.5`",
    );
    refused(&good.replace("8000000", "8.5"), "at line 3 column");
    refused(
        &good.replace("\"output\"", "\"ouput\""),
        "`providers.openai.gpt-4o-mini.ouput`: unknown key at line 3",
    );
    refused(&good[..good.len() - 1], "EOF while parsing an object at line 3");
    refused(&list("2020-01-01", 8), "the list is of 2020-01-01");
    refused(r#"{"date": "2999-01-02"}"#, "there is no price in the list");
    check_cost(&gateway, 7_000 + 100);
    let missing = home.run(["--json", "pricing", "import", "nowhere.json"]).expect(1).error();
    assert!(missing["message"].as_str().unwrap().starts_with("nothing was changed"), "{missing}");
}

#[test]
fn prices_written_by_hand_count_before_all_others_and_a_slip_in_them_changes_nothing() {
    let gateway = Gateway::start();
    let home = &gateway.home;
    import(home, &list("2999-01-01", 7)).expect(0);
    let own = |text: &str| fs::write(home.file("prices.toml"), text).unwrap();
    own("[models.openai.gpt-4o-mini]\ninput = \"2\"\noutput = \"3\"\n");
    // `reload` is what every change tells the daemon; this one changes nothing else.
    import(home, &list("2999-01-02", 8)).expect(0);
    check_cost(&gateway, 2_000_000 + 300_000);
    assert_eq!(show(home, &["gpt-4o-mini"])["origin"], "own");

    own("[models.openai.gpt-4o-mini]\ninput = 2.0\noutput = \"3\"\n");
    let error = gateway.run(["--json", "pricing", "status"]).expect(1).error();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("line 2: `models.openai.gpt-4o-mini.input`: must be dollars"), "{message}");
    let error = import(home, &list("2999-01-03", 9)).expect(1).error();
    assert!(error["message"].as_str().unwrap().starts_with("nothing was changed"), "{error}");
    assert_eq!(fs::read_to_string(home.file("prices.json")).unwrap(), list("2999-01-02", 8));
    check_cost(&gateway, 2_000_000 + 300_000);
}

/// Gemini names the tier in a header: flex at $0.15 and $1.25, priority at $0.54 and $4.50. xAI names what it charged.
#[test]
fn what_the_provider_says_of_the_tier_and_of_the_cost_is_charged() {
    let gateway = Gateway::start();
    let cost = |target: &str, request: &str, answer: Vec<u8>| {
        let script = gateway.mock.plays(answer);
        let id = gateway.ask(Request::post(target, request).script(&script)).expect(200).id();
        gateway.row(&id).request.cost.map(NanoUsd::nanos)
    };
    let gemini = r#"{"modelVersion":"gemini-2.5-flash","usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":100}}"#;
    let served = |tier: &str| {
        let plain = String::from_utf8(json(gemini)).unwrap();
        plain.replacen("\r\n", &format!("\r\nX-Gemini-Service-Tier: {tier}\r\n"), 1).into_bytes()
    };
    let generate = "/google/v1beta/models/gemini-2.5-flash:generateContent";
    for (tier, nanos) in
        [("flex", 150_000 + 125_000), ("PRIORITY", 540_000 + 450_000), ("standard", 300_000 + 250_000)]
    {
        assert_eq!(cost(generate, r#"{"contents":[]}"#, served(tier)), Some(nanos), "{tier}");
    }
    let xai = r#"{"model":"grok-4.5","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100,"cost_in_usd_ticks":37756000}}"#;
    let asked = r#"{"model":"grok-4.5","messages":[]}"#;
    assert_eq!(cost(CHAT, asked, json(xai)), Some(3_775_600));
}

#[test]
fn the_arithmetic_is_told_to_the_last_digit() {
    let home = Home::new();
    let usage = ["gpt-5.1-2025-11-13", "--input", "23456", "--cache-read", "100000", "--output", "789"];
    let bill = show(&home, &[&usage[..], &["--reasoning", "512"]].concat())["bill"].clone();
    assert_eq!(bill["cost_usd"], "0.049710");
    let lines: Vec<_> =
        bill["lines"].as_array().unwrap().iter().map(|line| line["usd"].as_str().unwrap()).collect();
    assert_eq!(lines, ["0.029320", "0.002770", "0.012500", "0.005120"]);
    let flex = show(&home, &[&usage[..], &["--service-tier", "flex"]].concat())["bill"].clone();
    assert_eq!((&flex["service_tier"], &flex["cost_usd"]), (&"flex".into(), &"0.024855".into()));
    let tier = show(&home, &["gpt-5.5", "--input", "272001"])["bill"].clone();
    assert_eq!((&tier["above_input_tokens"], &tier["cost_usd"]), (&272_000.into(), &"2.720010".into()));
    home.run(["pricing", "show", "gpt-5.5", "--output", "1", "--reasoning", "2"]).expect(2);
    home.run(["pricing", "show", "gpt-5.5", "--input", "-1"]).expect(2);
}
