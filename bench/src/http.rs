//! HTTP/1.1 framing, as little as the load generator and the mock provider need, without I/O. A response is
//! decoded as it arrives and its end is found by its framing, not by its last bytes: a proxy may cut chunks
//! anywhere, and a load generator that guesses the end measures its guess.

use anyhow::{Context, Result, bail, ensure};

const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 << 10;
const CHUNK_LINE_BYTES_MAX: usize = 1 << 10;

/// The framing of a message, from its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// Neither length nor chunks: no body in a request, refused in a response (its end would be a close).
    Unstated,
}

/// What the load generator wants to know of a response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) closes: bool,
}

/// One response, decoded from bytes in whatever pieces they arrive.
#[derive(Debug, Default)]
pub(crate) struct ResponseDecoder {
    head_bytes: Vec<u8>,
    head: Option<ResponseHead>,
    body: Body,
}

impl ResponseDecoder {
    /// Takes the next bytes and hands payload to `on_payload`; true once the response is complete.
    pub(crate) fn feed(&mut self, mut data: &[u8], on_payload: &mut impl FnMut(&[u8])) -> Result<bool> {
        if self.head.is_none() {
            let before = self.head_bytes.len();
            self.head_bytes.extend_from_slice(data);
            let Some(head_len) = head_length(&self.head_bytes) else {
                ensure!(self.head_bytes.len() <= HEAD_BYTES_MAX, "response head over {HEAD_BYTES_MAX} bytes");
                return Ok(false);
            };
            let (head, framing) = parse_response_head(&self.head_bytes[..head_len])?;
            self.head = Some(head);
            self.body = Body::new(framing)?;
            data = &data[head_len - before..];
        }
        let rest = self.body.feed(data, on_payload)?;
        ensure!(rest.is_empty(), "{} bytes after the end of the response", rest.len());
        Ok(matches!(self.body, Body::Done))
    }

    pub(crate) fn head(&self) -> Option<ResponseHead> {
        self.head
    }

    /// Ready for the next response, keeping its buffers.
    pub(crate) fn reset(&mut self) {
        self.head_bytes.clear();
        self.head = None;
        self.body = Body::default();
    }
}

/// Where in a body the decoder stands.
#[derive(Debug, Default)]
pub(crate) enum Body {
    Length(u64),
    ChunkLine(Vec<u8>),
    ChunkData(u64),
    /// The line end that follows a chunk's data, so many bytes of it still to come.
    ChunkEnd(u8),
    /// After the last chunk: trailer lines up to an empty one.
    Trailer(Vec<u8>),
    #[default]
    Done,
}

impl Body {
    fn new(framing: Framing) -> Result<Self> {
        match framing {
            Framing::Length(0) => Ok(Self::Done),
            Framing::Length(length) => Ok(Self::Length(length)),
            Framing::Chunked => Ok(Self::ChunkLine(Vec::new())),
            Framing::Unstated => bail!("response has neither content-length nor chunked framing"),
        }
    }

    /// The body of a request: one without framing is empty.
    pub(crate) fn of_request(framing: Framing) -> Self {
        Self::new(framing).unwrap_or(Self::Done)
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes what belongs to this body from the front of `data` and returns the rest.
    pub(crate) fn feed<'a>(
        &mut self,
        mut data: &'a [u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<&'a [u8]> {
        while !data.is_empty() {
            match self {
                Self::Done => break,
                Self::Length(left) => {
                    if take_payload(left, &mut data, on_payload) {
                        *self = Self::Done;
                    }
                }
                Self::ChunkData(left) => {
                    if take_payload(left, &mut data, on_payload) {
                        *self = Self::ChunkEnd(2);
                    }
                }
                Self::ChunkEnd(left) => {
                    data = &data[1..];
                    *left -= 1;
                    if *left == 0 {
                        *self = Self::ChunkLine(Vec::new());
                    }
                }
                Self::ChunkLine(line) => {
                    if take_line(line, &mut data)? {
                        *self = match parse_chunk_size(line)? {
                            0 => Self::Trailer(Vec::new()),
                            size => Self::ChunkData(size),
                        };
                    }
                }
                Self::Trailer(line) => {
                    if take_line(line, &mut data)? {
                        if line.is_empty() {
                            *self = Self::Done;
                        } else {
                            line.clear();
                        }
                    }
                }
            }
        }
        Ok(data)
    }
}

/// Moves up to `left` bytes to the payload; true when none are left.
fn take_payload(left: &mut u64, data: &mut &[u8], on_payload: &mut impl FnMut(&[u8])) -> bool {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
    let (payload, rest) = data.split_at(length);
    on_payload(payload);
    *data = rest;
    *left -= length as u64;
    *left == 0
}

/// Adds to `line` up to the next line end; true when the line is complete, without its end.
fn take_line(line: &mut Vec<u8>, data: &mut &[u8]) -> Result<bool> {
    let end = memchr::memchr(b'\n', data);
    let length = end.unwrap_or(data.len());
    line.extend_from_slice(&data[..length]);
    ensure!(line.len() <= CHUNK_LINE_BYTES_MAX, "chunk line over {CHUNK_LINE_BYTES_MAX} bytes");
    *data = &data[end.map_or(length, |at| at + 1)..];
    if end.is_some() && line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(end.is_some())
}

fn parse_chunk_size(line: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(line).context("chunk line is not text")?;
    let digits = text.split(';').next().unwrap_or(text).trim();
    u64::from_str_radix(digits, 16).with_context(|| format!("bad chunk size {digits:?}"))
}

/// The length of a message's head with its final empty line, if it is complete.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

fn parse_response_head(bytes: &[u8]) -> Result<(ResponseHead, Framing)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(bytes).context("unreadable response head")?;
    let status = response.code.context("response head without a status")?;
    let closes = header(response.headers, "connection").is_some_and(|v| v.eq_ignore_ascii_case(b"close"));
    Ok((ResponseHead { status, closes }, framing(response.headers)?))
}

