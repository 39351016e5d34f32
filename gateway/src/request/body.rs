//! Hot: the request's body, read whole before anything is decided on it.
//!
//! The engine replays to the provider only what its own buffer of 64 KiB holds, and a longer body that was read
//! early would be lost. So the body is kept here, and just the tail of it is let into that buffer: the engine
//! then replays once, and `request_body_filter` puts the whole body in the place of the tail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use pingora::proxy::Session;
use policy::{Denial, DenialCode};

use crate::config::Limits;
use crate::state::Shared;

/// The engine's replay buffer, a constant of its own; the one that it reads through is as large.
const REPLAY_BYTES: u64 = 64 * 1024;
/// A body of a refused request is read to its end up to here, so that the caller gets to read the refusal.
const DRAINED_BYTES_MAX: u64 = 1024 * 1024;

/// A body held in memory.
#[derive(Debug, Default)]
pub(crate) struct StoredBody {
    pub(crate) bytes: Bytes,
    /// Where it is counted, once there is one.
    shared: Option<Arc<Shared>>,
}

/// Bytes with their share of the memory that all bodies may take: it is given back with the last that refers to them,
/// which may be the engine, while it still sends them.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    _share: MemoryShare,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
struct MemoryShare {
    shared: Arc<Shared>,
    bytes: u64,
}

impl MemoryShare {
    /// Makes room in `body` for `more` bytes, and takes what that is. A body is charged as it arrives, so that announcing a
    /// large one takes nothing from others; but for all that it takes up, which is up to twice of what has arrived, and
    /// what the engine has beside it.
    fn make_room(
        &mut self,
        body: &mut Vec<u8>,
        more: usize,
        expected: u64,
        memory_max: u64,
    ) -> Result<(), Denial> {
        let needed = body.len() + more;
        if needed <= body.capacity() {
            return Ok(());
        }
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        let room = needed.max(expected.min(body.capacity().saturating_mul(2)));
        self.take(taken_up_by(room) - taken_up_by(body.capacity()), memory_max)?;
        body.reserve_exact(room - body.len());
        Ok(())
    }

    /// Counts more, and answers what there was before.
    fn add(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.shared.buffered_bytes.fetch_add(bytes, Ordering::Relaxed)
    }

    fn take(&mut self, bytes: u64, memory_max: u64) -> Result<(), Denial> {
        let before = self.add(bytes);
        if before.saturating_add(bytes) > memory_max {
            return Err(Denial::new(DenialCode::Overloaded, "the memory for request bodies is used up"));
        }
        Ok(())
    }
}

/// What a body in so much room takes up: the engine has the last of it twice more, where it is read and where it is replayed.
fn taken_up_by(room: usize) -> u64 {
    let room = room as u64;
    room + 2 * room.min(REPLAY_BYTES)
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shared.buffered_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl StoredBody {
    fn new(bytes: Vec<u8>, share: MemoryShare) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        let shared = Some(share.shared.clone());
        Self { bytes: Bytes::from_owner(Counted { bytes, _share: share }), shared }
    }

    /// Other bytes in the place of these, a few more or less. They are counted and not refused: the body is admitted.
    pub(crate) fn replace(&mut self, bytes: Vec<u8>) {
        let Some(shared) = self.shared.clone() else { return self.bytes = bytes.into() };
        let mut share = MemoryShare { shared, bytes: 0 };
        share.add(taken_up_by(bytes.capacity()));
        *self = Self::new(bytes, share);
    }

    /// Lets go of the bytes once the provider has the body.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }
}

/// Reads the whole body.
///
/// # Errors
/// A [`Denial`] when it is larger than allowed, compressed, too slow, or when memory for bodies is used up.
pub(crate) async fn read(
    session: &mut Session,
    shared: &Arc<Shared>,
    limits: &Limits,
) -> Result<StoredBody, Denial> {
    let headers = &session.req_header().headers;
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Denial::new(DenialCode::UnsupportedMedia, "compressed request bodies are not served"));
    }
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let bytes_max = limits.request_body_bytes;
    let (expected, hint) = if is_chunked {
        (REPLAY_BYTES.min(bytes_max), "send a Content-Length: a body in chunks may have 64 KiB")
    } else {
        (content_length(session), "limits.request_body in config.toml")
    };
    let too_large = || {
        let message = format!("the request body is larger than {} bytes", expected.min(bytes_max));
        Denial::new(DenialCode::RequestTooLarge, message).with_hint(hint)
    };
    if expected > bytes_max {
        return Err(too_large());
    }
    if expects_continue(session) {
        session.write_continue_response().await.map_err(|_| gone())?;
    }
    let mut share = MemoryShare { shared: shared.clone(), bytes: 0 };
    let reading = collect(session, &mut share, expected, limits.memory_bytes);
    let too_slow = |_| Denial::new(DenialCode::RequestTimeout, "the body of the request took too long");
    let bytes = tokio::time::timeout(limits.body_timeout, reading).await.map_err(too_slow)??;
    if bytes.len() as u64 > expected {
        return Err(too_large());
    }
    Ok(StoredBody::new(bytes, share))
}

/// Collects the body to its end, or to just beyond `expected` bytes. Only the tail of it goes through the engine's
/// replay buffer, see above.
async fn collect(
    session: &mut Session,
    share: &mut MemoryShare,
    expected: u64,
    memory_max: u64,
) -> Result<Vec<u8>, Denial> {
    let mut body = Vec::new();
    while body.len() as u64 <= expected {
        if expected - body.len() as u64 <= REPLAY_BYTES {
            session.enable_retry_buffering();
        }
        match session.downstream_session.read_request_body().await {
            Ok(Some(chunk)) => {
                share.make_room(&mut body, chunk.len(), expected, memory_max)?;
                body.extend_from_slice(&chunk);
            }
            Ok(None) => break,
            Err(_) => return Err(gone()),
        }
    }
    Ok(body)
}

/// Reads and drops the rest of a refused request's body, if it is short.
pub(crate) async fn drain(session: &mut Session) {
    // A caller that waits to be told to send its body sends none when it is refused instead.
    if content_length(session) <= DRAINED_BYTES_MAX && !expects_continue(session) {
        session.set_total_drain_timeout(Some(Duration::from_secs(5)));
        // When it fails the connection is closed after the answer, which is all that could be done here.
        let _ = session.drain_request_body().await;
    }
}

fn content_length(session: &Session) -> u64 {
    let value = session.req_header().headers.get(header::CONTENT_LENGTH);
    value.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn expects_continue(session: &Session) -> bool {
    let expect = session.req_header().headers.get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn gone() -> Denial {
    Denial::new(DenialCode::RequestTimeout, "the connection ended before the body was complete")
}
