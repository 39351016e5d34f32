//! The ledger in the database: what was spent of each budget, and what running processes have borrowed.
//!
//! A process spends only what it has borrowed in a committed transaction, so that no two processes together, and no
//! process that dies, can pass a limit. What a dead process had borrowed and not given back is charged in full.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use policy::{BudgetId, Period, TimestampUs};
use rusqlite::{Connection, OptionalExtension, params};

use crate::books::{Charge, Step, Stepped};
use crate::row::parsed;

/// Who borrows: one running process. The text is 26 characters long and unique.
pub(crate) type Holder = String;

/// A budget that has passed the part of its limit at which its owner wants to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which budget, as `agent:ci/daily`.
    pub budget: String,
    /// The part of its limit that is spent, in percent, rounded down.
    pub percent: u64,
    /// What it allows.
    pub limit: policy::Amount,
    /// What is spent.
    pub spent: i64,
}

/// What is spent in a bucket is counted up to here, which is the highest limit. Sums of buckets fit in 64 bits.
const SPENT_MAX: i64 = 100_000_000_000_000_000;

/// Books what ended requests used. A budget that was cleared meanwhile counts nothing any more.
///
/// A sum that does not fit stays as large as fits: an error here would come again with every attempt, and nothing
/// behind it would ever be written.
pub(crate) fn book(conn: &Connection, charges: &[Charge]) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(
        "INSERT INTO budget_spend (budget_id, bucket_start_us, spent_amount)
         SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM budgets WHERE id = ?1)
         ON CONFLICT DO UPDATE SET spent_amount = min(spent_amount + excluded.spent_amount, ?4)",
    )?;
    for ((budget, bucket), amount) in sums(charges) {
        statement.execute(params![budget.0, bucket, amount, SPENT_MAX])?;
    }
    Ok(())
}

/// What is charged to each bucket: the requests of a batch mostly share theirs, and one statement does for all.
fn sums(charges: &[Charge]) -> BTreeMap<(BudgetId, TimestampUs), i64> {
    let mut sums: BTreeMap<_, i64> = BTreeMap::new();
    for charge in charges.iter().filter(|charge| charge.amount > 0) {
        let sum = sums.entry((charge.budget, charge.bucket)).or_default();
        *sum = sum.saturating_add(charge.amount);
    }
    sums
}

/// Brings a lease to what is left of it after the bookings, and borrows more as far as the limit allows. `None` when
/// the budget is gone.
pub(crate) fn take_step(conn: &Connection, holder: &str, step: &Step) -> rusqlite::Result<Option<Stepped>> {
    let Some(limit) = limit(conn, step.budget)? else { return Ok(None) };
    let (spent, oldest) = spent(conn, step)?;
    let others = others(conn, holder, step)?;
    let kept = (step.leased - step.booked - step.give_back).max(0);
    let free = limit.saturating_sub(spent).saturating_sub(others).saturating_sub(kept);
    let granted = step.wish.clamp(0, free.max(0));
    let leased = kept + granted;
    write_lease(conn, holder, step, leased)?;
    Ok(Some(Stepped { limit, leased, granted, spent, others, left: free - granted, oldest }))
}

fn limit(conn: &Connection, budget: BudgetId) -> rusqlite::Result<Option<i64>> {
    let mut statement = conn.prepare_cached("SELECT limit_amount FROM budgets WHERE id = ?1")?;
    statement.query_row([budget.0], |row| row.get(0)).optional()
}

/// What counts against the limit, and the earliest bucket in which it was spent. Summed here, because SQLite's sum
/// fails where it does not fit.
fn spent(conn: &Connection, step: &Step) -> rusqlite::Result<(i64, Option<TimestampUs>)> {
    let mut statement = conn.prepare_cached(
        "SELECT bucket_start_us, spent_amount FROM budget_spend
         WHERE budget_id = ?1 AND bucket_start_us >= ?2 AND bucket_start_us < ?3 AND spent_amount > 0
         ORDER BY bucket_start_us DESC",
    )?;
    let buckets = statement.query_map(params![step.budget.0, step.from, step.to], |row| {
        Ok((row.get::<_, TimestampUs>(0)?, row.get::<_, i64>(1)?))
    })?;
    let (mut spent, mut oldest) = (0i64, None);
    for bucket in buckets {
        let (start, amount) = bucket?;
        (spent, oldest) = (spent.saturating_add(amount), Some(start));
    }
    Ok((spent, oldest))
}

/// What is leased of the same period beside this lease: to other processes, and to this one by another zone's days.
fn others(conn: &Connection, holder: &str, step: &Step) -> rusqlite::Result<i64> {
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(sum(amount), 0) FROM budget_leases
         WHERE budget_id = ?1 AND NOT (bucket_start_us = ?2 AND holder = ?3)
             AND (bucket_start_us = ?2 OR (bucket_start_us >= ?4 AND bucket_start_us < ?5))",
    )?;
    statement.query_row(params![step.budget.0, step.start, holder, step.from, step.to], |row| row.get(0))
}

