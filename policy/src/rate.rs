//! Rates: how many requests and tokens a minute, and how many requests at once.
//!
//! A limit of so many a minute is a bucket that holds one minute's allowance and refills evenly, so in any span of
//! time no more pass than the limit and what the span refills. Everything is counted in whole parts, of which a
//! request or a token has as many as a minute has microseconds: then a bucket of limit `n` gains `n` parts each
//! microsecond, and nothing is ever rounded.
//!
//! A request takes from all buckets that apply to it or from none. What is refused afterwards, for whatever reason, is
//! given back. Tokens are estimated at the beginning and corrected at the end; what was used beyond the allowance is a
//! debt that has to refill first.

use std::fmt;

use crate::{Denial, DenialCode, Map, Subject};

/// Parts of one request or one token; also the microseconds of a minute.
const PARTS: i128 = 60_000_000;
/// Refusals that no time mends (a limit of zero) are told to wait this long.
const NEVER_US: u64 = 60_000_000;
/// The book is swept when it has grown by as many entries as the last sweep left, and by this many at least.
const SWEEP_MIN: usize = 64;

/// What a subject may do in a minute and at once. What is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, input and output together.
    pub tokens_per_minute: Option<u64>,
    /// Requests in flight.
    pub concurrent: Option<u32>,
}

/// Which of a subject's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of `RateLimit` of its name")]
pub enum RateKind {
    RequestsPerMinute,
    TokensPerMinute,
    Concurrent,
}

/// A limit that has no room, and when it will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateRefusal {
    /// Whose limit.
    pub subject: Subject,
    /// Which of its limits.
    pub kind: RateKind,
    /// What it allows.
    pub allowed: u64,
    /// After how many microseconds the same request passes, if no other comes in between. For a limit on requests at
    /// once nobody can know; it is zero.
    pub wait_us: u64,
}

/// What a request has taken. It must come back to the book, by [`RateBook::refuse`] or [`RateBook::finish`].
#[derive(Debug)]
#[must_use = "what is not given back is never free again"]
pub struct RatePermit {
    taken: Vec<Taken>,
    /// Whether the request is still counted among those in flight.
    is_inside: bool,
}

/// What was taken from one subject.
#[derive(Debug)]
struct Taken {
    /// Where its entry is in the book, which keeps it there as long as a permit refers to it.
    place: usize,
    has_request: bool,
    tokens: Option<u64>,
}

/// How much of a subject's limits is used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateUse {
    /// Requests that have not refilled yet.
    pub requests: u64,
    /// Tokens that have not refilled yet; more than the limit is a debt.
    pub tokens: u64,
    /// Requests in flight.
    pub in_flight: u32,
}

/// What all subjects with limits have used. `now` is a clock in microseconds that never goes back.
///
/// It holds an entry for each subject that differs from a fresh one, and no others for long. A request looks its
/// subjects up once, and finds them by their places afterwards. So a limit that is
/// removed and set again finds what was used in the meantime, and one that is edited keeps its level.
#[derive(Debug, Default)]
pub struct RateBook {
    places: Map<Subject, usize>,
    /// By place; those that are free are listed.
    entries: Vec<Entry>,
    free: Vec<usize>,
    sweep_at: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    subject: Subject,
    /// Permits that refer to it.
    permits: usize,
    limit: RateLimit,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    in_flight: u32,
}

/// Parts that may be taken. A negative level is a debt.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_minute: u64,
    level: i128,
    at: u64,
}

