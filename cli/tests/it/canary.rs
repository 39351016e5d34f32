//! Canaries: what is planted and taken out again, what a run is given, and what becomes of who presents one.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::{Gateway, Home, Output, Request, Setup, eventually};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;
const ENV: &str = "DATABASE_URL=postgres://localhost\nOPENAI_API_KEY=real";
const CLAUDE: &str = "# Rules\n\nBe kind.\n";

/// A home without a daemon, and a workspace beside it.
struct Place {
    home: Home,
    workspace: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let home = Home::new();
        home.run(["init", "--non-interactive"]).expect(0);
        Self { home, workspace: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.workspace.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    #[track_caller]
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.workspace.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `canary` with these words.
    #[track_caller]
    fn canary(&self, args: &[&str]) -> Output {
        self.home.run([&["--json", "canary"], args].concat())
    }

    fn plant(&self, name: &str, place: &str, path: &Path) -> Output {
        self.canary(&["plant", name, place, path.to_str().unwrap()])
    }
}

#[track_caller]
fn canaries(home: &Home) -> Vec<Value> {
    home.run(["--json", "canary", "list"]).expect(0).json()["canaries"].as_array().unwrap().clone()
}

#[test]
fn a_decoy_is_planted_and_taken_out_and_the_file_is_as_before() {
    let place = Place::new();
    for before in [Some(ENV), Some("A=1\n"), Some(""), None] {
        let _ = fs::remove_file(place.file(".env"));
        if let Some(text) = before {
            place.write(".env", text);
        }
        let value = place.canary(&["add", "spare", "--kind", "decoy"]).expect(0).json()["value"].clone();
        let planted = place.plant("spare", "--workspace", place.workspace.path()).expect(0).json();
        assert_eq!(planted["files"][0]["variables"][0], "OPENAI_API_KEY_BACKUP");
        let text = place.read(".env");
        let line = format!("OPENAI_API_KEY_BACKUP={}\n", value.as_str().unwrap());
        assert!(text.starts_with(before.unwrap_or_default()) && text.ends_with(&line), "{text:?}");
        assert_eq!(text.lines().count(), before.unwrap_or_default().lines().count() + 1);
        let mode = fs::metadata(place.file(".env")).unwrap().permissions().mode() & 0o777;
        assert!(before.is_some() || mode == 0o600, "{mode:o}");
        let again = place.plant("spare", "--file", &place.file(".env")).expect(0).json();
        assert_eq!((&again["files"][0]["status"], place.read(".env")), (&"unchanged".into(), text));
        let removed = place.canary(&["remove", "spare"]).expect(0).json();
        assert_eq!(removed["files"][0]["status"], "undone");
        assert_eq!(fs::read_to_string(place.file(".env")).ok().as_deref(), before);
    }
    assert!(place.names().is_empty(), "nothing else is left: {:?}", place.names());
}

#[test]
fn a_mark_is_planted_once_in_each_prompt_of_a_workspace_and_taken_out() {
    let place = Place::new();
    place.write("CLAUDE.md", CLAUDE);
    place.write("GEMINI.md", "");
    symlink("CLAUDE.md", place.file("AGENTS.md")).unwrap();
    let mark = place.canary(&["add", "rules", "--kind", "prompt"]).expect(0).json()["value"].clone();
    let mark = mark.as_str().unwrap();
    for status in ["planted", "unchanged"] {
        let planted = place.plant("rules", "--workspace", place.workspace.path()).expect(0).json();
        let files = planted["files"].as_array().unwrap();
        assert_eq!(files.len(), 2, "the link is left alone: {planted}");
        assert!(files.iter().all(|file| file["status"] == status), "{planted}");
        assert_eq!(place.read("CLAUDE.md"), format!("{CLAUDE}\n[//]: # (ref: {mark})\n"));
        assert_eq!(place.read("GEMINI.md"), format!("[//]: # (ref: {mark})\n"));
    }
    place.write("CLAUDE.md", &format!("{}More.\n", place.read("CLAUDE.md")));
    place.canary(&["remove", "rules"]).expect(0);
    assert_eq!(
        (place.read("CLAUDE.md"), place.read("GEMINI.md")),
        (format!("{CLAUDE}More.\n"), String::new())
    );
    assert_eq!(place.names(), ["AGENTS.md", "CLAUDE.md", "GEMINI.md"]);
}

#[test]
fn what_was_changed_since_is_left_and_told() {
    let place = Place::new();
    for name in ["changed", "emptied", "deleted", "linked"] {
        place.canary(&["add", name, "--kind", "decoy", "--like", "groq"]).expect(0);
        place.write(name, "A=1\n");
        place.plant(name, "--file", &place.file(name)).expect(0);
    }
    place.write("changed", &place.read("changed").replace("GROQ", "MY"));
    place.write("emptied", "");
    fs::remove_file(place.file("deleted")).unwrap();
    fs::rename(place.file("linked"), place.file("moved")).unwrap();
    symlink("moved", place.file("linked")).unwrap();
    let before = (place.read("changed"), place.read("moved"));
    for (name, status) in [("changed", "left"), ("emptied", "gone"), ("deleted", "gone"), ("linked", "left")]
    {
        let removed = place.canary(&["remove", name]).expect(0).json();
        assert_eq!(removed["files"][0]["status"], status, "{removed}");
        assert_eq!(removed["files"][0]["reason"].is_string(), status == "left", "{removed}");
    }
    assert_eq!((place.read("changed"), place.read("moved")), before);
    assert!(canaries(&place.home).is_empty());
    let plain = place.home.run(["canary", "add", "left", "--kind", "decoy"]).expect(0);
    let value = plain.stdout.trim();
    place.plant("left", "--file", &place.file("left")).expect(0);
    place.write("left", &format!("x{value}"));
    let told = place.home.run(["canary", "remove", "left"]).expect(0).stderr;
    assert!(told.contains("may still hold it") && !told.contains(value), "{told}");
}

#[test]
fn a_decoy_is_given_to_nobody_through_git_or_a_link() {
    let place = Place::new();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args).current_dir(place.workspace.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(git.stdout(Stdio::null()).status().unwrap().success(), "{args:?}");
    };
    git(&["init", "--quiet"]);
    place.write(".env", "A=1\n");
    place.write("local.env", "A=1\n");
    git(&["add", ".env"]);
    place.canary(&["add", "spare", "--kind", "decoy"]).expect(0);
    let refused = place.plant("spare", "--workspace", place.workspace.path()).expect(7).error();
    assert_eq!(refused["code"], "tracked_by_git");
    symlink("local.env", place.file("link.env")).unwrap();
    let refused = place.plant("spare", "--file", &place.file("link.env")).expect(7).error();
    assert_eq!(refused["code"], "unsafe_file");
    assert_eq!((place.read(".env"), place.read("local.env")), ("A=1\n".to_owned(), "A=1\n".to_owned()));
    assert!(canaries(&place.home)[0]["plants"].as_array().unwrap().is_empty());
    place.plant("spare", "--file", &place.file("local.env")).expect(0);
    let forced = place.file(".env");
    place.canary(&["plant", "spare", "--force", "--file", forced.to_str().unwrap()]).expect(0);
    place.canary(&["remove", "spare"]).expect(0);
    assert_eq!((place.read(".env"), place.read("local.env")), ("A=1\n".to_owned(), "A=1\n".to_owned()));
}

