//! Budgets are edited while the gateway runs: in force when the command has returned.

use serde_json::json;

use super::{CHAT, answer, cost, gateway, question, set, standing, usd};
use crate::support::{Gateway, Request, Setup, eventually, json};

#[test]
fn an_edit_is_in_force_when_the_command_has_returned() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json(answer(10, 100)));
    let ask = || gateway.ask(question(&script, 100));
    ask().expect(200);
    for _ in 0..20 {
        set(&gateway, "openai", "0.000001", "daily");
        ask().expect_refusal(429, "budget_exceeded");
        set(&gateway, "openai", "10", "daily");
        ask().expect(200);
    }
    set(&gateway, "global", "0", "monthly");
    ask().expect_refusal(429, "budget_exceeded");
    gateway.run(["budget", "clear", "global"]).expect(0);
    ask().expect(200);
}

#[test]
fn a_new_budget_counts_what_was_spent_before() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json(answer(10, 100)));
    (0..3).for_each(|_| drop(gateway.ask(question(&script, 100)).expect(200)));
    gateway.rest();
    for (subject, name) in
        [("global", "global/daily"), ("openai", "openai/daily"), ("agent:tester", "agent:tester/daily")]
    {
        set(&gateway, subject, "10", "daily");
        assert_eq!(standing(&gateway, name).spent, 3 * cost(10, 100), "{name}");
    }
    set(&gateway, "global", "1M tokens", "5h");
    assert_eq!(standing(&gateway, "global/5h/tokens").spent, 330);
    set(&gateway, "groq", "10", "daily");
    assert_eq!(standing(&gateway, "groq/daily").spent, 0);
}

#[test]
fn several_budgets_of_a_subject_hold_together() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json(answer(10, 100)));
    set(&gateway, "agent:tester", "100", "daily");
    set(&gateway, "agent:tester", "2000 tokens", "5h");
    let mut passed = 0;
    let refusal = loop {
        let response = gateway.ask(question(&script, 100));
        if response.status() != 200 {
            break response.expect_refusal(429, "budget_exceeded").json();
        }
        // Until it is settled it holds what it may need.
        gateway.row(&response.id());
        passed += 1;
    };
    assert_eq!(refusal["error"]["budget"], "agent:tester/5h/tokens");
    assert_eq!(refusal["error"]["limit_tokens"], 2_000);
    assert_eq!(refusal["error"]["spent_tokens"], passed * 110);
    assert!(refusal["error"]["resets_at"].is_string(), "{refusal:#}");
    assert_eq!(standing(&gateway, "agent:tester/daily").spent, i64::from(passed) * cost(10, 100));
}

