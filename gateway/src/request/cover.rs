//! Hot: keeps a running stream covered by its budgets. The next slice is asked for while half of the present one is
//! still to come; when there is no room for it, the stream goes on to the end of what is covered, and is cut there.

use std::time::{Duration, Instant};

use policy::{Denial, DenialCode};
use storage::Growth;

use crate::config::Reserve;
use crate::request::context::{Context, Stage};
use crate::request::quote;

/// A stream that has used up what is covered is held back for so long before it looks again.
const HOLD: Duration = Duration::from_millis(5);
/// Budgets are borrowed from within milliseconds, or the database is in trouble.
const PATIENCE: Duration = Duration::from_secs(2);

impl Context {
    /// The answer has gone on. Answers how long the caller should wait for it, if budgets are behind; cuts the answer
    /// when a budget has no room for more.
    pub(crate) fn cover(&mut self) -> Option<Duration> {
        let budget = &self.snapshot.config.budget;
        let Stage::Reserved(reserved) = &mut self.stage else { return None };
        let covered = reserved.reservation.covered_output()?;
        if budget.reserve == Reserve::Strict || !self.facts.is_streaming {
            return None;
        }
        let answers = self.facts.body.as_ref().map_or(1, |body| u64::from(body.answers.max(1)));
        let written = self.meter.as_ref()?.output_tokens_so_far().div_ceil(answers);
        // So it is with nearly every chunk, and what follows is not asked then.
        if written + budget.slice_tokens / 2 <= covered {
            return None;
        }
        // The provider stops there by itself.
        let longest = quote::longest_asked(&self.facts).map_or(u64::MAX, u64::from);
        if covered >= longest {
            return None;
        }
        let growth = reserved.reservation.grow(written.max(covered + budget.slice_tokens).min(longest));
        let covers = reserved.reservation.covered_output();
        if covers != Some(covered) {
            self.uncovered_since = None;
        }
        let is_used_up = covers.is_some_and(|covers| written > covers);
        match growth {
            Growth::Covered => {}
            Growth::Pending | Growth::Refused(_) if !is_used_up => {}
            Growth::Refused(denial) => self.cut(denial),
            Growth::Pending => return self.hold(),
        }
        None
    }

    /// Nothing is known yet about the next slice.
    fn hold(&mut self) -> Option<Duration> {
        if self.uncovered_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            let message = "the budgets cannot be read or written at the moment";
            self.cut(Denial::new(DenialCode::StateUnavailable, message));
        }
        Some(HOLD)
    }
}
