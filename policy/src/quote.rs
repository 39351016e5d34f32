//! Quotes: what a request may cost before it is sent, as a line over the length of its answer.

use crate::{Part, Rates, Unit};

const TOKENS_PER_MTOK: u128 = 1_000_000;

/// What a request may cost: a fixed part for its input, and a part for each token of its answers. Every amount is
/// rounded up, and one that does not fit is as large as fits, so that no budget has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Whether the prices are known; without them no budget of money can hold it.
    pub is_priced: bool,
    /// Tokens of input.
    pub input_tokens: u64,
    /// Millionths of a nano-dollar for the input.
    input_scaled: u128,
    /// Nano-dollars for a million tokens of output.
    output_price: u64,
    /// How many answers of the same length are asked for, at least one.
    answers: u32,
    /// The shortest answer that is worth a request, in tokens each.
    pub least_output: u64,
    /// The longest answer that is wanted, or can be had before the reservation grows, in tokens each.
    pub most_output: u64,
}

impl Quote {
    /// A request that costs nothing and uses no tokens.
    pub const FREE: Self = Self {
        is_priced: true,
        input_tokens: 0,
        input_scaled: 0,
        output_price: 0,
        answers: 1,
        least_output: 0,
        most_output: 0,
    };

    /// A request of so many tokens of input, each at the dearest of the rates of these parts, one of which it may be.
    pub fn priced(input_tokens: u64, answers: u32, rates: &Rates, input_may_be: &[Part]) -> Self {
        let input = input_may_be.iter().map(|part| rates.get(*part)).max().unwrap_or_else(|| rates.input());
        let request = u128::from(rates.get(Part::Request).nanos_per_mtok());
        let input_scaled = u128::from(input.nanos_per_mtok()) * u128::from(input_tokens) + request;
        let output_price = rates.dearest_output().nanos_per_mtok();
        Self { input_scaled, output_price, ..Self::unpriced(input_tokens, answers) }.with_price()
    }

    /// The same for a model whose price is unknown.
    pub fn unpriced(input_tokens: u64, answers: u32) -> Self {
        Self { is_priced: false, input_tokens, answers: answers.max(1), ..Self::FREE }
    }

    /// The same quote, taken to cost what it says, although no price list does.
    #[must_use]
    pub fn with_price(self) -> Self {
        Self { is_priced: true, ..self }
    }

    /// The same quote for answers of at least and at most so many tokens each.
    #[must_use]
    pub fn with_output(self, least_output: u64, most_output: u64) -> Self {
        Self { least_output: least_output.min(most_output), most_output, ..self }
    }

    /// What the request may use of a unit when each answer has `output` tokens.
    pub fn amount(&self, unit: Unit, output: u64) -> i64 {
        let output = u128::from(output) * u128::from(self.answers);
        let amount = match unit {
            Unit::Tokens => u128::from(self.input_tokens) + output,
            Unit::NanoUsd => {
                let output = output.saturating_mul(u128::from(self.output_price));
                self.input_scaled.saturating_add(output).div_ceil(TOKENS_PER_MTOK)
            }
        };
        i64::try_from(amount).unwrap_or(i64::MAX)
    }

