//! The API of a container engine, Docker's or Podman's in Docker's form, over its Unix socket.
//!
//! An engine elsewhere, over TCP or SSH, is not spoken to: what is mounted into a container must be of this machine.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::failure::{Exit, Failure};

/// An engine whose storage copies takes minutes to make a container of a large image; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// A download goes on for as long as something comes.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// No answer but a log is larger.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// An engine that can be asked.
#[derive(Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    runtime: Runtime,
}

/// What an engine answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Engine {
    /// The engine of `DOCKER_HOST`, or the first whose socket is where engines have it.
    ///
    /// # Errors
    /// Where there is none, or it does not answer.
    pub(crate) fn find() -> Result<Self, Failure> {
        let sockets = match std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
            Some(host) => vec![named(&host)?],
            None => usual_sockets(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::failed("talk to the container engine", &error))?;
        let Some(socket) = sockets.iter().find(|path| path.exists()) else {
            let looked: Vec<String> = sockets.iter().map(|path| path.display().to_string()).collect();
            return Err(unavailable(format!("there is no container engine at {}", looked.join(", "))));
        };
        let engine = Self { socket: socket.clone(), runtime };
        engine.call(Method::GET, "/_ping", None)?.expect("ask the container engine", &[200])?;
        Ok(engine)
    }

    /// Asks, and waits for the whole answer.
    pub(crate) fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let asked = async {
            let response = self.send(method, path, body).await?;
            let status = response.status().as_u16();
            let mut bytes = Vec::new();
            self.read(response, PATIENCE, |part| {
                bytes.extend_from_slice(part);
                bytes.len() <= ANSWER_BYTES_MAX
            })
            .await?;
            // `_ping` and errors of what stands before an engine are plain text.
            let body = serde_json::from_slice(&bytes);
            Ok(Answer { status, body: body.unwrap_or_else(|_| json!({ "message": text(&bytes) })) })
        };
        let answer = self.runtime.block_on(async { timeout(PATIENCE, asked).await });
        answer.unwrap_or_else(|_| Err(unavailable("the container engine does not answer".to_owned())))
    }

    /// Asks, and reads what comes for as long as `take` wants more of it, and as it is not silent for longer than
    /// `silence`. An answer that is no success is told whole.
    pub(crate) fn follow(
        &self,
        method: Method,
        path: &str,
        silence: Duration,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<Answer, Failure> {
        self.runtime.block_on(async {
            let response = self.send(method, path, None).await?;
            let status = response.status().as_u16();
            let mut refusal = Vec::new();
            let read = self.read(response, silence, |part| {
                if status < 300 {
                    return take(part);
                }
                refusal.extend_from_slice(part);
                refusal.len() <= ANSWER_BYTES_MAX
            });
            read.await?;
            Ok(Answer { status, body: serde_json::from_slice(&refusal).unwrap_or_default() })
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            unavailable(format!("cannot reach the container engine at {}: {error}", self.socket.display()))
        })?;
        let failed = |error: hyper::Error| Failure::failed("ask the container engine", &error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // It ends with the answer, or tells there what went wrong.
        tokio::spawn(connection);
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .body(Full::new(bytes));
        let request = request.map_err(|error| Failure::failed("ask the container engine", &error))?;
        sender.send_request(request).await.map_err(failed)
    }

    /// Reads an answer part by part, each of which comes within `silence`.
    async fn read(
        &self,
        response: Response<Incoming>,
        silence: Duration,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Failure> {
        let mut body = response.into_body();
        let silent = |_| unavailable("the container engine says nothing any more".to_owned());
        while let Some(frame) = timeout(silence, body.frame()).await.map_err(silent)? {
            let frame =
                frame.map_err(|error| Failure::failed("read what the container engine says", &error))?;
            if let Some(part) = frame.data_ref()
                && !take(part)
            {
                break;
            }
        }
        Ok(())
    }

    /// Downloads an image, and tells `progress` what the engine says of it.
    pub(crate) fn pull(&self, image: &str, mut progress: impl FnMut(&Value)) -> Result<(), Failure> {
        let doing = format!("download {image}");
        let path = format!("/images/create?fromImage={}", encode(&with_tag(image)));
        let (mut lines, mut fault) = (Lines::default(), None);
        let answer = self.follow(Method::POST, &path, SILENCE_MAX, |part| {
            for line in lines.take(part) {
                // It may say so after it has begun with a success.
                fault = fault.take().or(line["error"].as_str().map(str::to_owned));
                progress(&line);
            }
            true
        })?;
        answer.expect(&doing, &[200])?;
        fault.map_or(Ok(()), |fault| Err(refused(&doing, 200, Some(&fault))))
    }
}

impl Answer {
    /// The body of an answer with one of these statuses.
    ///
    /// # Errors
    /// What the engine says instead.
    pub(crate) fn expect(self, doing: &str, statuses: &[u16]) -> Result<Value, Failure> {
        if statuses.contains(&self.status) {
            return Ok(self.body);
        }
        Err(refused(doing, self.status, self.body["message"].as_str()))
    }
}

/// JSON documents, each on a line of its own, however the lines are cut into parts.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, part: &[u8]) -> Vec<Value> {
        self.0.extend_from_slice(part);
        let mut documents = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            documents.extend(serde_json::from_slice::<Value>(&line).ok());
        }
        // A line without end tells nothing.
        self.0.truncate(ANSWER_BYTES_MAX);
        documents
    }
}

