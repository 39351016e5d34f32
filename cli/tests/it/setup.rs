//! `setup`: what is written into the files of agents, what stays in them, and that all of it can be taken back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Command, Gateway, Output, Request, json};

/// Somebody's home, and a gateway whose own home is elsewhere.
struct User {
    dir: TempDir,
    gateway: Gateway,
}

impl User {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), gateway: Gateway::start() }
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.gateway.home.command(args).env("HOME", self.dir.path())
    }

    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(args).run()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Every file below the home, with what it holds and its mode.
    fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        let mut files = BTreeMap::new();
        collect(self.dir.path(), &mut files);
        files
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, (Vec<u8>, u32)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.symlink_metadata().unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            files.insert(path.clone(), (Vec::new(), mode));
            collect(&path, files);
        } else {
            files.insert(path.clone(), (fs::read(&path).unwrap(), mode));
        }
    }
}

/// The files that each agent reads, and what stands in them already in this test.
const FILES: [(&str, &[(&str, &str)]); 7] = [
    (
        "claude-code",
        &[(
            ".claude/settings.json",
            "{\n  // mine\n  \"model\": \"opus\",\n  \"env\": { \"A\": \"1\" }\n}\n",
        )],
    ),
    (
        "codex",
        &[(".codex/config.toml", "# mine\nmodel = \"gpt-5.1\" # why\n\n[mcp_servers.x]\ncommand = \"y\"\n")],
    ),
    (
        "gemini",
        &[(".gemini/.env", "# mine\nOTHER=1\n"), (".gemini/settings.json", "{\"ui\": {\"theme\": \"VS\"}}")],
    ),
    ("opencode", &[(".config/opencode/opencode.json", "{ /* mine */ \"model\": \"openai/gpt-5.1\", }\n")]),
    (
        "openclaw",
        &[(".openclaw/openclaw.json", "{\n  // mine\n  gateway: { port: 18789, mode: 'local' },\n}\n")],
    ),
    ("aider", &[(".aider.conf.yml", "# mine\ndark-mode: true\n")]),
    (
        "llm",
        &[
            (".config/io.datasette.llm/extra-openai-models.yaml", "- model_id: mine\n  model_name: m\n"),
            (".config/io.datasette.llm/keys.json", "{\n  \"// Note\": \"mine\"\n}\n"),
        ],
    ),
];

/// The pieces of a text that its owner put there.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '{', '}']).map(str::trim).filter(|piece| !piece.is_empty())
}