#[test]
fn a_refusal_names_the_limit_in_the_words_of_the_sdk() {
    let gateway = gateway("rolling");
    set(&gateway, "agent:tester", "0.01", "daily");
    let response = gateway.ask(question("", 4_096)).expect_refusal(429, "budget_exceeded");
    assert_eq!(response.head.get("x-should-retry"), Some("false"));
    assert!(!response.head.has("retry-after"));
    let error = &response.json()["error"];
    assert_eq!(error["type"], "tokfence_budget_exceeded");
    assert_eq!(error["limit_usd"], "0.010000");
    assert_eq!(error["spent_usd"], "0.000000");
    assert!(error.get("details").is_none());
    let request =
        Request::post("/google/v1beta/models/gemini-2.5-flash:generateContent", r#"{"contents":[]}"#);
    set(&gateway, "google", "0.000001", "daily");
    let response = gateway.ask(request).expect_refusal(429, "budget_exceeded");
    let error = &response.json()["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
    let details = &error["details"];
    assert!(details[0]["violations"][0]["quotaId"].as_str().unwrap().contains("PerDay"), "{details:#}");
    assert_eq!(details[1]["reason"], "budget_exceeded");
    let compatible = r#"{"model":"gemini-2.5-flash","messages":[]}"#;
    let request = Request::post("/google/v1beta/openai/chat/completions", compatible);
    let response = gateway.ask(request).expect_refusal(429, "budget_exceeded");
    assert!(response.json()["error"].get("details").is_none(), "an OpenAI SDK reads it");
}

#[test]
fn bad_input_changes_nothing_and_says_what_is_accepted() {
    let gateway = Gateway::shared();
    let check = |args: &[&str], code: i32, says: &str| {
        let output = gateway.run(["budget"].iter().chain(args).copied()).expect(code);
        assert!(output.stderr.contains(says), "{args:?}: {}", output.stderr);
    };
    check(&["set", "opnai", "1", "daily"], 5, "did you mean `openai`?");
    check(&["set", "agent:testr", "1", "daily"], 5, "did you mean `agent:tester`?");
    check(&["set", "user:x", "1", "daily"], 2, "agent:NAME");
    check(&["set", "openai", "-1", "daily"], 2, "");
    check(&["set", "openai", "1e3", "daily"], 2, "2M tokens");
    check(&["set", "openai", "1", "yearly"], 2, "daily, weekly, monthly, total");
    check(&["set", "openai", "99999999999999", "daily"], 2, "is not an amount");
    check(&["clear", "opnai"], 5, "did you mean");
    let document = gateway.run(["--json", "budget", "status"]).expect(0).json();
    assert_eq!(document["budgets"].as_array().unwrap().len(), 0);
}

#[test]
fn a_configuration_that_cannot_be_leaves_the_old_one_running_and_says_so() {
    let gateway = gateway("rolling");
    let config = gateway.home.file("config.toml");
    let old = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, old.replace("[budget]", "[budget]\ntimezone = \"Mars/Olympus\"")).unwrap();
    let output = gateway.run(["config", "check"]);
    assert_ne!(output.code, Some(0));
    assert!(format!("{}{}", output.stdout, output.stderr).contains("IANA"), "{output:?}");
    gateway.run(["budget", "set", "openai", "1", "daily"]).expect(1);
    gateway.home.signal(rustix::process::Signal::HUP);
    eventually("the daemon to say so", || {
        let log = std::fs::read_to_string(gateway.home.file("log/tokfence.log")).ok()?;
        log.contains("IANA").then_some(())
    });
    gateway.ask(question("", 10)).expect(200);
    // A slip in the configuration does not hold up what has to be stopped.
    gateway.run(["kill"]).expect(0);
    gateway.ask(question("", 10)).expect_refusal(403, "killed");
    std::fs::write(&config, old).unwrap();
    gateway.run(["unkill"]).expect(0);
    gateway.ask(question("", 10)).expect(200);
}

#[test]
fn a_model_without_a_price_is_refused_where_money_is_counted() {
    let body = r#"{"model":"no-such-model","max_tokens":10,"messages":[]}"#;
    let answered = answer(10, 5).replace("gpt-4o", "no-such-model");
    let ask = |gateway: &Gateway| {
        let script = gateway.mock.plays(json(&answered));
        gateway.ask(Request::post(CHAT, body).script(&script))
    };
    let gateway = gateway("rolling");
    ask(&gateway).expect(200);
    set(&gateway, "agent:tester", "1M tokens", "daily");
    ask(&gateway).expect(200);
    set(&gateway, "agent:tester", "10", "daily");
    ask(&gateway).expect_refusal(403, "model_price_unknown");
    gateway.ask(Request::get("/openai/v1/models")).expect(200);
    for (choice, is_charged) in [("charge_max", true), ("allow", false)] {
        let tables = format!("[budget]\nunknown_model = \"{choice}\"\n");
        let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
        set(&gateway, "agent:tester", "10", "daily");
        ask(&gateway).expect(200);
        let spent = standing(&gateway, "agent:tester/daily").spent;
        assert_eq!(spent > 0, is_charged, "{choice}: {spent}");
    }
}

#[test]
fn the_owner_is_told_once_when_much_of_a_budget_is_spent() {
    let place = tempfile::tempdir().unwrap();
    let told = place.path().join("told");
    let script = format!("printf '%s\\\\n' \\\"$1\\\" >> {}", told.display());
    let tables = format!("[notifications]\ncommand = [\"sh\", \"-c\", \"{script}\", \"sh\"]\n");
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    let answers = gateway.mock.plays(json(answer(0, 100)));
    set(&gateway, "agent:tester", &usd(cost(0, 1_000)), "daily");
    let ask = || drop(gateway.ask(question(&answers, 100)).expect(200));
    (0..7).for_each(|_| ask());
    drop(gateway.store());
    assert!(!told.exists(), "70 % is not much");
    (0..2).for_each(|_| ask());
    // The shell makes the file before it writes to it.
    let whole = || std::fs::read_to_string(&told).ok().filter(|text| text.ends_with('\n'));
    let text = eventually("the message", whole);
    assert!(text.contains("% of the budget agent:tester/daily is spent"), "{text}");
    drop(gateway.store());
    assert_eq!(std::fs::read_to_string(&told).unwrap().lines().count(), 1);
    assert_eq!(gateway.run(["--json", "status"]).expect(0).json()["budget_warnings"], 1);
}

#[test]
fn a_clock_that_was_ahead_is_told_of_and_can_be_taken_for_right() {
    let gateway = gateway("rolling");
    let database = rusqlite::Connection::open(gateway.home.file("tokfence.db")).unwrap();
    let doctor =
        |code: i32, args: &[&str]| gateway.run(["doctor"].iter().chain(args).copied()).expect(code).stdout;
    database.execute("UPDATE clock SET high_water_us = 4000000000000000", []).unwrap();
    assert!(doctor(6, &[]).contains("it was once at 2096-"));
    gateway.run(["doctor", "--accept-clock"]).expect(1);
    gateway.run(["stop"]).expect(0);
    assert!(!doctor(6, &["--accept-clock"]).contains("2096"));
}

#[test]
fn while_budgets_cannot_be_written_nothing_they_apply_to_is_let_through() {
    let gateway = gateway("rolling");
    set(&gateway, "agent:tester", "10", "daily");
    let free = gateway.mint(&["free"]);
    let mut database = rusqlite::Connection::open(gateway.home.file("tokfence.db")).unwrap();
    let lock = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    gateway.ask(question("", 10)).expect_refusal(503, "state_unavailable");
    gateway.tcp().ask(&question("", 10).bearer(&free)).expect(200);
    drop(lock);
    gateway.ask(question("", 10)).expect(200);
}