#[test]
fn a_value_is_shown_once_and_listed_by_its_beginning() {
    let place = Place::new();
    place.home.run(["agent", "mint", "ci"]).expect(0);
    let shapes = [
        ("openai", "sk-proj-"),
        ("anthropic", "sk-ant-api03-"),
        ("google", "AIza"),
        ("groq", "gsk_"),
        ("openrouter", "sk-or-v1-"),
        ("huggingface", "hf_"),
        ("aws", "AKIA"),
        ("github", "ghp_"),
    ];
    let mut values = Vec::new();
    for (name, prefix) in shapes {
        let args = ["add", name, "--kind", "decoy", "--like", name, "--agent", "ci"];
        let added = place.canary(&args).expect(0).json();
        let value = added["value"].as_str().unwrap().to_owned();
        assert!(value.starts_with(prefix) && value.len() >= prefix.len() + 30, "{value}");
        values.push(value);
    }
    let pair = place.home.run(["canary", "add", "pair", "--kind", "decoy", "--like", "aws"]).expect(0);
    assert_eq!(pair.stdout.lines().map(str::len).collect::<Vec<_>>(), [20, 40]);
    let mark = place.home.run(["canary", "add", "rules", "--kind", "prompt"]).expect(0);
    assert!(mark.stdout.starts_with("ref: tkc-"), "{}", mark.stdout);
    values.extend([mark.stdout.trim()["ref: ".len()..].to_owned()]);
    let listed = canaries(&place.home);
    assert_eq!(listed.len(), shapes.len() + 2);
    for (canary, (name, prefix)) in listed.iter().zip(shapes) {
        assert_eq!((canary["name"].as_str(), canary["like"].as_str()), (Some(name), Some(name)));
        assert_eq!(
            (canary["value"].as_str().unwrap(), &canary["agent"]),
            (&*format!("{prefix}…"), &"ci".into())
        );
    }
    let table = place.home.run(["canary", "list"]).expect(0).stdout;
    let shown = format!("{table}{listed:?}");
    for value in &values {
        assert!(value.split(':').all(|part| !shown.contains(&part[..16])), "{shown}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_way_out() {
    let place = Place::new();
    place.canary(&["add", "spare", "--kind", "decoy"]).expect(0);
    place.canary(&["add", "rules", "--kind", "prompt"]).expect(0);
    place.write("prompt.json", "{}");
    let json = place.file("prompt.json");
    let missing = place.file("missing.md");
    let (json, missing, folder) =
        (json.to_str().unwrap(), missing.to_str().unwrap(), place.workspace.path().to_str().unwrap());
    let cases: [(&[&str], i32, &str); 13] = [
        (&["add", "spare", "--kind", "prompt"], 1, "canary_exists"),
        (&["add", "Spare", "--kind", "decoy"], 2, "usage"),
        (&["add", "other", "--kind", "key"], 2, "usage"),
        (&["add", "other", "--kind", "prompt", "--like", "openai"], 2, "usage"),
        (&["add", "other", "--kind", "vault", "--agent", "ci"], 2, "usage"),
        (&["add", "other", "--kind", "vault", "--like", "aws"], 2, "usage"),
        (&["add", "other", "--kind", "decoy", "--agent", "nobody"], 5, "no_such_agent"),
        (&["remove", "spar"], 5, "no_such_canary"),
        (&["plant", "sk-proj-typed-by-mistake:", "--file", json], 5, "no_such_canary"),
        (&["plant", "spare"], 2, "usage"),
        (&["plant", "rules", "--file", json], 2, "usage"),
        (&["plant", "rules", "--file", missing], 5, "no_such_file"),
        (&["plant", "rules", "--workspace", folder], 5, "no_such_file"),
    ];
    for (args, exit, code) in cases {
        let output = place.canary(args).expect(exit);
        assert_eq!(output.error()["code"], code, "{args:?}");
        assert!(!output.stderr.contains("typed-by-mistake"), "{}", output.stderr);
    }
    assert_eq!(place.canary(&["remove", "spar"]).error()["hint"], "did you mean `spare`?");
    assert_eq!(place.names(), ["prompt.json"]);
    assert_eq!(canaries(&place.home).len(), 2);
}

#[test]
fn a_canary_of_the_vault_is_in_the_vault_alone_and_goes_where_that_goes() {
    let place = Place::new();
    let added = place.canary(&["add", "openai", "--kind", "vault", "--like", "groq"]).expect(0);
    assert!(added.json()["value"].is_null(), "{}", added.stdout);
    let export = place.file("export.tfv");
    place.home.run(["vault", "export", export.to_str().unwrap()]).expect(0);
    let other = Home::new();
    other.run(["init", "--non-interactive"]).expect(0);
    other.run(["vault", "import", export.to_str().unwrap()]).expect(0);
    for home in [&place.home, &other] {
        let keys = home.run(["--json", "vault", "list"]).expect(0).json()["keys"].clone();
        assert_eq!(keys.as_array().unwrap().len(), 1);
        assert_eq!((&keys[0]["provider"], &keys[0]["kind"]), (&"openai".into(), &"canary".into()));
    }
    // Whoever imports one makes it known by its name.
    let list =
        |home: &Home| home.run(["--json", "vault", "list"]).expect(0).json()["keys"][0]["last4"].clone();
    let last4 = list(&other);
    other.run(["canary", "add", "openai", "--kind", "vault", "--like", "groq"]).expect(0);
    assert_eq!((list(&other), list(&place.home)), (last4.clone(), last4));
    let refused = place.plant("openai", "--file", &place.file(".env")).expect(2);
    assert_eq!(refused.error()["code"], "usage");
    let locked = place.home.command(["canary", "remove", "openai"]).without_passphrase().run().expect(4);
    assert_eq!((locked.stdout.as_str(), canaries(&place.home).len()), ("", 1));
    place.canary(&["remove", "openai"]).expect(0);
    let keys = place.home.run(["--json", "vault", "list"]).expect(0).json()["keys"].clone();
    assert_eq!((keys.as_array().unwrap().len(), canaries(&place.home).len()), (0, 0));
}

fn gateway() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start_with(&Setup::unrestricted()));
    &GATEWAY
}

