//! `scan`: keys that lie around in plain text are found and never shown, go into the vault, and come back byte for byte.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use policy::{DecoyShape, decoy};
use serde_json::Value;
use tempfile::TempDir;

use crate::prompts::{answer, command_at_terminal, rest};
use crate::support::{Command, Home, Output, PASSPHRASE, Setup};

/// Somebody's home with a vault, and no gateway that runs.
struct User {
    home: Home,
    dir: TempDir,
}

fn key(shape: DecoyShape, seed: u8) -> String {
    decoy(shape, [seed; 32])
}

impl User {
    fn new() -> Self {
        let user = Self::without_vault();
        user.run(["init", "--non-interactive"]).expect(0);
        user
    }

    fn without_vault() -> Self {
        let user = Self { home: Home::new(), dir: tempfile::tempdir().unwrap() };
        user.home
            .write_config(&Setup::default().config("http://127.0.0.1:1").replace("port = 0", "port = 9471"));
        user
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.home.command(args).env("HOME", self.dir.path());
        command.inner().current_dir(self.dir.path());
        command
    }

    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(args).run()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn last4(&self) -> Vec<(String, String)> {
        let list = self.run(["vault", "list", "--json"]).expect(0).json();
        let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
        list["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| (text(key, "provider"), text(key, "last4")))
            .collect()
    }
}

fn found(output: &Value) -> Vec<(String, Option<u64>, String)> {
    let keys = output["keys"].as_array().unwrap().iter();
    let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    keys.map(|key| {
        let place = key["path"].as_str().map_or("environment".to_owned(), name);
        (place, key["line"].as_u64(), key["provider"].as_str().unwrap().to_owned())
    })
    .collect()
}

#[test]
fn where_nothing_lies_around_nothing_is_found() {
    let user = User::new();
    user.write(".env", "OPENAI_API_KEY=sk-xxxxxxxxxxxxxxxxxxxxxxxx1\nMISTRAL_API_KEY=${OTHER}\n");
    let clean = user.run(["scan"]).expect(0);
    assert!(clean.stdout.contains("no key lies around in 1 files and the environment"), "{}", clean.stdout);
}

#[test]
fn keys_are_found_where_they_usually_lie_and_are_never_shown() {
    let user = User::new();
    let openai = key(DecoyShape::OpenAi, 1);
    let anthropic = key(DecoyShape::Anthropic, 2);
    let groq = key(DecoyShape::Groq, 3);
    let plain = "Zk4mQ8vT2xLp9WrB6nYc3HdS";
    user.write(".env.local", format!("# mine\nOPENAI_API_KEY=\"{openai}\"\n"));
    user.write(".zshrc", format!("alias x=y\n\nexport ANTHROPIC_API_KEY={anthropic}\n"));
    user.write(".config/fish/config.fish", format!("set -gx GROQ_API_KEY {groq}\n"));
    user.write(".codex/auth.json", format!("{{\n  \"OPENAI_API_KEY\": \"{openai}\"\n}}\n"));
    user.write(".config/io.datasette.llm/keys.json", format!("{{\"mistral\": \"{plain}\"}}"));
    user.write(
        ".local/share/opencode/auth.json",
        format!("{{\"groq\":{{\"type\":\"api\",\"key\":\"{groq}\"}}}}"),
    );
    user.write(".claude/settings.json", format!("{{\"env\":{{\"ANTHROPIC_API_KEY\":\"{anthropic}\"}}}}"));
    user.write(".openclaw/openclaw.json", format!("{{models:{{providers:{{x:{{apiKey:'{groq}'}}}}}}}}"));
    user.write("elsewhere/notes.txt", format!("my key is {openai}\n"));
    let output = user.command(["scan", "--json"]).env("GEMINI_API_KEY", key(DecoyShape::Google, 4)).run();
    let document = output.clone().expect(6).json();
    let expected = [
        ("environment", None, "google"),
        ("auth.json", Some(2), "openai"),
        ("settings.json", Some(1), "anthropic"),
        ("config.fish", Some(1), "groq"),
        ("keys.json", Some(1), "mistral"),
        (".env.local", Some(2), "openai"),
        ("auth.json", Some(1), "groq"),
        ("openclaw.json", Some(1), "groq"),
        (".zshrc", Some(3), "anthropic"),
    ];
    let expected: std::collections::BTreeSet<_> =
        expected.map(|(place, line, provider)| (place.to_owned(), line, provider.to_owned())).into();
    assert_eq!(found(&document).into_iter().collect::<std::collections::BTreeSet<_>>(), expected);
    let text = user.run(["scan", "elsewhere"]).expect(6).stdout;
    assert!(text.contains("notes.txt:1"), "{text}");
    for secret in [&openai, &anthropic, &groq, &plain.to_owned()] {
        assert!(!output.stdout.contains(secret.as_str()) && !text.contains(secret.as_str()));
    }
    let doctor = user.run(["doctor", "--json"]).expect(6).json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "keys").unwrap();
    assert_eq!(check["status"], "warn", "{check}");
    assert!(check["message"].as_str().unwrap().starts_with("8 in plain text: "), "{check}");
    let init = user.run(["init", "--non-interactive"]).expect(0);
    assert!(init.stderr.contains("tokfence scan --fix"), "{}", init.stderr);
}

