//! Budgets as rows: set, cleared, and told with what is spent and held of them.

use jiff::tz::TimeZone;
use policy::{Allowance, Amount, Budget, Period, Subject, TimestampUs, Unit};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use crate::audit::{Act, AuditAction, AuditNote};
use crate::error::{Doing, Error};
use crate::query::Conditions;
use crate::row::parsed;
use crate::rules::budget;
use crate::store::Store;
use crate::sums;

/// The budgets that may still limit something, in the order in which they were set: a capability that was revoked
/// spends nothing any more.
pub(crate) const IN_FORCE: &str = "
    SELECT * FROM budgets
    WHERE subject_kind <> 'capability'
       OR subject_name IN (SELECT id FROM capabilities WHERE revoked_at_us IS NULL)
    ORDER BY id";

/// How a budget stands at one moment. Amounts are in the unit of its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// The budget.
    pub budget: Budget,
    /// What was settled in the present period.
    pub spent: i64,
    /// How much of that was held by processes that died before they settled.
    pub forfeited: i64,
    /// What requests in flight hold, with what running processes keep ready for the next.
    pub reserved: i64,
    /// When the present period began, or the span that counts now.
    pub since: TimestampUs,
    /// When some of what is spent counts no more; `None` is never, or that nothing is spent.
    pub renews_at: Option<TimestampUs>,
}

/// What came of setting a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSet {
    /// The limit it had before.
    pub former: Option<Amount>,
    /// What the request log says was spent in the present period, and what therefore counts; only for a new budget.
    pub counted: i64,
}

impl BudgetStatus {
    /// What neither was spent nor is held; a debt is negative.
    pub fn left(&self) -> i64 {
        self.budget.limit.number.saturating_sub(self.spent).saturating_sub(self.reserved)
    }
}

impl Store {
    /// Sets a budget. An old one of the same subject, period and unit keeps what is spent of it and gets the new
    /// limit; a new one counts what the log says was spent in the present period.
    ///
    /// # Errors
    /// SQLite's failure; nothing is changed then.
    pub fn set_budget(
        &mut self,
        subject: &Subject,
        period: Period,
        limit: Amount,
        wall_now: TimestampUs,
        zone: &TimeZone,
    ) -> Result<BudgetSet, Error> {
        let doing = "set a budget";
        let now = self.effective_now(wall_now)?;
        let act = self.act(doing)?;
        let former = former_limit(&act, subject, period, limit.unit).doing(doing)?;
        if former == Some(limit) {
            return Ok(BudgetSet { former, counted: 0 });
        }
        let counted = match former {
            Some(_) => update_limit(&act, subject, period, limit).map(|()| 0),
            None => insert(&act, subject, &Allowance { limit, period }, now)
                .and_then(|id| count_spent(&act, id, subject, period, limit.unit, now, zone)),
        };
        let counted = counted.doing(doing)?;
        let before = former.map(|former| former.to_string());
        let detail = json!({ "period": period.to_string(), "before": before, "after": limit.to_string() });
        act.record(&AuditNote::new(AuditAction::BudgetSet, subject, detail), wall_now)?;
        Ok(BudgetSet { former, counted })
    }

    /// Removes the budgets of a subject, those of one period alone where it is given. Answers the removed ones.
    ///
    /// # Errors
    /// SQLite's failure; nothing is removed then.
    pub fn clear_budgets(
        &mut self,
        subject: &Subject,
        period: Option<Period>,
        now: TimestampUs,
    ) -> Result<Vec<Budget>, Error> {
        let doing = "clear budgets";
        let sql = "DELETE FROM budgets WHERE subject_kind = ?1 AND subject_name = ?2 AND (?3 IS NULL OR period = ?3)
                   RETURNING *";
        let wanted = params![subject.kind(), subject.name(), period.map(|period| period.to_string())];
        let act = self.act(doing)?;
        let removed = act.prepare(sql).and_then(|mut statement| {
            let rows = statement.query_map(wanted, budget)?;
            rows.collect::<rusqlite::Result<Vec<Budget>>>()
        });
        let removed = removed.doing(doing)?;
        if !removed.is_empty() {
            let before = removed.iter().map(|budget| format!("{}/{}", budget.limit, budget.period));
            let detail = json!({ "before": before.collect::<Vec<_>>(), "after": null });
            act.record(&AuditNote::new(AuditAction::BudgetClear, subject, detail), now)?;
        }
        Ok(removed)
    }

    /// How every budget stands, in the order in which they were set; those of capabilities only until these are revoked.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn budgets(&self, wall_now: TimestampUs, zone: &TimeZone) -> Result<Vec<BudgetStatus>, Error> {
        let doing = "read the budgets";
        let now = self.effective_now(wall_now)?;
        let read = self.conn.unchecked_transaction().doing(doing)?;
        let mut statement = read.prepare_cached(IN_FORCE).doing(doing)?;
        let budgets = statement.query_map([], budget).doing(doing)?;
        let status = |found: rusqlite::Result<Budget>| status(&read, found?, now, zone);
        budgets.map(status).collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// Takes the wall clock for right although a later instant was seen, after a clock that was wrong for a while.
    /// What was charged to the future counts no more. No process may be using the database.
    ///
    /// # Errors
    /// SQLite's failure; nothing is changed then.
    pub fn accept_clock(&mut self, wall_now: TimestampUs) -> Result<(), Error> {
        let doing = "accept the clock";
        let act = self.act(doing)?;
        let before = crate::leases::high_water(&act).doing(doing)?;
        act.execute("UPDATE clock SET high_water_us = ?1", [wall_now]).doing(doing)?;
        act.execute("DELETE FROM budget_spend WHERE bucket_start_us > ?1", [wall_now]).doing(doing)?;
        let detail = json!({ "before": before, "after": wall_now });
        act.record(&AuditNote::new(AuditAction::ClockAccept, "clock", detail), wall_now)
    }

