//! Who was let in. Of every secret only its hash is kept, and all of them end with the process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::TimestampUs;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How long a link may be used.
const LINK_LASTS_US: i64 = 60 * 1_000_000;
/// How long a browser stays in: a working day.
pub(super) const LASTS_S: i64 = 12 * 60 * 60;
/// Links and sessions that are kept; the oldest goes first. Both are made by the owner alone.
const LINKS_MAX: usize = 8;
const SESSIONS_MAX: usize = 16;

type Hash = [u8; 32];

/// The links that can be used, and the browsers that are in.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Known>);

/// Names a session within this process. It opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionId(u64);

/// What a browser is given, this once.
pub(super) struct Opened {
    pub(super) cookie: Zeroizing<String>,
    pub(super) token: Zeroizing<String>,
    pub(super) ends_at: TimestampUs,
}

#[derive(Debug, Default)]
struct Known {
    links: VecDeque<(Hash, TimestampUs)>,
    sessions: VecDeque<Session>,
    count: u64,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    cookie: Hash,
    token: Hash,
    ends_at: TimestampUs,
}

impl Sessions {
    /// The secret of a new link, and when it ends.
    pub(super) fn issue(&self, now: TimestampUs) -> (Zeroizing<String>, TimestampUs) {
        let (secret, ends_at) = (random(), now.saturating_add(LINK_LASTS_US));
        let mut known = self.known(now);
        keep(&mut known.links, (hash(&secret), ends_at), LINKS_MAX);
        (secret, ends_at)
    }

    /// Lets a browser in that has the secret of a link, which is used up by it.
    pub(super) fn open(&self, secret: &str, now: TimestampUs) -> Option<Opened> {
        let mut known = self.known(now);
        let presented = hash(secret);
        let used = known.links.iter().position(|(link, _)| is_same(link, &presented))?;
        known.links.remove(used);
        let (cookie, token, ends_at) = (random(), random(), now.saturating_add(LASTS_S * 1_000_000));
        known.count += 1;
        let id = SessionId(known.count);
        let session = Session { id, cookie: hash(&cookie), token: hash(&token), ends_at };
        keep(&mut known.sessions, session, SESSIONS_MAX);
        Some(Opened { cookie, token, ends_at })
    }

    /// The session of a cookie and the token that was given with it. Whoever serves another port of the host can put
    /// cookies beside ours, so one that is wrong hides none.
    pub(super) fn find<'a>(
        &self,
        cookies: impl Iterator<Item = &'a str>,
        token: &str,
        now: TimestampUs,
    ) -> Option<SessionId> {
        let token = hash(token);
        let known = self.known(now);
        let found = |cookie: Hash| {
            let is_it =
                |session: &&Session| is_same(&session.cookie, &cookie) && is_same(&session.token, &token);
            known.sessions.iter().find(is_it).map(|session| session.id)
        };
        cookies.map(hash).find_map(found)
    }

    pub(super) fn is_open(&self, id: SessionId, now: TimestampUs) -> bool {
        self.known(now).sessions.iter().any(|session| session.id == id)
    }

    pub(super) fn close(&self, id: SessionId) {
        self.known(TimestampUs::MIN).sessions.retain(|session| session.id != id);
    }

    /// Ends everything. Answers how many browsers were in.
    pub(super) fn close_all(&self) -> usize {
        let mut known = self.known(TimestampUs::MIN);
        known.links.clear();
        known.sessions.drain(..).count()
    }

    /// What is known, without what has ended by `now`. Nothing under the lock is left half-changed by a panic.
    fn known(&self, now: TimestampUs) -> MutexGuard<'_, Known> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.links.retain(|(_, ends_at)| now < *ends_at);
        known.sessions.retain(|session| now < session.ends_at);
        known
    }
}

fn keep<T>(all: &mut VecDeque<T>, new: T, max: usize) {
    if all.len() >= max {
        all.pop_front();
    }
    all.push_back(new);
}

/// 32 random bytes as text.
fn random() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut bytes[..]).expect("without randomness of the system nothing here is safe");
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

fn is_same(a: &Hash, b: &Hash) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampUs = 1_000_000;

    fn log_in(sessions: &Sessions) -> Opened {
        let (secret, _) = sessions.issue(NOW);
        sessions.open(&secret, NOW).unwrap()
    }

    #[test]
    fn a_link_works_once_and_for_a_minute() {
        let sessions = Sessions::default();
        let (secret, ends_at) = sessions.issue(NOW);
        assert_eq!((secret.len(), ends_at), (64, NOW + 60_000_000));
        assert!(sessions.open("", NOW).is_none() && sessions.open(&secret[1..], NOW).is_none());
        assert!(sessions.open(&secret, ends_at - 1).is_some());
        assert!(sessions.open(&secret, ends_at - 1).is_none(), "a second time");
        let (late, ends_at) = sessions.issue(NOW);
        assert!(sessions.open(&late, ends_at).is_none(), "too late");
        assert!(sessions.open(&late, NOW).is_none(), "what has ended does not come back with the clock");
    }

    #[test]
    fn both_secrets_of_one_session_are_asked_for() {
        let sessions = Sessions::default();
        let (one, other) = (log_in(&sessions), log_in(&sessions));
        let find = |cookies: &[&str], token: &str| sessions.find(cookies.iter().copied(), token, NOW);
        assert!(find(&[&one.cookie], &one.token).is_some());
        assert!(find(&["0", &one.cookie], &one.token).is_some(), "a wrong cookie hides none");
        assert_eq!(find(&[&one.cookie], &other.token), None);
        assert_eq!(find(&[&one.token], &one.token), None);
        assert_eq!(find(&[&one.cookie], ""), None);
        assert_eq!(find(&[], &one.token), None);
    }

    #[test]
    fn sessions_end_by_time_by_themselves_and_all_at_once() {
        let sessions = Sessions::default();
        let (one, other) = (log_in(&sessions), log_in(&sessions));
        let find = |of: &Opened, now| sessions.find([of.cookie.as_str()].into_iter(), &of.token, now);
        let id = find(&one, one.ends_at - 1).unwrap();
        sessions.close(id);
        assert!(!sessions.is_open(id, NOW) && find(&one, NOW).is_none());
        assert!(find(&other, NOW).is_some());
        let (secret, _) = sessions.issue(NOW);
        assert_eq!(sessions.close_all(), 1);
        assert!(find(&other, NOW).is_none() && sessions.open(&secret, NOW).is_none());
        let last = log_in(&sessions);
        assert_eq!(find(&last, last.ends_at), None);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let sessions = Sessions::default();
        let secrets: Vec<_> = (0..=LINKS_MAX).map(|_| sessions.issue(NOW).0).collect();
        assert!(sessions.open(&secrets[0], NOW).is_none() && sessions.open(&secrets[1], NOW).is_some());
        (0..2 * SESSIONS_MAX).for_each(|_| drop(log_in(&sessions)));
        assert_eq!(sessions.close_all(), SESSIONS_MAX);
    }
}
