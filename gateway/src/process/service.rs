//! What a daemon serves with: the engine, the accept loops of the data listeners, the control socket and the figures. The
//! loops can be stopped and begun again on the same listeners; what was accepted runs on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pingora::apps::HttpServerApp;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::caller::guard::HeadLimits;
use crate::caller::listen::{Acceptor, TURNED_AWAY_MAX};
use crate::caller::places::Places;
use crate::config::Config;
use crate::metrics;
use crate::process::bound::Bound;
use crate::process::control_server::{self, Asked};
use crate::process::daemon::Daemon;
use crate::process::server::ServeError;
use crate::request::proxy::Gateway;
use crate::state::Shared;

/// Connections kept open to providers, for each worker thread.
const POOL_SIZE: usize = 128;
/// How often is looked whether everything has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Everything that accepts connections, and what it hands them to.
pub(super) struct Service {
    shared: Arc<Shared>,
    daemon: Arc<Daemon>,
    proxy: Arc<HttpProxy<Gateway>>,
    acceptor: Arc<Acceptor>,
    asked: Asked,
    is_ending: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
}

impl Service {
    /// Makes the engine; nothing is accepted yet.
    pub(super) fn new(shared: Arc<Shared>, daemon: Arc<Daemon>, config: &Config, asked: Asked) -> Self {
        let conf = Arc::new(ServerConf {
            threads: config.daemon.threads,
            upstream_keepalive_pool_size: POOL_SIZE,
            // One more attempt where it is safe: after a connection that was never made, or for a method that
            // is idempotent. The engine does not send a POST again, and nothing here makes it.
            max_retries: 2,
            ..ServerConf::default()
        });
        let proxy = Arc::new(http_proxy(&conf, Gateway { shared: shared.clone() }));
        let (is_ending, shutdown) = watch::channel(false);
        let limits = &config.limits;
        let acceptor = Arc::new(Acceptor {
            proxy: proxy.clone(),
            shared: shared.clone(),
            shutdown,
            places: Arc::new(Places::new(limits.connections, limits.connections_per_peer)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            head_limits: HeadLimits { bytes_max: limits.header_bytes, timeout: limits.head_timeout },
        });
        Self { shared, daemon, proxy, acceptor, asked, is_ending, accepting: Vec::new() }
    }

    /// Begins to accept what comes in on these listeners.
    ///
    /// # Errors
    /// The system's, where it gives no more descriptors.
    pub(super) fn accept(&mut self, bound: &Bound) -> Result<(), ServeError> {
        let listeners = bound.listeners()?;
        let (daemon, asked) = (self.daemon.clone(), self.asked.clone());
        let control = tokio::spawn(control_server::serve(listeners.control, daemon, asked));
        let data = listeners.data.map(|listener| tokio::spawn(self.acceptor.clone().run(listener)));
        let metrics = listeners
            .metrics
            .zip(bound.metrics_address())
            .map(|(listener, address)| tokio::spawn(metrics::serve(listener, address, self.daemon.clone())));
        self.accepting.extend(data.into_iter().chain([control]).chain(metrics));
        Ok(())
    }

    /// Accepts nothing more. What was accepted is served.
    pub(super) async fn stop_accepting(&mut self) {
        self.daemon.dashboard.end_events();
        for task in self.accepting.drain(..) {
            task.abort();
            // However it ended, it accepts no more.
            let _ = task.await;
        }
    }

    /// Answers each connection once more at most, and returns when none is left.
    pub(super) async fn drain(&self) {
        // The acceptor holds a receiver, so there is somebody to hear it.
        let _ = self.is_ending.send(true);
        while self.acceptor.has_connections() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Lets running requests end, refuses others, and returns when none runs or `grace` is over.
    pub(super) async fn stop(&self, grace: Duration) {
        self.shared.is_draining.store(true, Ordering::Relaxed);
        let _ = self.is_ending.send(true);
        self.proxy.http_cleanup().await;
        let deadline = Instant::now() + grace;
        while self.shared.in_flight.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