#[track_caller]
fn add(gateway: &Gateway, args: &[&str]) -> String {
    let added = gateway.run([&["--json", "canary", "add"], args].concat()).expect(0).json();
    added["value"].as_str().unwrap_or_default().to_owned()
}

/// The answer without what differs from request to request.
fn answer(gateway: &Gateway, field: &str, value: &str) -> String {
    let response = gateway.tcp().ask(&Request::post(CHAT, BODY).field(field, value));
    let response = response.expect_refusal(401, "invalid_capability");
    response.text().replace(&response.id(), "")
}

/// How often a canary was presented as a key, as its owner is told.
fn presented(gateway: &Gateway, name: &str) -> u64 {
    let told = gateway.run(["--json", "risk", "status", "--limit", "1000"]).expect(0).json();
    let of_name = |event: &&Value| event["pattern"] == format!("canary:{name}");
    let events = told["events"].as_array().unwrap().iter().filter(of_name);
    events
        .filter(|event| event["signal"] == "decoy_as_credential")
        .map(|event| event["repeats"].as_u64().unwrap())
        .sum()
}

#[test]
fn who_presents_a_decoy_learns_nothing_and_its_owner_is_told_its_name() {
    let gateway = gateway();
    let connections = gateway.mock.connections();
    let decoy = add(gateway, &["stolen", "--kind", "decoy", "--like", "anthropic"]);
    let pair = add(gateway, &["stolen-pair", "--kind", "decoy", "--like", "aws"]);
    let unknown = answer(gateway, "authorization", "Bearer sk-ant-api03-unknown");
    assert_eq!(answer(gateway, "authorization", &format!("Bearer {decoy}")), unknown);
    assert_eq!(answer(gateway, "x-api-key", &decoy), unknown);
    assert_eq!(answer(gateway, "x-goog-api-key", pair.split_once(':').unwrap().1), unknown);
    let attenuate = Request::post("/__tokfence/capabilities/attenuate", "{}").bearer(&decoy);
    gateway.tcp().ask(&attenuate).expect_refusal(401, "invalid_capability");
    let two = Request::post(CHAT, BODY).bearer(&gateway.token).field("x-api-key", &decoy);
    gateway.tcp().ask(&two).expect_refusal(400, "invalid_request");
    assert_eq!(gateway.mock.connections(), connections);
    let log = fs::read_to_string(gateway.home.file("log/tokfence.log")).unwrap();
    assert!(!log.contains(&decoy[..24]) && !log.contains(&pair[..16]), "{log}");
    assert_eq!((presented(gateway, "stolen"), presented(gateway, "stolen-pair")), (4, 1));
    gateway.run(["canary", "remove", "stolen"]).expect(0);
    assert_eq!(answer(gateway, "x-api-key", &decoy), unknown);
    assert_eq!(presented(gateway, "stolen"), 4);
}

