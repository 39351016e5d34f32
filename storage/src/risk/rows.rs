//! The rows of risk, and how a report becomes some of them.

use std::borrow::Cow;

use policy::{
    AgentName, CapabilityId, Evidence, Map, ProviderId, Risk, RiskState, RouteClass, Subject, TimestampUs,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Recorded, RiskClear, RiskEvent, RiskSeen, Spot};
use crate::audit::Act;
use crate::row::{LogText, parsed, parsed_opt, unsigned, unsigned_opt};
use crate::rules::subject;

/// Every state but GREEN.
pub(crate) fn all(conn: &Connection) -> rusqlite::Result<Map<Subject, Risk>> {
    let mut statement = conn.prepare_cached("SELECT * FROM risks WHERE state <> 'GREEN'")?;
    statement.query_map([], |row| Ok((subject(row)?, risk(row)?)))?.collect()
}

/// Deletes events before `cutoff` to which no state refers.
pub(crate) fn delete_older_than(
    conn: &Connection,
    cutoff: TimestampUs,
    batch: u32,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM risk_events WHERE seq IN
                   (SELECT seq FROM risk_events WHERE at_us < ?1
                        AND seq NOT IN (SELECT event_seq FROM risks WHERE state <> 'GREEN') LIMIT ?2)";
    conn.prepare_cached(sql)?.execute(params![cutoff, batch])
}

/// A state and when an operator last lowered it.
pub(super) struct Known {
    pub(super) risk: Risk,
    cleared_at: Option<TimestampUs>,
}

pub(super) fn record(write: &Transaction<'_>, seen: &RiskSeen) -> rusqlite::Result<Recorded> {
    let subjects = [Some(seen.subject.clone()), seen.signal.is_everybodys().then_some(Subject::Global)];
    let mut before = Map::default();
    for subject in subjects.into_iter().flatten() {
        let known = known(write, &subject)?;
        before.insert(subject, known);
    }
    let highest = |of: &dyn Fn(&Known) -> Option<Risk>| {
        let states = before.values().flatten().filter_map(|known| Some(of(known)?.state_at(seen.at)));
        states.max().unwrap_or_default()
    };
    let state = highest(&|known| Some(known.risk));
    let cleared_at = before.values().flatten().filter_map(|known| known.cleared_at).max();
    if let Some(seq) = repeated(write, seen, cleared_at)? {
        return Ok(Recorded { seq, is_new: false, before: state, after: state });
    }
    let seq = insert(write, seen, state)?;
    let mut after = state;
    if seen.is_enforced {
        let evidence = Evidence { signal: seen.signal, at: seen.at, event: seq };
        for (subject, known) in &before {
            let risk = known.as_ref().map(|known| known.risk);
            let Some(next) = Risk::after(risk.as_ref(), evidence).filter(|next| risk != Some(*next)) else {
                continue;
            };
            put(write, subject, &next, known.as_ref().and_then(|known| known.cleared_at))?;
            after = after.max(next.state_at(seen.at));
        }
    }
    write.execute("UPDATE risk_events SET state_after = ?2 WHERE seq = ?1", params![seq, after.as_str()])?;
    Ok(Recorded { seq, is_new: true, before: state, after })
}

/// The event of which this is a repetition, counted once more.
fn repeated(
    write: &Transaction<'_>,
    seen: &RiskSeen,
    cleared_at: Option<TimestampUs>,
) -> rusqlite::Result<Option<i64>> {
    let from = seen.at.saturating_sub(seen.signal.repeat_us()).max(cleared_at.unwrap_or(0));
    let sql = "UPDATE risk_events SET repeats = repeats + 1 WHERE seq =
                   (SELECT max(seq) FROM risk_events WHERE at_us > ?1 AND signal = ?2 AND subject_kind = ?3
                        AND subject_name = ?4 AND pattern = ?5 AND action = ?6 AND is_enforced = ?7)
               RETURNING seq";
    let subject = &seen.subject;
    let (signal, action) = (seen.signal.as_str(), seen.action.as_str());
    let values =
        params![from, signal, subject.kind(), subject.name(), seen.pattern, action, seen.is_enforced];
    write.query_row(sql, values, |row| row.get(0)).optional()
}

