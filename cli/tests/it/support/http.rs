//! A client of raw bytes: it sends what it is given and reads answers strictly.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// A request that is put together field by field and sent as exactly these bytes.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let fields = vec![("Host".to_owned(), "localhost".to_owned())];
        Self { method: method.to_owned(), target: target.to_owned(), fields, body: None }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST of JSON.
    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).field("Content-Type", "application/json").body(body)
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the fields of this name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.field("Authorization", &format!("Bearer {token}"))
    }

    /// Has the mock provider answer with the script of this name.
    pub(crate) fn script(self, name: &str) -> Self {
        self.field("X-Client-Request-Id", name)
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if let Some(body) = &self.body {
            write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// Version, status and fields of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a field: {line:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Self {
            version: line.split(' ').next().unwrap_or_default().to_owned(),
            status: status.unwrap_or_else(|| panic!("not a status line: {line:?}")),
            fields: lines.map(field).collect(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of a refusal. Where Google has a number of its own, the type tells it.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let error = &self.json()["error"];
        let of_type = || error["type"].as_str()?.strip_prefix("tokfence_").filter(|_| error["code"] == 429);
        let code = error["code"].as_str().or_else(of_type);
        code.unwrap_or_else(|| panic!("no code: {}", self.text())).to_owned()
    }

    /// The id by which the log knows the request.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.head.get("x-tokfence-request-id").expect("every answer names its request").to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{:?} {}", self.head, self.text());
        self
    }

    /// Checks that this is the refusal that is expected, in every part that callers rely on.
    #[track_caller]
    pub(crate) fn expect_refusal(self, status: u16, code: &str) -> Self {
        let shown = format!("{:?} {}", self.head, self.text());
        assert_eq!((self.status(), self.code().as_str()), (status, code), "{shown}");
        let document = self.json();
        assert_eq!(document["type"], "error", "{shown}");
        assert_eq!(document["error"]["type"], format!("tokfence_{code}"), "{shown}");
        assert_eq!(document["request_id"], self.id().as_str(), "{shown}");
        assert_eq!(self.head.get("content-type"), Some("application/json"), "{shown}");
        assert_eq!(self.head.get("x-content-type-options"), Some("nosniff"), "{shown}");
        assert!(!self.head.fields.iter().any(|(name, _)| name.starts_with("access-control")), "{shown}");
        self
    }
}

trait Stream: Read + Write + Send {
    fn shut_down(&self, how: Shutdown);
}

impl Stream for TcpStream {
    fn shut_down(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

impl Stream for UnixStream {
    fn shut_down(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

/// How the rest of an answer's body is delimited.
enum Rest {
    Length(usize),
    Chunked,
    UntilEnd,
    Over,
}

/// One connection to the gateway.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
    rest: Rest,
}

impl Client {
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Box::new(stream), read: Vec::new(), rest: Rest::Over }
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::try_unix(path).unwrap()
    }

    /// Connects to a gateway that may be gone.
    pub(crate) fn try_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Box::new(stream), read: Vec::new(), rest: Rest::Over })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what the other side may refuse to read to its end.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn finish_sending(&mut self) {
        self.stream.shut_down(Shutdown::Write);
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut part = [0; 64 * 1024];
        let count = self.stream.read(&mut part)?;
        self.read.extend_from_slice(&part[..count]);
        Ok(count)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    fn line_end(&mut self) -> io::Result<usize> {
        loop {
            if let Some(at) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                return Ok(at + 2);
            }
            self.fill_some()?;
        }
    }

    fn fill_some(&mut self) -> io::Result<()> {
        if self.fill()? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The next head, of an interim answer as well.
    pub(crate) fn try_head(&mut self) -> io::Result<Head> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill_some()?;
        };
        let head = Head::parse(&self.take(end));
        let length = head.get("content-length").map(|length| length.parse().unwrap());
        self.rest = match (head.status, length, head.get("transfer-encoding")) {
            (100..=199 | 204 | 304, ..) => Rest::Over,
            (_, None, Some("chunked")) => Rest::Chunked,
            (_, Some(length), None) => Rest::Length(length),
            (_, None, None) => Rest::UntilEnd,
            (_, length, encoding) => panic!("ambiguous answer: {length:?} {encoding:?}"),
        };
        Ok(head)
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        self.try_head().expect("an answer")
    }

    /// The next bytes of the body as they come; `None` at its end.
    pub(crate) fn try_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.rest {
            Rest::Over | Rest::Length(0) => {
                self.rest = Rest::Over;
                Ok(None)
            }
            Rest::Length(left) => {
                if self.read.is_empty() {
                    self.fill_some()?;
                }
                let part = self.take(left.min(self.read.len()));
                self.rest = Rest::Length(left - part.len());
                Ok(Some(part))
            }
            Rest::UntilEnd => {
                if self.read.is_empty() && self.fill()? == 0 {
                    self.rest = Rest::Over;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.read)))
            }
            Rest::Chunked => {
                let end = self.line_end()?;
                let line = self.take(end);
                let digits = std::str::from_utf8(&line).unwrap().trim_end();
                let size = usize::from_str_radix(digits, 16).unwrap();
                while self.read.len() < size + 2 {
                    self.fill_some()?;
                }
                let part = self.take(size);
                assert_eq!(self.take(2), b"\r\n", "a chunk ends with CR LF");
                if size == 0 {
                    self.rest = Rest::Over;
                    return Ok(None);
                }
                Ok(Some(part))
            }
        }
    }

    #[track_caller]
    pub(crate) fn part(&mut self) -> Option<Vec<u8>> {
        self.try_part().expect("the next part of the body")
    }

    /// Reads the body until it contains `text`, and answers all that was read.
    #[track_caller]
    pub(crate) fn read_until(&mut self, seen: &mut Vec<u8>, text: &str) {
        while !contains(seen, text.as_bytes()) {
            let part = self.part().unwrap_or_else(|| panic!("the body ended before {text:?}"));
            seen.extend_from_slice(&part);
        }
    }

    pub(crate) fn try_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(part) = self.try_part()? {
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    /// The final answer; interim ones are passed over.
    pub(crate) fn try_response(&mut self) -> io::Result<Response> {
        loop {
            let head = self.try_head()?;
            if head.status >= 200 {
                let body = self.try_body()?;
                return Ok(Response { head, body });
            }
        }
    }

    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().expect("an answer")
    }

    /// The answer to a HEAD request, which has no body.
    #[track_caller]
    pub(crate) fn bodiless_response(&mut self) -> Response {
        let head = self.head();
        self.rest = Rest::Over;
        Response { head, body: Vec::new() }
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Request) -> Response {
        self.send(&request.bytes());
        self.response()
    }

    /// Checks that the gateway closes the connection and sends nothing more.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let mut rest = std::mem::take(&mut self.read);
        while let Ok(count) = self.fill() {
            rest.extend_from_slice(&std::mem::take(&mut self.read));
            if count == 0 {
                break;
            }
        }
        assert!(rest.is_empty(), "more came: {}", String::from_utf8_lossy(&rest));
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
