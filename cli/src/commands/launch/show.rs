//! What is told of a launched agent.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::folder::Launched;
use super::{Agent, Found, openclaw};
use crate::engine::Engine;
use crate::failure::{Exit, Failure};

/// A log may be silent for as long as its agent is.
const WHILE_IT_RUNS: Duration = Duration::from_secs(u32::MAX as u64);
/// How much of a log is told with a failure.
const LAST_LINES: usize = 20;

/// Whether it runs, and as what.
pub(super) fn status(agent: &Agent<'_>) -> Result<ExitCode, Failure> {
    let launched = agent.folder.load()?;
    let found = agent.find(&Engine::find()?)?;
    let is_running = found.as_ref().is_some_and(Found::is_running);
    agent.app.output.data(&document(agent, &launched, found.as_ref()), || text(agent, &launched, is_running));
    Ok(if is_running { ExitCode::SUCCESS } else { ExitCode::from(Exit::NotRunning as u8) })
}

pub(super) fn document(agent: &Agent<'_>, launched: &Launched, found: Option<&Found>) -> Value {
    let workspace = launched.workspace.clone().unwrap_or_else(|| agent.folder.workspace());
    json!({
        "name": agent.name,
        "running": found.is_some_and(Found::is_running),
        "container": found.and_then(|found| found.0["Id"].as_str()),
        "image": launched.image,
        "digest": launched.digest,
        "url": url(launched),
        "connected": agent.folder.bridge().is_some(),
        "workspace": workspace.display().to_string(),
        "config": agent.folder.openclaw().display().to_string(),
        "capability": launched.capability,
    })
}

fn text(agent: &Agent<'_>, launched: &Launched, is_running: bool) -> String {
    let workspace = launched.workspace.clone().unwrap_or_else(|| agent.folder.workspace());
    let state = match (is_running, agent.folder.bridge()) {
        (true, Some(_)) => format!("runs at {}", url(launched)),
        (true, None) => "runs, but nothing carries its connections; tokfence launch restart".to_owned(),
        (false, _) => "does not run; tokfence launch".to_owned(),
    };
    format!("{}  {state}\nimage      {}\nworkspace  {}", agent.name, launched.digest, workspace.display())
}

pub(super) fn url(launched: &Launched) -> String {
    format!("http://127.0.0.1:{}/", launched.port)
}

/// What it printed, on standard output.
pub(super) fn logs(agent: &Agent<'_>, follow: bool) -> Result<(), Failure> {
    let engine = Engine::find()?;
    agent.require(&engine)?;
    let output = agent.app.output;
    read_log(agent, &engine, follow, |line| output.line(&json!({ "line": line }), || line.to_owned()))
}

/// The last it printed.
pub(super) fn last_lines(agent: &Agent<'_>, engine: &Engine) -> String {
    let mut lines = std::collections::VecDeque::new();
    // It only makes the message better.
    let _ = read_log(agent, engine, false, |line| {
        lines.push_back(line.to_owned());
        if lines.len() > LAST_LINES {
            lines.pop_front();
        }
    });
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

fn read_log(
    agent: &Agent<'_>,
    engine: &Engine,
    follow: bool,
    mut take: impl FnMut(&str),
) -> Result<(), Failure> {
    let path = agent.path(&format!("/logs?stdout=true&stderr=true&follow={follow}"));
    let mut frames = Frames::default();
    let answer = engine.follow(Method::GET, &path, WHILE_IT_RUNS, |part| {
        frames.take(part).iter().for_each(|line| take(line));
        true
    })?;
    answer.expect("read its log", &[200])?;
    frames.rest().iter().for_each(|line| take(line));
    Ok(())
}

/// The engine's form of a log: frames of either stream, each with its length before it, within which lines begin and end
/// anywhere.
#[derive(Debug, Default)]
struct Frames {
    raw: Vec<u8>,
    /// Of standard output and of standard error, what is no whole line yet.
    begun: [Vec<u8>; 2],
}

/// A line that is longer is told in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;
const HEAD_BYTES: usize = 8;

impl Frames {
    fn take(&mut self, part: &[u8]) -> Vec<String> {
        self.raw.extend_from_slice(part);
        let mut lines = Vec::new();
        while let Some(head) = self.raw.first_chunk::<HEAD_BYTES>() {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let stream = usize::from(head[0] == 2);
            let Some(text) = self.raw.get(HEAD_BYTES..HEAD_BYTES.saturating_add(length)) else { break };
            let begun = &mut self.begun[stream];
            begun.extend_from_slice(text);
            self.raw.drain(..HEAD_BYTES + length);
            while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = begun.drain(..=end).collect();
                lines.push(tame(&line));
            }
            if begun.len() > LINE_BYTES_MAX {
                lines.push(tame(&std::mem::take(begun)));
            }
        }
        lines
    }

    fn rest(self) -> Vec<String> {
        self.begun.iter().filter(|begun| !begun.is_empty()).map(|begun| tame(begun)).collect()
    }
}

/// A line of somebody else's, which does nothing to a terminal.
fn tame(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    text.chars().filter(|character| *character == '\t' || !character.is_control()).collect()
}

/// OpenClaw's configuration, as it is now.
pub(super) fn config(agent: &Agent<'_>) -> Result<(), Failure> {
    agent.folder.load()?;
    let shown = openclaw::masked(&openclaw::read(&agent.folder.openclaw())?);
    agent.app.output.data(&shown, || format!("{shown:#}"));
    Ok(())
}

/// Opens the page in the browser, where there is one. The token is not in the address: it would be in the browser's
/// history and in the arguments of its process.
pub(super) fn open_page(url: &str) {
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if !has_desktop || !std::io::stderr().is_terminal() {
        return;
    }
    let mut command = std::process::Command::new("xdg-open");
    command.arg(url).stdin(std::process::Stdio::null());
    // Without it the address is printed all the same.
    let _ = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
    }

    #[test]
    fn a_log_is_read_however_it_is_cut() {
        let whole = [frame(1, "one\ntw"), frame(2, "err\u{1b}[2J\r\n"), frame(1, "o\nlast")].concat();
        for cut in 0..whole.len() {
            let mut frames = Frames::default();
            let mut lines = frames.take(&whole[..cut]);
            lines.extend(frames.take(&whole[cut..]));
            lines.extend(frames.rest());
            assert_eq!(lines, ["one", "err[2J", "two", "last"], "cut at {cut}");
        }
    }
}
