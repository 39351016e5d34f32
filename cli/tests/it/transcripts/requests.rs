//! What was asked, what it cost, and who did what he should not have.

use super::Transcript;
use crate::support::{Gateway, Request, json};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"MODEL","messages":[{"role":"user","content":"hi"}]}"#;
const UNPRICED: &str = r#"{"model":"gpt-unheard-of","usage":{"prompt_tokens":12,"completion_tokens":3}}"#;
const ANSWER: &str = r#"{"model":"gpt-4o-mini","usage":{"prompt_tokens":1200,"completion_tokens":340}}"#;

/// Figures of the clock have one digit more or less from run to run, and their columns go with them.
const LOOSE: (&str, &str) = (r"(\S)  +", "$1  ");

#[test]
fn the_log() {
    let gateway = Gateway::start();
    let ask = |model: &str, script: &str| {
        gateway.ask(Request::post(CHAT, BODY.replace("MODEL", model)).script(script))
    };
    let answered = ask("gpt-4o-mini", &gateway.mock.plays(json(ANSWER))).expect(200).id();
    let unpriced = ask("gpt-unheard-of", &gateway.mock.plays(json(UNPRICED))).expect(200).id();
    gateway.run(["revoke", "openai"]).expect(0);
    ask("gpt-4o-mini", "").expect_refusal(403, "provider_revoked");
    gateway.rest();
    Transcript::new(&gateway.home)
        .show("log")
        .show(&format!("log {answered}"))
        .run(&format!("log {unpriced}"))
        .run("log --agent nobody")
        .show("stats")
        .run("stats --by model")
        .run("widget render --format waybar")
        .check_with("the_log", &[LOOSE]);
}

#[test]
fn canaries_and_risk() {
    let gateway = Gateway::start();
    let mut transcript = Transcript::new(&gateway.home);
    transcript.show("canary list").run("risk").run("canary add bait --kind decoy").show("canary list");
    let bait = transcript.home.run(["canary", "add", "lure", "--kind", "decoy"]).expect(0).stdout;
    gateway
        .ask(Request::post(CHAT, BODY.replace("hi", bait.trim())))
        .expect_refusal(403, "secret_in_request");
    gateway.rest();
    transcript
        .show("risk status")
        .show("risk explain 1")
        .run("risk clear agent:tester --reason 'it was me'")
        .run("risk status")
        .run("canary remove bait")
        .run("canary list")
        // A decoy is random, and may end with what the scan passes over.
        .check_with(
            "canaries_and_risk",
            &[(r#""offset": \d+"#, r#""offset": [OFFSET]"#), (r"at byte \d+ of", "at byte [OFFSET] of")],
        );
}
