//! A home of its own, the program run in it, and a daemon that never outlives its test.

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::LazyLock;

use gateway::control;
use gateway::overview::Overview;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use storage::{LogFilter, LogOrder, LoggedRequest, Store};
use tempfile::TempDir;

use super::http::{Client, Request, Response};
use super::mock::Mock;
use super::{eventually, reaper};

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// A provider, the variable under which its key is imported, and its key.
pub(crate) struct Key {
    pub(crate) provider: &'static str,
    variable: &'static str,
    pub(crate) key: &'static str,
    base_path: &'static str,
}

/// The providers that every test home has, each with a key that cannot be mistaken for another.
pub(crate) const KEYS: [Key; 7] = [
    Key {
        provider: "openai",
        variable: "OPENAI_API_KEY",
        key: "sk-real-openai-0SENTINEL0-AAAA",
        base_path: "",
    },
    Key {
        provider: "anthropic",
        variable: "ANTHROPIC_API_KEY",
        key: "sk-ant-real-0SENTINEL0-BBBB",
        base_path: "",
    },
    Key { provider: "google", variable: "GEMINI_API_KEY", key: "AIza-real-0SENTINEL0-CCCC", base_path: "" },
    Key { provider: "mistral", variable: "MISTRAL_API_KEY", key: "mis-real-0SENTINEL0-DDDD", base_path: "" },
    Key { provider: "groq", variable: "GROQ_API_KEY", key: "gsk_real-0SENTINEL0-EEEE", base_path: "/openai" },
    Key {
        provider: "openrouter",
        variable: "OPENROUTER_API_KEY",
        key: "sk-or-real-0SENTINEL0-FFFF",
        base_path: "/api",
    },
    Key {
        provider: "azure-openai",
        variable: "AZURE_OPENAI_API_KEY",
        key: "az-real-0SENTINEL0-GGGG",
        base_path: "/openai",
    },
];

/// The program under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_tokfence")
}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    fn of(output: process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The one JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The one JSON document on standard error.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let document: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {}", self.stderr));
        document["error"].clone()
    }
}

/// A command that is put together and then run.
pub(crate) struct Command {
    command: process::Command,
    input: Option<Vec<u8>>,
}

impl Command {
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Without the passphrase in the environment.
    pub(crate) fn without_passphrase(mut self) -> Self {
        self.command.env_remove("TOKFENCE_VAULT_PASSPHRASE");
        self
    }

    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    #[track_caller]
    pub(crate) fn run(mut self) -> Output {
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let Some(input) = self.input {
            // A program that does not want it may have closed it.
            let _ = child.stdin.take().unwrap().write_all(&input);
        }
        Output::of(child.wait_with_output().unwrap())
    }

    /// Starts it and leaves it running.
    pub(crate) fn spawn(mut self) -> process::Child {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The standard library's command, for what is not offered here.
    pub(crate) fn inner(&mut self) -> &mut process::Command {
        &mut self.command
    }
}

/// A home in a temporary folder.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tokfence-it-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        reaper::watch(dir.path());
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.file("config.toml"), text).unwrap();
    }

    /// The program in this home, with nothing of the tests' environment but what it cannot do without.
    pub(crate) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = process::Command::new(program());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("TZ", "UTC")
            .env("TOKFENCE_HOME", self.path())
            .env("TOKFENCE_TEST_KDF", "1")
            .env("TOKFENCE_VAULT_BACKEND", "file")
            .env("TOKFENCE_VAULT_PASSPHRASE", PASSPHRASE)
            .args(args);
        Command { command, input: None }
    }

    /// Runs the program in this home.
    #[track_caller]
    pub(crate) fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(args).run()
    }

    /// The process that the lock file names, while a daemon holds the lock.
    pub(crate) fn daemon_pid(&self) -> Option<u32> {
        let path = self.file("tokfence.lock");
        let is_held = std::fs::File::open(&path).ok()?.try_lock().is_err();
        std::fs::read_to_string(path).ok()?.trim().parse().ok().filter(|_| is_held)
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.daemon_pid().expect("a daemon runs");
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn wait_for_end(&self) {
        eventually("the end of the daemon", || self.daemon_pid().is_none().then_some(()));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.daemon_pid().is_none() {
            return;
        }
        let _ = self.run(["--json", "stop"]);
        if let Some(pid) = self.daemon_pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// What a gateway is set up with, beyond the ordinary.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Lines of `[daemon]`.
    pub(crate) daemon: String,
    /// Where figures are shown.
    pub(crate) metrics: &'static str,
    /// Tables after it.
    pub(crate) tables: String,
    /// Lines in the table of every provider.
    pub(crate) provider: String,
    /// Whether the daemon is given the passphrase.
    pub(crate) is_unlocked: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            daemon: "shutdown_grace = \"5s\"".to_owned(),
            metrics: "",
            tables: String::new(),
            provider: String::new(),
            is_unlocked: true,
        }
    }
}

impl Setup {
    /// Whatever is seen is written down and has no consequences.
    pub(crate) fn unrestricted() -> Self {
        let signals: String = policy::Signal::ALL.map(|signal| format!("{signal} = \"log\"\n")).concat();
        Self { tables: format!("[risk.signals]\n{signals}"), ..Self::default() }
    }

