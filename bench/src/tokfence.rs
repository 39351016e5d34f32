//! The gateway as a subject: set up, started, asked and stopped by its own command line, in a home of its own
//! that is removed afterwards. All that this program expects of `tokfence` is in this file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::client::any_answer;
use crate::subject::{Name, Subject};

/// What callers send as their API key where none is asked for. SDKs cannot go without one.
const NO_CREDENTIAL: &str = "none";
/// Who asks where a capability is demanded.
const AGENT: &str = "bench";
const SCOPE: [&str; 4] = ["--provider", "openai", "--model", "gpt-4o*"];
/// Limits of the subjects that have any, with room for everything: refusals are not what is measured. A minute's
/// requests are the most that may be set; a bucket holds them all, so a round may go faster.
const REQUESTS_PER_MINUTE: &str = "1000000";
const TOKENS_PER_MINUTE: &str = "1000000000000";
const CONCURRENT: &str = "1000000";
const RATES: [&str; 4] = ["--tpm", TOKENS_PER_MINUTE, "--concurrent", CONCURRENT];
const BUDGETS: [[&str; 3]; 3] = [
    ["global", "1000000", "daily"],
    ["openai", "10000000", "monthly"],
    ["agent:bench", "1000000M tokens", "5h"],
];

const PASSPHRASE_ENV: &str = "TOKFENCE_VAULT_PASSPHRASE";
const PASSPHRASE: &str = "bench-passphrase-not-secret";
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);
/// Deriving the vault's key is slow by design, and slower by far under a program that counts.
const START_UNDER_WAIT_MAX: Duration = Duration::from_secs(120);
const FIRST_ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);
const FIRST_ANSWER_POLL: Duration = Duration::from_millis(1);
/// The gateway logs in batches, so its count may trail the last answer.
const LOG_WAIT_MAX: Duration = Duration::from_secs(5);
const LOG_POLL: Duration = Duration::from_millis(100);

/// An initialised home, and the program that serves it.
#[derive(Debug)]
pub(crate) struct Tokfence {
    /// Which subject it is, and so how much it has to decide.
    pub(crate) name: Name,
    binary: PathBuf,
    home: TempDir,
}

/// `tokfence status --json`
#[derive(Debug, Deserialize)]
struct Status {
    running: bool,
    address: Option<SocketAddr>,
    pid: Option<u32>,
    /// Where figures are.
    metrics: Option<String>,
}

/// `tokfence agent mint NAME --json`
#[derive(Debug, Deserialize)]
pub(crate) struct Minted {
    pub(crate) id: String,
    pub(crate) token: String,
}

/// `tokfence budget status --json`
#[derive(Debug, Deserialize)]
struct Budgets {
    budgets: Vec<Budget>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Budget {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) period: String,
    pub(crate) spent: Amount,
    /// Of what is spent: held by a daemon that died.
    pub(crate) forfeited: Amount,
}

/// Dollars as decimal text, or tokens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Amount {
    Usd(String),
    Tokens(i64),
}

impl Budget {
    fn is_spent_from(&self) -> bool {
        match &self.spent {
            Amount::Usd(amount) => amount.bytes().any(|byte| matches!(byte, b'1'..=b'9')),
            Amount::Tokens(number) => *number > 0,
        }
    }
}

/// What the gateway says it logged.
#[derive(Debug)]
pub(crate) struct Logged {
    /// None: the document has no count where one is expected.
    pub(crate) requests: Option<u64>,
    pub(crate) newest: Value,
}

