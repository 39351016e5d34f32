//! What the log and the budgets say of a load, held against what the load was: the mock provider tells the same usage in
//! each answer of a kind, so what all of them cost is known before.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::time::sleep;

use super::hold::{Held, STREAM_EVENTS};
use super::house::{House, PERIOD};
use crate::mock::answer::{JSON_COMPLETION_TOKENS, PROMPT_TOKENS};
use crate::tokfence::{Amount, Budget, Tokfence};

/// What `gpt-4o-mini` costs: $0.15 for a million tokens in, $0.60 for a million out.
const INPUT_NANO_USD: u64 = 150;
const OUTPUT_NANO_USD: u64 = 600;

/// Budgets are charged by the writer, which may trail the last answer.
const WAIT_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

/// Requests with what they took in and gave out, and their cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) requests: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cost_nano_usd: u64,
}

impl Sums {
    /// Of so many plain answers and so many streams.
    pub(super) fn of(json: u64, streams: u64) -> Self {
        let input_tokens = (json + streams) * u64::from(PROMPT_TOKENS);
        let output_tokens = json * u64::from(JSON_COMPLETION_TOKENS) + streams * u64::from(STREAM_EVENTS);
        let cost_nano_usd = input_tokens * INPUT_NANO_USD + output_tokens * OUTPUT_NANO_USD;
        Self { requests: json + streams, input_tokens, output_tokens, cost_nano_usd }
    }
}

/// `tokfence stats --by agent --json`
#[derive(Debug, Deserialize)]
struct Stats {
    rows: Vec<Row>,
    total: Row,
}

#[derive(Debug, Clone, Deserialize)]
struct Row {
    group: Option<String>,
    requests: u64,
    refused: u64,
    errors: u64,
    unpriced: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: String,
}

/// Both, and where they differ.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) expected: Sums,
    pub(super) logged: Sums,
    /// Rows of refusals and of failures, and rows without a price.
    pub(super) odd_rows: u64,
    /// Budgets that were compared with the log.
    pub(super) budgets: usize,
    /// Those that were charged another amount, with both.
    pub(super) budget_faults: Vec<String>,
}

impl Books {
    /// The books once they are as expected, or have had time to be.
    pub(super) async fn read(house: &House, held: &Held) -> Result<Self> {
        let answers = |load: Option<&crate::load::LoadReport>| load.map_or(0, |load| load.requests);
        let json = house.gateway.subject.answered + answers(held.json.as_ref());
        let expected = Sums::of(json, answers(held.streams.as_ref()));
        let started = Instant::now();
        loop {
            let books = Self::read_once(&house.gateway.tokfence, expected).await?;
            if books.are_right() || started.elapsed() > WAIT_MAX {
                return Ok(books);
            }
            sleep(POLL).await;
        }
    }

    async fn read_once(tokfence: &Tokfence, expected: Sums) -> Result<Self> {
        let stats: Stats = tokfence.query(&["stats", "--period", "all", "--by", "agent", "--json"]).await?;
        Self::compare(expected, &stats, &tokfence.budgets().await?)
    }

    fn compare(expected: Sums, stats: &Stats, budgets: &[Budget]) -> Result<Self> {
        let total = &stats.total;
        let logged = Sums {
            requests: total.requests,
            input_tokens: total.input_tokens,
            output_tokens: total.output_tokens,
            cost_nano_usd: nano_usd(&total.cost_usd)?,
        };
        let compared: Vec<&Budget> = budgets.iter().filter(|budget| budget.period == PERIOD).collect();
        let mut budget_faults = Vec::new();
        for budget in &compared {
            let row = stats.row_of(&budget.subject);
            let cost = row.map_or(Ok(0), |row| nano_usd(&row.cost_usd))?;
            let (spent, forfeited) = (dollars(&budget.spent)?, dollars(&budget.forfeited)?);
            if spent != cost || forfeited != 0 {
                let name = &budget.name;
                budget_faults.push(format!(
                    "{name}: charged {}, of which {} forfeited, for rows of {}",
                    usd(spent),
                    usd(forfeited),
                    usd(cost)
                ));
            }
        }
        let odd_rows = total.refused + total.errors + total.unpriced;
        Ok(Self { expected, logged, odd_rows, budgets: compared.len(), budget_faults })
    }

