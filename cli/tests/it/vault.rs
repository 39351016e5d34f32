//! The vault and the running daemon: locked, unlocked, edited, and bound to where each key belongs.

use std::sync::LazyLock;

use rustix::process::Signal;

use crate::support::{Client, Gateway, Home, Mock, Request, Setup, eventually, json};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

fn chat(gateway: &Gateway) -> Request {
    Request::post(CHAT, BODY).bearer(&gateway.token)
}

fn health(client: &mut Client) -> String {
    let health = client.ask(&Request::get("/__tokfence/health")).expect(200);
    health.json()["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_locked_gateway_refuses_without_asking_anybody_until_it_is_unlocked() {
    let gateway = Gateway::start_with(&Setup { is_unlocked: false, ..Setup::default() });
    let mut client = gateway.tcp();
    assert_eq!(health(&mut client), "locked");
    let refusal = client.ask(&chat(&gateway)).expect_refusal(503, "vault_locked");
    assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    let own_key = Request::post(CHAT, BODY).bearer("sk-the-callers-own");
    gateway.tcp().ask(&own_key).expect_refusal(401, "invalid_capability");
    assert_eq!(gateway.mock.connections(), 0);
    assert_eq!(gateway.row(&refusal.id()).request.error_code.as_deref(), Some("vault_locked"));

    let wrong = gateway.home.command(["--json", "unlock"]).env("TOKFENCE_VAULT_PASSPHRASE", "wrong");
    wrong.run().expect(4);
    gateway.tcp().ask(&chat(&gateway)).expect_refusal(503, "vault_locked");

    gateway.run(["unlock"]).expect(0);
    gateway.tcp().ask(&chat(&gateway)).expect(200);
    assert_eq!(health(&mut gateway.tcp()), "ok");

    gateway.run(["lock"]).expect(0);
    let connections = gateway.mock.connections();
    gateway.tcp().ask(&chat(&gateway)).expect_refusal(503, "vault_locked");
    let status = gateway.run(["--json", "status"]).expect(0).json();
    assert_eq!((&status["state"], status["providers"].as_array().unwrap().len()), (&"locked".into(), 0));
    assert_eq!(gateway.mock.connections(), connections);

    let unlock = gateway.home.command(["unlock", "--passphrase-fd", "0"]).without_passphrase();
    unlock.input(crate::support::PASSPHRASE).run().expect(0);
    gateway.tcp().ask(&chat(&gateway)).expect(200);
}

#[test]
fn a_provider_without_a_key_is_served_while_the_vault_is_locked() {
    let gateway = Gateway::start_with(&Setup { is_unlocked: false, ..Setup::default() });
    gateway.ask(Request::post("/ollama/api/chat", r#"{"model":"m","stream":false}"#)).expect(200);
}

#[test]
fn a_wrong_passphrase_starts_nothing() {
    let home = Home::new();
    home.write_config(&Setup::default().config("http://127.0.0.1:1"));
    home.run(["init", "--non-interactive"]).expect(0);
    for args in [&["--json", "start", "-d"][..], &["--json", "start"], &["--json", "vault", "list"]] {
        let output = home.command(args.iter().copied()).env("TOKFENCE_VAULT_PASSPHRASE", "wrong").run();
        output.expect(4);
    }
    assert_eq!(home.daemon_pid(), None);
    home.run(["status"]).expect(3);
}

#[test]
fn a_passphrase_from_a_descriptor_opens_the_vault() {
    let gateway = Gateway::start_with(&Setup { is_unlocked: false, ..Setup::default() });
    gateway.run(["stop"]).expect(0);
    let start = gateway.home.command(["--json", "start", "-d", "--passphrase-fd", "0"]).without_passphrase();
    let serving = start.input(format!("{}\n", crate::support::PASSPHRASE)).run().expect(0).json();
    assert_eq!(serving["state"], "ok");
}

/// Edits of the vault while the daemon runs.
fn edited() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);
    &GATEWAY
}

#[track_caller]
fn key_sent(gateway: &Gateway, route: &str, field: &str) -> String {
    let script = gateway.mock.plays(json("{}"));
    gateway.ask(Request::post(route, BODY).script(&script)).expect(200);
    gateway.mock.the_request(&script).get(field).unwrap()
}

#[test]
fn a_key_is_in_force_when_the_command_that_stored_it_returns() {
    let gateway = edited();
    for verb in ["add", "rotate"] {
        let key = format!("sk-new-{verb}");
        gateway.home.command(["vault", verb, "openai", "-"]).input(format!("{key}\n")).run().expect(0);
        assert_eq!(key_sent(gateway, CHAT, "authorization"), format!("Bearer {key}"));
    }
}

#[test]
fn a_removed_key_is_gone_when_the_command_returns_and_an_admin_key_takes_no_place() {
    let gateway = edited();
    gateway.run(["vault", "remove", "mistral"]).expect(0);
    let request = || Request::post("/mistral/v1/chat/completions", BODY);
    let refusal = gateway.ask(request()).expect_refusal(503, "missing_key");
    assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    gateway.home.command(["vault", "add", "mistral", "-", "--admin"]).input("mis-admin").run().expect(0);
    gateway.ask(request()).expect_refusal(503, "missing_key");
    gateway.run(["vault", "remove", "mistral"]).expect(5);
}

#[test]
fn keys_added_at_the_same_time_are_all_kept() {
    let gateway = edited();
    let names = ["xai", "deepseek", "cerebras", "together"];
    std::thread::scope(|scope| {
        for name in names {
            let command = gateway.home.command(["vault", "add", name, "-"]).input(format!("key-of-{name}"));
            scope.spawn(move || command.run().expect(0));
        }
    });
    let list = gateway.run(["--json", "vault", "list"]).expect(0).json();
    let kept: Vec<&str> =
        list["keys"].as_array().unwrap().iter().map(|key| key["provider"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| kept.contains(name)), "{kept:?}");
    let status = gateway.run(["--json", "status"]).expect(0).json();
    let served: Vec<&str> =
        status["providers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names.iter().all(|name| served.contains(name)), "{served:?}");
}

#[test]
fn a_key_does_not_follow_its_provider_to_another_address() {
    let gateway = Gateway::start();
    let thief = Mock::start();
    gateway.ask(chat(&gateway)).expect(200);
    gateway.home.write_config(&Setup::default().config(&format!("http://{}", thief.address)));
    gateway.home.signal(Signal::HUP);
    let refusal = eventually("the new configuration", || {
        Some(gateway.tcp().ask(&chat(&gateway))).filter(|response| response.status() != 200)
    });
    refusal.expect_refusal(503, "missing_key");
    for other in ["/anthropic/v1/messages", "/google/v1beta/models/gemini-2.5-flash:generateContent"] {
        gateway.ask(Request::post(other, BODY)).expect_refusal(503, "missing_key");
    }
    assert_eq!((thief.connections(), thief.bytes()), (0, 0));
    // Storing the key again is how its owner says where it belongs now.
    gateway.home.command(["vault", "add", "openai", "-"]).input("sk-moved").run().expect(0);
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
    assert_eq!(thief.connections(), 1);
}

#[test]
fn a_configuration_with_a_fault_leaves_the_old_one_in_force() {
    let gateway = Gateway::start();
    gateway.home.write_config("[daemon]\nport = 0\nno_such_key = 1\n[metrics]\nlisten = \"\"\n");
    gateway.home.signal(Signal::HUP);
    for _ in 0..5 {
        gateway.ask(chat(&gateway)).expect(200);
    }
    let failed = gateway.run(["--json", "start", "-d"]).expect(1);
    assert!(!failed.stderr.is_empty());
}
