//! A container engine that has one image and writes down what it is asked. Its container is played by this process, or
//! is the real command in a sandbox of Bubblewrap's.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

pub(super) const IMAGE: &str = "example.com/claw:1";
pub(super) const IMAGE_ID: &str = "sha256:aaaa";
pub(super) const DIGEST: &str = "example.com/claw@sha256:bbbb";

/// A request: its method and target, and its body.
pub(super) type Asked = (String, Value);
type Begin = Box<dyn Fn(&Value) + Send + Sync>;

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    /// What the container was made of, and whether it runs.
    container: Option<(Value, bool)>,
    /// What is said of a download, a line each.
    pull: Vec<Value>,
    has_image: bool,
}

pub(super) struct Engine {
    pub(super) path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Engine {
    /// Listens at this path; `begin` is called with what a container is made of when it is started.
    pub(super) fn start(path: PathBuf, begin: impl Fn(&Value) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State { has_image: true, ..State::default() }));
        let engine = Self { path, state: state.clone() };
        let begin: Arc<Begin> = Arc::new(Box::new(begin));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, begin) = (state.clone(), begin.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &state, &begin));
            }
        });
        engine
    }

    /// Everything that was asked since the last time.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// There is a container already.
    pub(super) fn has(&self, container: Value, is_running: bool) {
        self.state.lock().unwrap().container = Some((container, is_running));
    }

    pub(super) fn has_container(&self) -> bool {
        self.state.lock().unwrap().container.is_some()
    }

    /// What is said of a download from now on.
    pub(super) fn pulls(&self, lines: &[Value]) {
        self.state.lock().unwrap().pull = lines.to_vec();
    }

    pub(super) fn has_no_image(&self) {
        self.state.lock().unwrap().has_image = false;
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>, begin: &Begin) {
    let Some((line, body)) = read(&mut stream) else { return };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, content) = {
        let mut state = state.lock().unwrap();
        state.asked.push((line.clone(), body.clone()));
        answer(&mut state, &line, body)
    };
    // Before it is said to be started: whoever asks then finds what it does.
    if line.ends_with("/start") {
        let made = state.lock().unwrap().container.clone().unwrap().0;
        begin(&made);
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    // Who does not wait for the answer has enough.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
}

fn read(stream: &mut UnixStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some((head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned(), body))
}

fn answer(state: &mut State, line: &str, body: Value) -> (u16, Vec<u8>) {
    let document = |status: u16, value: Value| (status, value.to_string().into_bytes());
    let missing = || document(404, json!({ "message": "No such container" }));
    let path = line.split_once(' ').unwrap().1;
    match line.split_once(' ').unwrap() {
        ("GET", "/_ping") => (200, b"OK".to_vec()),
        ("GET", "/info") => document(200, json!({ "SecurityOptions": ["name=seccomp,profile=builtin"] })),
        ("GET", "/version") => document(200, json!({ "Components": [{ "Name": "Engine" }] })),
        ("POST", path) if path.starts_with("/images/create?") => {
            (200, state.pull.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect())
        }
        ("GET", path) if path.starts_with("/images/") && state.has_image => document(
            200,
            json!({
                "Id": IMAGE_ID, "RepoDigests": [DIGEST],
                "Config": { "Entrypoint": ["sleep"], "Cmd": ["600.25"] },
            }),
        ),
        ("POST", path) if path.starts_with("/containers/create?") => {
            state.container = Some((body, false));
            document(201, json!({ "Id": "cccc" }))
        }
        ("POST", path) if path.ends_with("/start") => {
            state.container.as_mut().unwrap().1 = true;
            (204, Vec::new())
        }
        ("DELETE", _) if state.container.take().is_some() => (204, Vec::new()),
        ("POST", _) if path.contains("/stop") && state.container.is_some() => (204, Vec::new()),
        ("GET", _) if path.contains("/logs?") && state.container.is_some() => {
            let frame = |stream: u8, text: &str| {
                [&[stream, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
            };
            (200, [frame(1, "listening\n"), frame(2, "warned \u{1b}[31mred\n")].concat())
        }
        ("GET", _) if path.starts_with("/containers/") => match &state.container {
            Some((made, is_running)) => document(
                200,
                json!({
                    "Id": "cccc", "State": { "Running": is_running },
                    "Config": { "Labels": made["Labels"] },
                }),
            ),
            None => missing(),
        },
        _ => missing(),
    }
}

/// Where a container sees this folder or file of the machine.
pub(super) fn source(made: &Value, target: &str) -> PathBuf {
    let mounts = made["HostConfig"]["Mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["Target"] == target).unwrap();
    PathBuf::from(mount["Source"].as_str().unwrap())
}

/// An agent in the container, played: it answers whoever calls its page, until the test ends.
pub(super) fn play(made: &Value) {
    let path = source(made, "/tokfence/sockets").join("agent.sock");
    // That of the container before.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if read(&mut stream).is_some() {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nclaw!");
            }
        }
    });
}

/// The words of a container's entry point.
pub(super) fn entrypoint(made: &Value) -> Vec<&str> {
    made["Entrypoint"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// A command in the container, as far as Bubblewrap can make it, whose only user is the one who runs it: what it is made
/// of is what it is given, with the folders `root` of this machine as its image.
pub(super) fn run(made: &Value, root: &[&Path], command: &[&str]) -> std::process::Command {
    let mut bwrap = std::process::Command::new("bwrap");
    bwrap.args(["--unshare-all", "--cap-drop", "ALL", "--clearenv", "--dev", "/dev", "--proc", "/proc"]);
    for path in root {
        bwrap.arg("--ro-bind").args([path, path]);
    }
    for path in made["HostConfig"]["Tmpfs"].as_object().unwrap().keys() {
        bwrap.args(["--tmpfs", path]);
    }
    for mount in made["HostConfig"]["Mounts"].as_array().unwrap() {
        let how = if mount["ReadOnly"] == true { "--ro-bind" } else { "--bind" };
        bwrap.args([how, mount["Source"].as_str().unwrap(), mount["Target"].as_str().unwrap()]);
    }
    for variable in made["Env"].as_array().unwrap() {
        let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
        bwrap.args(["--setenv", name, value]);
    }
    bwrap.args(["--setenv", "PATH", "/usr/bin:/bin", "--"]);
    bwrap.args(command);
    bwrap
}
