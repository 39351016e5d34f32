//! `demo`: the whole of it in ten seconds, with a mock provider, a made-up key and a home that is thrown away.
//! Everything goes over real sockets through the real gateway.

pub(crate) mod agent;
mod leak;
mod mock;
mod owner;

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use gateway::control::Command;
use gateway::{Home, ServeError, ServeOptions, Serving, serve};
use policy::{AgentName, MintedToken, Scope};
use serde_json::{Value, json};
use storage::LogFilter;
use vault::{Entry, EntryKind, KdfCost, NewEntry, NewSlot, Secret, Vault};

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::commands::agent::{Grant, mint, random_bytes};
use crate::failure::{Exit, Failure};
use crate::format::hex;
use crate::output::Output;

use agent::{Answer, Call};
use mock::Mock;

/// A gateway that does not serve by then will not.
const START_PATIENCE: Duration = Duration::from_secs(20);
const AGENT: &str = "demo-agent";
const MODEL: &str = "gpt-4o-mini";

const COLUMNS: [Column; 8] = [
    Column::Left("status"),
    Column::Left("agent"),
    Column::Left("model"),
    Column::Right("in"),
    Column::Right("out"),
    Column::Right("cost"),
    Column::SpareRight("latency"),
    Column::Left("code"),
];

#[derive(Debug, Args)]
pub(crate) struct Demo {}

/// One thing that is shown: a headline, and the lines or values below it.
struct Step {
    name: &'static str,
    title: String,
    lines: Vec<String>,
}

impl Demo {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        let place = tempfile::Builder::new().prefix("tokfence-demo-").tempdir();
        let place = place.map_err(|error| Failure::failed("make a temporary home", &error))?;
        let key = format!("sk-demo-{}", random_hex()?);
        let mock = Mock::start(&key).map_err(|error| Failure::failed("start the mock provider", &error))?;
        let demo = Stage::set_up(app, place.path(), &key, &mock)?;
        let steps = demo.play(&key, &mock);
        demo.take_down()?;
        show(app.output, &steps?, place.path());
        Ok(())
    }
}

/// A gateway in a home of its own, serving in a thread.
struct Stage {
    app: App,
    address: String,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Stage {
    fn set_up(app: &App, place: &std::path::Path, key: &str, mock: &Mock) -> Result<Self, Failure> {
        let home = Home::new(place.join("home"));
        home.prepare()?;
        let config = format!(
            "[daemon]\nport = 0\n\n[metrics]\nlisten = \"\"\n\n[providers.openai]\nupstream = \"{}\"\nlocal = true\n",
            mock.url()
        );
        let written = std::fs::write(home.config(), config);
        written.map_err(|error| Failure::failed("write the demo's configuration", &error))?;
        let app = App {
            config_path: home.config(),
            home,
            output: Output { is_quiet: true, is_json: false, color: app.output.color },
            command: app.command.clone(),
        };
        let vault = make_vault(&app, key)?;
        let options = ServeOptions::new(app.home.clone(), app.config_path.clone(), Some(vault));
        let (tell, told) = mpsc::channel();
        let server = std::thread::spawn(move || {
            // The receiver waits below; if it gave up, nobody wants to know the address any more.
            serve(options, |serving: &Serving| drop(tell.send(serving.address.clone())))
        });
        match told.recv_timeout(START_PATIENCE) {
            Ok(address) => Ok(Self { app, address, server }),
            Err(_) => match server.join() {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(())) | Err(_) => {
                    Err(Failure::new(Exit::Failed, "demo_failed", "the demo's gateway did not start"))
                }
            },
        }
    }

