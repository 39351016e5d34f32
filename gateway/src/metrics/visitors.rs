//! The connections of those who look at figures: few, and none for long. They share the process's open files with those
//! who send requests, and must not be able to use them up.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

const VISITORS_MAX: usize = 64;
/// After this long a connection ends, whatever it is about: a scrape takes a moment, and who keeps its connection for
/// the next one makes another.
const STAY_MAX: Duration = Duration::from_secs(60);

/// A listener that accepts no more than it has places for; who finds none is closed at once.
pub(crate) struct Visitors {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

/// A connection that ends by itself.
pub(crate) struct Visitor {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Visitors {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(VISITORS_MAX)) }
    }
}

impl axum::serve::Listener for Visitors {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                let end = Box::pin(tokio::time::sleep(STAY_MAX));
                return (Visitor { stream, end, _place: place }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Visitor {
    /// Fails what would wait, once the time is over.
    fn poll_end<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, out);
        self.poll_end(cx, read)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.poll_end(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.poll_end(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.poll_end(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::serve::Listener;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn visitors_are_few_and_none_stays_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut visitors = Visitors::new(listener);
        let connect = || std::net::TcpStream::connect(address).unwrap();
        let mut callers = Vec::new();
        let mut inside = Vec::new();
        for _ in 0..VISITORS_MAX {
            callers.push(connect());
            inside.push(visitors.accept().await.0);
        }
        let mut refused = connect();
        let moment = Duration::from_millis(1);
        assert!(tokio::time::timeout(moment, visitors.accept()).await.is_err(), "there is no place");
        assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0);

        let error = inside[0].read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        inside.pop();
        callers.push(connect());
        visitors.accept().await;
    }
}