fn write_lease(conn: &Connection, holder: &str, step: &Step, amount: i64) -> rusqlite::Result<()> {
    let key = params![step.budget.0, step.start, holder];
    if amount == 0 {
        let sql = "DELETE FROM budget_leases WHERE budget_id = ?1 AND bucket_start_us = ?2 AND holder = ?3";
        conn.prepare_cached(sql)?.execute(key)?;
        return Ok(());
    }
    let mut statement = conn.prepare_cached(
        "INSERT INTO budget_leases (budget_id, bucket_start_us, holder, amount) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET amount = excluded.amount",
    )?;
    statement.execute(params![step.budget.0, step.start, holder, amount])?;
    Ok(())
}

/// The processes that have borrowed something.
pub(crate) fn holders(conn: &Connection) -> rusqlite::Result<Vec<Holder>> {
    let mut statement = conn.prepare_cached("SELECT DISTINCT holder FROM budget_leases ORDER BY holder")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Charges in full what a dead process had borrowed: it may have spent all of it. What was borrowed of a rolling
/// budget is charged to the present slice.
pub(crate) fn forfeit(conn: &Connection, holder: &str, now: TimestampUs) -> rusqlite::Result<()> {
    let sql = "SELECT budget_id, period, bucket_start_us, amount
               FROM budget_leases JOIN budgets ON id = budget_id WHERE holder = ?1";
    let leases: Vec<(i64, Period, TimestampUs, i64)> = conn
        .prepare_cached(sql)?
        .query_map([holder], |row| Ok((row.get(0)?, parsed(row, "period")?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut statement = conn.prepare_cached(
        "INSERT INTO budget_spend (budget_id, bucket_start_us, spent_amount, forfeited_amount)
         VALUES (?1, ?2, ?3, ?3)
         ON CONFLICT DO UPDATE SET
            spent_amount = min(spent_amount + excluded.spent_amount, ?4),
            forfeited_amount = min(forfeited_amount + excluded.forfeited_amount, ?4)",
    )?;
    for (budget, period, start, amount) in leases {
        let bucket = match period {
            // Slices do not depend on a zone.
            Period::Rolling { .. } => period.window(now, &TimeZone::UTC).bucket,
            Period::Daily | Period::Weekly | Period::Monthly | Period::Total => start,
        };
        statement.execute(params![budget, bucket, amount, SPENT_MAX])?;
    }
    conn.prepare_cached("DELETE FROM budget_leases WHERE holder = ?1")?.execute([holder])?;
    Ok(())
}

/// Forgets what counts no more and nobody asks for: slices of rolling budgets after eight days, calendar periods after
/// some four hundred.
pub(crate) fn forget_old(conn: &Connection, now: TimestampUs) -> rusqlite::Result<()> {
    const DAY_US: TimestampUs = 24 * 60 * 60 * 1_000_000;
    let sql = "DELETE FROM budget_spend WHERE bucket_start_us > 0 AND (bucket_start_us < ?1 OR
                   bucket_start_us < ?2 AND budget_id IN
                       (SELECT id FROM budgets WHERE period NOT IN ('daily', 'weekly', 'monthly', 'total')))";
    conn.prepare_cached(sql)?.execute([now - 400 * DAY_US, now - 8 * DAY_US])?;
    Ok(())
}

/// Marks a bucket as warned about if spend has passed `percent` of the limit and nothing in the same window is
/// marked. Answers whether there is something to tell.
pub(crate) fn mark_warned(
    conn: &Connection,
    step: &Step,
    stepped: &Stepped,
    percent: u64,
) -> rusqlite::Result<Option<u64>> {
    if step.booked == 0 || percent == 0 || stepped.limit <= 0 {
        return Ok(None);
    }
    let reached = i128::from(stepped.spent) * 100 / i128::from(stepped.limit);
    let reached = u64::try_from(reached).unwrap_or(u64::MAX);
    if reached < percent {
        return Ok(None);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM budget_spend WHERE budget_id = ?1 AND bucket_start_us >= ?2
                                AND bucket_start_us < ?3 AND is_warned)";
    let window = params![step.budget.0, step.from, step.to];
    if conn.prepare_cached(sql)?.query_row(window, |row| row.get(0))? {
        return Ok(None);
    }
    let sql = "UPDATE budget_spend SET is_warned = 1 WHERE budget_id = ?1 AND bucket_start_us =
                   (SELECT max(bucket_start_us) FROM budget_spend WHERE budget_id = ?1
                        AND bucket_start_us >= ?2 AND bucket_start_us < ?3)";
    conn.prepare_cached(sql)?.execute(window)?;
    Ok(Some(reached))
}

/// The latest instant that any process has seen.
pub(crate) fn high_water(conn: &Connection) -> rusqlite::Result<TimestampUs> {
    conn.prepare_cached("SELECT high_water_us FROM clock")?.query_row([], |row| row.get(0))
}

/// Remembers an instant, and answers the latest that any process has seen.
pub(crate) fn raise_high_water(conn: &Connection, now: TimestampUs) -> rusqlite::Result<TimestampUs> {
    let sql = "UPDATE clock SET high_water_us = max(high_water_us, ?1) RETURNING high_water_us";
    conn.prepare_cached(sql)?.query_row([now], |row| row.get(0))
}
