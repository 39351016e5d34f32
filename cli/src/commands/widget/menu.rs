//! What a menu shows, whichever program shows it: plain data.

use clap::CommandFactory;
use gateway::overview::{BudgetStanding, Overview};
use policy::NanoUsd;

use crate::args::Args;
use crate::commands::kill::TakenBack;
use crate::format::{bar, percent, plain, rough, short, usd};

/// The cells of a budget's bar.
const BAR: usize = 10;
/// The most lines of a kind; what is beyond them is counted.
const LINES_MAX: usize = 8;

/// What was found of the gateway.
#[derive(Debug)]
pub(super) enum Seen {
    Running(Box<Overview>),
    /// What the next one will not serve.
    Down(TakenBack),
    /// It does not answer, and why.
    Silent(String),
}

/// What a menu shows.
#[derive(Debug)]
pub(super) struct Menu {
    /// What stands in the bar itself.
    pub(super) headline: String,
    /// How the gateway is, in one word: `ok`, `locked`, `killed`, `down`, `silent`, or `warning`.
    pub(super) state: &'static str,
    /// Groups of lines.
    pub(super) groups: Vec<Vec<String>>,
    pub(super) actions: Vec<Action>,
}

/// A line of the menu that does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) text: &'static str,
    /// What is typed behind the program's name.
    pub(super) words: &'static [&'static str],
    /// Whether it asks or shows something.
    pub(super) needs_terminal: bool,
}

const START: Action = Action { text: "Start the gateway", words: &["start", "-d"], needs_terminal: true };
const STOP: Action = Action { text: "Stop the gateway", words: &["stop"], needs_terminal: false };
const KILL: Action =
    Action { text: "Kill: serve nothing, cut what runs", words: &["kill"], needs_terminal: false };
const UNKILL: Action = Action { text: "Unkill: serve again", words: &["unkill"], needs_terminal: false };
const UNLOCK: Action = Action { text: "Unlock the vault", words: &["unlock"], needs_terminal: true };
const TOP: Action = Action { text: "Open the live view", words: &["top"], needs_terminal: true };
const DASHBOARD: Action =
    Action { text: "Open the dashboard", words: &["dashboard", "--open"], needs_terminal: false };
const LOG: Action = Action { text: "Follow the log", words: &["log", "-f"], needs_terminal: true };

impl Action {
    /// Whether this program has the command: a menu offers nothing that would fail.
    fn is_known(&self) -> bool {
        self.words.first().is_some_and(|name| Args::command().find_subcommand(name).is_some())
    }
}

impl Menu {
    pub(super) fn of(seen: &Seen) -> Self {
        match seen {
            Seen::Running(overview) => running(overview),
            Seen::Down(taken_back) => down(taken_back),
            Seen::Silent(why) => Self {
                headline: "tokfence ?".to_owned(),
                state: "silent",
                groups: vec![vec![line(&format!("the gateway does not answer: {why}"))]],
                actions: vec![KILL, LOG],
            },
        }
    }

    /// All lines but the headline.
    pub(super) fn lines(&self) -> impl Iterator<Item = &String> {
        self.groups.iter().flatten()
    }
}

/// A text as one line, in which nothing means anything to a menu: what is behind a `|` would be taken for what the line
/// does.
fn line(text: &str) -> String {
    plain(text).replace('|', "¦").trim().to_owned()
}

fn down(taken_back: &TakenBack) -> Menu {
    let is_killed = taken_back.killed_document().is_some();
    let mut lines = vec!["the gateway is not running".to_owned()];
    lines.extend(taken_back.lines().iter().map(|text| line(text)));
    Menu {
        headline: "tokfence off".to_owned(),
        state: "down",
        groups: vec![lines],
        actions: vec![START, if is_killed { UNKILL } else { KILL }],
    }
}

fn running(overview: &Overview) -> Menu {
    let (state, status) = status(overview);
    let spent = format!("{} · {}", cents(overview.today.cost_usd), short(overview.today.requests));
    let headline = match state {
        "ok" | "warning" => spent,
        other => format!("{} · {spent}", other.to_uppercase()),
    };
    let groups = vec![
        vec![status],
        today(overview),
        budgets(overview),
        in_flight(overview),
        taken_back(overview),
        risk(overview),
    ];
    let mut actions = vec![if overview.killed.is_some() { UNKILL } else { KILL }];
    if overview.state == "locked" {
        actions.push(UNLOCK);
    }
    actions.extend([TOP, DASHBOARD, LOG, STOP].into_iter().filter(Action::is_known));
    let groups = groups.into_iter().filter(|group| !group.is_empty()).collect();
    Menu { headline, state, groups, actions }
}

