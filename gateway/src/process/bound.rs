//! Everything that a daemon listens on: bound before it serves anything, or taken over from the one before it.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::caller::listen::{Listener, bind_tcp, bind_unix};
use crate::config::{Config, Metrics};
use crate::process::home::Home;
use crate::process::server::ServeError;

/// Everything that is listened on.
pub(super) struct Bound {
    tcp: TcpListener,
    data: UnixListener,
    control: UnixListener,
    /// Where figures are shown.
    metrics: Option<TcpListener>,
    names: SocketNames,
    pub(super) address: SocketAddr,
    /// What could not be bound and is not needed.
    pub(super) notes: Vec<String>,
}

/// The names of the data socket and the control socket.
pub(super) type SocketNames = [SocketName; 2];

/// The name of a socket that this process bound. It is removed when the daemon ends, or does not get to serve.
pub(super) struct SocketName(Option<PathBuf>);

/// Listeners that connections can be accepted from; they end when they are dropped, and what is bound stays bound.
pub(super) struct Listeners {
    pub(super) data: [Listener; 2],
    pub(super) control: tokio::net::UnixListener,
    pub(super) metrics: Option<tokio::net::TcpListener>,
}

impl Drop for SocketName {
    fn drop(&mut self) {
        // A socket that is gone already is as good as one removed.
        let _ = self.0.take().map(std::fs::remove_file);
    }
}

impl Bound {
    /// Binds what the configuration names.
    pub(super) fn new(config: &Config, home: &Home) -> Result<Self, ServeError> {
        let [socket, control_socket] = Self::names(config, home);
        let tcp = bind_tcp(config.daemon.listen)?;
        let data = bind_unix(&socket, 0o660)?;
        let data_name = SocketName(Some(socket));
        let control = bind_unix(&control_socket, 0o600)?;
        let names = [data_name, SocketName(Some(control_socket))];
        let (metrics, notes) = bind_metrics(&config.metrics)?;
        let address = address_of(&tcp)?;
        Ok(Self { tcp, data, control, metrics, names, address, notes })
    }

    /// What another process bound and handed over, in the order of [`Bound::descriptors`]. The names become this
    /// process's with [`Bound::own_names`].
    ///
    /// # Errors
    /// [`ServeError::Handover`] when it is not what the configuration names.
    pub(super) fn handed_over(descriptors: Vec<OwnedFd>, config: &Config) -> Result<Self, ServeError> {
        let mut descriptors = descriptors.into_iter();
        let [Some(tcp), Some(data), Some(control)] = std::array::from_fn(|_| descriptors.next()) else {
            return Err(ServeError::Handover { reason: "the listeners did not come".to_owned() });
        };
        let tcp = TcpListener::from(tcp);
        let address = address_of(&tcp)?;
        let wanted = config.daemon.listen;
        let is_wanted =
            wanted.ip() == address.ip() && (wanted.port() == 0 || wanted.port() == address.port());
        let data = UnixListener::from(data);
        let socket = data.local_addr().ok().and_then(|at| at.as_pathname().map(PathBuf::from));
        if !is_wanted || socket.as_deref() != Some(&config.daemon.socket_path) {
            let reason = "the configuration names other addresses than are served".to_owned();
            return Err(ServeError::Handover { reason });
        }
        let metrics = descriptors.next().map(TcpListener::from);
        let control = UnixListener::from(control);
        let names = [SocketName(None), SocketName(None)];
        Ok(Self { tcp, data, control, metrics, names, address, notes: Vec::new() })
    }

    fn names(config: &Config, home: &Home) -> [PathBuf; 2] {
        [config.daemon.socket_path.clone(), home.control_socket()]
    }

    /// From here on the names of the sockets are removed when this process ends.
    pub(super) fn own_names(&mut self, config: &Config, home: &Home) {
        self.names = Self::names(config, home).map(|name| SocketName(Some(name)));
    }

    /// From here on the names of the sockets are another process's.
    pub(super) fn give_away(&mut self) {
        self.names.iter_mut().for_each(|name| name.0 = None);
    }

    /// Listens no more. The names go when what is answered is dropped.
    pub(super) fn close(self) -> SocketNames {
        self.names
    }

    /// Everything that another process needs to listen in this one's place.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let all = [self.tcp.as_fd(), self.data.as_fd(), self.control.as_fd()];
        all.into_iter().chain(self.metrics.as_ref().map(TcpListener::as_fd)).collect()
    }

    /// Where figures are shown, if anywhere.
    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Listeners for the runtime to accept from.
    pub(super) fn listeners(&self) -> Result<Listeners, ServeError> {
        let make = || {
            let tcp = tokio::net::TcpListener::from_std(self.tcp.try_clone()?)?;
            let data = tokio::net::UnixListener::from_std(self.data.try_clone()?)?;
            let control = tokio::net::UnixListener::from_std(self.control.try_clone()?)?;
            let metrics = match &self.metrics {
                Some(listener) => Some(tokio::net::TcpListener::from_std(listener.try_clone()?)?),
                None => None,
            };
            Ok(Listeners { data: [Listener::Tcp(tcp), Listener::Unix(data)], control, metrics })
        };
        make().map_err(|source| ServeError::Io { doing: "listen on what is bound", source })
    }
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Io { doing: "read the bound address", source })
}

/// Binds the listener for figures. An address that nobody asked for is done without where it is taken, and that is told.
fn bind_metrics(config: &Metrics) -> Result<(Option<TcpListener>, Vec<String>), ServeError> {
    let Some(wanted) = config.listen else { return Ok((None, Vec::new())) };
    match bind_tcp(wanted) {
        Ok(listener) => Ok((Some(listener), Vec::new())),
        Err(_) if !config.is_set => {
            let note = format!("{wanted} is taken, so no figures are shown; set `metrics.listen`");
            Ok((None, vec![note]))
        }
        Err(error) => Err(error.into()),
    }
}