#[test]
fn a_decoy_goes_nowhere_even_where_callers_need_no_capability_or_bring_a_login() {
    let anonymous = "[security]\nrequire_capability = false".to_owned();
    let login = "auth = \"passthrough\"".to_owned();
    for setup in
        [Setup { tables: anonymous, ..Setup::default() }, Setup { provider: login, ..Setup::default() }]
    {
        let gateway = Gateway::start_with(&setup);
        let decoy = add(&gateway, &["stolen", "--kind", "decoy"]);
        let request = |key: &str| {
            let request = Request::post(CHAT, BODY).bearer(key);
            if setup.provider.is_empty() {
                request
            } else {
                request.field("x-tokfence-capability", &gateway.token)
            }
        };
        gateway.tcp().ask(&request("sk-of-the-caller")).expect(200);
        let connections = gateway.mock.connections();
        let bytes = gateway.mock.bytes();
        gateway.tcp().ask(&request(&decoy)).expect_refusal(401, "invalid_capability");
        assert_eq!((gateway.mock.connections(), gateway.mock.bytes()), (connections, bytes));
    }
}

/// The first lines of a run's command, which then waits for the end of its input.
struct Running {
    child: Child,
    decoy: String,
    token: String,
    _stdin: ChildStdin,
}

impl Running {
    #[track_caller]
    fn start(gateway: &Gateway, agent: &str) -> Self {
        let script = "echo $OPENAI_API_KEY; echo $OPENAI_API_KEY_BACKUP; read x";
        let mut command =
            gateway.home.command(["run", "--decoy", "--agent", agent, "--", "sh", "-c", script]);
        command.inner().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.inner().spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let [token, decoy] = [(); 2].map(|()| lines.next().unwrap().unwrap());
        let _stdin = child.stdin.take().unwrap();
        Self { child, decoy, token, _stdin }
    }

