//! Carries connections from one socket to another. Whoever has no network reaches the gateway this way and no other:
//! SDKs speak TCP, and the only thing that leads out of a sandbox or a container is a Unix socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Connections that one way carries at once; each takes two of the thousand descriptors that a process mostly has.
const CONNECTIONS_MAX: usize = 400;
/// How long is waited where a connection cannot be accepted, for descriptors to come free.
const BREATHER: Duration = Duration::from_millis(100);

/// Where connections come in or go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A way from one endpoint to another, written `127.0.0.1:9471=/run/tokfence/gateway.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) listen: Endpoint,
    pub(crate) to: Endpoint,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        text.parse().map(Self::Tcp).map_err(|_| format!("`{text}` is neither an address nor a path"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, to) = text.split_once('=').ok_or_else(|| format!("`{text}` is not LISTEN=TO"))?;
        Ok(Self { listen: listen.parse()?, to: to.parse()? })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.listen, self.to)
    }
}

/// Listens on every way, and carries connections for as long as this process lives, on a thread of its own.
///
/// # Errors
/// The system's, when something cannot be listened on; then nothing is.
pub(crate) fn start(ways: &[Way]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let listeners = ways.iter().map(Listener::bind).collect::<io::Result<Vec<_>>>()?;
    drop(inside);
    let serve = move || {
        runtime.block_on(async {
            let served: Vec<_> =
                listeners.into_iter().map(|listener| tokio::spawn(listener.serve())).collect();
            for served in served {
                // It never ends by itself.
                let _ = served.await;
            }
        });
    };
    std::thread::Builder::new().name("relay".to_owned()).spawn(serve)?;
    Ok(())
}

/// Either kind of connection.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

struct Listener {
    socket: Socket,
    to: Endpoint,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(way: &Way) -> io::Result<Self> {
        let socket = match &way.listen {
            Endpoint::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Socket::Tcp(TcpListener::from_std(listener)?)
            }
            Endpoint::Unix(path) => {
                // One that a process which died left behind. Its folder is ours alone.
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Socket::Unix(listener)
            }
        };
        Ok(Self { socket, to: way.to.clone() })
    }

    async fn serve(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(place) = places.clone().acquire_owned().await {
            match self.socket.accept().await {
                Ok(from) => {
                    let to = self.to.clone();
                    tokio::spawn(async move {
                        carry(from, &to).await;
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(BREATHER).await,
            }
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(without_delay(listener.accept().await?.0)),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Carries one connection to its end. Where nobody listens on the other side it is closed, which callers take for what
/// it is: nobody is there.
async fn carry(mut from: Box<dyn Connection>, to: &Endpoint) {
    let connected: io::Result<Box<dyn Connection>> = match to {
        Endpoint::Tcp(address) => {
            TcpStream::connect(address).await.map(|to| Box::new(without_delay(to)) as _)
        }
        Endpoint::Unix(path) => UnixStream::connect(path).await.map(|to| Box::new(to) as _),
    };
    if let Ok(mut to) = connected {
        // Either end may break off; both are told by the close of what is dropped here.
        let _ = copy_bidirectional(&mut from, &mut to).await;
    }
}

/// What is carried was put into packets by its sender already.
fn without_delay(stream: TcpStream) -> TcpStream {
    // One that keeps its delay works as well.
    let _ = stream.set_nodelay(true);
    stream
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_way_is_read_as_it_is_written() {
        for text in ["127.0.0.1:9471=/run/a.sock", "/run/a.sock=127.0.0.1:1", "[::1]:9471=/a=b"] {
            assert_eq!(text.parse::<Way>().unwrap().to_string(), text);
        }
        for text in ["", "/a", "localhost:1=/a", "127.0.0.1=/a", "a=/b"] {
            assert!(text.parse::<Way>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_said_arrives_and_each_side_may_end_first() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("far.sock");
        let far = UnixListener::bind(&path).unwrap();
        let near = free_address();
        start(&[Way { listen: Endpoint::Tcp(near), to: Endpoint::Unix(path) }]).unwrap();
        let mut caller = TcpStream::connect(near).unwrap();
        caller.write_all(b"question").unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        let (mut called, _) = far.accept().unwrap();
        let mut text = String::new();
        called.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        called.write_all(b"answer").unwrap();
        drop(called);
        let mut text = String::new();
        caller.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }

    #[test]
    fn where_nobody_listens_the_connection_ends_and_later_ones_are_carried() {
        let place = tempfile::tempdir().unwrap();
        let (near, far) = (place.path().join("near.sock"), free_address());
        std::fs::write(&near, "left behind").unwrap();
        start(&[Way { listen: Endpoint::Unix(near.clone()), to: Endpoint::Tcp(far) }]).unwrap();
        assert_eq!(std::fs::metadata(&near).unwrap().permissions().mode() & 0o777, 0o600);
        let mut text = String::new();
        UnixStream::connect(&near).unwrap().read_to_string(&mut text).unwrap();
        let listener = TcpListener::bind(far).unwrap();
        let mut caller = UnixStream::connect(&near).unwrap();
        listener.accept().unwrap().0.write_all(b"hello").unwrap();
        caller.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn what_is_taken_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way {
            listen: Endpoint::Tcp(taken.local_addr().unwrap()),
            to: Endpoint::Unix(PathBuf::from("/nowhere")),
        };
        assert_eq!(start(&[way]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