/// The framing that `headers` state.
pub(crate) fn framing(headers: &[httparse::Header<'_>]) -> Result<Framing> {
    if header(headers, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case(b"chunked")) {
        return Ok(Framing::Chunked);
    }
    let Some(length) = header(headers, "content-length") else { return Ok(Framing::Unstated) };
    let text = std::str::from_utf8(length).context("content-length is not text")?;
    text.trim().parse().map(Framing::Length).with_context(|| format!("bad content-length {text:?}"))
}

/// The value of the first header called `name`.
pub(crate) fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `wire` in pieces of `piece` bytes.
    fn decode(wire: &[u8], piece: usize) -> Result<(bool, Option<ResponseHead>, Vec<u8>)> {
        let mut decoder = ResponseDecoder::default();
        let mut payload = Vec::new();
        let mut done = false;
        for part in wire.chunks(piece) {
            done = decoder.feed(part, &mut |bytes| payload.extend_from_slice(bytes))?;
        }
        Ok((done, decoder.head(), payload))
    }

    #[track_caller]
    fn check_payload(wire: &[u8], want: &[u8]) {
        for piece in 1..=wire.len() {
            let (done, head, payload) = decode(wire, piece).expect("decodes");
            assert!(done, "complete in pieces of {piece}");
            assert_eq!(head.map(|h| h.status), Some(200));
            assert_eq!(payload, want, "in pieces of {piece}");
        }
    }

    #[track_caller]
    fn check_refused(wire: &[u8], want: &str) {
        let error = decode(wire, wire.len()).expect_err("refused");
        assert!(format!("{error:#}").contains(want), "{error:#}");
    }

    #[test]
    fn a_body_ends_by_its_length_however_it_is_cut() {
        check_payload(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello");
        check_payload(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"");
    }

    #[test]
    fn a_body_ends_by_its_last_chunk_however_it_is_cut() {
        check_payload(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, 0\r\n\r\n :)\r\n0\r\n\r\n",
            b"hello, 0\r\n\r\n :)",
        );
        check_payload(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nEtag: 1\r\n\r\n",
            b"x",
        );
    }

    #[test]
    fn an_unfinished_response_is_not_done() {
        let (done, _, payload) =
            decode(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", 7).expect("decodes");
        assert!(!done);
        assert_eq!(payload, b"hel");
    }

    #[test]
    fn what_cannot_be_framed_is_refused() {
        check_refused(b"HTTP/1.1 200 OK\r\n\r\nhello", "neither");
        check_refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello", "4 bytes after the end");
        check_refused(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "bad chunk size");
        check_refused(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "bad content-length");
        check_refused(b"nonsense\r\n\r\n", "unreadable");
    }

    #[test]
    fn a_head_tells_status_and_close() {
        let (_, head, _) = decode(b"HTTP/1.1 502 Bad\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 9)
            .expect("decodes");
        assert_eq!(head, Some(ResponseHead { status: 502, closes: true }));
    }

    #[test]
    fn a_decoder_can_be_reused() {
        let mut decoder = ResponseDecoder::default();
        for _ in 0..2 {
            let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            assert!(decoder.feed(wire, &mut |_| ()).expect("decodes"));
            decoder.reset();
            assert!(decoder.head().is_none());
        }
    }

    #[test]
    fn a_request_body_leaves_the_next_request_alone() {
        let mut body = Body::of_request(Framing::Length(3));
        let rest = body.feed(b"abcPOST", &mut |_| ()).expect("decodes");
        assert_eq!(rest, b"POST");
        assert!(body.is_done());
        assert!(Body::of_request(Framing::Unstated).is_done());
    }
}
