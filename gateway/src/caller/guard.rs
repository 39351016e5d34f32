//! Hot: the stream between a caller's socket and the proxy engine.
//!
//! The engine reads what this lets through: a head only when it is complete and well-framed (`framing`), and
//! exactly as many body bytes as the head announced. A head that is not well-framed is answered here, and the
//! engine sees the end of the connection. So no byte reaches the engine whose meaning is in doubt, a head has
//! one deadline for all of it, and the next request of a connection cannot run into the one before.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use policy::{Denial, DenialCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::caller::connection::Connection;
use crate::caller::framing::{self, Arrived, BodyFraming};
use crate::caller::socket::Socket;

const READ_BYTES: usize = 8 * 1024;
const WRITE_BYTES: usize = 4 * 1024;
/// What a refused caller may still send before we close, so that it gets to read the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Answers a head that is refused before the engine sees it.
pub(crate) trait Refuse: Send + Sync {
    /// Records the refusal and returns the bytes of the whole response.
    fn refuse(&self, connection: &Connection, head: &[u8], denial: &Denial) -> Vec<u8>;
}

enum State {
    /// Collecting a head; everything up to `searched` holds no end of it.
    Head {
        searched: usize,
    },
    /// A checked head and its body are going through: this many bytes are left.
    Pass {
        left: u64,
    },
    /// A chunked body is going through; whatever follows it belongs to this request.
    PassAll,
    /// A refusal is being written, then what the caller still sends is dropped.
    Refusing {
        response: Vec<u8>,
        written: usize,
        dropped: usize,
    },
    Closed,
}

/// What a head may take up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadLimits {
    pub(crate) bytes_max: usize,
    /// From its first byte to its last.
    pub(crate) timeout: Duration,
}

pub(crate) struct Guard {
    stream: BufWriter<Socket>,
    connection: Arc<Connection>,
    refuser: Arc<dyn Refuse>,
    limits: HeadLimits,
    buffer: BytesMut,
    state: State,
    deadline: Option<Pin<Box<Sleep>>>,
    /// When something last went through, and whether the answer has begun.
    last_progress: Instant,
    has_answered: bool,
    /// Whether something was written since the last flush that came to its end.
    is_unflushed: bool,
    /// Looks at the progress now and then. It outlives requests, so that most of them never touch a timer.
    watchdog: Option<Pin<Box<Sleep>>>,
}

impl Guard {
    pub(crate) fn new(
        socket: Socket,
        connection: Arc<Connection>,
        refuser: Arc<dyn Refuse>,
        limits: HeadLimits,
    ) -> Self {
        Self {
            stream: BufWriter::with_capacity(WRITE_BYTES, socket),
            connection,
            refuser,
            limits,
            buffer: BytesMut::new(),
            state: State::Head { searched: 0 },
            deadline: None,
            last_progress: Instant::now(),
            has_answered: false,
            is_unflushed: false,
            watchdog: None,
        }
    }

