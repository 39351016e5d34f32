//! What was seen of whom, as rows: events, the states that follow from them, and what operators lowered.

mod rows;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use policy::{
    AgentName, CapabilityId, ProviderId, RequestId, RiskState, RouteClass, Signal, Subject, TimestampUs,
};
use rusqlite::{TransactionBehavior, params};
use serde_json::json;

use crate::audit::{AuditAction, AuditNote};
use crate::error::{Doing, Error};
use crate::row::{LogText, parsed};
use crate::rules::subject;
use crate::store::Store;
pub(crate) use rows::{all, delete_older_than};
use rows::{event, insert_clear, known, put, record};

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskSeen {
    /// When.
    pub at: TimestampUs,
    /// What it is evidence of.
    pub signal: Signal,
    /// Whose it is: an agent's, or that of a capability which an owner minted, with all that come from it.
    pub subject: Subject,
    /// The agent, if it is known.
    pub agent: Option<AgentName>,
    /// The capability that was presented.
    pub capability: Option<CapabilityId>,
    /// The provider that was asked.
    pub provider: Option<ProviderId>,
    /// The class of the route.
    pub route_class: Option<RouteClass>,
    /// The path, free of secrets.
    pub path: Option<LogText>,
    /// The request.
    pub request: Option<RequestId>,
    /// What was found, by a name that tells it from others and never by its text; at most 100 bytes. What was seen twice
    /// with the same name is a repetition. Empty where the signal says it all.
    pub pattern: String,
    /// Where and how it was written.
    pub spot: Option<Spot>,
    /// What was done about it at once.
    pub action: RiskAction,
    /// Whether the state follows it.
    pub is_enforced: bool,
}

impl RiskSeen {
    /// Of whom nothing is known but whose it is; when it was seen is for the one who reports it. The state follows.
    pub fn new(signal: Signal, subject: Subject, action: RiskAction) -> Self {
        Self {
            at: 0,
            signal,
            subject,
            agent: None,
            capability: None,
            provider: None,
            route_class: None,
            path: None,
            request: None,
            pattern: String::new(),
            spot: None,
            action,
            is_enforced: true,
        }
    }
}

/// Where something was found, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// In which encoding.
    pub form: Cow<'static, str>,
    /// Through which escapes.
    pub view: Cow<'static, str>,
    /// In which part of the request or the answer.
    pub place: Cow<'static, str>,
    /// After how many bytes of its text.
    pub offset: u64,
}

/// What was done at once about what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RiskAction {
    /// It was written down.
    Logged,
    /// The request was refused.
    Refused,
    /// It was made unreadable.
    Masked,
    /// The answer was ended.
    Cut,
}

/// Text that names no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an action is one of logged, refused, masked, cut")]
pub struct UnknownRiskAction;

/// What was seen, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskEvent {
    /// Its number.
    pub seq: i64,
    /// What was seen.
    pub seen: RiskSeen,
    /// The state before.
    pub before: RiskState,
    /// The state after.
    pub after: RiskState,
    /// How often it was seen within a short time.
    pub repeats: u64,
}

/// A state that an operator lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskClear {
    /// When.
    pub at: TimestampUs,
    /// Whose.
    pub subject: Subject,
    /// What it was.
    pub before: RiskState,
    /// Why.
    pub reason: String,
}

/// What became of something that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The number of its event.
    pub seq: i64,
    /// Whether the event is new; otherwise it was seen once more.
    pub is_new: bool,
    /// The state before.
    pub before: RiskState,
    /// The state after.
    pub after: RiskState,
}