fn insert(write: &Transaction<'_>, seen: &RiskSeen, state: RiskState) -> rusqlite::Result<i64> {
    let spot = seen.spot.as_ref();
    write.execute(
        "INSERT INTO risk_events (at_us, signal, subject_kind, subject_name, agent, capability_id, provider,
             route_class, path, request_id, pattern, form, view, place, byte_offset, action, is_enforced,
             state_before, state_after)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?18)",
        params![
            seen.at,
            seen.signal.as_str(),
            seen.subject.kind(),
            seen.subject.name(),
            seen.agent.as_ref().map(AgentName::as_str),
            seen.capability.as_ref().map(CapabilityId::as_str),
            seen.provider.as_ref().map(ProviderId::as_str),
            seen.route_class.map(RouteClass::as_str),
            seen.path.as_ref().map(LogText::as_str),
            seen.request.map(|id| id.to_string()),
            seen.pattern,
            spot.map(|spot| &*spot.form),
            spot.map(|spot| &*spot.view),
            spot.map(|spot| &*spot.place),
            spot.map(|spot| i64::try_from(spot.offset).unwrap_or(i64::MAX)),
            seen.action.as_str(),
            seen.is_enforced,
            state.as_str(),
        ],
    )?;
    Ok(write.last_insert_rowid())
}

pub(super) fn known(conn: &Connection, of: &Subject) -> rusqlite::Result<Option<Known>> {
    let sql = "SELECT * FROM risks WHERE subject_kind = ?1 AND subject_name = ?2";
    let row = |row: &Row<'_>| Ok(Known { risk: risk(row)?, cleared_at: row.get("cleared_us")? });
    conn.query_row(sql, [of.kind(), of.name()], row).optional()
}

pub(super) fn put(
    write: &Transaction<'_>,
    subject: &Subject,
    risk: &Risk,
    cleared_at: Option<TimestampUs>,
) -> rusqlite::Result<()> {
    write.execute(
        "INSERT OR REPLACE INTO risks (subject_kind, subject_name, state, since_us, last_evidence_us, signal, event_seq,
             secret_us, cleared_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            subject.kind(),
            subject.name(),
            risk.state.as_str(),
            risk.since,
            risk.last_evidence_at,
            risk.signal.as_str(),
            risk.event,
            risk.secret_at,
            cleared_at,
        ],
    )?;
    Ok(())
}

pub(super) fn insert_clear(act: &Act<'_>, clear: &RiskClear) -> rusqlite::Result<()> {
    let RiskClear { at, subject, before, reason } = clear;
    let sql = "INSERT INTO risk_clears (at_us, subject_kind, subject_name, state_before, reason)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    act.execute(sql, params![at, subject.kind(), subject.name(), before.as_str(), reason])?;
    Ok(())
}

fn risk(row: &Row<'_>) -> rusqlite::Result<Risk> {
    Ok(Risk {
        state: parsed(row, "state")?,
        since: row.get("since_us")?,
        last_evidence_at: row.get("last_evidence_us")?,
        signal: parsed(row, "signal")?,
        event: row.get("event_seq")?,
        secret_at: row.get("secret_us")?,
    })
}

pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<RiskEvent> {
    let seen = RiskSeen {
        at: row.get("at_us")?,
        signal: parsed(row, "signal")?,
        subject: subject(row)?,
        agent: parsed_opt(row, "agent")?,
        capability: parsed_opt(row, "capability_id")?,
        provider: parsed_opt(row, "provider")?,
        route_class: parsed_opt(row, "route_class")?,
        path: row.get::<_, Option<String>>("path")?.map(|path| LogText::path(&path)),
        request: parsed_opt(row, "request_id")?,
        pattern: row.get("pattern")?,
        spot: spot(row)?,
        action: parsed(row, "action")?,
        is_enforced: row.get("is_enforced")?,
    };
    let (before, after) = (parsed(row, "state_before")?, parsed(row, "state_after")?);
    Ok(RiskEvent { seq: row.get("seq")?, seen, before, after, repeats: unsigned(row, "repeats")? })
}

fn spot(row: &Row<'_>) -> rusqlite::Result<Option<Spot>> {
    let text = |column| -> rusqlite::Result<Cow<'static, str>> {
        Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default().into())
    };
    let Some(offset) = unsigned_opt(row, "byte_offset")? else { return Ok(None) };
    Ok(Some(Spot { form: text("form")?, view: text("view")?, place: text("place")?, offset }))
}
