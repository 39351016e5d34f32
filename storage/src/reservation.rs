//! Hot: what an admitted request holds of the log and of its budgets, from its start to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use policy::{Denial, NanoUsd, Quote, Unit, Usage};

use crate::books::{Attempt, Charge, Held};
use crate::row::RequestRow;
use crate::shared::{Entry, Shared, lock, shutting_down};

/// Proof that the log has room for a request's row and every budget for what it may cost. It is given back by
/// [`Reservation::settle`], exactly once.
#[must_use = "a reservation is settled when its request ends"]
#[derive(Debug)]
pub struct Reservation {
    /// Taken out when settled; still here on a drop that nobody wanted.
    shared: Option<Arc<Shared>>,
    quote: Quote,
    held: Vec<Held>,
    output: u64,
    /// The round of the writer after which a growth may be asked for again, and for how long an answer.
    growing: Option<(u64, u64)>,
    /// What was charged ahead of the row.
    charged: Option<Vec<Charge>>,
}

/// What came of asking for a longer answer to be covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It is covered.
    Covered,
    /// More is being borrowed; ask again in some milliseconds.
    Pending,
    /// A budget has no room for it: the refusal to end the answer with.
    Refused(Denial),
}

/// What a request used, to be charged to its budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// So many nano-dollars and tokens.
    Known {
        /// Its cost.
        cost: NanoUsd,
        /// All its tokens.
        tokens: u64,
    },
    /// The tokens are known and the price is not: the reservation of money is charged.
    Unpriced {
        /// All its tokens.
        tokens: u64,
    },
}

impl Reservation {
    pub(crate) fn new(shared: Arc<Shared>, quote: Quote, held: Vec<Held>, output: u64) -> Self {
        Self { shared: Some(shared), quote, held, output, growing: None, charged: None }
    }

    /// How long each answer may be, in tokens, for the budgets to cover it; `None` where no budget applies.
    pub fn covered_output(&self) -> Option<u64> {
        self.is_limited().then_some(self.output)
    }

    /// Whether a budget has to know how long the answer gets.
    pub fn is_limited(&self) -> bool {
        !self.held.is_empty()
    }

    /// What the budgets hold for the request: tokens as they would be used, and money. `None` where no budget applies.
    pub fn whole(&self) -> Option<(Usage, NanoUsd)> {
        let input = self.quote.input_tokens;
        let tokens = self.quote.amount(Unit::Tokens, self.output).cast_unsigned();
        let usage = Usage { input, output: tokens.saturating_sub(input), ..Usage::default() };
        let money = NanoUsd::from_nanos(self.quote.amount(Unit::NanoUsd, self.output));
        self.is_limited().then_some((usage, money))
    }

    /// Asks the budgets to cover answers of `output` tokens each. Never waits.
    pub fn grow(&mut self, output: u64) -> Growth {
        // What was asked for last comes first: who asks for more each time would otherwise wait for ever.
        if let Some((_, asked)) = self.growing.filter(|(_, asked)| *asked < output) {
            let growth = self.grow_to(asked);
            if growth != Growth::Covered {
                return growth;
            }
        }
        self.grow_to(output)
    }

    fn grow_to(&mut self, output: u64) -> Growth {
        let Some(shared) = self.shared.as_ref().filter(|_| output > self.output && self.charged.is_none())
        else {
            return Growth::Covered;
        };
        let mut books = lock(&shared.books);
        let waited_for = self.growing.map(|(round, _)| round);
        match books.try_grow(&mut self.held, &self.quote, output, Instant::now(), waited_for) {
            Ok(()) => {
                (self.output, self.growing) = (output, None);
                Growth::Covered
            }
            Err(Attempt::Short(shortage)) => Growth::Refused(Denial::budget_exceeded(shortage)),
            Err(Attempt::Wait(_) | Attempt::Held(..)) if shared.has_ended.load(Ordering::SeqCst) => {
                Growth::Refused(shutting_down())
            }
            Err(Attempt::Wait(round)) => {
                drop(books);
                if waited_for != Some(round) {
                    self.growing = Some((round, output));
                    shared.wake_writer();
                }
                Growth::Pending
            }
            Err(Attempt::Held(..)) => Growth::Pending,
        }
    }

    /// Charges what the request used ahead of its row: its caller is about to see the end of the answer, and may ask
    /// again at once for what is held and was not needed.
    pub fn charge(&mut self, used: Used) {
        if let Some(shared) = self.shared.clone().filter(|_| self.charged.is_none()) {
            self.charged = Some(self.charges(&shared, |unit, reserved| used.of(unit, reserved)));
        }
    }

    /// Ends the request with what it used and its row, which will be in the log. Never waits.
    pub fn settle(mut self, row: RequestRow, used: Used) {
        if let Some(shared) = self.shared.take() {
            let charges = self.charges(&shared, |unit, reserved| used.of(unit, reserved));
            shared.push(Entry::Settled(Box::new(row), charges));
        }
    }

    fn charges(&mut self, shared: &Shared, used: impl Fn(Unit, i64) -> i64) -> Vec<Charge> {
        if let Some(charged) = self.charged.take() {
            return charged;
        }
        if self.held.is_empty() {
            return Vec::new();
        }
        let reserved = |unit| self.quote.amount(unit, self.output);
        lock(&shared.books).settle(&self.held, |unit| used(unit, reserved(unit)), Instant::now())
    }
}

impl Used {
    fn of(self, unit: Unit, reserved: i64) -> i64 {
        let (Self::Known { tokens, .. } | Self::Unpriced { tokens }) = self;
        match (unit, self) {
            (Unit::Tokens, _) => i64::try_from(tokens).unwrap_or(i64::MAX),
            (Unit::NanoUsd, Self::Known { cost, .. }) => cost.nanos(),
            (Unit::NanoUsd, Self::Unpriced { .. }) => reserved,
        }
    }
}

impl Drop for Reservation {
    /// What nobody settled may have been spent: it is charged in full.
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.leaked.fetch_add(1, Ordering::Relaxed);
            let charges = self.charges(&shared, |_, reserved| reserved);
            shared.push(Entry::Abandoned(charges));
        }
    }
}
