//! nginx as a subject: a plain reverse proxy with a pool of connections to the provider, in a directory of its own
//! that is removed afterwards. It is one process without a master, so that what it costs is in one place.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::floor::reserve;

/// Path before the provider's own, as the gateway has it.
pub(crate) const PREFIX: &str = "/openai";
/// Where systems put it that leave it out of a user's path.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];
const READY_POLL: Duration = Duration::from_millis(5);
const READY_WAIT_MAX: Duration = Duration::from_secs(10);

/// A running nginx, killed when dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    _child: Child,
    _directory: TempDir,
}

impl Nginx {
    /// Starts `binary` before the provider at `upstream` and waits until it listens.
    pub(crate) async fn start(binary: &Path, upstream: SocketAddr) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("bench-nginx-").tempdir().context("no temporary directory")?;
        let reserved = reserve(([127, 0, 0, 1], 0).into())?;
        let address = reserved.local_addr().context("reserved socket without an address")?;
        let file = directory.path().join("nginx.conf");
        fs::write(&file, config(directory.path(), address, upstream)).context("cannot write nginx.conf")?;
        let mut child = Command::new(binary)
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        wait_until_ready(address, &mut child).await?;
        let pid = child.id().context("nginx exited")?;
        Ok(Self { address, pid, _child: child, _directory: directory })
    }
}

async fn wait_until_ready(address: SocketAddr, child: &mut Child) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = child.try_wait().context("cannot wait for nginx")? {
            bail!("nginx ended at its start: {status}");
        }
        if started.elapsed() > READY_WAIT_MAX {
            bail!("nginx did not listen on {address} in {READY_WAIT_MAX:?}");
        }
        sleep(READY_POLL).await;
    }
    Ok(())
}

/// Where nginx is, if it is installed.
pub(crate) fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join("nginx")).find(|file| file.is_file())
}

/// A proxy as one sets it up before a provider: connections kept on both sides, nothing logged, bodies passed on as
/// they come. An answer that is no stream is gathered, which is nginx's own default.
fn config(directory: &Path, address: SocketAddr, upstream: SocketAddr) -> String {
    let directory = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {directory}/{kind};\n"))
        .concat();
    format!(
        "daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{
    worker_connections 8192;
}}
http {{
{temporary}    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_max_body_size 64m;
    client_body_buffer_size 64k;
    upstream provider {{
        server {upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} reuseport backlog=4096;
        location {PREFIX}/ {{
            proxy_pass http://provider/;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_request_buffering off;
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_leads_from_the_prefix_to_the_provider() {
        let text = config(Path::new("/d"), ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        for line in [
            "listen 127.0.0.1:1 reuseport",
            "server 127.0.0.1:2;",
            "location /openai/ {",
            "proxy_temp_path /d/proxy;",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