    /// For a connection on which nothing is left to do but to say this. Reading from it does so.
    pub(crate) fn refusing(
        socket: Socket,
        connection: Arc<Connection>,
        refuser: Arc<dyn Refuse>,
        response: Vec<u8>,
    ) -> Self {
        let mut guard = Self::new(socket, connection, refuser, HeadLimits::default());
        guard.answer_last(response);
        guard
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Reads from the socket into the buffer. `Ok(0)` is the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ_BYTES);
        let stream = Pin::new(&mut self.stream);
        tokio_util::io::poll_read_buf(stream, cx, &mut self.buffer)
    }

    /// Collects a head until it is complete, then checks it and lets it through.
    fn poll_head(&mut self, cx: &mut Context<'_>, searched: usize) -> Poll<io::Result<Step>> {
        let is_awaited = self.connection.awaits_request();
        if is_awaited {
            match framing::look(&self.buffer, searched) {
                Arrived::Head(end) => {
                    self.finish_head(end);
                    return Poll::Ready(Ok(Step::Again));
                }
                Arrived::BareLineFeed => {
                    self.refuse(&framing::bare_line_ending());
                    return Poll::Ready(Ok(Step::Again));
                }
                Arrived::Part => {}
            }
        }
        let searched = if is_awaited { self.buffer.len() } else { searched };
        self.state = State::Head { searched };
        if self.buffer.len() >= self.limits.bytes_max {
            if !is_awaited {
                // Enough is kept back. The socket's waker is not registered: the engine polls again when it has
                // written, and reads on when it awaits the next request.
                return self.poll_ended(cx);
            }
            self.refuse_size();
            return Poll::Ready(Ok(Step::Again));
        }
        match self.poll_fill(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Step::End)),
            Poll::Ready(result) => Poll::Ready(result.map(|_| Step::Again)),
            Poll::Pending if is_awaited && !self.buffer.is_empty() => self.poll_head_deadline(cx),
            Poll::Pending if is_awaited => Poll::Pending,
            Poll::Pending => self.poll_ended(cx),
        }
    }

    /// Ends a request that was cut, or whose answer has kept the caller waiting for too long.
    fn poll_ended<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if let Some(due) = self.connection.lifeline.due() {
            ready!(self.poll_until(cx, due));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let Some(limit) = self.connection.answer_limit(self.has_answered) else { return Poll::Pending };
        ready!(self.poll_until(cx, self.last_progress + limit));
        self.connection.set_overdue();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Gives up a write that stays pending after the request was cut. A caller that reads slowly has a moment.
    fn poll_stuck<T>(&mut self, cx: &mut Context<'_>, is_torn: bool) -> Poll<io::Result<T>> {
        let Some(due) = self.connection.lifeline.write_due() else { return Poll::Pending };
        ready!(self.poll_until(cx, due));
        self.connection.lifeline.set_stuck(is_torn);
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        while Instant::now() < due {
            let watchdog = self.watchdog.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if watchdog.is_elapsed() || watchdog.deadline() > due {
                watchdog.as_mut().reset(due);
            }
            ready!(watchdog.as_mut().poll(cx));
        }
        Poll::Ready(())
    }

    fn finish_head(&mut self, end: usize) {
        self.deadline = None;
        (self.last_progress, self.has_answered) = (Instant::now(), false);
        self.connection.pass_request();
        if end > self.limits.bytes_max {
            return self.refuse_size();
        }
        match framing::check(&self.buffer[..end]) {
            Ok(BodyFraming::Length(length)) => {
                let head = u64::try_from(end).expect("a head is shorter than 2^64 bytes");
                self.state = State::Pass { left: head.saturating_add(length) };
            }
            Ok(BodyFraming::Chunked) => self.state = State::PassAll,
            Err(denial) => self.refuse(&denial),
        }
    }

    /// A head that is not complete has a deadline. Most heads arrive in one piece and never set one.
    fn poll_head_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        let timeout = self.limits.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        self.refuse(&Denial::new(DenialCode::RequestTimeout, "the head of the request took too long"));
        Poll::Ready(Ok(Step::Again))
    }

    fn refuse_size(&mut self) {
        let message = format!("the head is larger than {} bytes", self.limits.bytes_max);
        self.refuse(&Denial::new(DenialCode::HeaderTooLarge, message));
    }

    fn refuse(&mut self, denial: &Denial) {
        let response = self.refuser.refuse(&self.connection, &self.buffer, denial);
        self.buffer.clear();
        self.answer_last(response);
    }

    fn answer_last(&mut self, response: Vec<u8>) {
        self.deadline = Some(Box::pin(tokio::time::sleep(LINGER)));
        self.state = State::Refusing { response, written: 0, dropped: 0 };
    }

    /// Hands at most `left` bytes to the engine: first what is buffered, then straight from the socket.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<usize>> {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(out.remaining());
        if !self.buffer.is_empty() {
            let count = room.min(self.buffer.len());
            out.put_slice(&self.buffer[..count]);
            self.buffer.advance(count);
            return Poll::Ready(Ok(count));
        }
        let mut part = ReadBuf::new(out.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        out.advance(count);
        // A caller that was told to go on with its body has not been answered yet.
        (self.last_progress, self.has_answered) = (Instant::now(), false);
        Poll::Ready(Ok(count))
    }

    /// Remembers that a part of the answer went out, or looks whether it is still to be waited for.
    fn answered(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(_)) => {
                (self.last_progress, self.has_answered) = (Instant::now(), true);
                self.is_unflushed = true;
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.poll_stuck(cx, self.is_unflushed),
        }
        written
    }

    fn poll_refusing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Refusing { response, written, dropped } = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        // Also while it is written: a caller that never read what came before has no room for it.
        let is_over = self.deadline.as_mut().is_none_or(|deadline| deadline.as_mut().poll(cx).is_ready());
        if is_over {
            return Poll::Ready(Ok(()));
        }
        while *written < response.len() {
            *written += ready!(Pin::new(&mut self.stream).poll_write(cx, &response[*written..]))?;
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        let mut scratch = [0; 4096];
        while *dropped < LINGER_BYTES_MAX {
            let mut part = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut part)?;
            if read.is_ready() && part.filled().is_empty() {
                break;
            }
            if read.is_pending() {
                return Poll::Pending;
            }
            *dropped += part.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

enum Step {
    Again,
    End,
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guard = &mut *self;
        loop {
            match guard.state {
                State::Head { searched } => match ready!(guard.poll_head(cx, searched))? {
                    Step::Again => {}
                    Step::End => return Poll::Ready(Ok(())),
                },
                State::Pass { left: 0 } => guard.state = State::Head { searched: 0 },
                State::Pass { left } => {
                    let count = ready!(guard.poll_pass(cx, out, left))?;
                    let count = u64::try_from(count).expect("a count of bytes fits in 64 bits");
                    guard.state = State::Pass { left: left - count };
                    return Poll::Ready(Ok(()));
                }
                // Where a chunked body ends is not known here, so nothing may follow it on its connection.
                State::PassAll if guard.connection.awaits_request() => {
                    guard.state = State::Closed;
                }
                State::PassAll => match guard.poll_pass(cx, out, u64::MAX) {
                    Poll::Pending => return guard.poll_ended(cx),
                    Poll::Ready(result) => return Poll::Ready(result.map(|_| ())),
                },
                State::Refusing { .. } => {
                    let result = ready!(guard.poll_refusing(cx));
                    guard.state = State::Closed;
                    result?;
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.answered(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.answered(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        match flushed {
            Poll::Ready(Ok(())) => self.is_unflushed = false,
            Poll::Ready(Err(_)) => {}
            // What was written is kept whole, and something may follow it.
            Poll::Pending => return self.poll_stuck(cx, false),
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// When the request is being dropped before anything was answered, or ends in a panic, its caller can still be told why.
impl Drop for Guard {
    fn drop(&mut self) {
        if !self.has_answered
            && (self.connection.lifeline.is_lost() || std::thread::panicking())
            && let Ok(socket) = self.stream.get_ref().duplicate()
        {
            self.connection.lifeline.keep_socket(socket);
        }
    }
}

#[async_trait]
impl Shutdown for Guard {
    async fn shutdown(&mut self) {
        // The caller may be gone already; there is nobody left to tell.
        let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
    }
}

impl UniqueID for Guard {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().as_raw_fd()
    }
}

impl Ssl for Guard {}
impl Peek for Guard {}

impl GetTimingDigest for Guard {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Guard {
    fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Guard {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The engine prints its stream in debug messages; the buffer may hold a capability.
        f.debug_struct("Guard").field("connection", &self.connection).finish_non_exhaustive()
    }
}
