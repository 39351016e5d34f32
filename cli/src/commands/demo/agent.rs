//! The demo's agent, and that of `setup --test`: sends requests the way an SDK does, and notes when each event arrives.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::mock::ENDLESS;

/// A model may think for a while.
const PATIENCE: Duration = Duration::from_secs(60);
const CHAT: &str = "/openai/v1/chat/completions";

/// A request to be sent.
pub(crate) struct Call {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Vec<u8>,
    /// The data of each event, and when it came.
    pub(super) events: Vec<(Duration, String)>,
    /// When all of it was there.
    ended: Option<Instant>,
}

impl Call {
    /// With no credential yet.
    pub(crate) fn new(path: &str, body: &str) -> Self {
        Self { path: path.to_owned(), headers: Vec::new(), body: body.to_owned() }
            .with_header("Content-Type", "application/json")
    }

    pub(super) fn post(token: &str, path: &str, body: &str) -> Self {
        Self::new(path, body).with_header("Authorization", &format!("Bearer {token}"))
    }

    pub(super) fn chat(token: &str, model: &str, is_streaming: bool) -> Self {
        let messages = json!([{ "role": "user", "content": "Where do the keys stay?" }]);
        let body = json!({ "model": model, "messages": messages, "stream": is_streaming, "max_tokens": 400 });
        Self::post(token, CHAT, &body.to_string())
    }

    /// Asks for a stream that does not end by itself.
    pub(super) fn endless(token: &str, model: &str) -> Self {
        let messages = json!([{ "role": "user", "content": ENDLESS }]);
        let body = json!({ "model": model, "messages": messages, "stream": true });
        Self::post(token, CHAT, &body.to_string())
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn send(self, address: &str) -> io::Result<Answer> {
        self.send_watched(address, |_| ())
    }

    /// The same; `watch` hears how many events have come so far.
    pub(super) fn send_watched(self, address: &str, watch: impl FnMut(usize)) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let fields: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = self.body.len();
        let (path, body) = (self.path, self.body);
        let started = Instant::now();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        Answer::read(&mut BufReader::new(stream), started, watch)
    }
}

impl Answer {
    fn read(reader: &mut impl BufRead, started: Instant, watch: impl FnMut(usize)) -> io::Result<Self> {
        let mut answer = Self::default();
        let mut line = String::new();
        reader.read_line(&mut line)?;
        answer.status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut is_chunked = false;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            is_chunked |= line.to_ascii_lowercase().starts_with("transfer-encoding: chunked");
        }
        if is_chunked {
            answer.read_chunks(reader, started, watch)?;
        } else {
            reader.read_to_end(&mut answer.body)?;
        }
        answer.ended = Some(Instant::now());
        Ok(answer)
    }

    fn read_chunks(
        &mut self,
        reader: &mut impl BufRead,
        started: Instant,
        mut watch: impl FnMut(usize),
    ) -> io::Result<()> {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(());
            }
            self.body.extend_from_slice(&chunk[..size]);
            let text = String::from_utf8_lossy(&chunk[..size]).into_owned();
            let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
            self.events.extend(data.map(|data| (started.elapsed(), data.to_owned())));
            watch(self.events.len());
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The answer's text.
    pub(super) fn text(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// What a refusal says.
    pub(crate) fn error(&self) -> Value {
        self.json()["error"].take()
    }

    /// The code of a refusal.
    pub(super) fn code(&self) -> String {
        self.error()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The last event that is JSON, where `[DONE]` follows it and nothing else.
    pub(super) fn last_words(&self) -> Option<Value> {
        let [.., (_, last), (_, done)] = self.events.as_slice() else { return None };
        serde_json::from_str(last).ok().filter(|_| done == "[DONE]")
    }

    /// How long after this instant the answer was at its end.
    pub(super) fn ended_after(&self, instant: Instant) -> Duration {
        self.ended.map_or(Duration::ZERO, |ended| ended.saturating_duration_since(instant))
    }

    /// When the first and the last event came, in milliseconds.
    pub(super) fn event_times(&self) -> (u128, u128) {
        let at = |event: Option<&(Duration, String)>| event.map_or(0, |(at, _)| at.as_millis());
        (at(self.events.first()), at(self.events.last()))
    }
}