    fn are_right(&self) -> bool {
        self.rows_are_right() && self.costs_are_right() && self.budgets_are_right()
    }

    pub(super) fn rows_are_right(&self) -> bool {
        self.logged.requests == self.expected.requests && self.odd_rows == 0
    }

    pub(super) fn costs_are_right(&self) -> bool {
        self.logged == self.expected
    }

    pub(super) fn budgets_are_right(&self) -> bool {
        self.budgets > 0 && self.budget_faults.is_empty()
    }
}

impl Stats {
    /// What a budget's subject did.
    fn row_of(&self, subject: &str) -> Option<&Row> {
        match subject.strip_prefix("agent:") {
            None => Some(&self.total),
            agent => self.rows.iter().find(|row| row.group.as_deref() == agent),
        }
    }
}

fn dollars(amount: &Amount) -> Result<u64> {
    match amount {
        Amount::Usd(text) => nano_usd(text),
        Amount::Tokens(number) => anyhow::bail!("a budget in dollars counts {number} tokens"),
    }
}

/// Dollars as decimal text, exactly.
fn nano_usd(text: &str) -> Result<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    anyhow::ensure!(places.len() <= 9, "an amount of more than nine places: {text}");
    format!("{whole}{places:0<9}").parse().with_context(|| format!("no amount of dollars: {text}"))
}

pub(super) fn usd(nano_usd: u64) -> String {
    format!("${}.{:09}", nano_usd / 1_000_000_000, nano_usd % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The log and the budgets of three plain answers and one stream, `rows` of which are in the log, and `spent` of one agent.
    fn books(rows: u64, cost_usd: &str, spent: &str) -> Books {
        let row = |group: Value| {
            json!({"group": group, "requests": rows, "refused": 0, "errors": 0, "unpriced": 0, "input_tokens": 480,
                "output_tokens": 820, "cost_usd": cost_usd})
        };
        let stats = json!({"rows": [row("a".into())], "total": row(Value::Null)});
        let budget = |subject: &str, spent: &str| {
            json!({"name": subject, "subject": subject, "period": "total", "spent": {"usd": spent},
                "forfeited": {"usd": "0.000000"}})
        };
        let budgets = json!([budget("global", cost_usd), budget("agent:a", spent)]);
        Books::compare(
            Sums::of(3, 1),
            &serde_json::from_value(stats).expect("stats"),
            &serde_json::from_value::<Vec<Budget>>(budgets).expect("budgets"),
        )
        .expect("comparable")
    }

    #[test]
    fn books_that_agree_are_right() {
        let books = books(4, "0.000564", "0.000564");
        assert!(books.are_right(), "{books:?}");
        assert_eq!(books.expected.cost_nano_usd, 3 * 162_000 + 78_000);
    }

    #[test]
    fn a_missing_row_is_a_fault() {
        let books = books(3, "0.000564", "0.000564");
        assert!(!books.rows_are_right() && !books.costs_are_right(), "{books:?}");
        assert!(books.budgets_are_right(), "{books:?}");
    }

    #[test]
    fn a_nano_dollar_too_much_is_a_fault() {
        let books = books(4, "0.000564001", "0.000564001");
        assert!(books.rows_are_right() && !books.costs_are_right(), "{books:?}");
    }

    #[test]
    fn a_budget_that_was_charged_otherwise_is_a_fault() {
        let books = books(4, "0.000564", "0.000563");
        assert!(books.costs_are_right() && !books.budgets_are_right(), "{books:?}");
        let fault =
            "agent:a: charged $0.000563000, of which $0.000000000 forfeited, for rows of $0.000564000";
        assert_eq!(books.budget_faults, [fault]);
    }

    #[test]
    fn amounts_are_read_exactly() {
        let read = |text| nano_usd(text).ok();
        assert_eq!(read("12.000162"), Some(12_000_162_000));
        assert_eq!(read("0.000000001"), Some(1));
        assert_eq!(read("3"), Some(3_000_000_000));
        assert_eq!([read("0.0000000001"), read("-1"), read("1.x")], [None, None, None]);
    }
}
