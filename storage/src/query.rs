//! Questions to the request log: which requests there were.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use policy::{AgentName, CapabilityId, ModelGlob, ProviderId, TimestampUs};
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::error::{Doing, Error};
use crate::row::{LogText, LoggedRequest, Outcome, from_row, parsed};
use crate::store::Store;
use crate::sums;

/// Which requests to show. Conditions that are `None` hold for all.
#[derive(Clone, Debug)]
pub struct LogFilter {
    /// Of this provider.
    pub provider: Option<ProviderId>,
    /// For a model that this pattern covers.
    pub model: Option<ModelGlob>,
    /// Booked to this agent.
    pub agent: Option<AgentName>,
    /// Made with this capability.
    pub capability: Option<CapabilityId>,
    /// Answered with this status.
    pub status: Option<StatusFilter>,
    /// Ended like this.
    pub outcome: Option<Outcome>,
    /// Begun at this instant or later.
    pub since: Option<TimestampUs>,
    /// Begun before this instant.
    pub until: Option<TimestampUs>,
    /// In which order, and from where.
    pub order: LogOrder,
    /// At most so many.
    pub limit: u32,
}

/// In which order requests are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOrder {
    /// The one that ended last comes first.
    NewestFirst,
    /// Those after this `seq`, in the order in which they ended. Asking again with the last `seq` that was shown
    /// misses nothing: rows become visible in the order of their numbers.
    After(i64),
}

/// A status, or a class of them: `429`, `4xx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// Exactly this one.
    Exact(u16),
    /// All with this first digit.
    Class(u8),
}

/// Text that is neither a status nor a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a status is a number from 100 to 599, or a class of them such as `4xx`")]
pub struct InvalidStatus;

/// So many of the newest rows are looked through one by one before an index is asked, which would have to sort all that
/// somebody ever did to tell what he did last.
const RECENT_ROWS: i64 = 16_384;

impl Default for LogFilter {
    fn default() -> Self {
        Self {
            provider: None,
            model: None,
            agent: None,
            capability: None,
            status: None,
            outcome: None,
            since: None,
            until: None,
            order: LogOrder::NewestFirst,
            limit: 50,
        }
    }
}

impl FromStr for StatusFilter {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        match text.as_bytes() {
            [digit @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => Ok(Self::Class(digit - b'0')),
            [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                text.parse().map(Self::Exact).map_err(|_| InvalidStatus)
            }
            _ => Err(InvalidStatus),
        }
    }
}

impl fmt::Display for StatusFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(status) => write!(f, "{status}"),
            Self::Class(digit) => write!(f, "{digit}xx"),
        }
    }
}