    /// The configuration: every provider of the tests is at `upstream`.
    pub(crate) fn config(&self, upstream: &str) -> String {
        let mut text = format!(
            "[daemon]\nport = 0\n{}\n[metrics]\nlisten = \"{}\"\n{}\n",
            self.daemon, self.metrics, self.tables
        );
        let local = [("ollama", "")];
        let keyed = KEYS.iter().map(|key| (key.provider, key.base_path));
        for (provider, base_path) in keyed.chain(local) {
            text.push_str(&format!(
                "[providers.{provider}]\nupstream = \"{upstream}{base_path}\"\nlocal = true\n{}\n",
                self.provider
            ));
        }
        text
    }
}

/// A running daemon, its home, its provider and a capability for everything.
pub(crate) struct Gateway {
    pub(crate) home: Home,
    pub(crate) mock: Mock,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    /// The gateway of all tests that get along with each other: none of them is restricted by what others did.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Gateway> = LazyLock::new(|| Gateway::start_with(&Setup::unrestricted()));
        &SHARED
    }

    #[track_caller]
    pub(crate) fn start_with(setup: &Setup) -> Self {
        Self::start_before(setup, Mock::start())
    }

    /// Another gateway in a home of its own, before the provider of another test gateway.
    #[track_caller]
    pub(crate) fn start_beside(setup: &Setup, mock: &Mock) -> Self {
        Self::start_before(setup, mock.same())
    }

    #[track_caller]
    fn start_before(setup: &Setup, mock: Mock) -> Self {
        let home = Home::new();
        home.write_config(&setup.config(&format!("http://{}", mock.address)));
        home.run(["init", "--non-interactive"]).expect(0);
        let variables: String = KEYS.iter().map(|key| format!("{}={}\n", key.variable, key.key)).collect();
        home.command(["vault", "import", "-"]).input(variables).run().expect(0);
        let token = mint(&home, &["agent", "mint", "tester"]);
        let start = home.command(["--json", "start", "-d"]);
        let start = if setup.is_unlocked { start } else { start.without_passphrase() };
        let serving = start.run().expect(0).json();
        let address = serving["address"].as_str().unwrap().parse().unwrap();
        Self { home, mock, address, token }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.file("tokfence.sock")
    }

    pub(crate) fn tcp(&self) -> Client {
        Client::tcp(self.address)
    }

    pub(crate) fn unix(&self) -> Client {
        Client::unix(&self.socket())
    }

    #[track_caller]
    pub(crate) fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.home.run(args)
    }

    /// Asks once over TCP with the capability for everything.
    #[track_caller]
    pub(crate) fn ask(&self, request: Request) -> Response {
        self.tcp().ask(&request.bearer(&self.token))
    }

    /// Starts the daemon again after it ended.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.start_again_as(|command| command);
    }

    /// The same, with something about the command that starts it.
    #[track_caller]
    pub(crate) fn start_again_as(&mut self, change: impl FnOnce(Command) -> Command) {
        let serving = change(self.home.command(["--json", "start", "-d"])).run().expect(0).json();
        self.address = serving["address"].as_str().unwrap().parse().unwrap();
    }

    /// Another capability.
    #[track_caller]
    pub(crate) fn mint(&self, args: &[&str]) -> String {
        mint(&self.home, &[&["agent", "mint"], args].concat())
    }

    /// The log, once every row so far is in it.
    #[track_caller]
    pub(crate) fn store(&self) -> Store {
        self.flush();
        Store::open_existing(&self.home.file("tokfence.db")).unwrap()
    }

    /// Waits until every row so far is in the database, and what budgets only kept ready is given back.
    #[track_caller]
    pub(crate) fn flush(&self) {
        self.command(&control::Command::Flush);
    }

    /// Waits until every request has ended and its row is in the database: a caller has its answer a moment before.
    #[track_caller]
    pub(crate) fn rest(&self) {
        eventually("nothing in flight", || match self.command(&control::Command::Running) {
            control::Reply::Running(in_flight) => (in_flight.count == 0).then_some(()),
            other => panic!("{other:?}"),
        });
        self.flush();
    }

    /// How everything stands now, as the daemon tells views of it.
    #[track_caller]
    pub(crate) fn overview(&self) -> Overview {
        match self.command(&control::Command::Overview) {
            control::Reply::Overview(overview) => *overview,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn command(&self, command: &control::Command) -> control::Reply {
        control::ask(&self.home.file("control/control.sock"), command, super::PATIENCE).unwrap()
    }

    /// Asks for a stream that the provider holds open, and returns when its first words are here.
    #[track_caller]
    pub(crate) fn hold(&self, token: &str, script: &str) -> Client {
        let request = Request::post(
            "/openai/v1/chat/completions",
            r#"{"model":"gpt-4o-mini","messages":[],"stream":true}"#,
        );
        let mut client = self.tcp();
        client.send(&request.bearer(token).script(script).bytes());
        client.head();
        client.read_until(&mut Vec::new(), "first");
        client
    }

    /// The row of the request with this id, as soon as the request has ended.
    #[track_caller]
    pub(crate) fn row(&self, id: &str) -> LoggedRequest {
        eventually(&format!("the row of {id}"), || self.store().request(id).ok())
    }

    /// Every row so far, oldest first: that of a request may come a moment after its answer, see [`Gateway::rest`].
    #[track_caller]
    pub(crate) fn rows(&self) -> Vec<LoggedRequest> {
        rows(&self.store())
    }
}

/// Every row, oldest first.
#[track_caller]
pub(crate) fn rows(store: &Store) -> Vec<LoggedRequest> {
    let filter = LogFilter { order: LogOrder::After(0), limit: u32::MAX, ..LogFilter::default() };
    store.requests(&filter).unwrap()
}

#[track_caller]
fn mint(home: &Home, args: &[&str]) -> String {
    home.run(args.iter().copied()).expect(0).stdout.trim().to_owned()
}
