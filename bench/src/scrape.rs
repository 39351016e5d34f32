//! Reads a gateway's figures each second, as Prometheus would: what that costs is part of having figures.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::Connection;
use crate::tokfence::Tokfence;

const PERIOD: Duration = Duration::from_secs(1);

/// Reads the figures of a gateway that shows them.
pub(crate) async fn start(tokfence: &Tokfence) -> Result<Scraper> {
    let address = tokfence.metrics().await?.context("the gateway shows no figures")?;
    Scraper::start(address).await
}

/// Scraping until dropped.
#[derive(Debug)]
pub(crate) struct Scraper(JoinHandle<()>);

impl Scraper {
    /// Reads the figures at `address` once, to see that there are any, and from then on each second.
    async fn start(address: SocketAddr) -> Result<Self> {
        let mut connection = Connection::new(address);
        scrape(&mut connection, address).await.context("cannot read the figures")?;
        Ok(Self(tokio::spawn(async move {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // Fails while the gateway starts anew; the next second sees it again.
                let _ = scrape(&mut connection, address).await;
            }
        })))
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn scrape(connection: &mut Connection, address: SocketAddr) -> Result<()> {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    let mut bytes = 0;
    connection.exchange(request.as_bytes(), &mut |payload, _| bytes += payload.len()).await?;
    ensure!(bytes > 0, "no figures at {address}");
    Ok(())
}