/// How the gateway is, in a word and in a line.
fn status(overview: &Overview) -> (&'static str, String) {
    let needs_a_look = !overview.risks.is_empty()
        || overview.log != "ok"
        || overview.budgets.iter().any(|budget| budget.left.number <= 0);
    let serves = format!(
        "serves http://{} for {}",
        overview.address,
        rough(overview.at.saturating_sub(overview.started_at))
    );
    match (&overview.killed, overview.state.as_str()) {
        (Some(killed), _) => ("killed", line(&format!("killed: {}", killed.reason))),
        (None, "locked") => ("locked", "the vault is locked; nothing is served".to_owned()),
        (None, _) if overview.log != "ok" => ("warning", line(&format!("the log: {}", overview.log))),
        (None, _) => (if needs_a_look { "warning" } else { "ok" }, line(&serves)),
    }
}

fn today(overview: &Overview) -> Vec<String> {
    let today = &overview.today;
    let unpriced =
        if today.unpriced > 0 { format!(", {} unpriced", short(today.unpriced)) } else { String::new() };
    vec![
        format!("today {}{unpriced}", usd(today.cost_usd)),
        format!("{} requests, {} refused", short(today.requests), short(today.refused)),
        format!("{} tokens in, {} out", short(today.input_tokens), short(today.output_tokens)),
    ]
}

fn budgets(overview: &Overview) -> Vec<String> {
    let text = |budget: &BudgetStanding| {
        let (spent, held, limit) = (budget.spent.number, budget.reserved.number, budget.limit.number);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        let used = percent(part(spent.saturating_add(held)), part(limit));
        let used = if used.is_empty() { "0%" } else { &used };
        let bar = bar(spent, held, limit, BAR);
        format!("{bar} {used:>4} {}: {} of {}", budget.name, budget.spent, budget.limit)
    };
    // Those first that have least left.
    let mut budgets: Vec<&BudgetStanding> = overview.budgets.iter().collect();
    budgets.sort_by_key(|budget| {
        let limit = i128::from(budget.limit.number.max(1));
        i128::from(budget.left.number) * 1_000_000 / limit
    });
    some(budgets.into_iter().map(text), "budgets")
}

fn in_flight(overview: &Overview) -> Vec<String> {
    let texts = overview.requests.iter().map(|request| {
        let model = request.model.as_deref().unwrap_or(&request.provider);
        let age = rough(overview.at.saturating_sub(request.started_at));
        format!("{} runs {model}: {} tokens out, {age}", request.agent, short(request.output_tokens))
    });
    some(texts, "requests in flight")
}

fn taken_back(overview: &Overview) -> Vec<String> {
    let texts = overview
        .revoked_providers
        .iter()
        .map(|revoked| format!("{} is revoked: {}", revoked.provider, revoked.taken_back.reason));
    some(texts, "providers")
}

fn risk(overview: &Overview) -> Vec<String> {
    let texts = overview.risks.iter().map(|risk| {
        let who = risk.agent.as_deref().unwrap_or(&risk.subject);
        format!("{who} is {} ({})", risk.state, risk.signal)
    });
    some(texts, "states of risk")
}

/// The first lines, and how many there are more.
fn some(texts: impl ExactSizeIterator<Item = String>, what: &str) -> Vec<String> {
    let more = texts.len().saturating_sub(LINES_MAX);
    let mut lines: Vec<String> = texts.take(LINES_MAX).map(|text| line(&text)).collect();
    if more > 0 {
        lines.push(format!("and {more} more {what}"));
    }
    lines
}

/// Dollars and cents, for where there is little room; half a cent is rounded up.
fn cents(amount: NanoUsd) -> String {
    let cents = amount.nanos().max(0).saturating_add(5_000_000) / 10_000_000;
    format!("${}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn what_is_offered_can_be_typed() {
        for action in [START, STOP, KILL, UNKILL, UNLOCK, TOP, LOG, DASHBOARD] {
            let typed = [&["tokfence"], action.words].concat();
            // The dashboard may be missing; then it is not offered.
            let is_known = action.is_known() || action != DASHBOARD;
            assert_eq!(Args::try_parse_from(typed).is_ok(), is_known, "{action:?}");
        }
        let unknown = Action { words: &["no-such-command"], ..STOP };
        assert!(!unknown.is_known());
    }

    #[test]
    fn cents_are_rounded_to_the_nearest() {
        let texts = [0, 4_999_999, 5_000_000, 994_999_999, 995_000_000, 12_345_678_901]
            .map(|nanos| cents(NanoUsd::from_nanos(nanos)));
        assert_eq!(texts, ["$0.00", "$0.00", "$0.01", "$0.99", "$1.00", "$12.35"]);
    }
}
