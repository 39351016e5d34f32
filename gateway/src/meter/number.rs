//! Numbers in a provider's report, read as text: no float on the way to tokens or money.

use policy::NanoUsd;

/// Counts beyond this do not survive a JSON parser that uses doubles, so no provider can mean them.
const COUNT_MAX: u64 = 1 << 53;

/// A token count as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// A count.
    Is(u64),
    /// The nearest count above a number that is none: a fraction, or more than a provider can mean.
    Clamped(u64),
    /// `null`.
    Missing,
    /// No number, or a negative one.
    Bad,
}

/// Reads a count. Some providers write whole decimals (`12.0`).
pub(super) fn count(text: &[u8]) -> Count {
    if text == b"null" {
        return Count::Missing;
    }
    let Some(decimal) = Decimal::parse(text) else { return Count::Bad };
    let in_range = decimal.scaled(0).and_then(|(count, is_exact)| {
        let count = u64::try_from(count).ok().filter(|count| *count <= COUNT_MAX)?;
        Some(if is_exact { Count::Is(count) } else { Count::Clamped(count) })
    });
    in_range.unwrap_or(Count::Clamped(COUNT_MAX))
}

/// Reads an amount in dollars, rounded up to a whole nano-dollar.
pub(super) fn usd(text: &[u8]) -> Option<NanoUsd> {
    let (nanos, _) = Decimal::parse(text)?.scaled(9)?;
    NanoUsd::try_from(nanos).ok()
}

/// Reads an amount in xAI's ticks, of which a dollar has ten billion, rounded up to a whole nano-dollar.
pub(super) fn usd_ticks(text: &[u8]) -> Option<NanoUsd> {
    let (nanos, _) = Decimal::parse(text)?.scaled(-1)?;
    NanoUsd::try_from(nanos).ok()
}

/// A number that is not negative: `digits` × 10^`exponent`, and a little more if digits had to be dropped.
#[derive(Clone, Copy, Debug, Default)]
struct Decimal {
    digits: u128,
    exponent: i32,
    has_dropped: bool,
}

impl Decimal {
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        if whole.is_empty() || fraction.is_empty() {
            return None;
        }
        let mut decimal = Self { exponent: exponent.parse().ok()?, ..Self::default() };
        for digit in whole.chars() {
            decimal.push(digit, 0)?;
        }
        // Zeros at the end say nothing, and would use up the room for digits that do.
        for digit in fraction.trim_end_matches('0').chars() {
            decimal.push(digit, 1)?;
        }
        Some(decimal)
    }

    fn push(&mut self, digit: char, decimal_places: i32) -> Option<()> {
        let digit = u128::from(digit.to_digit(10)?);
        let longer = self.digits.checked_mul(10).and_then(|digits| digits.checked_add(digit));
        if longer.is_none() {
            self.has_dropped |= digit != 0;
        }
        let shift = i32::from(longer.is_none()) - decimal_places;
        self.digits = longer.unwrap_or(self.digits);
        self.exponent = self.exponent.checked_add(shift)?;
        Some(())
    }

    /// The number times 10^`places`, rounded up, and whether it is exactly that.
    fn scaled(self, places: i32) -> Option<(u128, bool)> {
        let shift = self.exponent.saturating_add(places);
        let power = 10u128.checked_pow(shift.unsigned_abs());
        let (quotient, is_exact) = match power {
            _ if self.digits == 0 => (0, true),
            Some(power) if shift >= 0 => (self.digits.checked_mul(power)?, true),
            Some(power) => (self.digits / power, self.digits.is_multiple_of(power)),
            None if shift > 0 => return None,
            None => (0, false),
        };
        let is_exact = is_exact && !self.has_dropped;
        Some((quotient.checked_add(u128::from(!is_exact))?, is_exact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_count(text: &str, expected: Count) {
        assert_eq!(count(text.as_bytes()), expected, "{text}");
    }

    #[track_caller]
    fn check_usd(text: &str, nanos: Option<i64>) {
        assert_eq!(usd(text.as_bytes()).map(NanoUsd::nanos), nanos, "{text}");
    }

    #[test]
    fn counts_are_read_exactly() {
        check_count("0", Count::Is(0));
        check_count("123456", Count::Is(123_456));
        check_count("12.0", Count::Is(12));
        check_count("9007199254740992", Count::Is(COUNT_MAX));
        check_count("null", Count::Missing);
    }

    #[test]
    fn what_is_no_count_is_clamped_upwards_or_ignored() {
        check_count("12.01", Count::Clamped(13));
        check_count("9007199254740993", Count::Clamped(COUNT_MAX));
        check_count("1e300", Count::Clamped(COUNT_MAX));
        check_count("1e-300", Count::Clamped(1));
        check_count(&"9".repeat(120), Count::Clamped(COUNT_MAX));
        for text in [
            "-1",
            "-0",
            "true",
            "NaN",
            "Infinity",
            "",
            ".",
            "1.",
            ".5",
            "1e",
            "0x10",
            "1 2",
            "é",
            "1e99999999999",
        ] {
            check_count(text, Count::Bad);
        }
    }

    #[test]
    fn ten_billion_ticks_are_a_dollar() {
        for (text, nanos) in [("0", 0), ("1", 1), ("10", 1), ("37756000", 3_775_600), ("1e10", 1_000_000_000)]
        {
            assert_eq!(usd_ticks(text.as_bytes()), Some(NanoUsd::from_nanos(nanos)), "{text}");
        }
        assert_eq!(usd_ticks(b"-1"), None);
    }

    #[test]
    fn amounts_are_rounded_up_to_a_nano_dollar() {
        check_usd("0", Some(0));
        check_usd("0.00014", Some(140_000));
        check_usd("1.4e-05", Some(14_000));
        check_usd("0.0000000001", Some(1));
        check_usd("0.000014000000000000001", Some(14_001));
        check_usd("0.1000000000000000055511151231257827021181583404541015625", Some(100_000_001));
        check_usd("12", Some(12_000_000_000));
        check_usd("9223372036.854775807", Some(i64::MAX));
        check_usd("9223372036.854775808", None);
        check_usd("-0.1", None);
        check_usd("1e40", None);
        check_usd("null", None);
    }

    proptest! {
        #[test]
        fn amounts_agree_with_the_ledgers_parser(nanos in 0..i64::MAX) {
            let text = NanoUsd::from_nanos(nanos).to_string();
            prop_assert_eq!(usd(text.as_bytes()), Some(NanoUsd::from_nanos(nanos)));
        }

        #[test]
        fn no_text_can_panic(text in "[-+0-9.eE]{0,60}") {
            let _ = (count(text.as_bytes()), usd(text.as_bytes()));
        }

        #[test]
        fn an_amount_is_never_rounded_down(digits in 0u64..u64::MAX, exponent in -40i32..0) {
            if let Some(amount) = usd(format!("{digits}e{exponent}").as_bytes()) {
                let exact = digits as f64 * 10f64.powi(exponent + 9);
                prop_assert!(amount.nanos() as f64 >= exact * (1.0 - 1e-12));
                prop_assert!(amount.nanos() as f64 <= exact * (1.0 + 1e-12) + 1.0);
            }
        }
    }
}
