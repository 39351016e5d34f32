//! Money: whole nano-dollars in an `i64`, which holds about 9.2 billion dollars.
//!
//! No float comes near an amount. Text is parsed digit by digit, arithmetic is checked, and the one division
//! that pricing needs rounds up, so that a budget is never undercharged.

use std::fmt;
use std::str::FromStr;

const NANOS_PER_USD: i64 = 1_000_000_000;
const DECIMALS: usize = 9;

/// An amount of money in nano-dollars (10⁻⁹ USD). Negative amounts are debts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(i64);

/// A sum or product that does not fit in an `i64` of nano-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the amount is too large")]
pub struct Overflow;

/// Text that is not an amount in dollars.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount in USD")]
pub struct InvalidAmount(String);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// An amount given in nano-dollars.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The amount in nano-dollars.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The sum.
    ///
    /// # Errors
    /// [`Overflow`] when it does not fit.
    pub fn checked_add(self, other: Self) -> Result<Self, Overflow> {
        self.0.checked_add(other.0).map(Self).ok_or(Overflow)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`Overflow`] when it does not fit.
    pub fn checked_sub(self, other: Self) -> Result<Self, Overflow> {
        self.0.checked_sub(other.0).map(Self).ok_or(Overflow)
    }
}

impl TryFrom<u128> for NanoUsd {
    type Error = Overflow;

    fn try_from(nanos: u128) -> Result<Self, Overflow> {
        i64::try_from(nanos).map(Self).map_err(|_| Overflow)
    }
}

/// Parses `10`, `10.5`, `$0.000001`: digits with at most nine decimals, no sign, no exponent.
impl FromStr for NanoUsd {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount(text.to_owned());
        let digits = text.strip_prefix('$').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > DECIMALS {
            return Err(invalid());
        }
        let whole: i64 = whole.parse().map_err(|_| invalid())?;
        let fraction: i64 = format!("{fraction:0<DECIMALS$}").parse().map_err(|_| invalid())?;
        whole
            .checked_mul(NANOS_PER_USD)
            .and_then(|nanos| nanos.checked_add(fraction))
            .map(Self)
            .ok_or_else(invalid)
    }
}

/// Dollars with at least six decimals, and up to nine where the amount has them: `0.000150`, `1.250000`.
impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (whole, fraction) = (nanos / NANOS_PER_USD.unsigned_abs(), nanos % NANOS_PER_USD.unsigned_abs());
        let text = format!("{fraction:09}");
        let kept = text.trim_end_matches('0').len().max(6);
        write!(f, "{sign}{whole}.{}", &text[..kept])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_parse(text: &str, nanos: Option<i64>) {
        assert_eq!(text.parse::<NanoUsd>().ok().map(NanoUsd::nanos), nanos, "{text}");
    }

    #[test]
    fn amounts_are_parsed_exactly() {
        check_parse("10", Some(10_000_000_000));
        check_parse("$10.00", Some(10_000_000_000));
        check_parse("0.29", Some(290_000_000));
        check_parse("0.000000001", Some(1));
        check_parse("9223372036.854775807", Some(i64::MAX));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "$",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,000",
            "0.0000000001",
            "9223372036.854775808",
            "١",
        ] {
            check_parse(text, None);
        }
    }

    #[test]
    fn small_amounts_stay_visible() {
        assert_eq!(NanoUsd(150_000).to_string(), "0.000150");
        assert_eq!(NanoUsd(1).to_string(), "0.000000001");
        assert_eq!(NanoUsd(-1_250_000_000).to_string(), "-1.250000");
    }

    #[test]
    fn ten_million_costs_of_less_than_a_cent_sum_exactly() {
        // Each from 1 to 9,999,991 nano-dollars; the sum is worked out the other way, by counting the remainders.
        let costs = (0..10_000_000_i64).map(|number| number * 7_919 % 9_999_991 + 1);
        let sum = costs.clone().try_fold(NanoUsd::ZERO, |sum, cost| sum.checked_add(NanoUsd(cost))).unwrap();
        let exact: i128 = costs.map(i128::from).sum();
        assert_eq!(i128::from(sum.nanos()), exact);
        assert!(sum > NanoUsd(10_000 * NANOS_PER_USD), "{sum}");
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos in 0..i64::MAX) {
            prop_assert_eq!(NanoUsd(nanos).to_string().parse(), Ok(NanoUsd(nanos)));
        }
    }
}
