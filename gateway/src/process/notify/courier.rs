//! A thread that runs errands one after the other, and the queue before it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Notices that may wait. More than so many at once tell an owner nothing that the first did not.
const WAITING_MAX: usize = 32;

type Errand = Box<dyn FnOnce() + Send>;

/// Runs errands. The thread begins with the first of them.
pub(super) struct Courier {
    name: &'static str,
    queue: OnceLock<SyncSender<Errand>>,
    lost: Arc<AtomicU64>,
}

impl Courier {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, queue: OnceLock::new(), lost: Arc::default() }
    }

    /// Puts an errand at the end of the queue. Where it is full the errand is lost; how many were is logged when there
    /// is room again.
    pub(super) fn send(&self, errand: impl FnOnce() + Send + 'static) {
        let queue = self.queue.get_or_init(|| self.start());
        if queue.try_send(Box::new(errand)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every errand so far is done, at most for so long.
    pub(super) fn finish(&self, patience: Duration) {
        let (done, is_done) = sync_channel(1);
        if let Some(queue) = self.queue.get()
            && queue.try_send(Box::new(move || done.send(()).unwrap_or_default())).is_ok()
        {
            // Either way the process ends now.
            let _ = is_done.recv_timeout(patience);
        }
    }

    fn start(&self) -> SyncSender<Errand> {
        let (queue, errands) = sync_channel(WAITING_MAX);
        let lost = self.lost.clone();
        let thread = std::thread::Builder::new().name(self.name.to_owned());
        if let Err(error) = thread.spawn(move || work(&errands, &lost)) {
            tracing::error!(%error, "no notifications can be sent");
        }
        queue
    }
}

fn work(errands: &Receiver<Errand>, lost: &AtomicU64) {
    while let Ok(errand) = errands.recv() {
        // One that panics is told of by the hook of the process; the next may do better.
        let _ = catch_unwind(AssertUnwindSafe(errand));
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            tracing::error!(count, "notifications were not sent, because too many were waiting");
        }
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").field("name", &self.name).field("lost", &self.lost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn who_sends_never_waits_and_what_does_not_fit_is_counted() {
        let courier = Courier::new("test");
        let (begun, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let count = Arc::new(AtomicU64::new(0));
        let (begins, goes) = (begun.clone(), go.clone());
        courier.send(move || {
            begins.wait();
            goes.wait();
        });
        begun.wait();
        for _ in 0..WAITING_MAX + 3 {
            let count = count.clone();
            courier.send(move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(courier.lost.load(Ordering::Relaxed), 3);
        go.wait();
        while count.load(Ordering::Relaxed) < WAITING_MAX as u64 {
            std::thread::yield_now();
        }
        courier.finish(Duration::from_secs(5));
        assert_eq!(count.load(Ordering::Relaxed), WAITING_MAX as u64);
        assert_eq!(courier.lost.load(Ordering::Relaxed), 0, "it was told of");
    }

    #[test]
    fn one_that_panics_does_not_keep_the_next_from_going_out() {
        let courier = Courier::new("test");
        courier.send(|| panic!("as some library might"));
        let done = Arc::new(AtomicU64::new(0));
        let is_done = done.clone();
        courier.send(move || is_done.store(1, Ordering::Relaxed));
        courier.finish(Duration::from_secs(5));
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nothing_is_waited_for_where_nothing_was_sent_or_for_longer_than_asked() {
        let courier = Courier::new("test");
        courier.finish(Duration::MAX);
        courier.send(|| std::thread::sleep(Duration::from_secs(60)));
        let since = std::time::Instant::now();
        courier.finish(Duration::from_millis(20));
        assert!(since.elapsed() < Duration::from_secs(30));
    }
}