    /// The longest answers, in tokens each and at most [`Quote::most_output`], that `room` pays for; `None` when it
    /// does not even pay for the input.
    pub fn affordable(&self, unit: Unit, room: i64) -> Option<u64> {
        let room = u128::try_from(room).ok()?;
        let (room, each) = match unit {
            Unit::Tokens => (room.checked_sub(u128::from(self.input_tokens))?, 1),
            Unit::NanoUsd => {
                ((room * TOKENS_PER_MTOK).checked_sub(self.input_scaled)?, u128::from(self.output_price))
            }
        };
        let each = each * u128::from(self.answers);
        let output =
            room.checked_div(each).map_or(u64::MAX, |output| u64::try_from(output).unwrap_or(u64::MAX));
        Some(output.min(self.most_output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenPrice;
    use proptest::prelude::*;

    fn rates(input: u64, output: u64, write_1h: u64) -> Rates {
        let price = TokenPrice::from_nanos_per_mtok;
        Rates::new(price(input), price(output)).with(Part::CacheWrite1h, price(write_1h))
    }

    #[test]
    fn a_quote_is_its_input_and_so_many_tokens_of_output() {
        let rates = rates(2_500_000_000, 10_000_000_000, 5_000_000_000);
        let quote = Quote::priced(1_000, 1, &rates, &[Part::Input]).with_output(256, 4_096);
        assert_eq!(quote.amount(Unit::NanoUsd, 0), 2_500_000);
        assert_eq!(quote.amount(Unit::NanoUsd, 100), 3_500_000);
        assert_eq!(quote.amount(Unit::Tokens, 100), 1_100);
        assert_eq!(quote.affordable(Unit::NanoUsd, 3_500_000), Some(100));
        assert_eq!(quote.affordable(Unit::NanoUsd, 3_499_999), Some(99));
        assert_eq!(quote.affordable(Unit::NanoUsd, 2_499_999), None);
        assert_eq!(quote.affordable(Unit::NanoUsd, i64::MAX), Some(4_096));
        assert_eq!(quote.affordable(Unit::Tokens, 1_010), Some(10));
        assert_eq!(quote.affordable(Unit::Tokens, 999), None);
        assert_eq!(quote.affordable(Unit::Tokens, -1), None);
    }

    #[test]
    fn the_dearest_rate_counts_and_every_answer_does() {
        let rates = rates(1_000_000, 3_000_000, 2_000_000);
        assert_eq!(
            Quote::priced(10, 1, &rates, &[Part::Input, Part::CacheWrite1h]).amount(Unit::NanoUsd, 0),
            20
        );
        let three = Quote::priced(10, 3, &rates, &[Part::Input]).with_output(1, 100);
        assert_eq!(three.amount(Unit::NanoUsd, 5), 10 + 45);
        assert_eq!(three.affordable(Unit::NanoUsd, 55), Some(5));
        assert_eq!(three.amount(Unit::Tokens, 5), 25);
    }

    #[test]
    fn the_request_itself_may_cost_something() {
        let fee = TokenPrice::from_nanos_per_mtok(5_000_000_000_000);
        let rates = rates(1_000_000, 90_000_000, 1_000_000).with(Part::Request, fee);
        let quote = Quote::priced(10, 1, &rates, &[]).with_output(0, 100);
        assert_eq!(quote.amount(Unit::NanoUsd, 1), 5_000_000 + 10 + 90);
    }

    #[test]
    fn a_quote_that_does_not_fit_has_room_nowhere() {
        let rates = rates(u64::MAX, u64::MAX, u64::MAX);
        let quote = Quote::priced(u64::MAX, u32::MAX, &rates, &[Part::Input]).with_output(u64::MAX, u64::MAX);
        assert_eq!(quote.amount(Unit::NanoUsd, u64::MAX), i64::MAX);
        assert_eq!(quote.affordable(Unit::NanoUsd, i64::MAX - 1), None);
        assert_eq!(Quote::FREE.affordable(Unit::NanoUsd, 0), Some(0));
    }

    proptest! {
        #[test]
        fn what_is_affordable_fits_and_one_token_more_does_not(
            input in 0u64..1_000_000, answers in 1u32..128, input_price in 0u64..100_000_000_000,
            output_price in 1u64..100_000_000_000, room in 0i64..1_000_000_000_000,
        ) {
            let rates = rates(input_price, output_price, input_price);
            let quote = Quote::priced(input, answers, &rates, &[Part::CacheWrite1h]).with_output(0, u64::MAX);
            for unit in [Unit::NanoUsd, Unit::Tokens] {
                match quote.affordable(unit, room) {
                    Some(output) => {
                        prop_assert!(quote.amount(unit, output) <= room);
                        prop_assert!(quote.amount(unit, output + 1) > room);
                    }
                    None => prop_assert!(quote.amount(unit, 0) > room),
                }
            }
        }
    }
}