    /// The present instant, which is never before one that was seen earlier.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn effective_now(&self, wall_now: TimestampUs) -> Result<TimestampUs, Error> {
        let seen = crate::leases::high_water(&self.conn).doing("read the clock")?;
        Ok(seen.max(wall_now))
    }
}

fn former_limit(
    conn: &Connection,
    subject: &Subject,
    period: Period,
    unit: Unit,
) -> rusqlite::Result<Option<Amount>> {
    let sql = "SELECT unit, limit_amount FROM budgets
               WHERE subject_kind = ?1 AND subject_name = ?2 AND period = ?3 AND unit = ?4";
    let key = params![subject.kind(), subject.name(), period.to_string(), unit.as_str()];
    let amount = |row: &Row<'_>| Ok(parsed::<Unit>(row, "unit")?.of(row.get("limit_amount")?));
    conn.query_row(sql, key, amount).optional()
}

fn update_limit(act: &Act<'_>, subject: &Subject, period: Period, limit: Amount) -> rusqlite::Result<()> {
    let sql = "UPDATE budgets SET limit_amount = ?5
               WHERE subject_kind = ?1 AND subject_name = ?2 AND period = ?3 AND unit = ?4";
    let (period, unit) = (period.to_string(), limit.unit.as_str());
    act.execute(sql, params![subject.kind(), subject.name(), period, unit, limit.number])?;
    Ok(())
}

/// Makes a budget of which nothing is spent, and answers its number.
pub(crate) fn insert(
    act: &Act<'_>,
    subject: &Subject,
    Allowance { limit, period }: &Allowance,
    now: TimestampUs,
) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO budgets (subject_kind, subject_name, period, unit, limit_amount, created_at_us)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (text, unit) = (period.to_string(), limit.unit.as_str());
    act.execute(sql, params![subject.kind(), subject.name(), text, unit, limit.number, now])?;
    Ok(act.last_insert_rowid())
}

/// Charges a new budget with what the log says was spent in its present period.
fn count_spent(
    act: &Act<'_>,
    id: i64,
    subject: &Subject,
    period: Period,
    unit: Unit,
    now: TimestampUs,
    zone: &TimeZone,
) -> rusqlite::Result<i64> {
    let amount = match unit {
        Unit::NanoUsd => "cost_nano_usd",
        Unit::Tokens => {
            "input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens + output_tokens"
        }
    };
    let window = period.window(now, zone);
    let mut wanted = Conditions::default();
    wanted.add("last_started_us >= ?", Some(window.from));
    let of_subject = match subject {
        Subject::Global => "?2 = ''",
        Subject::Provider(_) => "provider = ?2",
        Subject::Agent(name) => {
            wanted.add("agent = ?", Some(name.as_str().to_owned()));
            "agent = ?2"
        }
        Subject::Capability(id) => {
            wanted.add("capability_id = ?", Some(id.as_str().to_owned()));
            "capability_id = ?2"
        }
    };
    let first_seq = sums::first_seq(act, &wanted)?;
    let slice = match period {
        Period::Rolling { .. } => window.bucket_end.map_or(1, |end| end - window.bucket),
        // One bucket for all: no instant is further from the start than this.
        Period::Daily | Period::Weekly | Period::Monthly | Period::Total => i64::MAX,
    };
    let sql = format!(
        "INSERT INTO budget_spend (budget_id, bucket_start_us, spent_amount)
         SELECT ?1, ?3 + (started_at_us - ?3) / ?4 * ?4 AS bucket, sum({amount}) FROM requests NOT INDEXED
         WHERE seq >= ?5 AND started_at_us >= ?3 AND {of_subject} AND outcome <> 'refused' AND {amount} > 0
         GROUP BY bucket
         RETURNING spent_amount"
    );
    let mut statement = act.prepare(&sql)?;
    let values = params![id, subject.name(), window.from, slice, first_seq];
    let rows = statement.query_map(values, |row| row.get::<_, i64>(0))?;
    rows.sum()
}

fn status(
    conn: &Connection,
    budget: Budget,
    now: TimestampUs,
    zone: &TimeZone,
) -> rusqlite::Result<BudgetStatus> {
    let window = budget.period.window(now, zone);
    let sql = "SELECT bucket_start_us, spent_amount, forfeited_amount FROM budget_spend
               WHERE budget_id = ?1 AND bucket_start_us >= ?2 AND spent_amount > 0 ORDER BY bucket_start_us DESC";
    let mut statement = conn.prepare_cached(sql)?;
    let mut buckets = statement.query(params![budget.id.0, window.counts_from])?;
    let (mut spent, mut forfeited, mut oldest) = (0i64, 0i64, None);
    // Summed here, because SQLite's sum fails where it does not fit.
    while let Some(row) = buckets.next()? {
        spent = spent.saturating_add(row.get(1)?);
        forfeited = forfeited.saturating_add(row.get(2)?);
        oldest = Some(row.get(0)?);
    }
    let sql = "SELECT coalesce(sum(amount), 0) FROM budget_leases WHERE budget_id = ?1";
    let reserved = conn.prepare_cached(sql)?.query_row([budget.id.0], |row| row.get(0))?;
    let renews_at = match budget.period {
        Period::Rolling { .. } => oldest.and_then(|bucket| budget.period.renewal(bucket, zone)),
        Period::Daily | Period::Weekly | Period::Monthly | Period::Total => window.bucket_end,
    };
    Ok(BudgetStatus { budget, spent, forfeited, reserved, since: window.from, renews_at })
}
