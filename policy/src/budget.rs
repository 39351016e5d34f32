//! Budgets: a limit on money or tokens for a subject over a period.

use std::fmt;
use std::str::FromStr;

use crate::{NanoUsd, Period, Subject, TimestampUs};

/// The number of a budget's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetId(pub i64);

/// A limit on what a subject may spend in a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its row.
    pub id: BudgetId,
    /// Whose requests it counts.
    pub subject: Subject,
    /// Over which time.
    pub period: Period,
    /// How much of what; zero allows nothing.
    pub limit: Amount,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Money, in nano-dollars.
    NanoUsd,
    /// Tokens, input and output together, cached ones included.
    Tokens,
}

/// A number of nano-dollars or tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Of what.
    pub unit: Unit,
    /// How many; a debt is negative.
    pub number: i64,
}

/// A budget that somebody is given, without a subject yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How much of what.
    pub limit: Amount,
    /// Over which time.
    pub period: Period,
}

/// Text that is not an amount that a budget can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an amount: dollars such as 10, 0.50 or $10, or tokens such as `2M tokens` or `500k tokens`"
)]
pub struct InvalidBudgetAmount(String);

/// The most that a budget can allow: a hundred million dollars, or as many tokens as that has nano-dollars. Sums over
/// many of them still fit in 64 bits.
const LIMIT_MAX: i64 = 100_000_000_000_000_000;

/// Why a budget has no room, with the numbers that its owner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Which budget, as `agent:ci/daily`.
    pub budget: String,
    /// What it allows in a period.
    pub limit: Amount,
    /// What was settled in the present one.
    pub spent: i64,
    /// What requests in flight hold.
    pub reserved: i64,
    /// What the refused request needed.
    pub needed: i64,
    /// When some of it counts no more; `None` is never.
    pub resets_at: Option<TimestampUs>,
}

impl Budget {
    /// The name by which people know it: `agent:ci/daily`, with `/tokens` where it counts tokens.
    pub fn name(&self) -> String {
        match self.limit.unit {
            Unit::NanoUsd => format!("{}/{}", self.subject, self.period),
            Unit::Tokens => format!("{}/{}/tokens", self.subject, self.period),
        }
    }
}

impl Shortage {
    /// What neither was spent nor is held; a debt is negative.
    pub fn left(&self) -> i64 {
        self.limit.number.saturating_sub(self.spent).saturating_sub(self.reserved)
    }
}

/// A sentence with every number in it.
impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |number| self.limit.unit.of(number);
        write!(
            f,
            "the budget {} allows {}; spent: {}, held by requests in flight: {}, left: {}; this request may need {}",
            self.budget,
            self.limit,
            amount(self.spent),
            amount(self.reserved),
            amount(self.left()),
            amount(self.needed),
        )
    }
}

impl Unit {
    /// The stable name: `nano_usd` or `tokens`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NanoUsd => "nano_usd",
            Self::Tokens => "tokens",
        }
    }

    /// A number of this unit.
    pub fn of(self, number: i64) -> Amount {
        Amount { unit: self, number }
    }
}

impl FromStr for Unit {
    type Err = InvalidBudgetAmount;

    fn from_str(text: &str) -> Result<Self, InvalidBudgetAmount> {
        let found = [Self::NanoUsd, Self::Tokens].into_iter().find(|unit| unit.as_str() == text);
        found.ok_or_else(|| InvalidBudgetAmount(text.escape_debug().to_string()))
    }
}

/// `$1.250000`, `-$0.500000`, `1500 tokens`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Tokens => write!(f, "{} tokens", self.number),
            Unit::NanoUsd => {
                let text = NanoUsd::from_nanos(self.number).to_string();
                match text.strip_prefix('-') {
                    Some(debt) => write!(f, "-${debt}"),
                    None => write!(f, "${text}"),
                }
            }
        }
    }
}

impl Allowance {
    /// Allowances as they are typed; two over the same period and of the same unit would contradict each other.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be.
    pub fn parse_all<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Self>, String> {
        let mut all: Vec<Self> = Vec::with_capacity(texts.len());
        for text in texts.iter().map(AsRef::as_ref) {
            let one: Self = text.parse()?;
            let is_same = |other: &Self| (other.period, other.limit.unit) == (one.period, one.limit.unit);
            if all.iter().any(is_same) {
                return Err(format!(
                    "`{}`: there is another budget of this kind and period",
                    text.escape_debug()
                ));
            }
            all.push(one);
        }
        Ok(all)
    }
}

/// As it is typed: `5.00/daily`, `2000000 tokens/5h`.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.limit, self.period)
    }
}