fn named(host: &str) -> Result<PathBuf, Failure> {
    host.strip_prefix("unix://").map(PathBuf::from).ok_or_else(|| {
        unavailable(format!("DOCKER_HOST is `{host}`, and only an engine of this machine can be used"))
    })
}

fn usual_sockets() -> Vec<PathBuf> {
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let of_user = |name: &str| user.as_ref().map(|dir| dir.join(name));
    let all = [
        Some(PathBuf::from("/var/run/docker.sock")),
        of_user("docker.sock"),
        of_user("podman/podman.sock"),
        Some(PathBuf::from("/run/podman/podman.sock")),
    ];
    all.into_iter().flatten().collect()
}

/// An image without a tag would be downloaded with every tag that it has.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// Text as a part of a path or a query.
pub(crate) fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What the engine says of a request that it does not grant, which does nothing to a terminal.
fn refused(doing: &str, status: u16, message: Option<&str>) -> Failure {
    let said = message.map(|message| message.chars().filter(|character| !character.is_control()).collect());
    let said: String = said.unwrap_or_else(|| format!("no ({status})"));
    Failure::new(Exit::Failed, "engine_refused", format!("{doing}: the engine says: {said}"))
}

fn unavailable(message: String) -> Failure {
    let failure = Failure::new(Exit::Failed, "no_engine", message);
    failure.with_hint(
        "start Docker or Podman (`systemctl --user start podman.socket`), or use `tokfence run --sandbox`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_however_they_are_cut() {
        let mut lines = Lines::default();
        assert!(lines.take(b"{\"status\":").is_empty());
        let read = lines.take(b"\"a\"}\r\n{\"error\":\"b\"}\nno json\n{\"c");
        assert_eq!(read, [json!({ "status": "a" }), json!({ "error": "b" })]);
    }

    #[test]
    fn an_image_is_downloaded_with_one_tag() {
        for (image, expected) in [
            ("alpine", "alpine:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("ghcr.io/a/b:1.2", "ghcr.io/a/b:1.2"),
            ("a/b@sha256:00", "a/b@sha256:00"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
        assert_eq!(encode("a b/c:d&e=ü"), "a%20b/c:d%26e%3D%C3%BC");
    }

    #[test]
    fn an_engine_elsewhere_is_not_used() {
        assert_eq!(named("unix:///run/a.sock").unwrap(), PathBuf::from("/run/a.sock"));
        for host in ["tcp://127.0.0.1:2375", "ssh://me@there", "/run/a.sock"] {
            assert_eq!(named(host).unwrap_err().code, "no_engine");
        }
    }
}
