//! `setup --test`: one question that costs next to nothing, asked through the gateway as the agent asks, or by the
//! agent's own program; and what the log says of it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gateway::catalogue::{AuthStyle, Provider};
use gateway::wire::WireFormat;
use policy::CapabilityId;
use serde_json::{Value, json};
use storage::{LogFilter, LogOrder, LoggedRequest};

use super::{Job, Test, Token};
use crate::agents::{question, usual_model};
use crate::app::App;
use crate::commands::demo::agent::{Answer, Call};
use crate::failure::Failure;
use crate::format::usd;

const QUESTION: &str = "Say pong.";
/// A row is in the log some milliseconds after the answer's end.
const ROW_PATIENCE: Duration = Duration::from_secs(5);
const ROW_INTERVAL: Duration = Duration::from_millis(20);
/// More rows than an agent writes that is asked for one word.
const ROWS_MAX: u32 = 100;

/// How a test went.
pub(super) struct Tested {
    pub(super) is_good: bool,
}

/// Asks, and writes into the document what came of it.
pub(super) fn test(
    app: &App,
    job: &Job<'_>,
    token: &Token,
    how: Test,
    document: &mut Value,
) -> Result<Tested, Failure> {
    // Only a running gateway can answer, so this is its address by now.
    app.daemon_status()?;
    let begin = app.store()?.latest_seq()?;
    let (mut found, is_good) = match how {
        Test::Gateway => by_gateway(job, token)?,
        Test::Program => by_program(job)?,
    };
    let rows = rows(app, token.id, begin)?;
    let last = rows.last().map(|row| &row.request);
    found["requests"] = json!(rows.iter().map(|row| row.repeats).sum::<u64>());
    found["request_id"] = json!(last.map(|row| row.id.to_string()));
    found["model"] = json!(last.and_then(|row| row.model.as_ref().map(ToString::to_string)));
    found["tokens"] = json!(rows.iter().map(|row| row.request.usage.total()).sum::<u64>());
    let cost = rows.iter().try_fold(policy::NanoUsd::from_nanos(0), |sum, row| {
        row.request.cost.and_then(|cost| sum.checked_add(cost).ok())
    });
    found["cost_usd"] = json!(cost.map(|cost| cost.to_string()));
    found["cost"] = json!(cost.map_or("an unknown price".to_owned(), usd));
    let is_good = is_good && last.is_some_and(|row| row.status == Some(200));
    found["status"] = json!(if is_good { "answered" } else { "refused" });
    document["test"] = found;
    Ok(Tested { is_good })
}

/// The agent's way of asking: its address, its path, its header.
fn by_gateway(job: &Job<'_>, token: &Token) -> Result<(Value, bool), Failure> {
    let provider = job.providers.first().expect("a job has a provider");
    if provider.auth == AuthStyle::Passthrough {
        let message = format!("`{}` takes the login of {}, which only it has", provider.id, job.known.title);
        return Err(Failure::usage(message).with_hint("--test=program"));
    }
    let named = job.models.first().map(String::as_str);
    let model = named.or_else(|| usual_model(provider)).ok_or_else(|| {
        Failure::usage(format!("which model of `{}` is to be asked?", provider.id)).with_hint("--model NAME")
    })?;
    let (url, body) = question(job.known.manner, &job.wiring(&token.text), provider, model);
    let path = url.strip_prefix(&format!("http://{}", job.address)).unwrap_or(&url);
    let (name, value) = header(provider, &token.text);
    let mut call = Call::new(path, &body.to_string()).with_header(name, &value);
    if provider.wire == WireFormat::Anthropic {
        call = call.with_header("anthropic-version", "2023-06-01");
    }
    let answer = call.send(&job.address).map_err(|error| Failure::failed("ask the gateway", &error))?;
    let found = json!({
        "by": "gateway", "provider": provider.id.as_str(), "url": url, "http_status": answer.status,
        "error": refusal(&answer),
    });
    Ok((found, answer.status == 200))
}

/// Where SDKs of a provider put their key.
fn header(provider: &Provider, token: &str) -> (&'static str, String) {
    match provider.wire {
        WireFormat::Google => ("x-goog-api-key", token.to_owned()),
        _ => ("Authorization", format!("Bearer {token}")),
    }
}

/// What a refusal says, if it is one.
fn refusal(answer: &Answer) -> Option<Value> {
    (answer.status != 200).then(|| {
        let error = answer.error();
        json!({ "code": error["code"], "message": error["message"], "hint": error["hint"] })
    })
}

/// Has the agent's own program ask, in this shell as it is but in an empty folder, where nothing else has a say.
fn by_program(job: &Job<'_>) -> Result<(Value, bool), Failure> {
    let program = job.known.program.filter(|_| !job.known.ask.is_empty());
    let program = program.ok_or_else(|| {
        Failure::usage(format!("{} has no program that could ask", job.known.title)).with_hint("--test")
    })?;
    let Some(path) = installed(program) else {
        return Err(Failure::usage(format!("`{program}` is not installed")).with_hint("--test"));
    };
    let failed = |error: std::io::Error| Failure::failed(&format!("run `{program}`"), &error);
    let folder = tempfile::tempdir().map_err(failed)?;
    let mut command = Command::new(path);
    command.args(job.known.ask).arg(QUESTION).current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let is_good = output.status.success();
    let found = json!({
        "by": program, "exit": output.status.code(), "said": said,
        "error": (!is_good).then(|| json!({ "code": "program_failed", "message": complaint, "hint": null })),
    });
    Ok((found, is_good))
}

/// Where the program is that this name starts.
pub(super) fn installed(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&folders).map(|folder| folder.join(program));
    places.find(|place| place.is_file())
}

/// What the log has of this capability since `begin`, as soon as it has something.
fn rows(app: &App, capability: CapabilityId, begin: i64) -> Result<Vec<LoggedRequest>, Failure> {
    let deadline = Instant::now() + ROW_PATIENCE;
    let filter = LogFilter {
        capability: Some(capability),
        order: LogOrder::After(begin),
        limit: ROWS_MAX,
        ..LogFilter::default()
    };
    loop {
        app.flush_log();
        let rows = app.store()?.requests(&filter)?;
        if !rows.is_empty() || Instant::now() > deadline {
            return Ok(rows);
        }
        std::thread::sleep(ROW_INTERVAL);
    }
}

/// The lines that say how a test went.
pub(super) fn describe(test: &Value) -> String {
    let text = |name: &str| test[name].as_str().unwrap_or_default();
    let by = if text("by") == "gateway" { "the gateway".to_owned() } else { format!("`{}`", text("by")) };
    if text("status") == "answered" {
        return format!(
            "{by} answered: {} with {} tokens for {}, request {}",
            text("model"),
            test["tokens"],
            text("cost"),
            text("request_id")
        );
    }
    let error = &test["error"];
    let what = |name: &str| error[name].as_str().filter(|text| !text.is_empty());
    let status = test["http_status"].as_u64().map_or(String::new(), |status| format!(" with {status}"));
    let mut lines =
        vec![format!("{by} refused{status}: {}", what("message").unwrap_or("no answer is in the log"))];
    lines.extend(what("hint").map(|hint| format!("hint: {hint}")));
    if test["request_id"].is_string() {
        lines.push(format!("see: tokfence log {}", text("request_id")));
    }
    lines.join("\n")
}
