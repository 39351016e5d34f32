//! A provider that records what it gets, byte by byte, and answers by script.
//!
//! A request chooses its script by the header `X-Client-Request-Id`, which the gateway passes on, so tests can
//! share one provider. Scripts run in the thread of their connection and may wait for whatever the test does.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{PATIENCE, eventually};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Which connection it came on, counted from 1.
    pub(crate) connection: usize,
    /// The head, byte for byte.
    pub(crate) head: Vec<u8>,
    /// The body, without the framing of chunks.
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn line(&self) -> String {
        String::from_utf8_lossy(&self.head).lines().next().unwrap_or_default().to_owned()
    }

    /// The fields in their order, names in lower case.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let text = String::from_utf8(self.head.clone()).unwrap();
        let lines = text.trim_end().split("\r\n").skip(1);
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        lines.map(field).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.fields().into_iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// What happens to the connection after a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next request is awaited.
    Keep,
    /// It ends in order.
    Close,
    /// It is torn down.
    Reset,
}

/// Answers one request.
pub(crate) type Script = Box<dyn Fn(&Received, &mut Conn) -> io::Result<Then> + Send + Sync>;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// The connection that a script writes to.
pub(crate) struct Conn {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    read: Vec<u8>,
    state: Arc<State>,
}

impl Conn {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    pub(crate) fn shut_down(&self, how: Shutdown) {
        // A connection that is gone already is as good as one shut down.
        let _ = self.socket.shutdown(how);
    }

