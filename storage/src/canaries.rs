//! Canaries as rows: added, planted, removed.

use std::fmt;
use std::str::FromStr;

use policy::{
    AgentName, Canary, CanaryId, CanaryKind, CanaryName, CanaryValue, CapabilityId, DecoyShape, Holder,
    Subject, TimestampUs,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use crate::audit::{Act, AuditAction, AuditNote};
use crate::error::{Doing, Error};
use crate::row::{parsed, parsed_opt};
use crate::store::Store;

const IN_FORCE: &str = "SELECT * FROM canaries WHERE removed_at_us IS NULL ORDER BY id";

/// A canary to be added.
#[derive(Clone, Debug)]
pub struct NewCanary {
    /// What its owner calls it; no other canary has the name.
    pub name: CanaryName,
    /// What it means where it appears.
    pub kind: CanaryKind,
    /// What it looks like; `None` for a mark of a prompt and for nothing else.
    pub shape: Option<DecoyShape>,
    /// What appears; the hash alone for one of the vault.
    pub value: CanaryValue,
    /// For whom it is planted, who must exist.
    pub holder: Option<Holder>,
}

/// A canary as its owner sees it listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanarySummary {
    /// The canary.
    pub canary: Canary,
    /// When it was added.
    pub created_at: TimestampUs,
    /// The files it was planted in, in the order in which that was done.
    pub plants: Vec<Plant>,
}

/// The number of a plant's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlantId(i64);

/// Lines that stand in a file because of a canary.
#[derive(Clone, PartialEq, Eq)]
pub struct Plant {
    /// Its row.
    pub id: PlantId,
    /// The file, from the root.
    pub path: String,
    /// The lines, each with its end. They hold the canary's value.
    pub lines: String,
    /// What else was done to the file.
    pub manner: PlantManner,
    /// When.
    pub planted_at: TimestampUs,
}

/// What was done to a file besides adding lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantManner {
    /// There was none; it was made.
    Made,
    /// Its last line had no end and was given one.
    EndedLine,
    /// Nothing.
    Appended,
}

/// Text that names no manner of planting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is planted as one of made, ended_line, appended")]
pub struct UnknownManner;

impl Store {
    /// Adds a canary.
    ///
    /// # Errors
    /// [`Error::CanaryExists`], for its holder [`Error::NoSuchAgent`], or SQLite's failure; nothing is stored then.
    pub fn add_canary(&mut self, new: &NewCanary, now: TimestampUs) -> Result<CanaryId, Error> {
        let doing = "add a canary";
        if let Some(holder) = &new.holder {
            self.require_agent(&holder.agent)?;
        }
        let act = self.act(doing)?;
        let sql = "SELECT 1 FROM canaries WHERE name = ?1 AND removed_at_us IS NULL";
        let taken = act.query_row(sql, [new.name.as_str()], |_| Ok(())).optional().doing(doing)?;
        if taken.is_some() {
            return Err(Error::CanaryExists { name: new.name.clone() });
        }
        let id = insert(&act, new, now).doing(doing)?;
        let detail = json!({
            "kind": new.kind.as_str(),
            "like": new.shape.map(DecoyShape::as_str),
            "agent": new.holder.as_ref().map(|holder| holder.agent.as_str()),
            "capability": new.holder.as_ref().and_then(|holder| holder.capability).map(|id| id.to_string()),
        });
        act.record(&AuditNote::new(AuditAction::CanaryAdd, about(new.name.as_str()), detail), now)?;
        Ok(id)
    }

    /// The canaries that are looked for, in the order in which they were added.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn canaries(&self) -> Result<Vec<CanarySummary>, Error> {
        let doing = "list canaries";
        let read = self.conn.unchecked_transaction().doing(doing)?;
        let mut statement = read.prepare_cached(IN_FORCE).doing(doing)?;
        let rows = statement.query_map([], |row| {
            let canary = from_row(row)?;
            Ok(CanarySummary {
                created_at: row.get("created_at_us")?,
                plants: plants(&read, canary.id)?,
                canary,
            })
        });
        rows.doing(doing)?.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// Looks for a canary no more. Answers whether it was looked for. What was planted is for the caller to take out.
    ///
    /// # Errors
    /// SQLite's failure; nothing has changed then.
    pub fn remove_canary(&mut self, id: CanaryId, now: TimestampUs) -> Result<bool, Error> {
        let doing = "remove a canary";
        let act = self.act(doing)?;
        let sql =
            "UPDATE canaries SET removed_at_us = ?2 WHERE id = ?1 AND removed_at_us IS NULL RETURNING name";
        let removed = act.query_row(sql, params![id.0, now], |row| row.get::<_, String>(0)).optional();
        let Some(name) = removed.doing(doing)? else { return Ok(false) };
        let note = AuditNote::new(AuditAction::CanaryRemove, about(&name), json!({}));
        act.record(&note, now)?;
        Ok(true)
    }

    /// Remembers lines that are about to be planted, so that a crash leaves none that nobody knows of.
    ///
    /// # Errors
    /// SQLite's failure; nothing is remembered then.
    pub fn remember_plant(
        &mut self,
        canary: CanaryId,
        path: &str,
        lines: &str,
        manner: PlantManner,
        now: TimestampUs,
    ) -> Result<PlantId, Error> {
        let doing = "remember what is planted";
        let act = self.act(doing)?;
        let sql = "INSERT INTO canary_plants (canary_id, path, lines, manner, planted_at_us)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        act.execute(sql, params![canary.0, path, lines, manner.as_str(), now]).doing(doing)?;
        let plant = PlantId(act.last_insert_rowid());
        let note = planted(&act, AuditAction::CanaryPlant, plant).doing(doing)?;
        act.record_all(note.as_slice(), now)?;
        Ok(plant)
    }