impl RateLimit {
    /// Whether nothing is limited.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

impl RateBook {
    /// Lets a request in, by all of these limits or not at all: it takes a request from each bucket and a place among
    /// those in flight.
    ///
    /// # Errors
    /// The [`RateRefusal`] that takes longest to mend; nothing was taken then.
    pub fn enter(&mut self, now: u64, limits: &[(Subject, RateLimit)]) -> Result<RatePermit, RateRefusal> {
        self.sweep_if_grown(now);
        let (mut refusal, mut taken) = (None, Vec::with_capacity(limits.len()));
        for (subject, limit) in limits {
            let place = self.place(subject);
            let entry = &mut self.entries[place];
            entry.apply(*limit, now);
            refusal = worse(refusal, entry.requests_refusal());
            refusal = worse(refusal, entry.concurrency_refusal());
            taken.push(Taken { place, has_request: false, tokens: None });
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        for taken in &mut taken {
            let entry = &mut self.entries[taken.place];
            entry.permits += 1;
            entry.in_flight += 1;
            if let Some(bucket) = entry.requests_in_force() {
                bucket.level -= PARTS;
                taken.has_request = true;
            }
        }
        Ok(RatePermit { taken, is_inside: true })
    }

    /// Where the entry of a subject is. A new one has used nothing.
    fn place(&mut self, subject: &Subject) -> usize {
        if let Some(place) = self.places.get(subject) {
            return *place;
        }
        let entry = Entry::fresh(subject.clone());
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(subject.clone(), place);
        place
    }

    /// Takes the tokens that a request is estimated to use. A request larger than a whole bucket passes when the
    /// bucket is full.
    ///
    /// # Errors
    /// The [`RateRefusal`] that takes longest to mend; no tokens were taken then.
    pub fn take_tokens(&mut self, now: u64, permit: &mut RatePermit, tokens: u64) -> Result<(), RateRefusal> {
        let mut refusal = None;
        for taken in &permit.taken {
            let entry = &mut self.entries[taken.place];
            if let Some(bucket) = entry.tokens_in_force() {
                bucket.settle(now);
            }
            refusal = worse(refusal, entry.tokens_refusal(tokens));
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        for taken in &mut permit.taken {
            if let Some(bucket) = self.entries[taken.place].tokens_in_force() {
                bucket.level -= parts(tokens);
                taken.tokens = Some(taken.tokens.unwrap_or_default().saturating_add(tokens));
            }
        }
        Ok(())
    }

    /// Gives back the place among those in flight, ahead of the rest: the caller is about to see the end of its answer
    /// and may ask again at once.
    pub fn leave(&mut self, permit: &mut RatePermit) {
        if !std::mem::replace(&mut permit.is_inside, false) {
            return;
        }
        for taken in &permit.taken {
            let entry = &mut self.entries[taken.place];
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
    }

    /// Takes back the permit of a request that was refused after all: as if it had never come.
    pub fn refuse(&mut self, now: u64, permit: RatePermit) {
        for taken in permit.taken.iter().filter(|taken| taken.has_request) {
            if let Some(bucket) = &mut self.entries[taken.place].requests {
                bucket.settle(now);
                bucket.add(PARTS);
            }
        }
        self.finish(now, permit, 0);
    }

    /// Takes back the permit of a request that ended, with the tokens that it really used.
    pub fn finish(&mut self, now: u64, mut permit: RatePermit, tokens: u64) {
        self.leave(&mut permit);
        for taken in permit.taken {
            let entry = &mut self.entries[taken.place];
            entry.permits = entry.permits.saturating_sub(1);
            let is_limited = taken.tokens.is_some() || entry.limit.tokens_per_minute.is_some();
            if let Some(bucket) = entry.tokens.as_mut().filter(|_| is_limited) {
                bucket.settle(now);
                bucket.add(parts(taken.tokens.unwrap_or_default()) - parts(tokens));
            }
        }
    }

    /// How much of a subject's limits is used.
    pub fn used(&self, now: u64, subject: &Subject) -> RateUse {
        let Some(place) = self.places.get(subject) else { return RateUse::default() };
        let entry = &self.entries[*place];
        let used = |bucket: Option<Bucket>| bucket.map_or(0, |bucket| bucket.used(now));
        RateUse { requests: used(entry.requests), tokens: used(entry.tokens), in_flight: entry.in_flight }
    }

    /// Forgets the subjects of whom nothing needs to be known. The cost is spread over the requests that made the
    /// book grow.
    fn sweep_if_grown(&mut self, now: u64) {
        if self.places.len() >= self.sweep_at.max(SWEEP_MIN) {
            for (_, place) in self.places.extract_if(|_, place| self.entries[*place].is_fresh(now)) {
                self.free.push(place);
            }
            self.sweep_at = self.places.len().saturating_mul(2);
        }
    }
}

impl Entry {
    fn fresh(subject: Subject) -> Self {
        let limit = RateLimit::default();
        Self { subject, permits: 0, limit, requests: None, tokens: None, in_flight: 0 }
    }

    /// Puts a limit in force. A bucket whose limit is edited keeps its level, and one whose limit was removed is
    /// kept, so that setting it again gives nothing away.
    fn apply(&mut self, limit: RateLimit, now: u64) {
        self.limit = limit;
        let set = |bucket: &mut Option<Bucket>, per_minute: Option<u64>| {
            if let Some(bucket) = bucket {
                bucket.settle(now);
            }
            if let Some(per_minute) = per_minute {
                bucket.get_or_insert_with(|| Bucket::full(per_minute, now)).limit_to(per_minute);
            }
        };
        set(&mut self.requests, limit.requests_per_minute.map(u64::from));
        set(&mut self.tokens, limit.tokens_per_minute);
    }

    fn requests_in_force(&mut self) -> Option<&mut Bucket> {
        self.requests.as_mut().filter(|_| self.limit.requests_per_minute.is_some())
    }

    fn tokens_in_force(&mut self) -> Option<&mut Bucket> {
        self.tokens.as_mut().filter(|_| self.limit.tokens_per_minute.is_some())
    }

    fn requests_refusal(&self) -> Option<RateRefusal> {
        let allowed = self.limit.requests_per_minute?.into();
        let wait_us = self.requests?.wait_for(1)?;
        Some(self.refusal(RateKind::RequestsPerMinute, allowed, wait_us))
    }

    fn tokens_refusal(&self, tokens: u64) -> Option<RateRefusal> {
        let allowed = self.limit.tokens_per_minute?;
        let wait_us = self.tokens?.wait_for(tokens)?;
        Some(self.refusal(RateKind::TokensPerMinute, allowed, wait_us))
    }

    fn concurrency_refusal(&self) -> Option<RateRefusal> {
        let allowed = self.limit.concurrent.filter(|allowed| self.in_flight >= *allowed)?.into();
        Some(self.refusal(RateKind::Concurrent, allowed, 0))
    }

    fn refusal(&self, kind: RateKind, allowed: u64, wait_us: u64) -> RateRefusal {
        RateRefusal { subject: self.subject.clone(), kind, allowed, wait_us }
    }

    /// Whether a new entry would say the same, and nobody refers to this one.
    fn is_fresh(&self, now: u64) -> bool {
        let is_full = |bucket: Option<Bucket>| bucket.is_none_or(|bucket| bucket.used(now) == 0);
        self.permits == 0 && is_full(self.requests) && is_full(self.tokens)
    }
}

impl Bucket {
    fn full(per_minute: u64, now: u64) -> Self {
        let level = parts(per_minute);
        Self { per_minute, level, at: now }
    }

    /// Adds what has refilled until now.
    fn settle(&mut self, now: u64) {
        // Who read the clock first may come second.
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.add(i128::from(self.per_minute).saturating_mul(elapsed.into()));
    }

    fn add(&mut self, parts: i128) {
        self.level = self.level.saturating_add(parts).min(self::parts(self.per_minute));
    }

    fn limit_to(&mut self, per_minute: u64) {
        self.per_minute = per_minute;
        self.add(0);
    }

    /// How long until so many can be taken; `None` is now.
    fn wait_for(&self, count: u64) -> Option<u64> {
        let needed = parts(count.min(self.per_minute.max(1)));
        let missing = needed - self.level;
        if missing <= 0 {
            return None;
        }
        let refill = i128::from(self.per_minute);
        let wait = missing.checked_add(refill - 1).and_then(|missing| missing.checked_div(refill));
        Some(wait.map_or(NEVER_US, |wait| u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// What has not refilled, rounded up.
    fn used(mut self, now: u64) -> u64 {
        self.settle(now);
        let missing = parts(self.per_minute) - self.level;
        u64::try_from((missing + PARTS - 1) / PARTS).unwrap_or(u64::MAX)
    }
}

impl RateKind {
    /// The stable name, as in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::Concurrent => "concurrent",
        }
    }
}

impl RateRefusal {
    /// The wait in whole seconds, at least one: what a caller is told.
    pub fn wait_seconds(&self) -> u32 {
        u32::try_from(self.wait_us.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1)
    }
}

impl From<RateRefusal> for Denial {
    fn from(refusal: RateRefusal) -> Self {
        let code = match refusal.kind {
            RateKind::RequestsPerMinute | RateKind::TokensPerMinute => DenialCode::RateLimited,
            RateKind::Concurrent => DenialCode::TooManyConcurrent,
        };
        Denial::new(code, refusal.to_string())
            .with_hint("tokfence ratelimit status")
            .with_retry_after(refusal.wait_seconds())
            .with_detail("limit", format!("{}/{}", refusal.subject, refusal.kind.as_str()))
    }
}

impl fmt::Display for RateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, allowed, .. } = self;
        match self.kind {
            RateKind::RequestsPerMinute => {
                write!(f, "the limit of `{subject}`, {allowed} requests a minute, is used up")
            }
            RateKind::TokensPerMinute => {
                write!(f, "the limit of `{subject}`, {allowed} tokens a minute, has no room for this request")
            }
            RateKind::Concurrent => {
                write!(f, "the limit of `{subject}`, {allowed} requests at once, is reached")
            }
        }
    }
}

/// The refusal that says most: a rate before a number at once, and of two rates the one that takes longer.
fn worse(a: Option<RateRefusal>, b: Option<RateRefusal>) -> Option<RateRefusal> {
    let rank = |refusal: &RateRefusal| (refusal.kind != RateKind::Concurrent, refusal.wait_us);
    match (a, b) {
        (Some(a), Some(b)) => Some(if rank(&b) > rank(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn parts(count: u64) -> i128 {
    i128::from(count) * PARTS
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
