//! Hot: limits on requests and tokens a minute, and on requests at once, as requests meet them.
//!
//! The book of what was used is in memory and behind one lock, which a request takes only when a limit applies to
//! it, and never across a wait. What a request has taken is a [`Permit`], and however the request ends, dropping the
//! permit gives back what is to be given back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use policy::{Denial, RateBook, RateLimit, RatePermit, RateUse, RouteClass, Subject};

use crate::request::facts::Facts;
use crate::state::Shared;
use crate::wire::RequestFacts;

/// Tokens of an answer that a request is taken to need at first; its end corrects that.
const OUTPUT_TOKENS: u64 = 1_024;

/// What was used of all limits on rates.
#[derive(Debug)]
pub(crate) struct Rates {
    book: Mutex<RateBook>,
    /// The book's clock begins here, and never goes back as the wall clock can.
    began: Instant,
}

/// What a request holds of the limits that apply to it.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    held: Option<RatePermit>,
    /// Whether the request was admitted. Until then, dropping this means that it was refused.
    is_admitted: bool,
}

impl Default for Rates {
    fn default() -> Self {
        Self { book: Mutex::default(), began: Instant::now() }
    }
}

impl Rates {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The book and its clock. A panic under the lock leaves counts that are off by one request at most.
    fn book(&self) -> (MutexGuard<'_, RateBook>, u64) {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that the book sees instants in their order.
        (book, self.now())
    }

    /// Counts one of something that is over at once. Where the limit has no room, tells after how many seconds it has.
    pub(crate) fn pass(&self, subject: Subject, limit: RateLimit) -> Result<(), u32> {
        let (mut book, now) = self.book();
        match book.enter(now, &[(subject, limit)]) {
            Ok(permit) => {
                book.finish(now, permit, 0);
                Ok(())
            }
            Err(refusal) => Err(refusal.wait_seconds()),
        }
    }

    /// How much of a subject's limits is used.
    pub(crate) fn used(&self, subject: &Subject) -> RateUse {
        let (book, now) = self.book();
        book.used(now, subject)
    }
}

impl Permit {
    /// Lets a request in by the limits that apply to it; without any there is nothing to hold.
    ///
    /// # Errors
    /// The [`Denial`] that names the limit without room.
    pub(crate) fn enter(
        shared: &Arc<Shared>,
        limits: &[(Subject, RateLimit)],
    ) -> Result<Option<Self>, Denial> {
        if limits.is_empty() {
            return Ok(None);
        }
        let (mut book, now) = shared.rates.book();
        let held = book.enter(now, limits)?;
        Ok(Some(Self { shared: shared.clone(), held: Some(held), is_admitted: false }))
    }

    /// Takes the tokens that a request is taken to need; one that needs none is not held up by a debt.
    ///
    /// # Errors
    /// The [`Denial`] that names the limit without room.
    pub(crate) fn take_tokens(&mut self, tokens: u64) -> Result<(), Denial> {
        let Some(held) = self.held.as_mut().filter(|_| tokens > 0) else { return Ok(()) };
        let (mut book, now) = self.shared.rates.book();
        Ok(book.take_tokens(now, held, tokens)?)
    }

    /// Gives back the place among the requests in flight; the answer's last byte is about to go out.
    pub(crate) fn leave(&mut self) {
        if let Some(held) = &mut self.held {
            self.shared.rates.book().0.leave(held);
        }
    }

    /// The request was admitted: from here on it counts, however it ends.
    pub(crate) fn admit(&mut self) {
        self.is_admitted = true;
    }

    /// The request ended and used so many tokens.
    pub(crate) fn finish(mut self, tokens: u64) {
        if let Some(held) = self.held.take() {
            let (mut book, now) = self.shared.rates.book();
            book.finish(now, held, tokens);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let (mut book, now) = self.shared.rates.book();
        if self.is_admitted {
            // Its end was not seen, so nobody knows what it used: the request counts, and its tokens are given back.
            book.finish(now, held, 0);
        } else {
            book.refuse(now, held);
        }
    }
}

/// Tokens that a request is taken to need before its answer tells: its input, and of each answer the first part or
/// as much as it asks for. Routes that are not billed by the token need none.
pub(crate) fn tokens_needed(facts: &Facts, body_bytes: u64) -> u64 {
    let output = match facts.class {
        Some(RouteClass::Generate) => {
            let body = facts.body.as_ref();
            let asked = body.and_then(RequestFacts::max_output_tokens).map_or(u64::MAX, u64::from);
            OUTPUT_TOKENS.min(asked).saturating_mul(body.map_or(1, |body| body.answers).into())
        }
        Some(RouteClass::Embed) => 0,
        Some(
            RouteClass::Metadata
            | RouteClass::Count
            | RouteClass::File
            | RouteClass::Admin
            | RouteClass::Mint,
        )
        | None => return 0,
    };
    facts.estimate_input(body_bytes).saturating_add(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_book_does_not_go_back() {
        let rates = Rates::default();
        let instants: Vec<u64> = (0..100).map(|_| rates.book().1).collect();
        assert!(instants.is_sorted());
    }
}
