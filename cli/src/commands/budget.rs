//! `budget`: limits on what everybody, a provider or an agent may spend.

use clap::Subcommand;
use gateway::config::Config;
use gateway::overview::BudgetStanding;
use gateway::overview::form::amount_document;
use policy::{Amount, Budget as PolicyBudget, Period, Subject};
use serde_json::json;
use storage::{BudgetSet, BudgetStatus};

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::failure::{Exit, Failure};
use crate::format::{local_time, percent};

const SET_HINT: &str = "tokfence budget set openai 10 daily · agent:ci 2.50 weekly · global '2M tokens' 5h";

const COLUMNS: [Column; 7] = [
    Column::Left("budget"),
    Column::Right("limit"),
    Column::Right("spent"),
    Column::SpareRight("held"),
    Column::Right("left"),
    Column::Right("used"),
    Column::SpareLeft("renews"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Budget {
    /// Set what a subject may spend in a period; an old limit is replaced, what is spent stays
    Set {
        /// `global`, a provider, or agent:NAME
        subject: String,
        /// Dollars (`10`, `$0.50`) or tokens (`'2M tokens'`), and the period: daily, weekly, monthly, total, or a
        /// rolling span such as 5h; in either order
        #[arg(num_args = 2..=4, required = true, value_names = ["AMOUNT", "PERIOD"])]
        amount_and_period: Vec<String>,
    },
    /// Show what is spent, held and left of each budget, and when it renews
    Status {
        /// Only those of `global`, a provider, or agent:NAME
        subject: Option<String>,
    },
    /// Remove the budgets of a subject, or one of them
    Clear {
        /// `global`, a provider, or agent:NAME
        subject: String,
        /// Only the one of this period
        period: Option<String>,
    },
}

impl Budget {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Set { subject, amount_and_period } => set(app, &subject, &amount_and_period),
            Self::Status { subject } => status(app, subject.as_deref()),
            Self::Clear { subject, period } => clear(app, &subject, period.as_deref()),
        }
    }
}

fn set(app: &App, subject: &str, amount_and_period: &[String]) -> Result<(), Failure> {
    let config = app.config()?;
    let (limit, period) = parse_limit(amount_and_period)?;
    let subject = app.subject(&config, subject)?;
    // What was spent a moment ago counts too.
    app.flush_log();
    let zone = &config.budget.timezone;
    let set = app.store()?.set_budget(&subject, period, limit, now_us(), zone)?;
    app.tell_daemon()?;
    let document = json!({
        "subject": subject.to_string(),
        "period": period.to_string(),
        "limit": amount_document(limit),
        "former_limit": set.former.map(amount_document),
        "counted": amount_document(limit.unit.of(set.counted)),
    });
    app.output.done(&document, || describe_set(&subject, period, limit, &set));
    Ok(())
}

fn describe_set(subject: &Subject, period: Period, limit: Amount, set: &BudgetSet) -> String {
    let spent = limit.unit.of(set.counted);
    match set.former {
        Some(former) => format!("{subject} may spend {limit} {period} (before: {former})"),
        None if set.counted > 0 => {
            format!("{subject} may spend {limit} {period}; {spent} of it is spent already")
        }
        None => format!("{subject} may spend {limit} {period}"),
    }
}

/// An amount and a period in either order; an amount of tokens may come in two words.
pub(crate) fn parse_limit(words: &[String]) -> Result<(Amount, Period), Failure> {
    let (first, last) = (&words[0], &words[words.len() - 1]);
    let (period, amount) = match (last.parse::<Period>(), first.parse::<Period>()) {
        (Ok(period), _) => (period, words[..words.len() - 1].join(" ")),
        (Err(_), Ok(period)) => (period, words[1..].join(" ")),
        (Err(error), Err(_)) => return Err(Failure::usage(error.to_string()).with_hint(SET_HINT)),
    };
    let amount = amount.parse::<Amount>();
    let amount = amount.map_err(|error| Failure::usage(error.to_string()).with_hint(SET_HINT))?;
    Ok((amount, period))
}

fn clear(app: &App, subject: &str, period: Option<&str>) -> Result<(), Failure> {
    let config = app.config()?;
    let subject = subject_with_budgets(app, &config, subject)?;
    let period = period.map(|text| text.parse::<Period>().map_err(|error| Failure::usage(error.to_string())));
    let removed = app.store()?.clear_budgets(&subject, period.transpose()?, now_us())?;
    if removed.is_empty() {
        let failure = Failure::new(Exit::NotFound, "no_such_budget", format!("{subject} has no such budget"));
        return Err(failure.with_hint("tokfence budget status"));
    }
    app.tell_daemon()?;
    let names: Vec<String> = removed.iter().map(PolicyBudget::name).collect();
    app.output.done(&json!({ "cleared": names }), || format!("cleared {}", names.join(", ")));
    Ok(())
}

