//! A provider that answers at once and always the same: OpenAI chat completions and Anthropic messages, plain
//! and streamed, with the usage that their content implies. Answers are made at start, so that what is
//! measured behind a proxy is the proxy.

pub(crate) mod answer;

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::child::{Role, RoleArgs, announce};
use crate::clock::monotonic_ns;
use crate::http::{self, Body, Framing};
use crate::plan::{StreamPlan, Wire};
use answer::{Answers, StampedEvent, WireAnswers};

const READ_BYTES: usize = 64 << 10;
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 64 << 20;
const HEADERS_MAX: usize = 64;
const EVENTS_PER_WRITE: u32 = 8;

/// The credential that the provider accepts travels by environment: arguments are visible to every user.
const CREDENTIAL_ENV: &str = "BENCH_MOCK_CREDENTIAL";
/// What `spawn`'s provider demands. It has the shape of a provider's credential, so that the gateway treats
/// it as one; made up, and no row of zeros, which stand in the answers as well.
pub(crate) const CREDENTIAL: &str = "sk-bench-q7RzX2mVt9LbK4wPn8sYd3GhJ6fCa1Ue5oTiQw0Z";

#[derive(Debug, clap::Args)]
pub(crate) struct MockArgs {
    #[command(flatten)]
    role: RoleArgs,
    /// Refuse requests that do not carry this credential (401)
    #[arg(long, env = CREDENTIAL_ENV, hide_env_values = true)]
    credential: Option<String>,
}

/// Starts the provider as a process that demands `CREDENTIAL`.
pub(crate) async fn spawn() -> Result<Role> {
    Role::spawn("mock", &[], &[(CREDENTIAL_ENV, CREDENTIAL)]).await
}

pub(crate) fn run(args: &MockArgs) -> Result<()> {
    args.role.prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.role.threads)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: &MockArgs) -> Result<()> {
    let listen = args.role.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    announce(listener.local_addr().context("listener without an address")?)?;
    let provider = Arc::new(Provider { answers: Answers::new(), credential: args.credential.clone() });
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        let provider = Arc::clone(&provider);
        // A proxy may drop a connection at any time; that ends this connection and nothing else.
        tokio::spawn(async move { Caller::new(stream)?.serve(&provider).await });
    }
}

struct Provider {
    answers: Answers,
    credential: Option<String>,
}

