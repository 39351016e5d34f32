//! `run` and `env`: what an agent's process is given, what is kept from it, and what it may still do afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Gateway, Home, Request, eventually, holds_for, program};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

fn gateway() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);
    &GATEWAY
}

/// The environment of a child, as `env` prints it.
fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn a_child_is_given_addresses_and_a_capability_and_no_real_key() {
    let gateway = gateway();
    let real = [
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "GEMINI_API_KEY",
        "MISTRAL_API_KEY",
        "XAI_API_KEY",
        "DEEPSEEK_API_KEY",
    ];
    let mut command = gateway.home.command(["run", "--agent", "child", "--", "env"]).env("UNRELATED", "kept");
    for name in real {
        command = command.env(name, "sk-real-from-the-shell");
    }
    let output = command.run().expect(0);
    assert!(!output.stdout.contains("sk-real-from-the-shell"), "{}", output.stdout);
    let variables = variables(&output.stdout);
    let url = |path: &str| format!("http://{}{path}", gateway.address);
    assert_eq!(variables["OPENAI_BASE_URL"], url("/openai/v1"));
    assert_eq!(variables["ANTHROPIC_BASE_URL"], url("/anthropic"));
    assert_eq!(variables["GOOGLE_GEMINI_BASE_URL"], url("/google"));
    let token = &variables["OPENAI_API_KEY"];
    assert!(token.starts_with("tfk_"), "{token}");
    for name in ["ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY", "GROQ_API_KEY"] {
        assert_eq!(&variables[name], token, "{name}");
    }
    for name in ["ANTHROPIC_AUTH_TOKEN", "XAI_API_KEY", "DEEPSEEK_API_KEY", "TOKFENCE_VAULT_PASSPHRASE"] {
        assert_eq!(variables.get(name), None, "{name}");
    }
    assert_eq!(variables["UNRELATED"], "kept");
    let request = Request::post(CHAT, BODY).bearer(token);
    gateway.tcp().ask(&request).expect_refusal(401, "revoked_capability");
}

#[test]
fn a_child_with_a_scope_gets_what_its_scope_serves() {
    let output = gateway().run(["run", "--provider", "openai", "--", "env"]).expect(0);
    let variables = variables(&output.stdout);
    assert!(variables.contains_key("OPENAI_API_KEY"));
    assert!(!variables.contains_key("ANTHROPIC_API_KEY"));
}

#[test]
fn the_exit_code_of_a_child_is_passed_on() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let output = gateway().run(["run", "--agent", "exits", "--", "sh", "-c", script]);
        assert_eq!(output.code, Some(code), "{script}: {}", output.stderr);
    }
    let unknown = gateway().run(["run", "--agent", "x", "--", "no-such-program-anywhere"]).expect(1);
    assert!(unknown.stderr.starts_with("error: cannot run `no-such-program-anywhere`"), "{}", unknown.stderr);
}

#[test]
fn a_child_that_runs_is_served_and_its_cost_is_told_at_the_end() {
    let gateway = gateway();
    let mut command =
        gateway.home.command(["run", "--agent", "costly", "--", "sh", "-c", "echo $OPENAI_API_KEY; read x"]);
    let mut child =
        command.inner().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut token = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut token).unwrap();
    let request = Request::post(CHAT, BODY).bearer(token.trim());
    for _ in 0..3 {
        gateway.tcp().ask(&request).expect(200);
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    // Three times 9 × 150 + 2 × 600 nano-dollars.
    assert!(stderr.contains("3 requests, 33 tokens, $0.00000765"), "{stderr}");
    gateway.tcp().ask(&request).expect_refusal(401, "revoked_capability");
}

#[test]
fn a_signal_is_passed_on_to_the_child_and_its_capability_ends_with_it() {
    let gateway = gateway();
    let script = "trap 'echo got; exit 9' TERM; echo $OPENAI_API_KEY; while :; do sleep 0.05; done";
    let mut child = gateway.home.command(["run", "--agent", "signalled", "--", "sh", "-c", script]).spawn();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut token = String::new();
    stdout.read_line(&mut token).unwrap();
    let request = Request::post(CHAT, BODY).bearer(token.trim());
    gateway.tcp().ask(&request).expect(200);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got\n");
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(9), None));
    gateway.tcp().ask(&request).expect_refusal(401, "revoked_capability");
}