impl Store {
    /// The requests in the log that pass the filter.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn requests(&self, filter: &LogFilter) -> Result<Vec<LoggedRequest>, Error> {
        let _read = self.conn.unchecked_transaction().doing("read the request log")?;
        if let LogOrder::After(seq) = filter.order {
            return self.requests_within(seq.saturating_add(1)..=i64::MAX, "seq ASC", filter, filter.limit);
        }
        if let Some(wanted) = filter.whereabouts() {
            return self.requests_of(&wanted, filter);
        }
        let recent = self.latest_seq()?.saturating_sub(RECENT_ROWS)..=i64::MAX;
        let recent = self.requests_within(recent, "seq DESC", filter, filter.limit)?;
        if count(&recent) >= filter.limit { Ok(recent) } else { self.requests_by_index(filter) }
    }

    /// The newest requests that were refused or cut, the newest first; those among the newest rows, since it is asked all
    /// the time and there may be none.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn newest_refusals(&self, limit: u32) -> Result<Vec<LoggedRequest>, Error> {
        let sql = "SELECT * FROM requests NOT INDEXED
                   WHERE seq > (SELECT coalesce(max(seq), 0) FROM requests) - ? AND outcome IN ('refused', 'cut')
                   ORDER BY seq DESC LIMIT ?";
        let recent = Conditions { texts: Vec::new(), values: vec![RECENT_ROWS.into()] };
        self.select(sql, recent, limit)
    }

    /// Rows with these numbers: few, so an index on anything else would visit many more to get at them.
    fn requests_within(
        &self,
        seqs: RangeInclusive<i64>,
        order: &str,
        filter: &LogFilter,
        limit: u32,
    ) -> Result<Vec<LoggedRequest>, Error> {
        let mut conditions = filter.conditions();
        conditions.add("seq >= ?", Some(*seqs.start()));
        conditions.add("seq <= ?", Some(*seqs.end()));
        let sql = conditions.sql();
        let sql = format!("SELECT * FROM requests NOT INDEXED WHERE {sql} ORDER BY {order} LIMIT ?");
        self.select(&sql, conditions, limit)
    }

    /// The newest rows of an agent or a capability, from the parts of the log in which there are some: first of all those
    /// that are not summed up yet.
    fn requests_of(&self, wanted: &Conditions, filter: &LogFilter) -> Result<Vec<LoggedRequest>, Error> {
        let mut found = Vec::new();
        sums::parts(&self.conn, wanted, |seqs| {
            let missing = filter.limit - count(&found);
            found.extend(self.requests_within(seqs, "seq DESC", filter, missing)?);
            Ok(count(&found) >= filter.limit)
        })?;
        Ok(found)
    }

    /// The newest rows of all. Which ones they are is decided by an index alone where it can be.
    fn requests_by_index(&self, filter: &LogFilter) -> Result<Vec<LoggedRequest>, Error> {
        let conditions = filter.conditions();
        let sql = format!(
            "SELECT * FROM requests
             WHERE seq IN (SELECT seq FROM requests WHERE {} ORDER BY seq DESC LIMIT ?) ORDER BY seq DESC",
            conditions.sql()
        );
        self.select(&sql, conditions, filter.limit)
    }

    fn select(&self, sql: &str, conditions: Conditions, limit: u32) -> Result<Vec<LoggedRequest>, Error> {
        let doing = "read the request log";
        let mut statement = self.conn.prepare_cached(sql).doing(doing)?;
        let values = conditions.values.into_iter().chain([i64::from(limit).into()]);
        let rows = statement.query_map(params_from_iter(values), from_row).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// The one request whose id begins with `prefix`.
    ///
    /// # Errors
    /// [`Error::NoSuchRequest`], [`Error::AmbiguousRequest`], or SQLite's failure.
    pub fn request(&self, prefix: &str) -> Result<LoggedRequest, Error> {
        let doing = "look up a request";
        let shown = || LogText::method(prefix).to_string();
        let prefix = prefix.to_ascii_uppercase();
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::NoSuchRequest { prefix: shown() });
        }
        // `~` sorts behind every letter and digit
        let sql = "SELECT * FROM requests WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT 2";
        let mut statement = self.conn.prepare_cached(sql).doing(doing)?;
        let rows = statement.query_map([&prefix], from_row).doing(doing)?;
        let mut found: Vec<LoggedRequest> = rows.collect::<rusqlite::Result<_>>().doing(doing)?;
        match (found.pop(), found.pop()) {
            (Some(request), None) => Ok(request),
            (None, _) => Err(Error::NoSuchRequest { prefix: shown() }),
            (Some(_), Some(_)) => Err(Error::AmbiguousRequest { prefix: shown() }),
        }
    }

    /// The `seq` of the newest row; 0 when the log is empty. Where `log -f` begins.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn latest_seq(&self) -> Result<i64, Error> {
        let sql = "SELECT coalesce(max(seq), 0) FROM requests";
        self.conn.query_row(sql, [], |row| row.get(0)).doing("read the request log")
    }

    /// When each provider in the log was last used by an admitted request.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn last_used_by_provider(&self) -> Result<BTreeMap<ProviderId, TimestampUs>, Error> {
        let doing = "look up when providers were used";
        // Hops from name to name in the index instead of reading every row.
        let sql = "
            WITH RECURSIVE names (provider) AS (
                SELECT min(provider) FROM requests
                UNION ALL
                SELECT (SELECT min(provider) FROM requests WHERE provider > names.provider)
                FROM names WHERE names.provider IS NOT NULL)
            SELECT provider, used_at_us FROM (
                SELECT names.provider,
                       (SELECT started_at_us FROM requests
                        WHERE requests.provider = names.provider AND outcome <> 'refused'
                        ORDER BY started_at_us DESC LIMIT 1) AS used_at_us
                FROM names WHERE names.provider IS NOT NULL)
            WHERE used_at_us IS NOT NULL";
        let mut statement = self.conn.prepare_cached(sql).doing(doing)?;
        let rows = statement.query_map([], |row| Ok((parsed(row, "provider")?, row.get("used_at_us")?)));
        rows.doing(doing)?.collect::<rusqlite::Result<_>>().doing(doing)
    }
}

/// Conditions and their values, in the same order.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    texts: Vec<&'static str>,
    pub(crate) values: Vec<Value>,
}

impl Conditions {
    /// Adds a condition with one `?`, unless there is no value for it.
    pub(crate) fn add(&mut self, text: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.texts.push(text);
            self.values.push(value.into());
        }
    }

    /// What belongs behind WHERE.
    pub(crate) fn sql(&self) -> String {
        if self.texts.is_empty() { "1".to_owned() } else { self.texts.join(" AND ") }
    }
}

impl LogFilter {
    fn conditions(&self) -> Conditions {
        let mut all = Conditions::default();
        all.add("provider = ?", self.provider.as_ref().map(|provider| provider.as_str().to_owned()));
        all.add("model GLOB ?", self.model.as_ref().map(sqlite_glob));
        all.add("agent = ?", self.agent.as_ref().map(|agent| agent.as_str().to_owned()));
        all.add("capability_id = ?", self.capability.map(|id| id.as_str().to_owned()));
        match self.status {
            Some(StatusFilter::Exact(status)) => all.add("status = ?", Some(i64::from(status))),
            Some(StatusFilter::Class(digit)) => all.add("status / 100 = ?", Some(i64::from(digit))),
            None => {}
        }
        all.add("outcome = ?", self.outcome.map(|outcome| outcome.as_str().to_owned()));
        all.add("started_at_us >= ?", self.since);
        all.add("started_at_us < ?", self.until);
        all
    }

