//! Every connection there is, so that what runs on it can be cut when the rules change or a capability ends.
//!
//! A connection is entered when it is accepted and leaves when its task ends, however that ends. A request touches
//! nothing of this but one number, and only when its capability has a lifetime.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::{Denial, Map, Rules, TimestampUs};

use crate::caller::connection::Connection;

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Live {
    connections: Mutex<Map<u64, Arc<Connection>>>,
    next_key: AtomicU64,
    /// No capability of a running request ends before this.
    first_end: AtomicI64,
}

/// That a connection is open; dropped when it is not.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    live: &'a Live,
    key: u64,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            connections: Mutex::default(),
            next_key: AtomicU64::new(0),
            first_end: AtomicI64::new(TimestampUs::MAX),
        }
    }
}

impl Live {
    /// A connection was accepted.
    pub(crate) fn enter(&self, connection: Arc<Connection>) -> Entry<'_> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        self.connections().insert(key, connection);
        Entry { live: self, key }
    }

    /// A running request's capability ends then.
    pub(crate) fn expect_end(&self, end: TimestampUs) {
        if end < self.first_end.load(Ordering::Relaxed) {
            self.first_end.fetch_min(end, Ordering::AcqRel);
        }
    }

    /// Cuts every running request that no longer stands by these rules. When this returns, all of them are marked
    /// and woken; a request that begins meanwhile looks at the newest rules itself, after it has entered.
    pub(crate) fn recheck(&self, rules: &Rules, now: TimestampUs) {
        // Before the look: what begins after it notes its own end.
        self.first_end.swap(TimestampUs::MAX, Ordering::AcqRel);
        for connection in self.all() {
            if let Some(end) = connection.lifeline.recheck(rules, now) {
                self.expect_end(end);
            }
        }
    }

    /// The same, if it is time for it: cheap enough to be asked all the time.
    pub(crate) fn recheck_ended(&self, rules: &Rules, now: TimestampUs) {
        if now >= self.first_end.load(Ordering::Relaxed) {
            self.recheck(rules, now);
        }
    }

    /// Cuts every running request.
    pub(crate) fn cut_all(&self, denial: &Denial) {
        self.all().iter().for_each(|connection| connection.lifeline.cut(denial.clone()));
    }

    /// The connections that are open now.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.connections().values().cloned().collect()
    }

    /// Nothing under the lock is left half-changed by a panic.
    fn connections(&self) -> MutexGuard<'_, Map<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.live.connections().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    use arc_swap::ArcSwap;
    use policy::{AgentName, Capability, CapabilityId, RequestId, Revocation, Scope};

    use super::*;
    use crate::caller::lifeline::{Asked, Running};
    use crate::config::Config;
    use crate::request::facts::Presented;

    fn agent(name: &str) -> AgentName {
        name.parse().unwrap()
    }

    /// A request of this agent, whose capability has the agent's name.
    fn running(name: &str) -> Running {
        let config = Config::parse("", std::path::Path::new("/nowhere")).unwrap();
        Running {
            id: RequestId::from_parts(1, 2),
            agent: agent(name),
            capability: Some(Presented { id: name.parse().unwrap(), secret_hash: [0; 32] }),
            provider: config.provider("openai").unwrap().clone(),
            what: Asked::default(),
        }
    }

    fn rules(capabilities: &[(&str, Option<TimestampUs>)]) -> Rules {
        let capability = |(name, expires_at): &(&str, Option<TimestampUs>)| {
            let id: CapabilityId = name.parse().unwrap();
            let capability = Capability {
                id,
                secret_hash: [0; 32],
                agent: agent(name),
                parent: None,
                scope: Scope::default(),
                created_at: 0,
                expires_at: *expires_at,
                revoked_at: None,
            };
            (id, capability)
        };
        Rules { capabilities: capabilities.iter().map(capability).collect(), ..Rules::default() }
    }

    fn killed() -> Rules {
        let killed = Some(Revocation { at: 0, reason: String::new() });
        Rules { killed, ..rules(&[("aaaaaaaa", None)]) }
    }

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::tcp(true))
    }

    #[test]
    fn a_connection_leaves_however_it_ends() {
        let live = Live::default();
        let entries: Vec<_> = (0..3).map(|_| live.enter(connection())).collect();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _entry = live.enter(connection());
            panic!("as a request may");
        }));
        assert!(panicked.is_err());
        assert_eq!(live.connections().len(), 3);
        drop(entries);
        assert_eq!(live.connections().len(), 0);
    }

    #[test]
    fn what_no_longer_stands_is_cut_and_nothing_else() {
        let live = Live::default();
        let [first, second, idle] = [connection(), connection(), connection()];
        let _entries = [&first, &second, &idle].map(|connection| live.enter(connection.clone()));
        first.lifeline.begin(running("aaaaaaaa"));
        second.lifeline.begin(running("bbbbbbbb"));
        live.recheck(&rules(&[("aaaaaaaa", None), ("bbbbbbbb", None)]), 5);
        assert!(!first.lifeline.was_cut() && !second.lifeline.was_cut());
        live.recheck(&rules(&[("bbbbbbbb", None)]), 5);
        assert!(first.lifeline.is_cut() && !second.lifeline.was_cut() && !idle.lifeline.was_cut());
        assert_eq!(first.lifeline.take_cut().unwrap().message(), "the capability was revoked");
        // The first reason stays, until the request is over.
        live.recheck(&killed(), 5);
        assert!(!first.lifeline.is_cut() && first.lifeline.was_cut() && second.lifeline.is_cut());
        first.lifeline.end();
        live.recheck(&killed(), 5);
        assert!(!first.lifeline.was_cut());
    }

    #[test]
    fn a_capability_that_ends_is_noticed_when_it_is_time() {
        let live = Live::default();
        let [first, second] = [connection(), connection()];
        let _entries = [&first, &second].map(|connection| live.enter(connection.clone()));
        let rules = rules(&[("aaaaaaaa", Some(10)), ("bbbbbbbb", Some(20))]);
        for (connection, name, end) in [(&first, "aaaaaaaa", 10), (&second, "bbbbbbbb", 20)] {
            connection.lifeline.begin(running(name));
            live.expect_end(end);
        }
        for (now, is_first_cut, is_second_cut) in
            [(9, false, false), (10, true, false), (19, true, false), (20, true, true)]
        {
            live.recheck_ended(&rules, now);
            let cut = (first.lifeline.is_cut(), second.lifeline.is_cut());
            assert_eq!(cut, (is_first_cut, is_second_cut), "at {now}");
        }
        assert_eq!(live.first_end.load(Ordering::Relaxed), TimestampUs::MAX);
    }

    /// A request that begins while the rules change is either cut or sees the new rules itself.
    #[test]
    fn no_request_slips_through_a_change_of_rules() {
        let live = Live::default();
        let connection = connection();
        let _entry = live.enter(connection.clone());
        let (old, new) = (Arc::new(rules(&[("aaaaaaaa", None)])), Arc::new(killed()));
        let running = running("aaaaaaaa");
        for _ in 0..2000 {
            let (snapshot, start) = (ArcSwap::new(old.clone()), Barrier::new(2));
            let sees_it = std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    snapshot.store(new.clone());
                    live.recheck(&new, 5);
                });
                start.wait();
                connection.lifeline.begin(running.clone());
                snapshot.load().killed.is_some()
            });
            assert!(sees_it || connection.lifeline.is_cut());
            connection.lifeline.end();
        }
    }
}
