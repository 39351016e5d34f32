//! Whether a provider can be reached: its name is looked up and a connection is made. Nothing is sent.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gateway::catalogue::Provider;

/// Where a provider was reached.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) address: SocketAddr,
    /// Everything its name leads to.
    pub(crate) found: Vec<SocketAddr>,
    pub(crate) connect_us: u64,
}

/// Connects to the provider within its timeout. The error says what failed.
pub(crate) fn reach(provider: &Provider) -> Result<Reached, String> {
    let patience = provider.timeouts.connect;
    let found = look_up(provider.origin.host(), provider.origin.port(), patience)?;
    let mut last = "its name leads to no address".to_owned();
    for address in &found {
        let started = Instant::now();
        match TcpStream::connect_timeout(address, patience) {
            Ok(_) => {
                let connect_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                return Ok(Reached { address: *address, connect_us, found });
            }
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// The system's resolver takes no timeout, so it gets a thread, which is left to itself when it takes too long.
fn look_up(host: &str, port: u16, patience: Duration) -> Result<Vec<SocketAddr>, String> {
    let host = host.trim_matches(['[', ']']).to_owned();
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = host.clone();
    std::thread::spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // The receiver may have given up; then there is nobody to tell.
        let _ = sender.send(found);
    });
    match receiver.recv_timeout(patience) {
        Ok(Ok(mut found)) => {
            found.sort_by_key(SocketAddr::is_ipv6);
            found.dedup();
            Ok(found)
        }
        Ok(Err(error)) => Err(format!("the name {host} cannot be looked up: {error}")),
        Err(_) => Err(format!("looking up the name {host} took too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::config::Config;

    fn provider(port: u16) -> Config {
        let text = format!("[providers.mine]\nupstream = \"http://127.0.0.1:{port}\"\nlocal = true\n");
        Config::parse(&text, std::path::Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn a_server_is_reached_and_an_empty_port_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = provider(address.port());
        assert_eq!(reach(config.provider("mine").unwrap()).unwrap().address, address);
        drop(listener);
        let why = reach(config.provider("mine").unwrap()).unwrap_err();
        assert!(why.starts_with(&format!("{address}: ")), "{why}");
    }
}
