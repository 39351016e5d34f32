//! Hot: the request's body, read whole before anything is decided on it.
//!
//! The engine replays to the provider only what its own buffer of 64 KiB holds, and a longer body that was read
//! early would be lost. So the body is kept here, and just the tail of it is let into that buffer: the engine
//! then replays once, and `request_body_filter` puts the whole body in the place of the tail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::proxy::Session;
use policy::{Denial, DenialCode};

use crate::state::Shared;

/// The engine's replay buffer, a constant of its own.
const REPLAY_BYTES: u64 = 64 * 1024;
/// From the head to the last byte of the body. A single read has the engine's own deadline as well.
const BODY_DEADLINE: Duration = Duration::from_secs(120);
/// A body of a refused request is read to its end up to here, so that the caller gets to read the refusal.
const DRAINED_BYTES_MAX: u64 = 1024 * 1024;

/// A body held in memory, and its share of the memory that all bodies may take.
#[derive(Debug, Default)]
pub(crate) struct StoredBody {
    pub(crate) bytes: Bytes,
    share: Option<MemoryShare>,
}

#[derive(Debug)]
struct MemoryShare {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shared.buffered_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl StoredBody {
    /// The same share of memory with other bytes in it, a few more or less.
    pub(crate) fn replace(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes.into();
    }

    /// Lets go of bytes and share once the provider has the body.
    pub(crate) fn take(&mut self) -> Bytes {
        self.share = None;
        std::mem::take(&mut self.bytes)
    }
}

/// Reads the whole body.
///
/// # Errors
/// A [`Denial`] when it is larger than allowed, compressed, too slow, or when memory for bodies is used up.
pub(crate) async fn read(
    session: &mut Session,
    shared: &Arc<Shared>,
    bytes_max: u64,
    memory_max: u64,
) -> Result<StoredBody, Denial> {
    let headers = &session.req_header().headers;
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Denial::new(DenialCode::UnsupportedMedia, "compressed request bodies are not served"));
    }
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length = if is_chunked { REPLAY_BYTES } else { content_length(session) };
    if length == 0 {
        return Ok(StoredBody::default());
    }
    if length > bytes_max {
        let message = format!("the request body is larger than {bytes_max} bytes");
        return Err(Denial::new(DenialCode::RequestTooLarge, message).with_hint("limits.request_body"));
    }
    let share = share_memory(shared, length, memory_max)?;
    if is_chunked {
        // What follows a chunked body belongs to it as far as the guard knows, so nothing may follow.
        session.set_keepalive(None);
    }
    if headers_expect_continue(session) {
        session.write_continue_response().await.map_err(|_| gone())?;
    }
    let reading = async {
        let mut body = BytesMut::with_capacity(usize::try_from(length.min(1 << 20)).unwrap_or_default());
        loop {
            let read = u64::try_from(body.len()).unwrap_or(u64::MAX);
            if length.saturating_sub(read) <= REPLAY_BYTES {
                session.enable_retry_buffering();
            }
            match session.downstream_session.read_request_body().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body.freeze()),
                Err(_) => return Err(gone()),
            }
            if is_chunked && body.len() as u64 > REPLAY_BYTES {
                let message = format!("a body sent in chunks may have {REPLAY_BYTES} bytes at most");
                return Err(
                    Denial::new(DenialCode::RequestTooLarge, message).with_hint("send a Content-Length")
                );
            }
        }
    };
    let too_slow = |_| Denial::new(DenialCode::RequestTimeout, "the body of the request took too long");
    let bytes = tokio::time::timeout(BODY_DEADLINE, reading).await.map_err(too_slow)??;
    Ok(StoredBody { bytes, share: Some(share) })
}

/// Reads and drops the rest of a refused request's body, if it is short.
pub(crate) async fn drain(session: &mut Session) {
    // A caller that waits to be told to send its body sends none when it is refused instead.
    if content_length(session) <= DRAINED_BYTES_MAX && !headers_expect_continue(session) {
        session.set_total_drain_timeout(Some(Duration::from_secs(5)));
        // When it fails the connection is closed after the answer, which is all that could be done here.
        let _ = session.drain_request_body().await;
    }
}

fn share_memory(shared: &Arc<Shared>, bytes: u64, memory_max: u64) -> Result<MemoryShare, Denial> {
    let before = shared.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
    let share = MemoryShare { shared: shared.clone(), bytes };
    if before.saturating_add(bytes) > memory_max {
        return Err(Denial::new(DenialCode::Overloaded, "the memory for request bodies is used up"));
    }
    Ok(share)
}

fn content_length(session: &Session) -> u64 {
    let value = session.req_header().headers.get(header::CONTENT_LENGTH);
    value.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn headers_expect_continue(session: &Session) -> bool {
    let expect = session.req_header().headers.get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn gone() -> Denial {
    Denial::new(DenialCode::RequestTimeout, "the connection ended before the body was complete")
}
