//! Where a worker's next request comes from, and when the load ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::LoadArgs;
use crate::clock::monotonic_ns;

const NS_PER_S: u64 = 1_000_000_000;

/// Leave to send one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Open loop: when the request is due. Its latency counts from then, however late it is sent.
    pub(super) due_ns: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Source {
    /// Closed loop until a time.
    Until(u64),
    /// Closed loop for so many more requests.
    Count(AtomicU64),
    Schedule(Arc<Schedule>),
}

impl Source {
    pub(super) fn start(args: &LoadArgs) -> Self {
        let length = Duration::from_secs_f64(args.seconds);
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        match (args.requests, args.rate) {
            (Some(requests), _) => Self::Count(AtomicU64::new(requests)),
            (None, None) => Self::Until(monotonic_ns() + length_ns),
            (None, Some(rate)) => {
                let schedule = Arc::new(Schedule::new(monotonic_ns(), rate, length_ns));
                let releasing = Arc::clone(&schedule);
                let workers = args.connections;
                thread::spawn(move || releasing.release_all(workers));
                Self::Schedule(schedule)
            }
        }
    }

    /// Waits for the next ticket; none once the load is over.
    pub(super) async fn next(&self) -> Option<Ticket> {
        match self {
            Self::Until(end_ns) => (monotonic_ns() < *end_ns).then_some(Ticket { due_ns: None }),
            Self::Count(left) => left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .ok()
                .map(|_| Ticket { due_ns: None }),
            Self::Schedule(schedule) => schedule.next().await,
        }
    }
}

/// Requests due at fixed times. A thread of its own releases them, since the runtime's timers are a
/// millisecond coarse, which is more than many of the latencies measured here.
#[derive(Debug)]
pub(super) struct Schedule {
    start_ns: u64,
    interval_ns: u64,
    requests: u64,
    released: Semaphore,
    taken: AtomicU64,
}

impl Schedule {
    fn new(start_ns: u64, rate: u32, length_ns: u64) -> Self {
        let interval_ns = (NS_PER_S / u64::from(rate)).max(1);
        Self {
            start_ns,
            interval_ns,
            requests: length_ns / interval_ns,
            released: Semaphore::new(0),
            taken: AtomicU64::new(0),
        }
    }

    async fn next(&self) -> Option<Ticket> {
        self.released.acquire().await.ok()?.forget();
        let at = self.taken.fetch_add(1, Ordering::Relaxed);
        (at < self.requests).then(|| Ticket { due_ns: Some(self.due_ns(at)) })
    }

    fn due_ns(&self, at: u64) -> u64 {
        self.start_ns + at * self.interval_ns
    }

    /// How many requests are due by `now_ns`.
    fn due_by(&self, now_ns: u64) -> u64 {
        match now_ns.checked_sub(self.start_ns) {
            None => 0,
            Some(passed_ns) => (passed_ns / self.interval_ns + 1).min(self.requests),
        }
    }

    fn release_all(&self, workers: u32) {
        let mut released = 0;
        while released < self.requests {
            let due = self.due_by(monotonic_ns());
            self.release(due - released);
            released = due;
            let wait_ns = self.due_ns(released).saturating_sub(monotonic_ns());
            thread::sleep(Duration::from_nanos(wait_ns));
        }
        // One more for each worker, past the last request: the sign to stop.
        self.release(workers.into());
    }

    fn release(&self, count: u64) {
        self.released.add_permits(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_fixed_times() {
        let schedule = Schedule::new(1000, 1_000_000, 5_000);
        assert_eq!(schedule.requests, 5);
        assert_eq!((schedule.due_ns(0), schedule.due_ns(4)), (1000, 5000));
        assert_eq!([0, 1000, 1999, 2000, 9000].map(|now| schedule.due_by(now)), [0, 1, 1, 2, 5]);
    }

    #[tokio::test]
    async fn a_late_request_keeps_the_time_at_which_it_was_due() {
        let schedule = Schedule::new(1000, 1_000_000, 2_000);
        // Both were released long ago; no worker was free to take them until now.
        schedule.release_all(1);
        assert_eq!(schedule.next().await, Some(Ticket { due_ns: Some(1000) }));
        assert_eq!(schedule.next().await, Some(Ticket { due_ns: Some(2000) }));
        assert_eq!(schedule.next().await, None);
    }

    #[tokio::test]
    async fn a_count_ends_after_so_many() {
        let source = Source::Count(AtomicU64::new(2));
        assert!(source.next().await.is_some());
        assert!(source.next().await.is_some());
        assert!(source.next().await.is_none());
    }
}