    /// What holds for the parts of the log that may hold such rows, where it is written down who has rows where.
    fn whereabouts(&self) -> Option<Conditions> {
        if self.agent.is_none() && self.capability.is_none() {
            return None;
        }
        let mut all = Conditions::default();
        all.add("agent = ?", self.agent.as_ref().map(|agent| agent.as_str().to_owned()));
        all.add("capability_id = ?", self.capability.map(|id| id.as_str().to_owned()));
        all.add("last_started_us >= ?", self.since);
        all.add("first_started_us < ?", self.until);
        Some(all)
    }
}

fn count(requests: &[LoggedRequest]) -> u32 {
    u32::try_from(requests.len()).unwrap_or(u32::MAX)
}

/// Only `*` is special in our patterns; SQLite knows two more signs.
fn sqlite_glob(glob: &ModelGlob) -> String {
    let mut pattern = String::new();
    for c in glob.as_str().chars() {
        match c {
            '?' | '[' => pattern.extend(['[', c, ']']),
            c => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_status(text: &str, filter: Result<StatusFilter, InvalidStatus>) {
        assert_eq!(text.parse(), filter, "{text}");
    }

    #[test]
    fn a_status_is_exact_or_a_class() {
        check_status("429", Ok(StatusFilter::Exact(429)));
        check_status("4xx", Ok(StatusFilter::Class(4)));
        check_status("5XX", Ok(StatusFilter::Class(5)));
        for text in ["", "xx", "0xx", "6xx", "44xx", "99", "600", "-1", "+404", "4x", "4xxx"] {
            check_status(text, Err(InvalidStatus));
        }
    }

    #[test]
    fn refusals_are_looked_for_among_the_newest_rows() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("tokfence.db")).unwrap();
        assert_eq!(store.newest_refusals(5).unwrap(), []);
        let sql = "
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
            INSERT INTO requests (id, started_at_us, method, path, transport, is_streaming, outcome, usage_basis,
                input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
                reasoning_tokens, latency_us, request_bytes, response_bytes)
            SELECT printf('%026d', i), i, 'POST', '/', 'tcp', 0,
                CASE i % 1000 WHEN 1 THEN 'refused' WHEN 2 THEN 'cut' ELSE 'completed' END, 'none', 0, 0, 0, 0, 0, 0,
                1, 1, 1 FROM n";
        store.conn.execute(sql, [RECENT_ROWS + 10]).unwrap();
        let found = store.newest_refusals(u32::MAX).unwrap();
        let seqs: Vec<i64> = found.iter().map(|logged| logged.seq).collect();
        assert_eq!(seqs[..3], [16_002, 16_001, 15_002]);
        assert_eq!(seqs.last(), Some(&1_001), "what is further back is left out");
        assert_eq!(store.newest_refusals(2).unwrap().len(), 2);
    }

    #[test]
    fn the_newest_are_found_however_far_back_they_are() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("tokfence.db")).unwrap();
        // `busy` asks all the time, `once` asked at the beginning and now and then since.
        let sql = "
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
            INSERT INTO requests (id, started_at_us, method, path, agent, transport, is_streaming, outcome, usage_basis,
                input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
                reasoning_tokens, latency_us, request_bytes, response_bytes)
            SELECT printf('%026d', i), i, 'POST', '/', iif(i % 10000 = 1, 'once', 'busy'), 'tcp', 0, 'completed',
                'none', 0, 0, 0, 0, 0, 0, 1, 1, 1 FROM n";
        store.conn.execute(sql, [RECENT_ROWS * 2]).unwrap();
        let newest = |store: &Store, agent: &str, limit: u32, since: Option<i64>| {
            let agent = Some(agent.parse().unwrap());
            let filter = LogFilter { agent, limit, since, ..LogFilter::default() };
            store.requests(&filter).unwrap().iter().map(|logged| logged.seq).collect::<Vec<_>>()
        };
        for is_summed_up in [false, true] {
            if is_summed_up {
                sums::sum_up_all(&mut store.conn);
            }
            assert_eq!(newest(&store, "busy", 2, None), [RECENT_ROWS * 2, RECENT_ROWS * 2 - 1]);
            assert_eq!(newest(&store, "once", 1, None), [30_001]);
            assert_eq!(newest(&store, "once", 50, None), [30_001, 20_001, 10_001, 1]);
            assert_eq!(newest(&store, "once", 50, Some(10_000)), [30_001, 20_001, 10_001]);
            assert_eq!(newest(&store, "nobody", 50, None), [0; 0]);
        }
    }

    #[test]
    fn only_the_star_is_special_in_a_pattern() {
        assert_eq!(sqlite_glob(&"gpt-?[a]*".parse().unwrap()), "gpt-[?][[]a]*");
    }
}
