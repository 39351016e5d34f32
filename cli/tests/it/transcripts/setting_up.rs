//! From nothing to a gateway that runs, and what there is to look at then.

use std::os::unix::fs::PermissionsExt;

use super::Transcript;
use crate::support::{Gateway, Home, Setup};

#[test]
fn the_first_minutes() {
    let home = Home::new();
    home.write_config(&Setup::default().config("http://127.0.0.1:1"));
    std::fs::set_permissions(home.file("config.toml"), std::fs::Permissions::from_mode(0o600)).unwrap();
    Transcript::new(&home)
        .run("status")
        .run("init --non-interactive")
        .run("vault list")
        .run_with("vault add openai - --label work", "sk-real-openai-0SENTINEL0-AAAA")
        .show("vault list")
        .run("agent mint coder --provider openai")
        .run("start -d")
        .show("status")
        .show("doctor")
        .run("stop")
        .run("stop")
        .check("the_first_minutes");
}

#[test]
fn keys() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    Transcript::new(&home)
        .run_with(
            "vault import -",
            "OPENAI_API_KEY=sk-one-0SENTINEL0\nEDITOR=vi\nGROQ_API_KEY=gsk_two-0SENTINEL0\n",
        )
        .show("vault list")
        .run_with("vault rotate openai -", "sk-three-0SENTINEL0")
        .run_with("vault rotate mistral -", "mis-four-0SENTINEL0")
        .run("vault remove groq")
        .run("vault remove groq")
        .show("vault list")
        .check("keys");
}

#[test]
fn providers() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    Transcript::new(&home)
        .show("provider list")
        .show("provider show openai")
        .run("provider set local-models http://127.0.0.1:1234 --auth none --local")
        .run("provider show local-models")
        .run("provider remove local-models")
        .run("provider remove local-models")
        .show("config path")
        .run("config check")
        .check("providers");
}

#[test]
fn agents() {
    let gateway = Gateway::start();
    Transcript::new(&gateway.home)
        .run("agent mint coder --provider openai --model gpt-4o-mini --budget 5/daily --rpm 60 --ttl 7d --note 'writes, all day'")
        .show("agent list")
        .show("agent show coder")
        .run("agent rotate coder")
        .run("agent revoke coder")
        .run("agent list")
        .run("agent restore coder")
        .run("agent show coder")
        .run("env --agent tester")
        .run("setup")
        .run("setup aider --print")
        .show("audit")
        .run("audit verify")
        .check("agents");
}