/// A command that runs until its standard input ends; its run is `child`, and its capability `token`.
struct Running {
    child: std::process::Child,
    token: String,
    _stdin: std::process::ChildStdin,
}

impl Running {
    #[track_caller]
    fn start(gateway: &Gateway, args: &[&str]) -> Self {
        let script = ["--", "sh", "-c", "echo $OPENAI_API_KEY; read x"];
        let mut command = gateway.home.command([&["run"], args, &script].concat());
        command.inner().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.inner().spawn().unwrap();
        let mut token = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut token).unwrap();
        let _stdin = child.stdin.take().unwrap();
        Self { child, token: token.trim().to_owned(), _stdin }
    }

    fn id(&self) -> &str {
        &self.token[4..12]
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn lock(&self, gateway: &Gateway) -> std::path::PathBuf {
        gateway.home.file(&format!("control/run-{}.lock", self.id()))
    }
}

/// The capability as `agent show` tells of it.
#[track_caller]
fn shown(gateway: &Gateway, agent: &str, id: &str) -> serde_json::Value {
    let document = gateway.run(["--json", "agent", "show", agent]).expect(0).json();
    let capabilities = document["capabilities"].as_array().unwrap();
    capabilities.iter().find(|capability| capability["id"] == id).unwrap().clone()
}

#[test]
fn the_capability_of_a_run_that_is_killed_ends_by_itself() {
    let gateway = gateway();
    let mut run = Running::start(gateway, &["--agent", "killed"]);
    let request = Request::post(CHAT, BODY).bearer(&run.token);
    gateway.tcp().ask(&request).expect(200);
    assert!(run.lock(gateway).exists());
    run.kill();
    let refusal = eventually("the end of the capability", || {
        Some(gateway.tcp().ask(&request)).filter(|response| response.status() != 200)
    });
    refusal.expect_refusal(401, "revoked_capability");
    eventually("the end of its file", || (!run.lock(gateway).exists()).then_some(()));
    assert_eq!(shown(gateway, "killed", run.id())["revoke_reason"], "its run died");
}

#[test]
fn a_run_that_lives_is_left_alone_and_leaves_nothing() {
    let gateway = gateway();
    let mut run = Running::start(gateway, &["--agent", "alive"]);
    let request = Request::post(CHAT, BODY).bearer(&run.token);
    // Longer than two looks for runs that died.
    assert!(holds_for(Duration::from_millis(1_200), || gateway.tcp().ask(&request).status() == 200));
    assert_eq!(shown(gateway, "alive", run.id())["state"], "active");
    let lock = run.lock(gateway);
    drop(run._stdin);
    assert!(run.child.wait().unwrap().code().is_some());
    assert!(!lock.exists());
    gateway.tcp().ask(&request).expect_refusal(401, "revoked_capability");
}

#[test]
fn a_run_that_dies_while_no_daemon_runs_is_found_by_whoever_looks() {
    let mut gateway = Gateway::start();
    let [mut first, mut second] =
        ["first", "second"].map(|name| Running::start(&gateway, &["--agent", name]));
    gateway.run(["stop"]).expect(0);
    first.kill();
    assert_eq!(shown(&gateway, "first", first.id())["state"], "revoked");
    assert_eq!(shown(&gateway, "second", second.id())["state"], "active");
    second.kill();
    gateway.start_again();
    let request = Request::post(CHAT, BODY).bearer(&second.token);
    gateway.tcp().ask(&request).expect_refusal(401, "revoked_capability");
    assert!(!first.lock(&gateway).exists() && !second.lock(&gateway).exists());
}