impl Tokfence {
    /// Makes a home whose provider `openai` is the mock at `upstream`, with `credential` in the vault.
    pub(crate) async fn set_up(
        name: Name,
        binary: &Path,
        upstream: SocketAddr,
        threads: usize,
        credential: &str,
    ) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("tokfence-bench-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .context("no temporary home")?;
        let this = Self { name, binary: binary.to_path_buf(), home };
        let config = config(name, upstream, threads);
        let path = this.home.path().join("config.toml");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(config.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        this.run(&["init", "--non-interactive"], None).await?;
        this.run(&["vault", "add", "openai", "-"], Some(credential)).await?;
        Ok(this)
    }

    pub(crate) async fn version(&self) -> Result<String> {
        Ok(self.run(&["--version"], None).await?.trim().to_owned())
    }

    /// Starts the daemon for the first time and lays down what it is to decide by.
    pub(crate) async fn start(&self) -> Result<Subject> {
        self.run(&["start", "-d"], None).await?;
        self.ready().await
    }

    /// The same, run by another program: `WRAPPER tokfence start`, in one process that is killed when dropped.
    pub(crate) async fn start_under(&self, wrapper: &[String]) -> Result<(Subject, Child)> {
        let (program, options) = wrapper.split_first().context("no program to run under")?;
        let mut command = std::process::Command::new(program);
        // With the passphrase in its environment it would begin anew without it, and be no more run by the other program.
        command.args(options).arg(&self.binary).args(["start", "--passphrase-fd", "0"]);
        self.isolate(&mut command);
        command.env_remove(PASSPHRASE_ENV);
        let mut passphrase = tempfile::tempfile()?;
        writeln!(passphrase, "{PASSPHRASE}")?;
        passphrase.rewind()?;
        let mut stderr = tempfile::tempfile()?;
        command.stdin(passphrase).stdout(Stdio::null()).stderr(stderr.try_clone()?);
        let mut command = tokio::process::Command::from(command);
        let mut child =
            command.kill_on_drop(true).spawn().with_context(|| format!("cannot run {program}"))?;
        let started = Instant::now();
        while self.status().await.is_err() {
            if let Some(status) = child.try_wait().context("cannot wait for the gateway")? {
                let said = read_all(&mut stderr)?;
                bail!("{program} ended before the gateway served: {status}: {}", said.trim());
            }
            ensure!(
                started.elapsed() < START_UNDER_WAIT_MAX,
                "no gateway {START_UNDER_WAIT_MAX:?} after its start"
            );
            sleep(LOG_POLL).await;
        }
        Ok((self.ready().await?, child))
    }

    /// The daemon that was just started, with what it is to decide by.
    async fn ready(&self) -> Result<Subject> {
        let (address, pid) = self.status().await?;
        let credential = match self.name {
            name if name < Name::Capability => NO_CREDENTIAL.into(),
            name => self.lay_down(name).await?,
        };
        Ok(Subject { name: self.name, address, prefix: "/openai", credential, pid: Some(pid), answered: 0 })
    }

    /// A new capability of `agent`.
    pub(crate) async fn mint_for(&self, agent: &str, arguments: &[&str]) -> Result<String> {
        Ok(self.mint(agent, arguments).await?.token)
    }

    /// The same, with its id.
    pub(crate) async fn mint(&self, agent: &str, arguments: &[&str]) -> Result<Minted> {
        self.query(&[&["agent", "mint", agent, "--json"], arguments].concat()).await
    }

    /// A new capability of `agent` with the scope and the limits that `name` has.
    pub(crate) async fn mint_as(&self, name: Name, agent: &str) -> Result<String> {
        let mut grant = SCOPE.to_vec();
        if name >= Name::Rates {
            grant.extend(["--rpm", REQUESTS_PER_MINUTE].iter().chain(&RATES));
        }
        self.mint_for(agent, &grant).await
    }

    /// Gives an agent a capability that has a scope, and sets the budgets and limits that `name` has.
    async fn lay_down(&self, name: Name) -> Result<String> {
        let token = self.mint_as(name, AGENT).await?;
        if name >= Name::Budget {
            for [subject, amount, period] in BUDGETS {
                self.run(&["budget", "set", subject, amount, period], None).await?;
            }
        }
        if name >= Name::Rates {
            for subject in ["global", "openai", "agent:bench"] {
                let set = ["ratelimit", "set", subject, REQUESTS_PER_MINUTE];
                self.run(&[&set[..], &RATES].concat(), None).await?;
            }
        }
        Ok(token)
    }

    /// A capability of `agent`, a new one, whose budget is `amount` a day.
    pub(crate) async fn mint_with_budget(&self, agent: &str, amount: &str) -> Result<String> {
        let token = self.mint_for(agent, &SCOPE).await?;
        self.run(&["budget", "set", &format!("agent:{agent}"), amount, "daily"], None).await?;
        Ok(token)
    }

    /// The budgets of which nothing was spent.
    pub(crate) async fn unspent_budgets(&self) -> Result<Vec<String>> {
        let unspent = self.budgets().await?.into_iter().filter(|budget| !budget.is_spent_from());
        Ok(unspent.map(|budget| budget.name).collect())
    }

    pub(crate) async fn budgets(&self) -> Result<Vec<Budget>> {
        let found: Budgets = self.query(&["budget", "status", "--json"]).await?;
        Ok(found.budgets)
    }

    /// Stops the daemon, starts it again and returns the time from `tokfence start -d` to the first answer.
    /// The time includes one `tokfence status`, which finds the port.
    pub(crate) async fn restart(&self, subject: &mut Subject) -> Result<Duration> {
        self.run(&["stop"], None).await?;
        let started = Instant::now();
        self.run(&["start", "-d"], None).await?;
        (subject.address, subject.pid) = self.status().await.map(|(address, pid)| (address, Some(pid)))?;
        until_answered(started, async || subject.probe().await).await
    }

    /// As `restart`, but without a passphrase: the gateway starts with its vault locked, so no key is derived, and its
    /// first answer is a refusal, which has a row as every answer has. Leaves it locked.
    pub(crate) async fn restart_locked(&self, subject: &mut Subject) -> Result<Duration> {
        self.run(&["stop"], None).await?;
        let started = Instant::now();
        let mut command = self.command(&["start", "-d"]);
        command.env_remove(PASSPHRASE_ENV);
        self.finish(command, "`tokfence start -d`", None).await?;
        let (address, _) = self.status().await?;
        let took = until_answered(started, async || any_answer(address).await).await?;
        subject.answered += 1;
        Ok(took)
    }

    /// What was logged, once that is `expected` or the log has had time to catch up.
    pub(crate) async fn logged(&self, expected: u64) -> Result<Logged> {
        let started = Instant::now();
        loop {
            let stats: Value = self.query(&["stats", "--period", "all", "--json"]).await?;
            let requests = request_count(&stats);
            if requests == Some(expected) || started.elapsed() > LOG_WAIT_MAX {
                let newest = self.query(&["log", "--json", "--limit", "1"]).await?;
                return Ok(Logged { requests, newest });
            }
            sleep(LOG_POLL).await;
        }
    }

    /// The address of the figures; none where they are not shown.
    pub(crate) async fn metrics(&self) -> Result<Option<SocketAddr>> {
        let status: Status = self.query(&["status", "--json"]).await?;
        let Some(url) = status.metrics else { return Ok(None) };
        let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics"));
        let address = address.and_then(|address| address.parse().ok());
        Ok(Some(address.with_context(|| format!("figures at an unexpected address: {url}"))?))
    }

    async fn status(&self) -> Result<(SocketAddr, u32)> {
        let status: Status = self.query(&["status", "--json"]).await?;
        match status {
            Status { running: true, address: Some(address), pid: Some(pid), .. } => Ok((address, pid)),
            Status { .. } => bail!("tokfence is not running after its start: {status:?}"),
        }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Adds tables to the configuration, for a daemon that is yet to start.
    pub(crate) fn configure(&self, tables: &str) -> Result<()> {
        let path = self.home.path().join("config.toml");
        let file = OpenOptions::new().append(true).open(&path);
        file.and_then(|mut file| file.write_all(tables.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Runs a command to its end and reads the document that it prints.
    pub(crate) async fn query<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.run(arguments, None).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("unexpected output of `tokfence {}`: {text}", arguments.join(" ")))
    }

    /// Runs a command to its end and returns its stdout.
    pub(crate) async fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        self.finish(self.command(arguments), &format!("`tokfence {}`", arguments.join(" ")), input).await
    }

    async fn finish(
        &self,
        command: std::process::Command,
        shown: &str,
        input: Option<&str>,
    ) -> Result<String> {
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        // Files instead of pipes: a daemon that keeps its parent's stdout would keep a pipe from ending.
        let mut command = tokio::process::Command::from(command);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).stdin(input_file(input)?);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.binary.display()))?;
        let status = timeout(COMMAND_TIME_MAX, child.wait())
            .await
            .with_context(|| format!("{shown} did not end in {COMMAND_TIME_MAX:?}"))?
            .with_context(|| format!("cannot wait for {shown}"))?;
        ensure!(status.success(), "{shown}: {status}: {}", read_all(&mut stderr)?.trim());
        read_all(&mut stdout)
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&self.binary);
        command.args(arguments);
        self.isolate(&mut command);
        command
    }

    /// Nothing of the caller's environment reaches the gateway, so that no setting of theirs is measured.
    fn isolate(&self, command: &mut std::process::Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("TOKFENCE_HOME", self.home.path())
            .env(PASSPHRASE_ENV, PASSPHRASE)
            .env("TOKFENCE_VAULT_BACKEND", "file");
    }
}