impl Provider {
    fn admits(&self, headers: &[httparse::Header<'_>]) -> bool {
        let Some(want) = self.credential.as_deref() else { return true };
        let bearer = http::header(headers, "authorization").and_then(|value| value.strip_prefix(b"Bearer "));
        let given = bearer.or_else(|| http::header(headers, "x-api-key"));
        given == Some(want.as_bytes())
    }
}

struct Request {
    /// None: no such path.
    wire: Option<Wire>,
    is_admitted: bool,
    framing: Framing,
}

/// One connection, with what was read from it and not yet used.
struct Caller {
    stream: TcpStream,
    unread: Vec<u8>,
    body: Vec<u8>,
    /// A stream in one piece, and what was asked for it.
    whole: Option<((Wire, u32, bool), Vec<u8>)>,
}

impl Caller {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true).context("cannot set nodelay")?;
        Ok(Self { stream, unread: Vec::with_capacity(READ_BYTES), body: Vec::new(), whole: None })
    }

    async fn serve(mut self, provider: &Provider) -> Result<()> {
        while let Some(request) = self.read_head(provider).await? {
            self.read_body(request.framing).await?;
            match request.wire {
                _ if !request.is_admitted => self.write(answer::UNAUTHORIZED).await?,
                None => self.write(answer::NOT_FOUND).await?,
                Some(wire) => self.answer(wire, provider.answers.of(wire)).await?,
            }
        }
        Ok(())
    }

    async fn read_head(&mut self, provider: &Provider) -> Result<Option<Request>> {
        let head_len = loop {
            if let Some(length) = http::head_length(&self.unread) {
                break length;
            }
            ensure!(self.unread.len() <= HEAD_BYTES_MAX, "request head over {HEAD_BYTES_MAX} bytes");
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        };
        let request = parse_head(&self.unread[..head_len], provider)?;
        self.unread.drain(..head_len);
        Ok(Some(request))
    }

    async fn read_body(&mut self, framing: Framing) -> Result<()> {
        self.body.clear();
        let mut decoder = Body::of_request(framing);
        loop {
            let body = &mut self.body;
            let left = decoder.feed(&self.unread, &mut |payload| body.extend_from_slice(payload))?.len();
            self.unread.drain(..self.unread.len() - left);
            ensure!(self.body.len() <= BODY_BYTES_MAX, "request body over {BODY_BYTES_MAX} bytes");
            if decoder.is_done() {
                return Ok(());
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                bail!("connection closed within a body");
            }
        }
    }

    async fn answer(&mut self, wire: Wire, answers: &WireAnswers) -> Result<()> {
        if !answer::asks_for_stream(&self.body) {
            return self.write(&answers.json).await;
        }
        let plan = StreamPlan::from_body(&self.body);
        let has_usage = answer::asks_for_usage(wire, &self.body);
        if plan.is_whole {
            return self.write_whole(wire, answers, plan.events, has_usage).await;
        }
        self.write(&answers.opening).await?;
        self.write_events(plan, answers.event.clone()).await?;
        self.write(&answer::closing(wire, plan.events, has_usage)).await
    }

    /// Made once a connection: a load asks for the same stream all the time.
    async fn write_whole(
        &mut self,
        wire: Wire,
        answers: &WireAnswers,
        events: u32,
        has_usage: bool,
    ) -> Result<()> {
        let kind = (wire, events, has_usage);
        let stream = match self.whole.take() {
            Some((made, stream)) if made == kind => stream,
            _ => answer::whole(wire, answers, events, has_usage)?,
        };
        self.write(&stream).await?;
        self.whole = Some((kind, stream));
        Ok(())
    }

    async fn write_events(&mut self, plan: StreamPlan, event: StampedEvent) -> Result<()> {
        if plan.gap.is_zero() {
            self.write_unpaced(plan, event).await
        } else {
            self.write_paced(plan, event).await
        }
    }

    /// Each event is an HTTP chunk of its own, which is the work that a proxy has with it. Several go into one
    /// write, or the provider's system calls would limit the rate before a proxy does.
    async fn write_unpaced(&mut self, plan: StreamPlan, mut event: StampedEvent) -> Result<()> {
        let mut batch = Vec::new();
        for at in 1..=plan.events {
            batch.extend_from_slice(event.stamped(monotonic_ns()));
            if at % EVENTS_PER_WRITE == 0 || at == plan.events {
                self.write(&batch).await?;
                batch.clear();
            }
        }
        Ok(())
    }

    /// One write for each event, as a provider sends them while it generates.
    async fn write_paced(&mut self, plan: StreamPlan, mut event: StampedEvent) -> Result<()> {
        let mut ticks = interval_at(Instant::now() + plan.gap, plan.gap);
        // An event that is late stays late; catching up would send a burst that no provider sends.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..plan.events {
            ticks.tick().await;
            self.write(event.stamped(monotonic_ns())).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context("connection closed within an answer")
    }
}

fn parse_head(bytes: &[u8], provider: &Provider) -> Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(bytes).context("unreadable request head")?;
    let path = request.path.unwrap_or("");
    let wire = [Wire::Openai, Wire::Anthropic].into_iter().find(|wire| path.starts_with(wire.path()));
    Ok(Request {
        wire,
        is_admitted: provider.admits(request.headers),
        framing: http::framing(request.headers)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str, credential: Option<&str>) -> Request {
        let provider = Provider { answers: Answers::new(), credential: credential.map(Into::into) };
        parse_head(head.as_bytes(), &provider).expect("readable")
    }

    #[test]
    fn a_path_chooses_the_wire() {
        let wire = |path: &str| parsed(&format!("POST {path} HTTP/1.1\r\n\r\n"), None).wire;
        assert_eq!(wire("/v1/chat/completions"), Some(Wire::Openai));
        assert_eq!(wire("/v1/messages?beta=true"), Some(Wire::Anthropic));
        assert_eq!(wire("/v1/models"), None);
    }

    #[test]
    fn a_request_needs_the_credential_if_there_is_one() {
        let admitted = |headers: &str| {
            parsed(&format!("POST /v1/messages HTTP/1.1\r\n{headers}\r\n"), Some("sk-1")).is_admitted
        };
        assert!(admitted("Authorization: Bearer sk-1\r\n"));
        assert!(admitted("x-api-key: sk-1\r\n"));
        assert!(!admitted("Authorization: Bearer sk-2\r\n"));
        assert!(!admitted(""));
    }
}
