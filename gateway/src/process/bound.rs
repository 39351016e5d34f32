//! Everything that a daemon listens on, bound before it serves anything.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, UnixListener};

use crate::caller::listen::{Listener, bind_tcp, bind_unix};
use crate::config::{Config, Metrics};
use crate::process::home::Home;
use crate::process::server::ServeError;

/// Everything that is listened on, bound before anything is served.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) data: [Listener; 2],
    pub(super) control: UnixListener,
    pub(super) names: [SocketName; 2],
    /// Where figures are shown.
    pub(super) metrics: Option<(TcpListener, SocketAddr)>,
    /// What could not be bound and is not needed.
    pub(super) notes: Vec<String>,
}

/// The name of a socket that this process bound. It is removed when the daemon ends, or does not get to serve.
pub(super) struct SocketName(PathBuf);

impl Drop for SocketName {
    fn drop(&mut self) {
        // A socket that is gone already is as good as one removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    pub(super) fn new(config: &Config, home: &Home) -> Result<Self, ServeError> {
        let tcp = bind_tcp(config.daemon.listen)?;
        let address = address_of(&tcp)?;
        let socket_path = config.daemon.socket_path.clone();
        let unix = bind_unix(&socket_path, 0o660)?;
        let unix_name = SocketName(socket_path);
        let control = bind_unix(&home.control_socket(), 0o600)?;
        let names = [unix_name, SocketName(home.control_socket())];
        let (metrics, notes) = bind_metrics(&config.metrics)?;
        Ok(Self { address, data: [Listener::Tcp(tcp), Listener::Unix(unix)], control, names, metrics, notes })
    }
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Io { doing: "read the bound address", source })
}

type MetricsBound = (Option<(TcpListener, SocketAddr)>, Vec<String>);

/// Binds the listener for figures. An address that nobody asked for is done without where it is taken, and that is told.
fn bind_metrics(config: &Metrics) -> Result<MetricsBound, ServeError> {
    let Some(wanted) = config.listen else { return Ok((None, Vec::new())) };
    match bind_tcp(wanted) {
        Ok(listener) => {
            let address = address_of(&listener)?;
            Ok((Some((listener, address)), Vec::new()))
        }
        Err(_) if !config.is_set => {
            let note = format!("{wanted} is taken, so no figures are shown; set `metrics.listen`");
            Ok((None, vec![note]))
        }
        Err(error) => Err(error.into()),
    }
}
