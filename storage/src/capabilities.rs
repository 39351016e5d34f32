//! Capabilities as rows: minted, revoked, listed.

use policy::{AgentName, Allowance, Capability, CapabilityId, Map, RateLimit, Scope, Subject, TimestampUs};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use crate::audit::{Act, AuditAction, AuditNote};
use crate::error::{Doing, Error};
use crate::row::{parsed, parsed_opt, unreadable};
use crate::store::Store;
use crate::sums::USES;
use crate::{budgets, rates, rules};

const COLUMNS: &str = "id, secret_hash, agent, parent_id, providers_json, models_json, routes_json, methods_json, \
     requires_unix_socket, created_at_us, expires_at_us, revoked_at_us, revoke_reason, note";

/// A child that has ended is remembered for an hour.
const ENDED_CHILD_KEPT_US: i64 = 3_600_000_000;

/// The capabilities that are not in force at the instant `?1`, as a table `ended` of a recursive query: their own
/// time is over, their agent is revoked, or what they were made from is not in force.
pub(crate) const ENDED: &str = "ended (id) AS (
                SELECT id FROM capabilities
                WHERE revoked_at_us IS NOT NULL OR expires_at_us <= ?1
                   OR agent IN (SELECT name FROM agents WHERE revoked_at_us IS NOT NULL)
                UNION
                SELECT capabilities.id FROM capabilities JOIN ended ON parent_id = ended.id)";

/// A capability to be minted. The token itself stays with the caller; only its hash comes here.
#[derive(Clone, Debug)]
pub struct NewCapability {
    /// The public part of its token.
    pub id: CapabilityId,
    /// SHA-256 of the secret part.
    pub secret_hash: [u8; 32],
    /// The agent it stands for; made if there is none of this name.
    pub agent: AgentName,
    /// What is remembered about an agent that is made by this; an existing agent keeps its note.
    pub agent_note: Option<String>,
    /// The capability it is made from, which must exist.
    pub parent: Option<CapabilityId>,
    /// What it allows.
    pub scope: Scope,
    /// When it ends; `None` is never.
    pub expires_at: Option<TimestampUs>,
    /// How much it may do in a minute and at once.
    pub rate: RateLimit,
    /// What it may spend; no two over the same period and of the same unit.
    pub budgets: Vec<Allowance>,
    /// What it is for, in at most 200 characters.
    pub note: Option<String>,
}

/// Which capabilities to list. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct CapabilityFilter {
    /// Only those of this agent, which must exist.
    pub agent: Option<AgentName>,
    /// Only those in force at this instant: neither they nor an ancestor nor the agent is revoked or has expired.
    pub active_at: Option<TimestampUs>,
}

/// A capability as a person sees it listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilitySummary {
    /// The capability.
    pub capability: Capability,
    /// Why it was revoked.
    pub revoke_reason: Option<String>,
    /// What it is for, in the words of whoever made it.
    pub note: Option<String>,
    /// When the last admitted request in the log was made with it.
    pub last_used_at: Option<TimestampUs>,
}

impl Store {
    /// Stores a new capability, and its agent if that is new.
    ///
    /// # Errors
    /// [`Error::CapabilityExists`], [`Error::ExpiresTooEarly`], [`Error::AgentRevoked`], for a parent
    /// [`Error::NoSuchCapability`] or [`Error::CapabilityEnded`], or SQLite's failure; nothing is stored then.
    pub fn mint(&mut self, new: &NewCapability, now: TimestampUs) -> Result<(), Error> {
        self.mint_as(AuditAction::AgentMint, new, now)
    }

    /// The same for a run, at whose end [`Store::end_run`] is called.
    ///
    /// # Errors
    /// As [`Store::mint`].
    pub fn begin_run(&mut self, new: &NewCapability, now: TimestampUs) -> Result<(), Error> {
        self.mint_as(AuditAction::RunBegin, new, now)
    }