    /// The canary that belongs to the run, as it is listed.
    fn listed(&self, home: &Home) -> Option<Value> {
        canaries(home).into_iter().find(|canary| canary["capability"] == self.token[4..12])
    }
}

#[test]
fn a_run_has_a_decoy_of_its_own_for_as_long_as_it_runs() {
    let gateway = gateway();
    let mut run = Running::start(gateway, "watched");
    assert!(run.decoy.starts_with("sk-proj-"), "{}", run.decoy);
    let listed = run.listed(&gateway.home).unwrap();
    assert_eq!((&listed["kind"], &listed["agent"]), (&"decoy".into(), &"watched".into()));
    answer(gateway, "x-api-key", &run.decoy);
    gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(&run.token)).expect(200);
    let name = listed["name"].as_str().unwrap();
    assert_eq!(presented(gateway, name), 1);
    let home = &gateway.home;
    let run_again = Running::start(gateway, "watched");
    assert_ne!(run_again.decoy, run.decoy);
    drop(run._stdin);
    assert!(run.child.wait().unwrap().code().is_some());
    assert!(canaries(home).iter().all(|canary| canary["name"] != name));
    assert!(run_again.listed(home).is_some());
}

#[test]
fn a_run_without_the_option_has_none() {
    let output = gateway().run(["run", "--agent", "plain", "--", "env"]).expect(0);
    assert!(!output.stdout.contains("BACKUP"), "{}", output.stdout);
    let failed = gateway().run(["run", "--decoy", "--agent", "failing", "--", "no-such-program-anywhere"]);
    failed.expect(1);
    assert!(canaries(&gateway().home).iter().all(|canary| canary["agent"] != "failing"));
}

#[test]
fn the_decoy_of_a_run_that_is_killed_ends_with_it() {
    let mut gateway = Gateway::start();
    let [mut first, mut second] = ["first", "second"].map(|agent| Running::start(&gateway, agent));
    assert_eq!(canaries(&gateway.home).len(), 2);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let database = gateway.home.file("tokfence.db");
    let known = || storage::Store::open_existing(&database).unwrap().canaries().unwrap().len();
    eventually("the daemon's look", || (known() == 1).then_some(()));
    assert!(second.listed(&gateway.home).is_some());
    gateway.run(["stop"]).expect(0);
    second.child.kill().unwrap();
    second.child.wait().unwrap();
    assert_eq!(canaries(&gateway.home).len(), 0, "whoever looks finds it");
    gateway.start_again();
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
}

#[test]
fn a_canary_of_the_vault_is_sent_to_nobody_and_known_when_it_is_presented() {
    let gateway = Gateway::start();
    gateway.run(["vault", "remove", "groq"]).expect(0);
    add(&gateway, &["groq", "--kind", "vault", "--like", "groq"]);
    let request = Request::post("/groq/v1/chat/completions", BODY).bearer(&gateway.token);
    gateway.tcp().ask(&request).expect_refusal(503, "missing_key");
    let status = gateway.run(["--json", "status"]).expect(0).json();
    assert!(!status["providers"].as_array().unwrap().contains(&"groq".into()), "{status}");
    let passphrase = vault::Secret::from(crate::support::PASSPHRASE);
    let opened = vault::Vault::open(&gateway.home.file("vault.tfv"), &vault::Unlock::Passphrase(&passphrase));
    let opened = opened.unwrap();
    let value = opened.entry("groq", vault::EntryKind::Canary).unwrap().secret().expose();
    answer(&gateway, "x-api-key", value);
    let mut found = Vec::new();
    for name in ["tokfence.db", "tokfence.db-wal", "log/tokfence.log"] {
        let Ok(mut file) = fs::File::open(gateway.home.file(name)) else { continue };
        file.read_to_end(&mut found).unwrap();
    }
    let holds = |text: &str| found.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("canary:groq") && !holds(&value[..20]), "the database must not know it");
}