impl Store {
    /// Writes down what was seen, and lets the state follow. What was seen a moment ago ([`Signal::repeat_us`]) is
    /// counted as a repetition and is no further evidence, unless an operator lowered the state in between.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn report_risk(&mut self, seen: &RiskSeen) -> Result<Recorded, Error> {
        let doing = "write down what was seen";
        let write = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let recorded = record(&write, seen).doing(doing)?;
        write.commit().doing(doing)?;
        Ok(recorded)
    }

    /// Counts further repetitions of an event.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn repeat_risk(&mut self, seq: i64, times: u64) -> Result<(), Error> {
        let sql = "UPDATE risk_events SET repeats = repeats + ?2 WHERE seq = ?1";
        let times = i64::try_from(times).unwrap_or(i64::MAX);
        self.conn.execute(sql, params![seq, times]).doing("count what was seen again")?;
        Ok(())
    }

    /// Lowers the state of these subjects to GREEN, whatever it is. Answers those that were not GREEN.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn clear_risk(
        &mut self,
        subjects: &[Subject],
        reason: &str,
        now: TimestampUs,
    ) -> Result<Vec<RiskClear>, Error> {
        let doing = "lower a risk";
        let act = self.act(doing)?;
        let mut cleared = Vec::new();
        for subject in subjects {
            let Some(known) = known(&act, subject).doing(doing)? else { continue };
            let before = known.risk.state_at(now);
            put(&act, subject, &known.risk.cleared(now), Some(now)).doing(doing)?;
            if before > RiskState::Green {
                let clear =
                    RiskClear { at: now, subject: subject.clone(), before, reason: reason.to_owned() };
                insert_clear(&act, &clear).doing(doing)?;
                cleared.push(clear);
            }
        }
        let note = |clear: &RiskClear| {
            let after = RiskState::Green.as_str();
            let detail = json!({ "before": clear.before.as_str(), "after": after, "reason": clear.reason });
            AuditNote::new(AuditAction::RiskClear, &clear.subject, detail)
        };
        act.record_all(&cleared.iter().map(note).collect::<Vec<_>>(), now)?;
        Ok(cleared)
    }

    /// The newest events, the newest first.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn newest_risk_events(&self, limit: u32) -> Result<Vec<RiskEvent>, Error> {
        self.events("ORDER BY seq DESC LIMIT ?1", limit.into())
    }

    /// The events from an instant on, in the order in which they were written.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn risk_events_since(&self, since: TimestampUs) -> Result<Vec<RiskEvent>, Error> {
        self.events("WHERE at_us >= ?1 ORDER BY seq", since)
    }

    /// The event of a number.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn risk_event(&self, seq: i64) -> Result<Option<RiskEvent>, Error> {
        Ok(self.events("WHERE seq = ?1", seq)?.pop())
    }

    /// When each thing was last found, by its name.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn last_found(&self) -> Result<HashMap<String, TimestampUs>, Error> {
        let doing = "read what was seen";
        let sql = "SELECT pattern, max(at_us) FROM risk_events WHERE pattern <> '' GROUP BY pattern";
        let mut statement = self.conn.prepare_cached(sql).doing(doing)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    fn events(&self, condition: &str, value: i64) -> Result<Vec<RiskEvent>, Error> {
        let doing = "read what was seen";
        let sql = format!("SELECT * FROM risk_events {condition}");
        let mut statement = self.conn.prepare_cached(&sql).doing(doing)?;
        let rows = statement.query_map([value], event).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// What operators lowered, the newest first.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn risk_clears(&self, limit: u32) -> Result<Vec<RiskClear>, Error> {
        let doing = "read what was lowered";
        let sql = "SELECT * FROM risk_clears ORDER BY seq DESC LIMIT ?1";
        let mut statement = self.conn.prepare_cached(sql).doing(doing)?;
        let rows = statement.query_map([limit], |row| {
            Ok(RiskClear {
                at: row.get("at_us")?,
                subject: subject(row)?,
                before: parsed(row, "state_before")?,
                reason: row.get("reason")?,
            })
        });
        rows.doing(doing)?.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// How many requests in the log began within a span of time, were answered by a provider, and were made by one of
    /// these capabilities or, without any, by this agent; of routes that `is_refused` names.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn count_answered(
        &self,
        agent: Option<&AgentName>,
        capabilities: Option<&[CapabilityId]>,
        (from, until): (TimestampUs, TimestampUs),
        is_refused: impl Fn(RouteClass) -> bool,
    ) -> Result<u64, Error> {
        let doing = "count requests";
        let classes: Vec<&str> =
            RouteClass::ALL.into_iter().filter(|class| is_refused(*class)).map(RouteClass::as_str).collect();
        let list = |texts: &[&str]| serde_json::to_string(texts).unwrap_or_default();
        let ids = capabilities.map(|ids| list(&ids.iter().map(CapabilityId::as_str).collect::<Vec<_>>()));
        let sql = "SELECT coalesce(sum(repeats), 0) FROM requests
                   WHERE started_at_us >= ?1 AND started_at_us < ?2 AND outcome <> 'refused'
                       AND (?3 IS NULL OR agent = ?3)
                       AND (?4 IS NULL OR capability_id IN (SELECT value FROM json_each(?4)))
                       AND route_class IN (SELECT value FROM json_each(?5))";
        let agent = agent.map(AgentName::as_str);
        let values = params![from, until, agent, ids, list(&classes)];
        let count: i64 = self.conn.query_row(sql, values, |row| row.get(0)).doing(doing)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

impl RiskAction {
    const ALL: [Self; 4] = [Self::Logged, Self::Refused, Self::Masked, Self::Cut];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logged => "logged",
            Self::Refused => "refused",
            Self::Masked => "masked",
            Self::Cut => "cut",
        }
    }
}

impl fmt::Display for RiskAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RiskAction {
    type Err = UnknownRiskAction;

    fn from_str(text: &str) -> Result<Self, UnknownRiskAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(UnknownRiskAction)
    }
}
