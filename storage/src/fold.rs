//! Folding: equal refusals within some seconds share one row, so that a caller who keeps knocking fills neither the
//! disk nor the reader's screen.

use std::borrow::Cow;
use std::collections::HashMap;

use policy::{AgentName, ProviderId, TimestampUs};

use crate::row::{LogText, RequestRow};
use crate::shared::Entry;

const WINDOW_US: i64 = 10_000_000;
/// How many different refusals are kept apart in one window. Beyond it the path, which the caller chooses freely, is
/// left out, and what then is equal is folded.
const WINDOWS_MAX: usize = 1_024;
/// How many different refusals one agent, or all together who prove to be none, may have at once, and after how long it
/// may have one more. Whoever knocks at ever new doors for days would otherwise fill the disk.
const DIFFERENT_MAX: u32 = 256;
const ONE_MORE_AFTER_US: i64 = 10_000_000;

/// What makes two refusals equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    provider: Option<ProviderId>,
    agent: Option<AgentName>,
    code: Option<Cow<'static, str>>,
    path: LogText,
}

/// A row to be written.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) row: Box<RequestRow>,
    pub(crate) repeats: u64,
    /// The `seq` of a row in the log that can stand for this one too.
    pub(crate) fold_into: Option<i64>,
    key: Option<Key>,
}

/// Remembers the refusals of the last seconds that are in the log.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    windows: HashMap<Key, Window>,
    /// What callers have left of [`DIFFERENT_MAX`]; those who have all of it may be missing.
    left: HashMap<Option<AgentName>, Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    count: u32,
    /// Up to when what refills is counted in.
    at: TimestampUs,
}

#[derive(Debug)]
struct Window {
    seq: i64,
    first_at: TimestampUs,
}

impl Folder {
    /// Makes rows of a batch of entries, fewer where refusals are equal.
    pub(crate) fn fold(&mut self, entries: Vec<Entry>) -> Vec<Pending> {
        let mut rows: Vec<Pending> = Vec::with_capacity(entries.len());
        let mut places: HashMap<Key, usize> = HashMap::new();
        for entry in entries {
            let mut row = match entry {
                Entry::Abandoned(_) => continue,
                Entry::Settled(row, _) => {
                    rows.push(Pending { row, repeats: 1, fold_into: None, key: None });
                    continue;
                }
                Entry::Refused(row) => row,
            };
            let key = self.key(&mut row, &places);
            if let Some(first) = places.get(&key).and_then(|place| rows.get_mut(*place)) {
                first.repeats = first.repeats.saturating_add(1);
                continue;
            }
            let window = self.windows.get(&key).filter(|window| window.covers(row.started_at));
            let fold_into = window.map(|window| window.seq);
            places.insert(key.clone(), rows.len());
            rows.push(Pending { row, repeats: 1, fold_into, key: Some(key) });
        }
        rows
    }

    /// Remembers that a row was committed as `seq`.
    pub(crate) fn committed(&mut self, pending: Pending, seq: i64) {
        if let Some(key) = pending.key
            && pending.fold_into != Some(seq)
        {
            self.windows.insert(key, Window { seq, first_at: pending.row.started_at });
        }
    }

    fn key(&mut self, row: &mut RequestRow, places: &HashMap<Key, usize>) -> Key {
        let mut key = Key {
            provider: row.provider.clone(),
            agent: row.agent.clone(),
            code: row.error_code.clone(),
            path: row.path.clone(),
        };
        if places.contains_key(&key) || self.windows.contains_key(&key) {
            return key;
        }
        if self.windows.len() + places.len() >= WINDOWS_MAX {
            self.windows.retain(|_, window| window.covers(row.started_at));
        }
        let is_full = self.windows.len() + places.len() >= WINDOWS_MAX;
        if is_full || !self.takes_one(&key.agent, row.started_at) {
            (row.provider, row.path) = (None, LogText::path("*"));
            (key.provider, key.path) = (None, row.path.clone());
        }
        key
    }

    /// Whether one more refusal of this caller is kept apart from its others.
    fn takes_one(&mut self, agent: &Option<AgentName>, now: TimestampUs) -> bool {
        let full = Left { count: DIFFERENT_MAX, at: now };
        if self.left.len() >= WINDOWS_MAX {
            self.left.retain(|_, left| left.refilled(now).count < DIFFERENT_MAX);
        }
        let left = self.left.entry(agent.clone()).or_insert(full);
        *left = left.refilled(now);
        let taken = left.count.checked_sub(1);
        left.count = taken.unwrap_or_default();
        taken.is_some()
    }
}

impl Left {
    fn refilled(self, now: TimestampUs) -> Self {
        let more = now.saturating_sub(self.at).max(0) / ONE_MORE_AFTER_US;
        let count = u32::try_from(more).unwrap_or(u32::MAX).saturating_add(self.count).min(DIFFERENT_MAX);
        Self { count, at: self.at.saturating_add(more.saturating_mul(ONE_MORE_AFTER_US)) }
    }
}

impl Window {
    fn covers(&self, at: TimestampUs) -> bool {
        at.abs_diff(self.first_at) < WINDOW_US.unsigned_abs()
    }
}