#[test]
fn each_agents_files_are_made_and_gone_again() {
    let user = User::new();
    for (kind, files) in FILES {
        let before = user.files();
        let done = user.run(["setup", kind, "--json"]).expect(0).json();
        assert_eq!(done["files"].as_array().unwrap().len(), files.len(), "{done}");
        for (name, _) in files {
            assert!(user.read(name).len() > 1, "{kind}");
            assert_eq!(fs::metadata(user.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        let texts: String = files.iter().map(|(name, _)| user.read(name)).collect();
        assert!(texts.contains("tfk_") && texts.contains(&user.gateway.address.to_string()), "{texts}");
        let undone = user.run(["setup", kind, "--undo", "--json"]).expect(0).json();
        assert_eq!(undone["revoked"], true, "{undone}");
        assert_eq!(user.files(), before, "{kind}");
        user.run(["setup", kind, "--undo"]).expect(5);
    }
}

#[test]
fn what_stands_in_the_files_stays_and_comes_back_byte_for_byte() {
    let user = User::new();
    for (kind, files) in FILES {
        for (name, text) in files {
            user.write(name, text);
            fs::set_permissions(user.path(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let before = user.files();
        let done = user.run(["setup", kind, "--json"]).expect(0).json();
        for (name, text) in files {
            let now = user.read(name);
            for piece in pieces(text) {
                let piece = piece.trim_end_matches(',');
                assert!(now.contains(piece), "{kind}: {piece:?} is missing in {now}");
            }
        }
        // Once more changes nothing, and needs no other capability.
        let after = user.files();
        let again = user.run(["setup", kind, "--json"]).expect(0).json();
        assert_eq!(again["capability"], done["capability"]);
        assert!(
            again["files"].as_array().unwrap().iter().all(|file| file["status"] == "unchanged"),
            "{again}"
        );
        assert_eq!(user.files(), after, "{kind}");
        user.run(["setup", kind, "--undo"]).expect(0);
        assert_eq!(user.files(), before, "{kind}");
    }
}

#[test]
fn the_capability_in_the_file_serves_its_provider_alone_and_ends_with_the_undo() {
    let user = User::new();
    user.run(["setup", "claude-code"]).expect(0);
    let settings: Value = serde_json::from_str(&user.read(".claude/settings.json")).unwrap();
    let env = &settings["env"];
    assert_eq!(env["ANTHROPIC_BASE_URL"], format!("http://{}/anthropic", user.gateway.address));
    assert_eq!(env["ANTHROPIC_API_KEY"], "", "a key of the shell must not be sent beside it");
    let token = env["ANTHROPIC_AUTH_TOKEN"].as_str().unwrap();
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[]}"#;
    let asks = |path: &str| user.gateway.tcp().ask(&Request::post(path, body).bearer(token));
    assert_eq!(asks("/anthropic/v1/messages").status(), 200);
    asks("/openai/v1/chat/completions").expect_refusal(403, "out_of_scope");
    user.run(["setup", "claude-code", "--undo"]).expect(0);
    asks("/anthropic/v1/messages").expect_refusal(401, "revoked_capability");
}

#[test]
fn a_file_that_was_changed_since_is_left_alone_with_the_place_of_what_it_held() {
    let user = User::new();
    user.write(".codex/config.toml", "model = \"x\"\n");
    let done = user.run(["setup", "codex", "--json"]).expect(0).json();
    let backup = done["files"][0]["backup"].as_str().unwrap().to_owned();
    let changed = user.read(".codex/config.toml") + "# later\n";
    user.write(".codex/config.toml", &changed);
    let refused = user.run(["setup", "codex", "--undo", "--json"]).expect(7).error();
    assert!(refused["hint"].as_str().unwrap().contains(&backup), "{refused}");
    assert_eq!(user.read(".codex/config.toml"), changed);
    assert_eq!(fs::read_to_string(&backup).unwrap(), "model = \"x\"\n");
    // Set up again it goes by what stands there now, and that comes back.
    user.run(["setup", "codex"]).expect(0);
    user.run(["setup", "codex", "--undo"]).expect(0);
    assert_eq!(user.read(".codex/config.toml"), changed);
}

#[test]
fn what_cannot_be_kept_is_left_alone_and_printed_instead() {
    let user = User::new();
    let odd = [
        ("claude-code", ".claude/settings.json", "{\"env\": 1}"),
        ("claude-code", ".claude/settings.json", "{ broken"),
        ("codex", ".codex/config.toml", "model_provider = [\n"),
        ("aider", ".aider.conf.yml", "{dark-mode: true}\n"),
        ("aider", ".aider.conf.yml", "set-env:\n- A=1\n"),
        ("llm", ".config/io.datasette.llm/extra-openai-models.yaml", "models: []\n"),
        ("gemini", ".gemini/settings.json", "[]"),
    ];
    for (kind, name, text) in odd {
        user.write(name, text);
        let before = user.files();
        let output = user.run(["setup", kind]).expect(1);
        assert!(output.stderr.contains("left alone, because"), "{}", output.stderr);
        assert!(output.stdout.contains("tfk_"), "{}", output.stdout);
        assert_eq!(user.files(), before, "{kind}");
    }
}

#[test]
fn a_key_that_what_was_kept_still_holds_is_told_and_not_shown() {
    let user = User::new();
    let key = policy::decoy(policy::DecoyShape::OpenAi, [3; 32]);
    user.write(
        ".codex/config.toml",
        &format!("[model_providers.x]\nexperimental_bearer_token = \"{key}\"\n"),
    );
    let output = user.run(["setup", "codex"]).expect(0);
    assert!(output.stderr.contains("a key of a provider stood in"), "{}", output.stderr);
    assert!(!output.stderr.contains(&key[8..]) && !output.stdout.contains(&key[8..]));
}

#[test]
fn a_link_is_not_written_through() {
    let user = User::new();
    user.write("dotfiles/config.toml", "model = \"x\"\n");
    fs::create_dir(user.path(".codex")).unwrap();
    symlink(user.path("dotfiles/config.toml"), user.path(".codex/config.toml")).unwrap();
    let output = user.run(["setup", "codex"]).expect(1);
    assert!(output.stderr.contains("symbolic link"), "{}", output.stderr);
    assert_eq!(user.read("dotfiles/config.toml"), "model = \"x\"\n");
}

#[test]
fn what_is_printed_is_written_nowhere() {
    let user = User::new();
    let before = user.files();
    let printed = user.run(["setup", "codex", "--print"]).expect(0).stdout;
    assert!(printed.contains("model_provider = \"tokfence\"") && printed.contains("tfk_"), "{printed}");
    let variables = user.run(["setup", "openai-compatible", "--provider", "groq"]).expect(0).stdout;
    let url = format!("OPENAI_BASE_URL=http://{}/groq/openai/v1\n", user.gateway.address);
    assert!(variables.starts_with(&url) && variables.contains("OPENAI_API_KEY=tfk_"), "{variables}");
    assert_eq!(user.files(), before);
}

#[test]
fn agents_and_providers_that_do_not_fit_are_named() {
    let user = User::new();
    let failed = |args: &[&str], code: i32, text: &str| {
        let error = user.run(args.iter().copied().chain(["--json"])).expect(code).error();
        assert!(error.to_string().contains(text), "{error}");
    };
    failed(&["setup", "codx"], 5, "did you mean `codex`?");
    failed(&["setup", "emacs"], 5, "openai-compatible");
    failed(&["setup", "codex", "--provider", "opnai"], 5, "did you mean `openai`?");
    failed(&["setup", "codex", "--provider", "anthropic"], 2, "does not speak the format of `anthropic`");
    failed(&["setup", "codex", "--provider", "openai", "--provider", "groq"], 2, "one provider at a time");
    failed(&["setup", "codex", "--agent", "a b"], 2, "");
    failed(&["setup", "codex", "--ttl", "soon"], 2, "soon");
    failed(&["setup", "codex", "--undo"], 5, "was not set up");
    let listed = user.run(["setup", "--json"]).expect(0).json();
    assert_eq!(listed["agents"].as_array().unwrap().len(), 8);
    assert!(user.files().is_empty());
}

#[test]
fn a_test_asks_as_the_agent_does_and_tells_what_the_log_says() {
    let user = User::new();
    for (kind, path, header) in [
        ("claude-code", "/v1/messages", "authorization"),
        ("codex", "/v1/responses", "authorization"),
        ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent", "x-goog-api-key"),
    ] {
        let tested = user.run(["setup", kind, "--test", "--json"]).expect(0).json();
        let test = &tested["test"];
        assert_eq!((&test["status"], &test["requests"]), (&"answered".into(), &1.into()), "{tested}");
        assert!(test["url"].as_str().unwrap().ends_with(path), "{tested} {header}");
        let row = user.gateway.row(test["request_id"].as_str().unwrap());
        assert_eq!(row.request.agent.unwrap().as_str(), kind);
    }
    user.run(["kill"]).expect(0);
    let output = user.run(["setup", "codex", "--test"]).expect(1);
    assert!(output.stdout.contains("the gateway refused with 403"), "{}", output.stdout);
    assert!(output.stdout.contains("tokfence unkill"), "{}", output.stdout);
}

#[test]
fn the_agents_own_program_is_asked_where_it_is_installed() {
    let user = User::new();
    user.run(["setup", "codex", "--test=program", "--json"]).expect(2);
    // A program of its name, which asks the way its file tells it to.
    let script = "#!/bin/sh\necho \"asked: $*\"\nexit 3\n";
    user.write("bin/codex", script);
    fs::set_permissions(user.path("bin/codex"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", user.path("bin").display());
    let output = user.command(["setup", "codex", "--test=program", "--json"]).env("PATH", path).run();
    let test = output.expect(1).json()["test"].clone();
    assert_eq!(test["exit"], 3, "{test}");
    assert_eq!(test["said"], "asked: exec --skip-git-repo-check Say pong.", "{test}");
}

#[test]
fn without_a_gateway_that_runs_the_configured_address_is_written() {
    let user = User::new();
    user.gateway.run(["stop"]).expect(0);
    let refused = user.run(["setup", "codex", "--json"]).expect(3).error();
    assert!(refused["message"].as_str().unwrap().contains("port"), "{refused}");
    user.gateway.home.write_config("[daemon]\nport = 9471\n");
    user.run(["setup", "codex"]).expect(0);
    assert!(user.read(".codex/config.toml").contains("\"http://127.0.0.1:9471/openai/v1\""));
    user.run(["setup", "codex", "--test", "--json"]).expect(3);
}

#[test]
fn an_agent_that_run_knows_is_told_what_it_reads_and_no_capability_in_an_argument() {
    let user = User::new();
    let script = "#!/bin/sh\necho \"args: $*\"\necho \"config: $OPENCODE_CONFIG_CONTENT\"\n";
    for program in ["codex", "opencode"] {
        user.write(&format!("bin/{program}"), script);
        let path = user.path(&format!("bin/{program}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", user.path("bin").display());
    let run = |args: &[&str]| user.command(args.iter().copied()).env("PATH", &path).run().expect(0).stdout;
    let codex = run(&["run", "--", "codex", "exec", "hello"]);
    let url = format!("model_providers.tokfence.base_url=\"http://{}/openai/v1\"", user.gateway.address);
    assert!(codex.starts_with("args: -c model_provider=\"tokfence\" "), "{codex}");
    assert!(codex.contains(&url) && codex.contains(" exec hello\n") && !codex.contains("tfk_"), "{codex}");
    let opencode = run(&["run", "--", "opencode", "run", "hello"]);
    let config = opencode.lines().find_map(|line| line.strip_prefix("config: ")).unwrap();
    let config: Value = serde_json::from_str(config).unwrap();
    let options = &config["provider"]["anthropic"]["options"];
    assert_eq!(options["baseURL"], format!("http://{}/anthropic/v1", user.gateway.address));
    assert!(options["apiKey"].as_str().unwrap().starts_with("tfk_"), "{config}");
    assert!(opencode.starts_with("args: run hello\n"), "{opencode}");
}

#[test]
fn beside_a_login_the_capability_goes_into_a_header() {
    let user = User::new();
    let upstream = format!("http://{}", user.gateway.mock.address);
    user.run(["provider", "set", "anthropic", &upstream, "--auth", "passthrough"]).expect(0);
    user.run(["setup", "claude-code"]).expect(0);
    let settings: Value = serde_json::from_str(&user.read(".claude/settings.json")).unwrap();
    let header = settings["env"]["ANTHROPIC_CUSTOM_HEADERS"].as_str().unwrap();
    let token = header.strip_prefix("X-Tokfence-Capability: ").unwrap();
    assert!(settings["env"].get("ANTHROPIC_AUTH_TOKEN").is_none(), "{settings}");
    let script = user.gateway.mock.plays(json("{}"));
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[]}"#;
    let request = Request::post("/anthropic/v1/messages", body).bearer("the-login").script(&script);
    user.gateway.tcp().ask(&request.field("X-Tokfence-Capability", token)).expect(200);
    assert_eq!(
        user.gateway.mock.the_request(&script).get("authorization").as_deref(),
        Some("Bearer the-login")
    );
    user.run(["setup", "claude-code", "--test", "--json"]).expect(2);
}