#[test]
fn a_fix_moves_keys_into_the_vault_and_its_undo_brings_them_back_byte_for_byte() {
    let user = User::new();
    let (openai, anthropic) = (key(DecoyShape::OpenAi, 1), key(DecoyShape::Anthropic, 2));
    let env = format!("# é\r\nOPENAI_API_KEY='{openai}' # one\r\nB=2\r\nANTHROPIC_API_KEY={anthropic}");
    user.write(".env", &env);
    user.write(".bashrc", format!("export OPENAI_API_KEY={openai}\n"));
    fs::set_permissions(user.path(".env"), fs::Permissions::from_mode(0o640)).unwrap();
    let fixed = user.run(["scan", "--fix", "--json"]).expect(0).json();
    assert_eq!((&fixed["found"], &fixed["left"]), (&3.into(), &0.into()), "{fixed}");
    assert_eq!(fixed["set"]["OPENAI_BASE_URL"], "http://127.0.0.1:9471/openai/v1");
    let now = user.read(".env");
    assert!(now.starts_with("# é\r\nOPENAI_API_KEY='tfk_") && now.contains("' # one\r\nB=2\r\n"), "{now}");
    assert!(!now.contains(&openai) && !now.contains(&anthropic), "{now}");
    assert_eq!(fs::metadata(user.path(".env")).unwrap().permissions().mode() & 0o777, 0o640);
    let stored = [("anthropic", &anthropic), ("openai", &openai)];
    assert_eq!(user.last4(), stored.map(|(name, key)| (name.to_owned(), key[key.len() - 4..].to_owned())));
    // The way back is in the home, for its owner alone, and holds no key.
    let undo = fixed["undo"].as_str().unwrap();
    assert_eq!(fs::metadata(undo).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(undo).unwrap();
    assert!(!text.contains(&openai[8..40]) && !text.contains("tfk_"), "{text}");
    user.run(["scan"]).expect(0);

    user.run(["scan", "--undo", undo]).expect(0);
    assert_eq!(user.read(".env"), env);
    assert_eq!(user.read(".bashrc"), format!("export OPENAI_API_KEY={openai}\n"));
    assert_eq!(fs::metadata(user.path(".env")).unwrap().permissions().mode() & 0o777, 0o640);
    user.run(["scan", "--undo", undo]).expect(5);
    let agent = user.run(["agent", "show", "scan", "--json"]).expect(0).json();
    assert_eq!(agent["capabilities"][0]["state"], "revoked", "{agent}");
}

#[test]
fn an_undo_that_would_not_be_exact_changes_nothing() {
    let user = User::new();
    let openai = key(DecoyShape::OpenAi, 1);
    user.write(".env", format!("OPENAI_API_KEY={openai}\n"));
    user.write(".profile", format!("export OPENAI_API_KEY={openai}\n"));
    let fixed = user.run(["scan", "--fix", "--json"]).expect(0).json();
    let undo = fixed["undo"].as_str().unwrap();
    let (env, profile) = (user.read(".env"), user.read(".profile"));
    user.write(".profile", format!("{profile}# later\n"));
    let refused = user.run(["scan", "--undo", undo, "--json"]).expect(7).error();
    assert_eq!(refused["code"], "changed_since", "{refused}");
    assert_eq!(user.read(".env"), env, "not even the one that could be put back");
    user.write(".profile", &profile);
    user.command(["vault", "rotate", "openai", "-"]).input(key(DecoyShape::OpenAi, 9)).run().expect(0);
    user.run(["scan", "--undo", undo, "--json"]).expect(7);
    assert_eq!((user.read(".env"), user.read(".profile")), (env, profile));
    user.run(["scan", "--undo", "/nowhere/undo.json", "--json"]).expect(5);
    user.write("other.json", "{}");
    user.run(["scan", "--undo", "other.json", "--json"]).expect(1);
}

#[test]
fn what_cannot_be_moved_safely_is_left_with_the_reason() {
    let user = User::new();
    let (mine, other) = (key(DecoyShape::OpenAi, 1), key(DecoyShape::OpenAi, 2));
    let (google, groq) = (key(DecoyShape::Google, 3), key(DecoyShape::Groq, 4));
    user.command(["vault", "add", "openai", "-"]).input(other.as_str()).run().expect(0);
    user.write(".env", format!("OPENAI_API_KEY={mine}\nMAPS_KEY={google}\n"));
    user.write(".env.a", format!("GROQ_API_KEY={groq}\n"));
    user.write(".env.b", format!("GROQ_API_KEY={}\n", key(DecoyShape::Groq, 5)));
    user.write("src/main.py", format!("key = '{groq}'\n"));
    user.write("dotfiles/zshrc", format!("export GROQ_API_KEY={groq}\n"));
    symlink(user.path("dotfiles/zshrc"), user.path(".zshrc")).unwrap();
    let texts = || [".env", ".env.a", ".env.b", "src/main.py", "dotfiles/zshrc"].map(|name| user.read(name));
    let before = texts();
    let output =
        user.command(["scan", "--fix", "--json", "src"]).env("XAI_API_KEY", "Zk4mQ8vT2xLp9WrB6nYc3HdS");
    let document = output.run().expect(6).json();
    assert_eq!(document["left"], 7, "{document}");
    let reasons = document.to_string();
    for reason in [
        "the vault holds another key of openai",
        "no SDK reads a key of google from MAPS_KEY",
        "there are several keys of groq",
        "no agent or shell reads this file",
        "the file is a link",
        "unset XAI_API_KEY",
    ] {
        assert!(reasons.contains(reason), "{reason}: {document}");
    }
    assert_eq!(texts(), before);
    assert_eq!(user.last4().len(), 1);
    assert!(document["undo"].is_null());
}

#[test]
fn canaries_and_what_is_no_text_are_passed_over() {
    let user = User::new();
    user.run(["canary", "add", "spare", "--kind", "decoy"]).expect(0);
    user.run(["canary", "plant", "spare", "--file", ".env"]).expect(0);
    user.run(["scan"]).expect(0);
    let openai = key(DecoyShape::OpenAi, 1);
    user.write("work/binary", [b"\0\0".as_slice(), openai.as_bytes()].concat());
    user.write("work/large.txt", "x".repeat(1024 * 1024 + 1) + &openai);
    user.write("work/node_modules/a.js", &openai);
    user.write("work/deep/er/a.txt", &openai);
    symlink(user.path("work"), user.path("work/loop")).unwrap();
    let document = user.run(["scan", "work", "--json"]).expect(6).json();
    assert_eq!(found(&document), [("a.txt".to_owned(), Some(1), "openai".to_owned())]);
    let passed_over = document["passed_over"].to_string();
    for reason in ["is no text", "is larger than 1 MiB", "is made by a program", "is a symbolic link"] {
        assert!(passed_over.contains(reason), "{reason}: {passed_over}");
    }
    user.run(["scan", "no-such-folder", "--json"]).expect(5);
}

#[test]
fn a_fix_without_the_passphrase_changes_nothing() {
    let user = User::new();
    let text = format!("OPENAI_API_KEY={}\n", key(DecoyShape::OpenAi, 1));
    user.write(".env", &text);
    user.command(["scan", "--fix", "--json"]).without_passphrase().run().expect(4);
    let wrong = user.command(["scan", "--fix", "--json"]).env("TOKFENCE_VAULT_PASSPHRASE", "wrong");
    wrong.run().expect(4);
    assert_ne!(PASSPHRASE, "wrong");
    assert_eq!(user.read(".env"), text);
    user.run(["agent", "show", "scan"]).expect(5);
}

#[test]
fn init_moves_keys_out_of_files_where_it_is_told_to_and_not_otherwise() {
    let user = User::without_vault();
    let openai = key(DecoyShape::OpenAi, 1);
    let text = format!("OPENAI_API_KEY={openai}\n");
    user.write(".env", &text);
    let silent = user.run(["init", "--non-interactive", "--json"]).expect(0).json();
    assert!(silent["files"].is_null() && silent["vault"] == "created", "{silent}");
    assert_eq!(user.read(".env"), text);
    let told = user.run(["init", "--non-interactive"]).expect(0);
    assert!(told.stderr.contains("a key lies in plain text") && told.stderr.contains("scan --fix` moves it"));
    assert_eq!(user.read(".env"), text);

    let moved = user.run(["init", "--non-interactive", "--import-files", "--json"]).expect(0).json();
    assert_eq!((&moved["files"]["found"], &moved["files"]["left"]), (&1.into(), &0.into()), "{moved}");
    assert!(user.read(".env").starts_with("OPENAI_API_KEY=tfk_"));
    assert_eq!(user.last4(), [("openai".to_owned(), openai[openai.len() - 4..].to_owned())]);
    user.run(["scan", "--undo", moved["files"]["undo"].as_str().unwrap()]).expect(0);
    assert_eq!(user.read(".env"), text);
    let by_text = user.run(["init", "--non-interactive", "--import-files"]).expect(0);
    assert!(by_text.stdout.contains("moved") && by_text.stderr.contains("scan --undo"), "{}", by_text.stderr);
    assert!(!by_text.stdout.contains(&openai) && !by_text.stderr.contains(&openai));
}

#[test]
fn init_in_one_go_imports_what_a_file_holds_into_the_vault_that_it_makes() {
    let user = User::without_vault();
    user.write(".env", format!("OPENAI_API_KEY={}\n", key(DecoyShape::OpenAi, 1)));
    let made = user.run(["init", "--non-interactive", "--import-files", "--json"]).expect(0).json();
    assert!(made["recovery_code"].is_string() && made["files"]["left"] == 0, "{made}");
    assert!(user.read(".env").starts_with("OPENAI_API_KEY=tfk_"));
    assert_eq!(user.last4().len(), 1);
}

#[test]
fn init_asks_at_a_terminal_before_it_moves_a_key_and_takes_no_for_the_usual_answer() {
    const QUESTION: &str = "Move it into the vault, and put a capability in the place? [y/N] ";
    let user = User::without_vault();
    let text = format!("OPENAI_API_KEY={}\n", key(DecoyShape::OpenAi, 1));
    user.write(".env", &text);
    let init = |passphrase: &[&str], yes: &str| {
        let mut terminal = command_at_terminal(user.command(["init"]));
        for question in passphrase {
            answer(&mut terminal, question, PASSPHRASE);
        }
        answer(&mut terminal, QUESTION, yes);
        terminal
    };
    let shown = rest(init(&["New passphrase for the vault: ", "The same again: "], ""));
    assert!(shown.contains("tokfence scan --fix"), "{shown}");
    assert_eq!(user.read(".env"), text);
    assert!(user.last4().is_empty());
    let mut terminal = init(&[], "y");
    answer(&mut terminal, "Passphrase of the vault: ", PASSPHRASE);
    let shown = rest(terminal);
    assert!(shown.contains("moved") && shown.contains("tokfence scan --undo"), "{shown}");
    assert!(user.read(".env").starts_with("OPENAI_API_KEY=tfk_"));
}

#[test]
fn init_asks_for_no_passphrase_that_it_has_just_been_given() {
    let user = User::without_vault();
    user.write(".env", format!("OPENAI_API_KEY={}\n", key(DecoyShape::OpenAi, 1)));
    let mut terminal = command_at_terminal(user.command(["init"]));
    answer(&mut terminal, "New passphrase for the vault: ", PASSPHRASE);
    answer(&mut terminal, "The same again: ", PASSPHRASE);
    terminal.exp_string("recovery code").unwrap();
    answer(&mut terminal, "[y/N] ", "y");
    let shown = rest(terminal);
    assert!(shown.contains("moved") && !shown.contains("Passphrase"), "{shown}");
    assert!(user.read(".env").starts_with("OPENAI_API_KEY=tfk_"));
}