#[test]
fn a_run_has_the_limits_it_was_given() {
    let gateway = gateway();
    let run = Running::start(
        gateway,
        &["--agent", "limited", "--rpm", "2", "--method", "post", "--concurrent", "3"],
    );
    let request = Request::post(CHAT, BODY).bearer(&run.token);
    gateway.tcp().ask(&request).expect(200);
    gateway.tcp().ask(&request).expect(200);
    gateway.tcp().ask(&request).expect_refusal(429, "rate_limited");
    let models = Request::get("/openai/v1/models").bearer(&run.token);
    gateway.tcp().ask(&models).expect_refusal(429, "rate_limited");
    let capability = shown(gateway, "limited", run.id());
    assert_eq!(
        (&capability["rate"]["requests_per_minute"], &capability["rate"]["concurrent"]),
        (&2.into(), &3.into())
    );
    assert_eq!(capability["scope"]["methods"], serde_json::json!(["POST"]));
}

#[test]
fn a_shell_can_read_what_env_prints() {
    let gateway = gateway();
    let script = r#"eval "$("$0" env --shell bash 2>/dev/null)"; env"#;
    let mut command = gateway.home.command([]).env("ANTHROPIC_AUTH_TOKEN", "sk-real");
    let inherited: Vec<_> =
        command.inner().get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    let output =
        std::process::Command::new("sh").args(["-c", script, program()]).env_clear().envs(inherited).output();
    let output = output.unwrap();
    let variables = variables(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(variables["OPENAI_BASE_URL"], format!("http://{}/openai/v1", gateway.address));
    assert_eq!(variables.get("ANTHROPIC_AUTH_TOKEN"), None);
    gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(&variables["OPENAI_API_KEY"])).expect(200);

    let unset = gateway.run(["env", "--shell", "bash", "--unset"]).expect(0).stdout;
    assert!(unset.lines().any(|line| line == "unset OPENAI_BASE_URL"), "{unset}");
}

#[test]
fn an_env_of_one_provider_is_good_for_that_one_alone() {
    let gateway = gateway();
    let document = gateway.run(["--json", "env", "--provider", "openai"]).expect(0).json();
    let token = document["env"]["OPENAI_API_KEY"].as_str().unwrap();
    assert!(document["env"]["ANTHROPIC_BASE_URL"].is_null());
    gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(token)).expect(200);
    let other = Request::post("/anthropic/v1/messages", BODY).bearer(token);
    gateway.tcp().ask(&other).expect_refusal(403, "out_of_scope");
}

#[test]
fn without_a_daemon_nothing_is_run_and_nothing_is_minted() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let marker = home.file("ran");
    home.run(["run", "--", "touch", marker.to_str().unwrap()]).expect(3);
    home.run(["env"]).expect(3);
    assert!(!marker.exists());
    let control = home.file("control");
    assert!(!control.exists() || std::fs::read_dir(control).unwrap().next().is_none());
    let agents = home.run(["--json", "agent", "list"]).expect(0).json();
    assert_eq!(agents["agents"].as_array().unwrap().len(), 0);
}

/// Commands that fail, and with which code.
const FAILURES: &[(&[&str], i32, &str)] = &[
    (&["vault", "add", "opneai", "-"], 5, "unknown_provider"),
    (&["vault", "remove", "xai"], 5, "no_such_entry"),
    (&["vault", "rotate", "xai", "-"], 5, "no_such_entry"),
    (&["agent", "show", "../x"], 2, "usage"),
    (&["agent", "revoke", "nobody"], 5, "no_such_agent"),
    (&["agent", "mint", "x", "--ttl", "soon"], 2, "usage"),
    (&["env", "--provider", "opneai"], 5, "unknown_provider"),
    (&["run", "--provider", "opneai", "--", "true"], 5, "unknown_provider"),
    (&["start", "-d"], 1, "cannot_serve"),
    (&["log", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], 5, "no_such_request"),
    (&["no-such-command"], 2, "usage"),
];

#[test]
fn an_error_in_json_is_one_document_on_standard_error() {
    for (args, exit, code) in FAILURES {
        let args = [&["--json"], *args].concat();
        let output = gateway().home.command(args.iter().copied()).input("some-key\n").run();
        assert_eq!(output.code, Some(*exit), "{args:?} {}", output.stderr);
        let document: serde_json::Value = serde_json::from_str(&output.stderr)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", output.stderr));
        assert_eq!(document["error"]["code"], *code, "{args:?} {document}");
        assert!(document["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?} {}", output.stdout);
    }
}
