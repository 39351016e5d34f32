//! The data listeners: TCP and the Unix socket. An accept loop of our own, because the engine's tells neither
//! the port it bound nor the process at the other end of a socket, and hands over bytes nobody has looked at.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use policy::Denial;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Semaphore;

use crate::caller::connection::Connection;
use crate::caller::guard::{Guard, HeadLimits, Refuse};
use crate::caller::lifeline::Lost;
use crate::caller::places::{Held, Peer, Places};
use crate::caller::socket::Socket;
use crate::request::context::refused_head;
use crate::request::proxy::Gateway;
use crate::request::respond;
use crate::state::{Shared, now_us};

const BACKLOG: u32 = 1024;
/// A connection that says nothing is closed after this many seconds.
const FIRST_BYTE_SECONDS: u64 = 60;

/// How many connections for which there is no place are answered at the same time; more are just closed.
pub(crate) const TURNED_AWAY_MAX: usize = 64;
/// How long the answer to a request that was dropped may take.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The TCP address.
    #[error("cannot listen on {address}")]
    Tcp {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The Unix socket.
    #[error("cannot listen on {}", path.display())]
    Unix {
        /// Which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else has the socket's name.
    #[error("{} is not a socket, so it is left alone", path.display())]
    NotASocket {
        /// Which path.
        path: PathBuf,
    },
    /// Another process answers on the socket.
    #[error("another process serves {}", path.display())]
    InUse {
        /// Which path.
        path: PathBuf,
    },
}

/// A bound address of either kind.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Accepts connections and serves them.
pub(crate) struct Acceptor {
    pub(crate) proxy: Arc<HttpProxy<Gateway>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) shutdown: ShutdownWatch,
    pub(crate) places: Arc<Places>,
    /// Room for those who have none.
    pub(crate) turned_away: Arc<Semaphore>,
    pub(crate) head_limits: HeadLimits,
}

/// Binds the TCP address. A taken port is an error at once: nobody should serve half of what was asked for.
pub(crate) fn bind_tcp(address: SocketAddr) -> Result<std::net::TcpListener, ListenError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bind().map_err(|source| ListenError::Tcp { address, source })
}

/// Binds a Unix socket with the given permission bits. A socket that nobody answers on any more is replaced;
/// one that somebody serves, or a file that is none, is left alone.
pub(crate) fn bind_unix(path: &Path, mode: u32) -> Result<std::os::unix::net::UnixListener, ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) | Err(_) => return Err(ListenError::InUse { path: path.to_owned() }),
        },
    }
    // The process's umask is 077, so there is no moment of wider access.
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

impl Listener {
    /// The next connection, and what its socket tells about its other end.
    async fn accept(&self) -> io::Result<(Socket, Peer, Connection)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Small writes must not wait for an acknowledgement: events are small. It fails on a connection
                // that is gone already, which shows by itself.
                let _ = stream.set_nodelay(true);
                let connection = Connection::tcp(peer.ip().to_canonical().is_loopback());
                Ok((Socket::Tcp(stream), Peer::at(peer.ip()), connection))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().ok();
                let pid = peer.and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
                let user = peer.map(|peer| peer.uid());
                Ok((Socket::Unix(stream), Peer::User(user), Connection::unix(pid, user)))
            }
        }
    }
}

impl Acceptor {
    /// Whether anybody is still connected, be it to be told that there is no place.
    pub(crate) fn has_connections(&self) -> bool {
        !self.places.are_free() || self.turned_away.available_permits() < TURNED_AWAY_MAX
    }

    /// Accepts connections until the task is dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok((socket, peer, connection)) => match self.places.take(peer) {
                    Ok(place) => self.clone().spawn(socket, connection, place),
                    Err(denial) => self.turn_away(socket, connection, &denial),
                },
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Serves one connection in a task of its own.
    fn spawn(self: Arc<Self>, socket: Socket, connection: Connection, place: Held) {
        tokio::spawn(async move {
            self.serve(socket, Arc::new(connection)).await;
            drop(place);
        });
    }

    /// Tells a caller that there is no place for its connection, whatever it wants. When many are told already, it is
    /// closed without a word: saying no must not become the load.
    fn turn_away(&self, socket: Socket, connection: Connection, denial: &Denial) {
        let Ok(permit) = self.turned_away.clone().try_acquire_owned() else { return };
        let (refuser, connection) = (Arc::new(Refuser(self.shared.clone())), Arc::new(connection));
        let response = refuser.refuse(&connection, b"", denial);
        tokio::spawn(async move {
            say_last(socket, connection, refuser, response).await;
            drop(permit);
        });
    }

    /// The requests of one connection, one after the other.
    async fn serve(&self, socket: Socket, connection: Arc<Connection>) {
        let _entry = self.shared.live.enter(connection.clone());
        let refuser = Arc::new(Refuser(self.shared.clone()));
        let guard = Guard::new(socket, connection.clone(), refuser.clone(), self.head_limits);
        let mut session = ServerSession::new_http1(Box::new(guard));
        session.set_keepalive(Some(FIRST_BYTE_SECONDS));
        loop {
            let request = self.proxy.process_new_http(session, &self.shutdown);
            let reused = match connection.lifeline.hold(request).await {
                Ok(Some(reused)) => reused,
                Ok(None) => return,
                Err(lost) => return answer_lost(lost, connection, refuser).await,
            };
            let (stream, settings) = reused.consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            connection.await_request();
        }
    }
}

/// Tells the caller of a request that was dropped why, if nothing was answered yet.
async fn answer_lost(lost: Lost, connection: Arc<Connection>, refuser: Arc<Refuser>) {
    let Some(socket) = lost.socket else { return };
    let response = respond::raw(&lost.denial, lost.id);
    say_last(socket, connection, refuser, response).await;
}

/// Writes the last answer of a connection, and gives its caller a moment to read it.
async fn say_last(socket: Socket, connection: Arc<Connection>, refuser: Arc<Refuser>, response: Vec<u8>) {
    let mut guard = Guard::refusing(socket, connection, refuser, response);
    // A caller that neither reads nor leaves is left at some time.
    let _ = tokio::time::timeout(LAST_ANSWER, guard.read(&mut [0; 1])).await;
}

/// A failed `accept` is most often a lack of file descriptors, which trying again at once would not end.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

struct Refuser(Arc<Shared>);

impl Refuse for Refuser {
    fn refuse(&self, connection: &Connection, head: &[u8], denial: &Denial) -> Vec<u8> {
        let now = now_us();
        let id = self.0.new_request_id(now);
        let status = respond::status(denial.code());
        self.0.metrics.refused(denial.code());
        let watch = self.0.watch.load();
        self.0.ledger.record_refusal(refused_head(&watch, connection, id, now, head, denial, status));
        respond::raw(denial, id)
    }
}