    /// Waits until the gateway closes the connection; answers whether it does.
    pub(crate) fn is_closed_by_peer(&mut self) -> bool {
        let mut part = [0; 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                }
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut part = [0; 64 * 1024];
        let count = self.stream.read(&mut part)?;
        self.state.bytes.fetch_add(count, Ordering::SeqCst);
        self.read.extend_from_slice(&part[..count]);
        Ok(count)
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < count {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.read.split_off(count);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    fn take_through(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|part| part == end) {
                return self.take(at + end.len()).map(Some);
            }
            if self.fill()? == 0 {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn receive(&mut self, connection: usize) -> io::Result<Option<Received>> {
        let Some(head) = self.take_through(b"\r\n\r\n")? else { return Ok(None) };
        let mut received = Received { connection, head, body: Vec::new() };
        let length = received.get("content-length").map(|length| length.parse().unwrap());
        if let Some(length) = length {
            received.body = self.take(length)?;
        } else if received.get("transfer-encoding").is_some() {
            while let Some(line) = self.take_through(b"\r\n")? {
                let digits = std::str::from_utf8(&line).unwrap().trim();
                let size = usize::from_str_radix(digits, 16).unwrap();
                let part = self.take(size + 2)?;
                received.body.extend_from_slice(&part[..size]);
                if size == 0 {
                    break;
                }
            }
        }
        Ok(Some(received))
    }
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    bytes: AtomicUsize,
    received: Mutex<Vec<Received>>,
    scripts: Mutex<HashMap<String, Arc<Script>>>,
    names: AtomicUsize,
    is_over: AtomicBool,
}

/// A provider on a port of its own.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Mock {
    pub(crate) fn start() -> Self {
        Self::serve(None)
    }

    pub(crate) fn start_tls(config: Arc<ServerConfig>) -> Self {
        Self::serve(Some(config))
    }

    fn serve(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let (state, tls) = (shared.clone(), tls.clone());
                std::thread::spawn(move || serve_connection(socket, tls, state));
            }
        });
        Self { address, state }
    }

    /// Registers a script and answers the name by which a request asks for it.
    pub(crate) fn script(
        &self,
        script: impl Fn(&Received, &mut Conn) -> io::Result<Then> + Send + Sync + 'static,
    ) -> String {
        let name = format!("script-{}", self.state.names.fetch_add(1, Ordering::SeqCst));
        self.state.scripts.lock().unwrap().insert(name.clone(), Arc::new(Box::new(script)));
        name
    }

    /// Lets a script answer what asks for none.
    pub(crate) fn always(
        &self,
        script: impl Fn(&Received, &mut Conn) -> io::Result<Then> + Send + Sync + 'static,
    ) {
        self.state.scripts.lock().unwrap().insert(String::new(), Arc::new(Box::new(script)));
    }

    /// A script that always answers these bytes and keeps the connection.
    pub(crate) fn plays(&self, answer: impl Into<Vec<u8>>) -> String {
        let answer = answer.into();
        self.script(move |_, conn| conn.send(&answer).map(|()| Then::Keep))
    }

    /// A script that streams an event with the word `first`, then waits for the test before it ends in order.
    pub(crate) fn held_stream(&self) -> (String, Sender<()>) {
        let (go, gate) = channel();
        let gate = Mutex::new(gate);
        let script = self.script(move |_, conn| {
            conn.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            conn.send(chunk("data: {\"choices\":[{\"delta\":{\"content\":\"first\"}}]}\n\n"))?;
            // Without a word of the test the stream stays open until the gateway has left.
            if gate.lock().unwrap().recv_timeout(PATIENCE).is_ok() {
                conn.send(chunk("data: [DONE]\n\n"))?;
                conn.send("0\r\n\r\n")?;
            }
            Ok(Then::Close)
        });
        (script, go)
    }

    /// The same provider once more, for another who owns one.
    pub(crate) fn same(&self) -> Self {
        Self { address: self.address, state: self.state.clone() }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Bytes received so far, over all connections.
    pub(crate) fn bytes(&self) -> usize {
        self.state.bytes.load(Ordering::SeqCst)
    }

    /// The requests that asked for the script of this name.
    pub(crate) fn received(&self, script: &str) -> Vec<Received> {
        let received = self.state.received.lock().unwrap();
        received.iter().filter(|r| r.get("x-client-request-id").as_deref() == Some(script)).cloned().collect()
    }

    /// The requests that asked for no script.
    pub(crate) fn unasked(&self) -> Vec<Received> {
        let received = self.state.received.lock().unwrap();
        received.iter().filter(|received| received.get("x-client-request-id").is_none()).cloned().collect()
    }

    /// The one request that asked for the script of this name.
    #[track_caller]
    pub(crate) fn the_request(&self, script: &str) -> Received {
        let received = eventually("the provider's request", || {
            Some(self.received(script)).filter(|received| !received.is_empty())
        });
        assert_eq!(received.len(), 1, "{:?}", received.iter().map(Received::line).collect::<Vec<_>>());
        received[0].clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve_connection(socket: TcpStream, tls: Option<Arc<ServerConfig>>, state: Arc<State>) {
    let connection = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
    socket.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(socket.try_clone().unwrap()),
        Some(config) => {
            let session = ServerConnection::new(config).unwrap();
            Box::new(StreamOwned::new(session, socket.try_clone().unwrap()))
        }
    };
    let mut conn = Conn { stream, socket, read: Vec::new(), state: state.clone() };
    loop {
        // A connection that breaks off is what many tests are about.
        let Ok(Some(received)) = conn.receive(connection) else { return };
        state.received.lock().unwrap().push(received.clone());
        let name = received.get("x-client-request-id").unwrap_or_default();
        let script = state.scripts.lock().unwrap().get(&name).cloned();
        let then = match script {
            Some(script) => script(&received, &mut conn),
            None => conn.send(json(OPENAI_ANSWER)).map(|()| Then::Keep),
        };
        match then {
            Ok(Then::Keep) => {}
            Ok(Then::Close) | Err(_) => return,
            Ok(Then::Reset) => {
                set_socket_linger(&conn.socket, Some(Duration::ZERO)).unwrap();
                return;
            }
        }
    }
}

/// What is answered when no script was asked for.
const OPENAI_ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;

/// An answer with these fields, each line with its CR LF, and this body.
pub(crate) fn answer_with(status: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes =
        format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A JSON answer of this status.
pub(crate) fn answer(status: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    answer_with(status, "Content-Type: application/json\r\n", body)
}

/// A good JSON answer.
pub(crate) fn json(body: impl AsRef<[u8]>) -> Vec<u8> {
    answer("200 OK", body)
}

/// A piece of a chunked body.
pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A whole stream of server-sent events, each a chunk.
pub(crate) fn sse(events: &[&str]) -> Vec<u8> {
    let mut bytes =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    events.iter().for_each(|event| bytes.extend_from_slice(&chunk(event)));
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