    fn take_down(self) -> Result<(), Failure> {
        self.app.ask(&Command::Stop)?;
        match self.server.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err(Failure::new(Exit::Failed, "demo_failed", "the demo's gateway ended in a panic")),
        }
    }

    fn play(&self, key: &str, mock: &Mock) -> Result<Vec<Step>, Failure> {
        let invalid = |error: policy::InvalidName| Failure::usage(error.to_string());
        let agent: AgentName = AGENT.parse().map_err(invalid)?;
        let token = self.mint(&agent)?;
        let mut steps = vec![Step {
            name: "set_up",
            title: "A gateway with one key in its vault, and an agent with a capability".to_owned(),
            lines: vec![
                format!("gateway     http://{}", self.address),
                format!("vault       openai: {} (made up), sealed with XChaCha20-Poly1305", masked(key)),
                format!("capability  {} for `{AGENT}`, models gpt-4o*", masked(&token.text)),
            ],
        }];
        steps.push(self.injection(&token, mock)?);
        steps.push(self.stream(&token)?);
        steps.push(self.refusals(&token, mock)?);
        steps.push(self.log()?);
        let token = self.mint(&agent)?;
        steps.push(self.budget(&token, mock)?);
        steps.push(self.canary(&token, mock)?);
        steps.push(self.kill(&token, mock)?);
        Ok(steps)
    }

    fn mint(&self, agent: &AgentName) -> Result<MintedToken, Failure> {
        let scope = Scope {
            models: vec!["gpt-4o*".parse().map_err(|_| Failure::usage("glob"))?],
            ..Scope::default()
        };
        let grant = Grant { scope, ttl: Some(Duration::from_secs(600)), ..Grant::default() };
        Ok(mint(&self.app, agent, grant)?.0)
    }

    /// The agent sends its capability, the provider receives the key.
    fn injection(&self, token: &MintedToken, mock: &Mock) -> Result<Step, Failure> {
        let answer = self.call(Call::chat(&token.text, MODEL, false))?;
        let received = mock.last_request();
        let lines = vec![
            format!("the agent sent          authorization: Bearer {}", masked(&token.text)),
            format!(
                "the provider received   authorization: {}",
                masked_header(received.header("authorization"))
            ),
            format!(
                "                        from a request with {} headers, all chosen by the gateway",
                received.headers.len()
            ),
            format!("the agent got           {} {}", answer.status, answer.text()),
        ];
        let title = "A request: the key is put in on the way; the agent never has it".to_owned();
        check(answer.status == 200 && !received.raw().contains("tfk_"), "the key was not injected")?;
        Ok(Step { name: "injection", title, lines })
    }

    /// Events pass on one by one, and the usage is metered although the agent did not ask for it.
    fn stream(&self, token: &MintedToken) -> Result<Step, Failure> {
        let answer = self.call(Call::chat(&token.text, MODEL, true))?;
        let (first, last) = answer.event_times();
        check(answer.events.len() > 2 && last > first, "the stream did not arrive event by event")?;
        let lines = vec![
            format!("{} events: the first after {first} ms, the last after {last} ms", answer.events.len()),
            "usage was asked for on the agent's behalf, and taken out again before it got the stream"
                .to_owned(),
        ];
        Ok(Step { name: "stream", title: "A stream: every event passes on as it comes".to_owned(), lines })
    }

    /// What does not get through.
    fn refusals(&self, token: &MintedToken, mock: &Mock) -> Result<Step, Failure> {
        let before = mock.count();
        let page = Call::chat(&token.text, MODEL, false).with_header("Origin", "https://evil.example");
        let cases = [
            ("a key that is no capability", Call::chat("sk-someone-elses", MODEL, false)),
            ("a model outside the scope", Call::chat(&token.text, "o3-pro", false)),
            (
                "a route that mints credentials",
                Call::post(&token.text, "/openai/v1/realtime/client_secrets", "{}"),
            ),
            ("a web page in the browser", page),
        ];
        let mut lines = Vec::new();
        for (what, call) in cases {
            let answer = self.call(call)?;
            lines.push(format!("{what:32}{} {}", answer.status, answer.code()));
        }
        let revoked = self.app.store()?.revoke_capability(token.id, "the demo is over", now_us())?;
        self.app.tell_daemon()?;
        let answer = self.call(Call::chat(&token.text, MODEL, false))?;
        lines.push(format!("{:32}{} {}", "the capability, once revoked", answer.status, answer.code()));
        check(revoked && answer.status == 401, "the revoked capability still works")?;
        check(mock.count() == before, "a refused request reached the provider")?;
        lines.push("the provider heard of none of these".to_owned());
        Ok(Step { name: "refusals", title: "What is refused, and when".to_owned(), lines })
    }

    /// Every request has its row, refused ones too.
    fn log(&self) -> Result<Step, Failure> {
        self.app.flush_log();
        let mut rows = self.app.store()?.requests(&LogFilter::default())?;
        rows.reverse();
        let table = rows.iter().map(|logged| {
            let row = &logged.request;
            let cost = row.cost.map_or("?".to_owned(), |cost| format!("${cost}"));
            let code = row.error_code.as_deref().unwrap_or("");
            let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
            vec![
                row.status.map_or("-".to_owned(), |status| status.to_string()),
                text(row.agent.as_ref().map(policy::AgentName::as_str)),
                text(row.model.as_ref().map(storage::LogText::as_str)),
                row.usage.input_total().to_string(),
                row.usage.output.to_string(),
                cost,
                format!("{:.1} ms", std::time::Duration::from_micros(row.latency_us).as_secs_f64() * 1e3),
                code.to_owned(),
            ]
        });
        let text = Columns::table(&COLUMNS, &table.collect::<Vec<_>>(), "no rows");
        check(
            rows.iter().any(|row| row.request.cost.is_some_and(|cost| cost.nanos() > 0)),
            "nothing was metered",
        )?;
        let lines = text.lines().map(str::to_owned).collect();
        Ok(Step { name: "log", title: "The log: model, tokens and cost of every request".to_owned(), lines })
    }

    fn call(&self, call: Call) -> Result<Answer, Failure> {
        call.send(&self.address).map_err(|error| Failure::failed("call the demo's gateway", &error))
    }
}

