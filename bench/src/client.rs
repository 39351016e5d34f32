//! One keep-alive HTTP/1.1 connection, as thin as it can be: what the load generator adds to a latency is
//! added to every subject's alike, so it should be little.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clock::monotonic_ns;
use crate::http::ResponseDecoder;

const READ_BYTES: usize = 64 << 10;
/// How much of an answer an error message quotes.
const EXCERPT_BYTES: usize = 300;

/// Asks whoever listens at `address` for nothing in particular, and waits until anything is answered.
pub(crate) async fn any_answer(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("cannot send the request")?;
    ensure!(stream.read(&mut [0; 64]).await.context("cannot read the answer")? > 0, "no answer");
    Ok(())
}

#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    decoder: ResponseDecoder,
    excerpt: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: vec![0; READ_BYTES],
            decoder: ResponseDecoder::default(),
            excerpt: Vec::new(),
        }
    }

    /// Connects ahead of the first request, so that its latency holds no connection set-up.
    pub(crate) async fn connect(&mut self) -> Result<()> {
        if self.stream.is_none() {
            let address = self.address;
            let stream =
                TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
            stream.set_nodelay(true).context("cannot set nodelay")?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Sends `request` and hands on the payload of its answer, with the time of each read. An answer other
    /// than 200 is an error that quotes it. After an error the next exchange connects anew.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        on_payload: &mut impl FnMut(&[u8], u64),
    ) -> Result<()> {
        self.connect().await?;
        let mut stream = self.stream.take().context("connected above")?;
        self.decoder.reset();
        self.excerpt.clear();
        stream.write_all(request).await.context("cannot send the request")?;
        self.receive(&mut stream, on_payload).await?;
        let head = self.decoder.head().context("answer without a head")?;
        if !head.closes {
            self.stream = Some(stream);
        }
        let quoted = String::from_utf8_lossy(&self.excerpt);
        ensure!(head.status == 200, "answered {}: {quoted}", head.status);
        Ok(())
    }

    async fn receive(
        &mut self,
        stream: &mut TcpStream,
        on_payload: &mut impl FnMut(&[u8], u64),
    ) -> Result<()> {
        loop {
            let length = stream.read(&mut self.buffer).await.context("cannot read the answer")?;
            let read_ns = monotonic_ns();
            if length == 0 {
                let quoted = String::from_utf8_lossy(&self.excerpt);
                bail!("connection closed before the end of the answer; it began: {quoted}");
            }
            let excerpt = &mut self.excerpt;
            let is_done = self.decoder.feed(&self.buffer[..length], &mut |payload: &[u8]| {
                let wanted = (EXCERPT_BYTES - excerpt.len()).min(payload.len());
                excerpt.extend_from_slice(&payload[..wanted]);
                on_payload(payload, read_ns);
            })?;
            if is_done {
                return Ok(());
            }
        }
    }
}