/// Parses `5.00/daily`, `2M tokens/5h`, and an amount alone, which is for ever.
impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (amount, period) = match text.rsplit_once('/') {
            Some((amount, period)) => (amount, period.trim().parse().map_err(|error| format!("{error}"))?),
            None => (text, Period::Total),
        };
        let limit = amount.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { limit, period })
    }
}

/// Parses `10`, `$10.00`, `2M tokens`, `500k tokens`, `1500 tokens`.
impl FromStr for Amount {
    type Err = InvalidBudgetAmount;

    fn from_str(text: &str) -> Result<Self, InvalidBudgetAmount> {
        let invalid = || InvalidBudgetAmount(text.escape_debug().to_string());
        let lower = text.trim().to_ascii_lowercase();
        let Some(count) = lower.strip_suffix("tokens").or_else(|| lower.strip_suffix("token")) else {
            let money: NanoUsd = text.trim().parse().map_err(|_| invalid())?;
            return bounded(money.nanos()).map(|number| Unit::NanoUsd.of(number)).ok_or_else(invalid);
        };
        let count = tokens(count.trim()).and_then(bounded);
        count.map(|number| Unit::Tokens.of(number)).ok_or_else(invalid)
    }
}

fn bounded(number: i64) -> Option<i64> {
    (number <= LIMIT_MAX).then_some(number)
}

/// A count with an optional `k` or `m` and at most three or six decimals.
fn tokens(text: &str) -> Option<i64> {
    let (digits, decimals) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 3),
        b'm' => (&text[..text.len() - 1], 6),
        _ => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > decimals {
        return None;
    }
    if digits.contains('.') && fraction.is_empty() {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_amount(text: &str, expected: Option<(Unit, i64)>) {
        let parsed = text.parse::<Amount>().ok().map(|amount| (amount.unit, amount.number));
        assert_eq!(parsed, expected, "{text}");
    }

    #[test]
    fn amounts_are_dollars_or_tokens() {
        check_amount("10", Some((Unit::NanoUsd, 10_000_000_000)));
        check_amount("$0.29", Some((Unit::NanoUsd, 290_000_000)));
        check_amount("0", Some((Unit::NanoUsd, 0)));
        check_amount("100000000", Some((Unit::NanoUsd, LIMIT_MAX)));
        check_amount("100000000.000000001", None);
        check_amount("2M tokens", Some((Unit::Tokens, 2_000_000)));
        check_amount("2mtokens", Some((Unit::Tokens, 2_000_000)));
        check_amount("1.5k tokens", Some((Unit::Tokens, 1_500)));
        check_amount("1500 tokens", Some((Unit::Tokens, 1_500)));
        check_amount("1 token", Some((Unit::Tokens, 1)));
        for text in [
            "",
            "tokens",
            "k tokens",
            "-1",
            "-1 tokens",
            "1.5 tokens",
            "1.2345k tokens",
            "1e3 tokens",
            "NaN",
            "inf",
            "1e300",
            "1,000",
            "10 usd",
            "9999999999999999999 tokens",
            "1. k tokens",
            "1.k tokens",
        ] {
            check_amount(text, None);
        }
    }

    #[test]
    fn a_budget_is_named_by_whom_and_when() {
        let budget = |limit| Budget {
            id: BudgetId(1),
            subject: "agent:ci".parse().unwrap(),
            period: Period::Daily,
            limit,
        };
        assert_eq!(budget(Unit::NanoUsd.of(1)).name(), "agent:ci/daily");
        assert_eq!(budget(Unit::Tokens.of(1)).name(), "agent:ci/daily/tokens");
    }

    #[test]
    fn an_allowance_is_an_amount_and_perhaps_a_period() {
        let parsed = |text: &str| text.parse::<Allowance>().ok().map(|allowance| allowance.to_string());
        assert_eq!(parsed("5.00/daily").as_deref(), Some("$5.000000/daily"));
        assert_eq!(parsed("2M tokens/5h").as_deref(), Some("2000000 tokens/5h"));
        assert_eq!(parsed("0.50").as_deref(), Some("$0.500000/total"));
        for text in ["", "/daily", "5/", "5/yearly", "x/daily", "5/daily/daily"] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(Allowance::parse_all(&["5/daily", "5/weekly", "1k tokens/daily"]).unwrap().len(), 3);
        assert!(Allowance::parse_all(&["5/daily", "6/daily"]).is_err());
    }

    #[test]
    fn amounts_are_shown_with_their_unit() {
        assert_eq!(Unit::NanoUsd.of(-1_250_000_000).to_string(), "-$1.250000");
        assert_eq!(Unit::Tokens.of(12).to_string(), "12 tokens");
    }
}