fn make_vault(app: &App, key: &str) -> Result<Vault, Failure> {
    let passphrase = Secret::new(random_hex()?);
    // This vault guards nothing and lives for seconds, so opening it may be cheap.
    let slot = NewSlot::Passphrase { passphrase: &passphrase, cost: KdfCost::FLOOR };
    let (mut vault, _) = Vault::create(&app.home.vault(), &[slot])?;
    let config = app.config()?;
    let provider = config.provider("openai").expect("openai is built in");
    let entry = NewEntry {
        provider: provider.id.to_string(),
        kind: EntryKind::Inference,
        label: "demo".to_owned(),
        secret: Secret::from(key),
        allowed_origin: provider.origin.clone(),
        auth_style: provider.auth.as_str().to_owned(),
    };
    vault.put(Entry::new(entry, now_us())?)?;
    Ok(vault)
}

fn random_hex() -> Result<String, Failure> {
    Ok(hex(&random_bytes::<16>()?))
}

/// A demo that shows something untrue is worse than one that fails.
fn check(holds: bool, what: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "demo_failed", format!("the demo went wrong: {what}")))
    }
}

/// Enough of a secret to recognise it by.
fn masked(secret: &str) -> String {
    let (head, tail) = (secret.get(..8).unwrap_or_default(), secret.len().saturating_sub(4));
    format!("{head}…{}", secret.get(tail..).unwrap_or_default())
}

fn masked_header(value: Option<&str>) -> String {
    match value.and_then(|value| value.split_once(' ')) {
        Some((scheme, credential)) => format!("{scheme} {}", masked(credential)),
        None => "nothing".to_owned(),
    }
}

fn show(output: Output, steps: &[Step], place: &std::path::Path) {
    let document: Vec<Value> = steps
        .iter()
        .map(|step| json!({ "name": step.name, "title": step.title, "lines": step.lines }))
        .collect();
    output.data(&json!({ "steps": document }), || {
        let mut text = String::new();
        for (number, step) in steps.iter().enumerate() {
            text.push_str(&format!("\n{}. {}\n", number + 1, step.title));
            step.lines.iter().for_each(|line| text.push_str(&format!("   {line}\n")));
        }
        text.push_str(NEXT);
        text
    });
    output.note(&format!("all of it was in {}, which is gone now", place.display()));
}

const NEXT: &str = "
What to do next
   tokfence init                  make a home and a vault
   tokfence vault add openai      store a key (asked for, not echoed)
   tokfence start -d              start the gateway
   tokfence budget set global 10 daily
                                  limit what all agents may spend in a day
   tokfence run -- claude         run an agent through it
   tokfence log -f                watch its requests
";

/// A time that only has to differ between two runs.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