impl Drop for Tokfence {
    /// A daemon outlives its parent, so whatever ends a comparison must stop it.
    fn drop(&mut self) {
        let mut command = self.command(&["stop"]);
        // Fails when no daemon runs, which is as good.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// The configuration of `name`: what is not switched on is off.
fn config(name: Name, upstream: SocketAddr, threads: usize) -> String {
    let require_capability = name >= Name::Capability;
    let scan = |from: Name| if name >= from { "enforce" } else { "off" };
    let (scan_requests, scan_responses) = (scan(Name::RequestScan), scan(Name::ResponseScan));
    let metrics = if name >= Name::Everything { "127.0.0.1:0" } else { "" };
    format!(
        r#"[security]
require_capability = {require_capability}
scan_requests = "{scan_requests}"
scan_responses = "{scan_responses}"

[daemon]
port = 0
threads = {threads}

[metrics]
listen = "{metrics}"

[providers.openai]
upstream = "http://{upstream}"
local = true
"#
    )
}

/// Asks until there is an answer, and returns how long ago `started` is then.
async fn until_answered(started: Instant, mut ask: impl AsyncFnMut() -> Result<()>) -> Result<Duration> {
    while let Err(error) = ask().await {
        if started.elapsed() > FIRST_ANSWER_WAIT_MAX {
            return Err(error.context(format!("no answer {FIRST_ANSWER_WAIT_MAX:?} after the start")));
        }
        sleep(FIRST_ANSWER_POLL).await;
    }
    Ok(started.elapsed())
}

/// The number of requests in the document of `tokfence stats --json`.
fn request_count(stats: &Value) -> Option<u64> {
    let places = ["/totals/requests", "/total/requests", "/requests"];
    places.iter().find_map(|place| stats.pointer(place)?.as_u64())
}

fn input_file(input: Option<&str>) -> Result<Stdio> {
    let Some(input) = input else { return Ok(Stdio::null()) };
    let mut file = tempfile::tempfile()?;
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

fn read_all(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Where the gateway is unless said otherwise: beside this program.
pub(crate) fn default_binary() -> Result<PathBuf> {
    Ok(std::env::current_exe().context("own path is unknown")?.with_file_name("tokfence"))
}

/// Whether there is a program at `binary`.
pub(crate) fn is_present(binary: &Path) -> bool {
    fs::metadata(binary).is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_count_is_found_in_the_totals() {
        assert_eq!(request_count(&json!({"totals": {"requests": 3}})), Some(3));
        assert_eq!(request_count(&json!({"total": {"requests": 4}})), Some(4));
        assert_eq!(request_count(&json!({"requests": 5})), Some(5));
        assert_eq!(request_count(&json!({"rows": []})), None);
    }

    #[test]
    fn documents_of_the_command_line_are_understood() {
        let status: Status =
            serde_json::from_str(r#"{"running":true,"address":"127.0.0.1:9","pid":7,"more":1}"#)
                .expect("status");
        assert!(status.running);
        assert_eq!(status.pid, Some(7));
        let minted: Minted = serde_json::from_str(r#"{"id":"x","token":"tfk_x"}"#).expect("minted");
        assert_eq!(minted.token, "tfk_x");
        let budget = |spent: Value| json!({"name": "global/daily", "subject": "global", "period": "daily", "spent": spent, "forfeited": spent});
        let budgets = [
            json!({"usd": "0.000000"}),
            json!({"usd": "0.000100"}),
            json!({"tokens": 0}),
            json!({"tokens": 1}),
        ];
        let found: Budgets =
            serde_json::from_value(json!({"budgets": budgets.map(budget)})).expect("budgets");
        let spent_from = found.budgets.iter().map(Budget::is_spent_from);
        assert_eq!(spent_from.collect::<Vec<_>>(), [false, true, false, true]);
    }
}