    fn mint_as(&mut self, action: AuditAction, new: &NewCapability, now: TimestampUs) -> Result<(), Error> {
        let doing = "mint a capability";
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::ExpiresTooEarly { id: new.id });
        }
        let act = self.act(doing)?;
        let taken = act
            .query_row(
                "SELECT 1 FROM capabilities WHERE id = ?1 OR secret_hash = ?2",
                params![new.id.as_str(), new.secret_hash],
                |_| Ok(()),
            )
            .optional()
            .doing(doing)?;
        if taken.is_some() {
            return Err(Error::CapabilityExists { id: new.id });
        }
        if rules::revoked_agents(&act).doing(doing)?.contains_key(&new.agent) {
            return Err(Error::AgentRevoked { name: new.agent.clone() });
        }
        if let Some(parent) = new.parent {
            require_in_force(&act, parent, now, doing)?;
            prune(&act, now).doing(doing)?;
            insert(&act, new, now).doing(doing)?;
            return act.keep_of_agent();
        }
        insert(&act, new, now).doing(doing)?;
        act.record(&minted(action, new), now)
    }

    /// Revokes one capability for good. Answers whether it still was in force; one that had been revoked before
    /// keeps its first date and reason.
    ///
    /// # Errors
    /// [`Error::NoSuchCapability`], or SQLite's failure.
    pub fn revoke_capability(
        &mut self,
        id: CapabilityId,
        reason: &str,
        now: TimestampUs,
    ) -> Result<bool, Error> {
        let doing = "revoke a capability";
        let act = self.act(doing)?;
        let was_in_force = revoke(&act, id, reason, now)?;
        if was_in_force {
            let detail = json!({ "before": "in force", "after": "revoked", "reason": reason });
            act.record(&AuditNote::new(AuditAction::CapabilityRevoke, Subject::Capability(id), detail), now)?;
        }
        Ok(was_in_force)
    }

    /// Gives a capability another secret; its scope, its end and its limits stay. What was made from it belongs to
    /// whoever had the old secret, and is revoked. Answers how many capabilities those were.
    ///
    /// # Errors
    /// [`Error::NoSuchCapability`], [`Error::CapabilityEnded`] when it is not in force at `now`, or SQLite's failure.
    pub fn rotate_capability(
        &mut self,
        id: CapabilityId,
        secret_hash: [u8; 32],
        now: TimestampUs,
    ) -> Result<usize, Error> {
        let doing = "rotate a capability";
        let act = self.act(doing)?;
        require_in_force(&act, id, now, doing)?;
        let sql = "UPDATE capabilities SET secret_hash = ?2 WHERE id = ?1";
        act.execute(sql, params![id.as_str(), secret_hash]).doing(doing)?;
        let sql = "WITH RECURSIVE made (id) AS (
                       SELECT id FROM capabilities WHERE parent_id = ?1
                       UNION SELECT capabilities.id FROM capabilities JOIN made ON parent_id = made.id)
                   UPDATE capabilities SET revoked_at_us = ?2, revoke_reason = 'its parent was rotated'
                   WHERE id IN (SELECT id FROM made) AND revoked_at_us IS NULL";
        let revoked = act.execute(sql, params![id.as_str(), now]).doing(doing)?;
        let detail = json!({ "children_revoked": revoked });
        act.record(&AuditNote::new(AuditAction::CapabilityRotate, Subject::Capability(id), detail), now)?;
        Ok(revoked)
    }

    /// Lists capabilities, newest first.
    ///
    /// # Errors
    /// [`Error::NoSuchAgent`], or SQLite's failure.
    pub fn capabilities(&self, filter: &CapabilityFilter) -> Result<Vec<CapabilitySummary>, Error> {
        let doing = "list capabilities";
        if let Some(name) = &filter.agent {
            self.require_agent(name)?;
        }
        let sql = format!(
            "WITH RECURSIVE {ENDED}, {USES},
                 used AS (SELECT capability_id, max(at_us) AS at_us FROM uses GROUP BY capability_id)
             SELECT {COLUMNS}, used.at_us AS last_used_at_us
             FROM capabilities LEFT JOIN used ON used.capability_id = capabilities.id
             WHERE (?2 IS NULL OR agent = ?2) AND (?1 IS NULL OR id NOT IN (SELECT id FROM ended))
             ORDER BY created_at_us DESC, id"
        );
        let mut statement = self.conn.prepare_cached(&sql).doing(doing)?;
        let wanted = params![filter.active_at, filter.agent.as_ref().map(AgentName::as_str)];
        let rows = statement.query_map(wanted, |row| {
            Ok(CapabilitySummary {
                capability: from_row(row)?,
                revoke_reason: row.get("revoke_reason")?,
                note: row.get("note")?,
                last_used_at: row.get("last_used_at_us")?,
            })
        });
        rows.doing(doing)?.collect::<rusqlite::Result<_>>().doing(doing)
    }
}

/// Revokes a capability as part of something larger.
pub(crate) fn revoke(act: &Act<'_>, id: CapabilityId, reason: &str, now: TimestampUs) -> Result<bool, Error> {
    let doing = "revoke a capability";
    let known =
        act.query_row("SELECT 1 FROM capabilities WHERE id = ?1", [id.as_str()], |_| Ok(())).optional();
    if known.doing(doing)?.is_none() {
        return Err(Error::NoSuchCapability { id });
    }
    let sql = "UPDATE capabilities SET revoked_at_us = ?2, revoke_reason = ?3
               WHERE id = ?1 AND revoked_at_us IS NULL";
    Ok(act.execute(sql, params![id.as_str(), now, reason]).doing(doing)? == 1)
}

fn require_in_force(
    act: &Act<'_>,
    id: CapabilityId,
    now: TimestampUs,
    doing: &'static str,
) -> Result<(), Error> {
    let sql =
        format!("WITH RECURSIVE {ENDED} SELECT ?2 IN (SELECT id FROM ended) FROM capabilities WHERE id = ?2");
    let is_ended = act.query_row(&sql, params![now, id.as_str()], |row| row.get(0)).optional();
    match is_ended.doing(doing)? {
        None => Err(Error::NoSuchCapability { id }),
        Some(true) => Err(Error::CapabilityEnded { id }),
        Some(false) => Ok(()),
    }
}