/// A subject that exists, or that has a budget left although it is gone.
fn subject_with_budgets(app: &App, config: &Config, text: &str) -> Result<Subject, Failure> {
    let known = app.subject(config, text);
    let Ok(typed) = text.parse::<Subject>() else { return known };
    let budgets = app.store()?.budgets(now_us(), &config.budget.timezone)?;
    let has_budget = budgets.iter().any(|status| status.budget.subject == typed);
    if has_budget { Ok(typed) } else { known }
}

fn status(app: &App, subject: Option<&str>) -> Result<(), Failure> {
    let config = app.config()?;
    let subject = subject.map(|text| subject_with_budgets(app, &config, text)).transpose()?;
    let mut budgets = standings(app, &config)?;
    budgets.retain(|status| subject.as_ref().is_none_or(|subject| status.budget.subject == *subject));
    let clock_ahead_us = app.store()?.effective_now(now_us())? - now_us();
    let document = json!({
        "timezone": zone_name(&config),
        "reserve": if config.budget.reserve == gateway::config::Reserve::Strict { "strict" } else { "rolling" },
        "budgets": budgets.iter().map(BudgetStanding::from).collect::<Vec<_>>(),
    });
    app.output.data(&document, || table(&budgets));
    notes(app, &budgets, clock_ahead_us);
    Ok(())
}

/// How all budgets stand now.
pub(crate) fn standings(app: &App, config: &Config) -> Result<Vec<BudgetStatus>, Failure> {
    // The daemon gives back what it only keeps ready, so that what is left is what requests hold.
    app.flush_log();
    Ok(app.store()?.budgets(now_us(), &config.budget.timezone)?)
}

pub(crate) fn table(budgets: &[BudgetStatus]) -> String {
    let rows: Vec<Vec<String>> = budgets.iter().map(cells).collect();
    Columns::table(&COLUMNS, &rows, "no budgets; set one with `tokfence budget set SUBJECT AMOUNT PERIOD`")
}

/// What the table cannot say.
fn notes(app: &App, budgets: &[BudgetStatus], clock_ahead_us: i64) {
    for status in budgets.iter().filter(|status| status.forfeited > 0) {
        let lost = status.budget.limit.unit.of(status.forfeited);
        app.output.note(&format!(
            "{}: {lost} of what is spent was held by a daemon that died; it may not have been spent",
            status.budget.name()
        ));
    }
    if clock_ahead_us > 60_000_000 {
        let until = local_time(now_us() + clock_ahead_us);
        app.output
            .warn(&format!("the clock was once at {until}; periods go by that until it is reached again"));
    }
}

fn cells(status: &BudgetStatus) -> Vec<String> {
    let amount = |number| status.budget.limit.unit.of(number).to_string();
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    let used = percent(part(status.spent), part(status.budget.limit.number));
    vec![
        status.budget.name(),
        status.budget.limit.to_string(),
        amount(status.spent),
        amount(status.reserved),
        amount(status.left()),
        used,
        status.renews_at.map_or_else(|| "never".to_owned(), local_time),
    ]
}

fn zone_name(config: &Config) -> String {
    config.budget.timezone.iana_name().unwrap_or("UTC").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_limit(words: &[&str], expected: Option<&str>) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let parsed = parse_limit(&words).ok().map(|(amount, period)| format!("{amount} {period}"));
        assert_eq!(parsed.as_deref(), expected, "{words:?}");
    }

    #[test]
    fn amount_and_period_come_in_either_order() {
        check_limit(&["10", "daily"], Some("$10.000000 daily"));
        check_limit(&["weekly", "$2.50"], Some("$2.500000 weekly"));
        check_limit(&["2M tokens", "5h"], Some("2000000 tokens 5h"));
        check_limit(&["2M", "tokens", "5h"], Some("2000000 tokens 5h"));
        check_limit(&["total", "500k", "tokens"], Some("500000 tokens total"));
        for words in [["10", "yearly"], ["daily", "weekly"], ["10", "10"], ["-1", "daily"], ["1e3", "daily"]]
        {
            check_limit(&words, None);
        }
    }
}
