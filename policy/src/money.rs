//! Money: whole nano-dollars in an `i64`, which holds about 9.2 billion dollars.
//!
//! No float comes near an amount. Text is parsed digit by digit, arithmetic is checked, and the one division
//! that pricing needs rounds up, so that a budget is never undercharged.

use std::fmt;
use std::str::FromStr;

const NANOS_PER_USD: i64 = 1_000_000_000;
const DECIMALS: usize = 9;
/// No number that means an amount is longer.
const TEXT_BYTES_MAX: usize = 100;

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

    /// Reads an amount as programs write numbers: `0.06`, `-3`, `1.5e-05`, with any number of decimals. The point moves
    /// `shift` places to the right first: 0 for dollars, -2 for cents. What is left below a nano-dollar is dropped.
    ///
    /// # Errors
    /// [`InvalidAmount`] when the text is no such number, or the amount does not fit.
    pub fn from_decimal(text: &str, shift: i32) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount(text.chars().take(40).collect());
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || exponent.len() > 5 || text.len() > TEXT_BYTES_MAX {
            return Err(invalid());
        }
        let exponent: i64 = exponent.parse().map_err(|_| invalid())?;
        let digits = format!("{whole}{fraction}");
        // How many digits stand before the point once it has moved, counted in nano-dollars.
        let kept = whole.len() as i64 + exponent + i64::from(shift) + DECIMALS as i64;
        let nanos = whole_part(&digits, kept).ok_or_else(invalid)?;
        Ok(Self(if unsigned.len() < text.len() { -nanos } else { nanos }))
    }
}

/// The number that the first `kept` digits make, with zeros where there are not so many.
fn whole_part(digits: &str, kept: i64) -> Option<i64> {
    let Ok(kept) = usize::try_from(kept) else { return Some(0) };
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    if kept <= zeros || zeros == digits.len() {
        return Some(0);
    }
    let given = &digits[zeros..kept.min(digits.len())];
    let wanted = kept - zeros;
    // More digits than the largest amount has.
    if wanted > 19 {
        return None;
    }
    format!("{given:0<wanted$}").parse().ok()
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

    #[track_caller]
    fn check_decimal(text: &str, shift: i32, nanos: Option<i64>) {
        assert_eq!(NanoUsd::from_decimal(text, shift).ok().map(NanoUsd::nanos), nanos, "{text} by {shift}");
    }

    #[test]
    fn numbers_of_providers_are_read_without_a_float() {
        check_decimal("0.06", 0, Some(60_000_000));
        check_decimal("123.45", -2, Some(1_234_500_000));
        check_decimal("123.78912", -2, Some(1_237_891_200));
        check_decimal("1", -2, Some(10_000_000));
        check_decimal("1.5e-05", 0, Some(15_000));
        check_decimal("1E+2", 0, Some(100_000_000_000));
        check_decimal("2e3", -2, Some(20_000_000_000));
        check_decimal("-0.5", 0, Some(-500_000_000));
        check_decimal("0.1234567899999999999999999999", 0, Some(123_456_789));
        check_decimal("0.30000000000000004", 0, Some(300_000_000));
        check_decimal("1e-300", 0, Some(0));
        check_decimal("0e9999", 0, Some(0));
        check_decimal("000.000", 0, Some(0));
        check_decimal("9223372036.854775807", 0, Some(i64::MAX));
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        for text in
            ["", "-", ".5", "1.", "+1", "1e", "1e1e1", "0x10", "NaN", "1,0", "1 ", "--1", "1e99999999"]
        {
            check_decimal(text, 0, None);
        }
        check_decimal("9223372036.854775808", 0, None);
        check_decimal("1e11", 0, None);
        check_decimal("1e9999", 0, None);
        check_decimal(&"1".repeat(101), 0, None);
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

        #[test]
        fn a_number_is_the_same_with_a_sign_an_exponent_and_in_cents(nanos in -i64::MAX..i64::MAX) {
            let text = NanoUsd(nanos).to_string();
            prop_assert_eq!(NanoUsd::from_decimal(&text, 0), Ok(NanoUsd(nanos)));
            prop_assert_eq!(NanoUsd::from_decimal(&format!("{text}e2"), -2), Ok(NanoUsd(nanos)));
            prop_assert_eq!(NanoUsd::from_decimal(&format!("{nanos}e-9"), 0), Ok(NanoUsd(nanos)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eE ]{0,24}", shift in -30i32..30) {
            let _ = NanoUsd::from_decimal(&text, shift);
        }
    }
}