    /// Forgets lines that are not in their file any more.
    ///
    /// # Errors
    /// SQLite's failure; they are remembered then.
    pub fn forget_plant(&mut self, id: PlantId, now: TimestampUs) -> Result<(), Error> {
        let doing = "forget what was planted";
        let act = self.act(doing)?;
        let note = planted(&act, AuditAction::CanaryUnplant, id).doing(doing)?;
        act.execute("DELETE FROM canary_plants WHERE id = ?1", [id.0]).doing(doing)?;
        act.record_all(note.as_slice(), now)
    }

    /// Ends a run: revokes its capability for good and removes the canaries that only it could see. Answers whether the
    /// capability still was in force.
    ///
    /// # Errors
    /// As [`Store::revoke_capability`]; nothing has changed then.
    pub fn end_run(&mut self, id: CapabilityId, reason: &str, now: TimestampUs) -> Result<bool, Error> {
        let doing = "end a run";
        let act = self.act(doing)?;
        let was_in_force = crate::capabilities::revoke(&act, id, reason, now)?;
        let sql = "UPDATE canaries SET removed_at_us = ?2 WHERE capability_id = ?1 AND removed_at_us IS NULL";
        let removed = act.execute(sql, params![id.as_str(), now]).doing(doing)?;
        if was_in_force || removed > 0 {
            let detail = json!({ "reason": reason });
            act.record(&AuditNote::new(AuditAction::RunEnd, Subject::Capability(id), detail), now)?;
        }
        Ok(was_in_force)
    }
}

/// Every canary that is looked for.
pub(crate) fn all(conn: &Connection) -> rusqlite::Result<Vec<Canary>> {
    conn.prepare_cached(IN_FORCE)?.query_map([], from_row)?.collect()
}

/// What a canary is called in the audit log.
fn about(name: &str) -> String {
    format!("canary:{name}")
}

/// What is written down of lines in a file; `None` where nobody knows of them.
fn planted(act: &Act<'_>, action: AuditAction, plant: PlantId) -> rusqlite::Result<Option<AuditNote>> {
    let sql = "SELECT name, path, manner FROM canary_plants JOIN canaries ON canaries.id = canary_id
               WHERE canary_plants.id = ?1";
    let note = act.query_row(sql, [plant.0], |row| {
        let (name, path, manner): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(AuditNote::new(action, about(&name), json!({ "path": path, "manner": manner })))
    });
    note.optional()
}

fn insert(act: &Act<'_>, new: &NewCanary, now: TimestampUs) -> rusqlite::Result<CanaryId> {
    let (text, hash) = match &new.value {
        CanaryValue::Text(text) => (Some(&**text), None),
        CanaryValue::Hash(hash) => (None, Some(hash)),
    };
    let holder = new.holder.as_ref();
    act.execute(
        "INSERT INTO canaries (name, kind, shape, value, value_hash, agent, capability_id, created_at_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            new.name.as_str(),
            new.kind.as_str(),
            new.shape.map(DecoyShape::as_str),
            text,
            hash,
            holder.map(|holder| holder.agent.as_str()),
            holder.and_then(|holder| holder.capability.as_ref()).map(CapabilityId::as_str),
            now,
        ],
    )?;
    Ok(CanaryId(act.last_insert_rowid()))
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Canary> {
    let text: Option<Box<str>> = row.get("value")?;
    let value = match text {
        Some(text) => CanaryValue::Text(text),
        None => CanaryValue::Hash(row.get("value_hash")?),
    };
    let agent: Option<AgentName> = parsed_opt(row, "agent")?;
    let capability = parsed_opt(row, "capability_id")?;
    Ok(Canary {
        id: CanaryId(row.get("id")?),
        kind: parsed(row, "kind")?,
        name: parsed(row, "name")?,
        shape: parsed_opt(row, "shape")?,
        value,
        holder: agent.map(|agent| Holder { agent, capability }),
    })
}

fn plants(conn: &Connection, canary: CanaryId) -> rusqlite::Result<Vec<Plant>> {
    let mut statement =
        conn.prepare_cached("SELECT * FROM canary_plants WHERE canary_id = ?1 ORDER BY id")?;
    let rows = statement.query_map([canary.0], |row| {
        Ok(Plant {
            id: PlantId(row.get("id")?),
            path: row.get("path")?,
            lines: row.get("lines")?,
            manner: parsed(row, "manner")?,
            planted_at: row.get("planted_at_us")?,
        })
    })?;
    rows.collect()
}

impl PlantManner {
    const ALL: [Self; 3] = [Self::Made, Self::EndedLine, Self::Appended];

    fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::EndedLine => "ended_line",
            Self::Appended => "appended",
        }
    }
}

impl FromStr for PlantManner {
    type Err = UnknownManner;

    fn from_str(text: &str) -> Result<Self, UnknownManner> {
        Self::ALL.into_iter().find(|manner| manner.as_str() == text).ok_or(UnknownManner)
    }
}

/// Without the lines, which hold the canary.
impl fmt::Debug for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plant")
            .field("path", &self.path)
            .field("manner", &self.manner)
            .finish_non_exhaustive()
    }
}
