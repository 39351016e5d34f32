//! The demo's provider: answers chat completions the way OpenAI does, to whoever has the key.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::seconds;

const WORDS: [&str; 6] = ["Keys ", "stay ", "in ", "the ", "vault", "."];
/// A question whose answer goes on until somebody stops it.
pub(super) const ENDLESS: &str = "Tell me everything.";
/// Between two events of a stream, so that one can see them pass on one by one.
const PAUSE: Duration = Duration::from_millis(30);

/// A provider that runs until the process ends.
pub(super) struct Mock {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

/// A request as it arrived at the provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    line: String,
    pub(super) headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Mock {
    pub(super) fn start(key: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mock = Self { address: listener.local_addr()?, received: Arc::default() };
        let (received, expected) = (mock.received.clone(), format!("Bearer {key}"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, expected) = (received.clone(), expected.clone());
                // A caller that breaks off ends its own connection only.
                std::thread::spawn(move || drop(serve(stream, &received, &expected)));
            }
        });
        Ok(mock)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn count(&self) -> usize {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn last_request(&self) -> Received {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).last().cloned().unwrap_or_default()
    }
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Everything that arrived, as text.
    pub(super) fn raw(&self) -> String {
        let headers: Vec<String> =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{}\n{}\n{}", self.line, headers.join("\n"), String::from_utf8_lossy(&self.body))
    }

    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut request = Self::default();
        if reader.read_line(&mut request.line)? == 0 {
            return Ok(None);
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
        Ok(Some(request))
    }
}

fn serve(stream: TcpStream, received: &Mutex<Vec<Received>>, expected: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Received::read(&mut reader)? {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let is_authorized = request.header("authorization") == Some(expected);
        received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        if !is_authorized {
            let error = json!({ "error": { "message": "Incorrect API key provided", "type": "invalid_request_error" } });
            answer_json(&mut writer, "401 Unauthorized", &error)?;
        } else if body["stream"] == true {
            answer_stream(&mut writer, &body)?;
        } else {
            answer_json(&mut writer, "200 OK", &completion(&body))?;
        }
    }
    Ok(())
}

fn usage() -> Value {
    json!({ "prompt_tokens": 1200, "completion_tokens": 350, "total_tokens": 1550,
            "prompt_tokens_details": { "cached_tokens": 1000 } })
}

fn completion(request: &Value) -> Value {
    let message = json!({ "role": "assistant", "content": WORDS.concat() });
    json!({ "id": "chatcmpl-demo", "object": "chat.completion", "created": seconds(), "model": request["model"],
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }], "usage": usage() })
}

fn answer_json(writer: &mut impl Write, status: &str, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn answer_stream(writer: &mut impl Write, request: &Value) -> io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let words = if request["messages"][0]["content"] == ENDLESS { usize::MAX } else { WORDS.len() };
    for word in WORDS.iter().cycle().take(words) {
        let choices = json!([{ "index": 0, "delta": { "content": word }, "finish_reason": null }]);
        event(writer, &chunk(request, choices, Value::Null).to_string())?;
        std::thread::sleep(PAUSE);
    }
    let choices = json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]);
    event(writer, &chunk(request, choices, Value::Null).to_string())?;
    if request["stream_options"]["include_usage"] == true {
        event(writer, &chunk(request, json!([]), usage()).to_string())?;
    }
    event(writer, "[DONE]")?;
    write!(writer, "0\r\n\r\n")
}

fn chunk(request: &Value, choices: Value, usage: Value) -> Value {
    json!({ "id": "chatcmpl-demo", "object": "chat.completion.chunk", "created": seconds(),
            "model": request["model"], "choices": choices, "usage": usage })
}

fn event(writer: &mut impl Write, data: &str) -> io::Result<()> {
    let event = format!("data: {data}\n\n");
    write!(writer, "{:x}\r\n{event}\r\n", event.len())?;
    writer.flush()
}
