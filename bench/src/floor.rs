//! The floor: a reverse proxy with nothing in it but what Pingora brings, by which the gateway is judged. Its
//! threads, pool and retries are the gateway's; its listener and service are Pingora's own.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use pingora::listeners::{ListenerConfig, TcpSocketOptions};
use pingora::prelude::{HttpPeer, Server};
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::RunArgs;
use pingora::server::configuration::{Opt, ServerConf};
use tokio::net::TcpSocket;

use crate::child::{RoleArgs, announce};

/// Idle connections kept to the provider, for each thread.
const UPSTREAM_POOL_SIZE: usize = 1024;
const READY_POLL: Duration = Duration::from_millis(5);
const READY_WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    #[command(flatten)]
    role: RoleArgs,
    /// Address of the provider
    #[arg(long)]
    upstream: SocketAddr,
}

struct Floor {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Floor {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

pub(crate) fn run(args: &FloorArgs) -> Result<()> {
    args.role.prepare()?;
    let reserved = reserve(args.role.listen)?;
    let address = reserved.local_addr().context("reserved socket without an address")?;
    let conf = ServerConf {
        threads: args.role.threads,
        upstream_keepalive_pool_size: UPSTREAM_POOL_SIZE,
        max_retries: 1,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None::<Opt>, conf);
    server.bootstrap();
    let mut options = TcpSocketOptions::default();
    options.so_reuseport = Some(true);
    let mut service = http_proxy_service(&server.configuration, Floor { upstream: args.upstream });
    service.add_listener(ListenerConfig::tcp(address.to_string()).tcp_socket_options(options));
    server.add_service(service);
    thread::spawn(move || announce_when_ready(address, reserved));
    server.run(RunArgs::default());
    Ok(())
}

/// Pingora does not tell which port it bound for port 0. So a socket that never listens takes the port, and
/// Pingora's shares it; nobody else of another user can get in between.
pub(crate) fn reserve(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4().context("cannot make a socket")?;
    socket.set_reuseport(true).context("cannot share a port")?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket)
}

fn announce_when_ready(address: SocketAddr, reserved: TcpSocket) -> Result<()> {
    let deadline = Instant::now() + READY_WAIT_MAX;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            bail!("the floor did not listen on {address} in {READY_WAIT_MAX:?}");
        }
        thread::sleep(READY_POLL);
    }
    drop(reserved);
    announce(address)
}