/// Forgets children that ended long ago. Their makers are not their owners, and could otherwise fill the database.
/// Until then whoever holds one is told why it is refused.
fn prune(act: &Act<'_>, now: TimestampUs) -> rusqlite::Result<()> {
    let sql = "DELETE FROM capabilities
               WHERE parent_id IS NOT NULL AND (revoked_at_us < ?1 OR expires_at_us < ?1)
                 AND NOT EXISTS (SELECT 1 FROM capabilities AS child WHERE child.parent_id = capabilities.id)";
    if act.execute(sql, [now.saturating_sub(ENDED_CHILD_KEPT_US)])? > 0 {
        let sql = "DELETE FROM rate_limits WHERE subject_kind = 'capability'
                   AND NOT EXISTS (SELECT 1 FROM capabilities WHERE id = subject_name)";
        act.execute(sql, [])?;
    }
    Ok(())
}

fn insert(act: &Act<'_>, new: &NewCapability, now: TimestampUs) -> rusqlite::Result<()> {
    act.execute(
        "INSERT INTO agents (name, created_at_us, note) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING",
        params![new.agent.as_str(), now, new.agent_note],
    )?;
    let scope = &new.scope;
    act.execute(
        "INSERT INTO capabilities (id, secret_hash, agent, parent_id, providers_json, models_json, routes_json,
                                   methods_json, requires_unix_socket, created_at_us, expires_at_us, note)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            new.id.as_str(),
            new.secret_hash,
            new.agent.as_str(),
            new.parent.as_ref().map(CapabilityId::as_str),
            json_list(&scope.providers),
            json_list(&scope.models),
            json_list(&scope.routes),
            json_list(&scope.methods),
            scope.requires_unix_socket,
            now,
            new.expires_at,
            new.note,
        ],
    )?;
    let subject = Subject::Capability(new.id);
    new.budgets.iter().try_for_each(|budget| budgets::insert(act, &subject, budget, now).map(drop))?;
    rates::put(act, &subject, &new.rate)
}

/// Reads every capability, ended ones included.
pub(crate) fn all(conn: &Connection) -> rusqlite::Result<Map<CapabilityId, Capability>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM capabilities"))?;
    let rows = statement.query_map([], |row| from_row(row).map(|capability| (capability.id, capability)))?;
    rows.collect()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Capability> {
    Ok(Capability {
        id: parsed(row, "id")?,
        secret_hash: row.get("secret_hash")?,
        agent: parsed(row, "agent")?,
        parent: parsed_opt(row, "parent_id")?,
        scope: Scope {
            providers: parsed_list(row, "providers_json")?,
            models: parsed_list(row, "models_json")?,
            routes: parsed_list(row, "routes_json")?,
            methods: parsed_list(row, "methods_json")?,
            requires_unix_socket: row.get("requires_unix_socket")?,
        },
        created_at: row.get("created_at_us")?,
        expires_at: row.get("expires_at_us")?,
        revoked_at: row.get("revoked_at_us")?,
    })
}

/// What is written down of a new capability. Runs are many, so only what they were given is told of them.
fn minted(action: AuditAction, new: &NewCapability) -> AuditNote {
    let scope = &new.scope;
    let names = |items: Vec<String>| if items.is_empty() { Value::Null } else { items.into() };
    let parts = [
        ("capability", new.id.to_string().into()),
        ("expires_at_us", new.expires_at.into()),
        ("providers", names(scope.providers.iter().map(ToString::to_string).collect())),
        ("models", names(scope.models.iter().map(ToString::to_string).collect())),
        ("routes", names(scope.routes.iter().map(ToString::to_string).collect())),
        ("methods", names(scope.methods.iter().map(ToString::to_string).collect())),
        ("requires_unix_socket", if scope.requires_unix_socket { true.into() } else { Value::Null }),
        ("rate", rates::document(&new.rate)),
        ("budgets", names(new.budgets.iter().map(|one| format!("{}/{}", one.limit, one.period)).collect())),
        ("note", new.note.clone().into()),
    ];
    let given = parts.into_iter().filter(|(_, value)| !value.is_null());
    let detail = given.map(|(name, value)| (name.to_owned(), value)).collect();
    AuditNote::new(action, Subject::Agent(new.agent.clone()), Value::Object(detail))
}

fn json_list<T: ToString>(items: &[T]) -> String {
    serde_json::Value::from_iter(items.iter().map(T::to_string)).to_string()
}

/// Reads a list of names. One that is not understood fails the whole row: leaving it out could leave the list
/// empty, which would limit nothing.
fn parsed_list<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<T>>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    let items: Vec<String> = serde_json::from_str(&text).map_err(|error| unreadable(row, column, error))?;
    items.iter().map(|item| item.parse().map_err(|error| unreadable(row, column, error))).collect()
}
