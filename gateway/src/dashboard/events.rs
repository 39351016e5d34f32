//! What is live: the overview once a second, as an event stream. It is collected once for all who look, and not at all
//! while nobody does.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::failure::Failure;
use super::session::SessionId;
use crate::process::daemon::Daemon;

/// How often is collected.
const EVERY: Duration = Duration::from_secs(1);
/// Who may look at once.
const VIEWERS_MAX: usize = 16;
/// A stream ends by itself before its connection is ended, and the page asks for the next one.
const LASTS: Duration = Duration::from_secs(45);

/// What was last collected. Only the newest is kept, however slowly somebody reads.
#[derive(Debug)]
pub(super) struct Events {
    newest: watch::Sender<Option<Arc<str>>>,
    is_collecting: Mutex<bool>,
    places: Arc<Semaphore>,
}

/// Somebody who looks.
struct Viewer {
    daemon: Arc<Daemon>,
    session: SessionId,
    newest: watch::Receiver<Option<Arc<str>>>,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new(None),
            is_collecting: Mutex::new(false),
            places: Arc::new(Semaphore::new(VIEWERS_MAX)),
        }
    }
}

/// The stream for one who looks.
pub(super) fn stream(daemon: &Arc<Daemon>, session: SessionId) -> Result<Response, Failure> {
    let events = &daemon.dashboard.events;
    let Ok(place) = events.places.clone().try_acquire_owned() else {
        let message = "too many windows show the dashboard; close one";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_viewers", message));
    };
    let newest = events.subscribe(daemon);
    let (daemon, until) = (daemon.clone(), Instant::now() + LASTS);
    let viewer = Viewer { daemon, session, newest, until, _place: place };
    let told = stream::unfold(viewer, |mut viewer| async {
        let event = viewer.next().await?;
        Some((Ok::<_, Infallible>(event), viewer))
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(told)).into_response())
}

impl Viewer {
    /// The next event, unless the stream is to end: its time is over, its session, or the daemon.
    async fn next(&mut self) -> Option<String> {
        tokio::time::timeout_at(self.until, self.newest.changed()).await.ok()?.ok()?;
        if !self.daemon.dashboard.sessions.is_open(self.session, self.daemon.shared().ledger.now()) {
            return None;
        }
        let document = self.newest.borrow_and_update().clone()?;
        Some(format!("data: {document}\n\n"))
    }
}

impl Events {
    /// Begins to look. Whoever is the first has it collected.
    fn subscribe(&self, daemon: &Arc<Daemon>) -> watch::Receiver<Option<Arc<str>>> {
        let mut is_collecting = self.is_collecting();
        let mut receiver = self.newest.subscribe();
        if !*is_collecting {
            *is_collecting = true;
            tokio::spawn(collect(daemon.clone()));
        } else if receiver.borrow().is_some() {
            // A moment old, and at once.
            receiver.mark_changed();
        }
        receiver
    }

    /// Ends the streams there are.
    pub(super) fn end(&self) {
        self.newest.send_replace(None);
    }

    /// Whether anybody looks. Asked under the lock, so that nobody begins to look unseen.
    fn is_watched(&self) -> bool {
        let mut is_collecting = self.is_collecting();
        *is_collecting = self.newest.receiver_count() > 0;
        if !*is_collecting {
            self.newest.send_replace(None);
        }
        *is_collecting
    }

    /// Nothing under the lock is left half-changed by a panic.
    fn is_collecting(&self) -> MutexGuard<'_, bool> {
        self.is_collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn collect(daemon: Arc<Daemon>) {
    let mut interval = tokio::time::interval(EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = &daemon.dashboard.events;
    loop {
        interval.tick().await;
        if !events.is_watched() {
            return;
        }
        let collecting = daemon.clone();
        let collected =
            tokio::task::spawn_blocking(move || serde_json::to_string(&collecting.overview())).await;
        if let Ok(Ok(document)) = collected {
            events.newest.send_replace(Some(document.into()));
        }
    }
}
