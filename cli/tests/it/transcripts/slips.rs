//! What is said to who mistypes: what was wrong, what helps, and nothing is changed.

use super::Transcript;
use crate::support::{Gateway, Home};

#[test]
fn before_there_is_anything() {
    let home = Home::new();
    Transcript::new(&home)
        .run("stop")
        .run("vault list")
        .run("agent list")
        .run("log")
        .run("--json status")
        .run("kill")
        .run("top")
        .check("before_there_is_anything");
}

#[test]
fn slips() {
    let gateway = Gateway::start();
    Transcript::new(&gateway.home)
        .run("agnt list")
        .run("agent mint")
        .run("agent mint Übermut")
        .run("agent mint tester --provider opnai")
        .run("agent show nobody")
        .run("agent revoke nobody")
        .run("budget set agent:tester lots daily")
        .run("budget set agent:tester 1 fortnightly")
        .run("budget set agent:nobody 1 daily")
        .run("ratelimit set agent:tester 0.5")
        .run("log --since yesterdayish")
        .run("log 0")
        .run("provider set openai ftp://example.com")
        .run("revoke opnai")
        .run("risk explain everything")
        .run("risk explain 7")
        .run("canary remove nothing")
        .run("pricing show no-such-model")
        .run("setup emacs")
        .run("run --agent tester -- no-such-program")
        .run("--json agent show nobody")
        .run("--json budget set agent:tester lots daily")
        .check("slips");
}
