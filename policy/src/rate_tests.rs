use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;

fn subject(text: &str) -> Subject {
    text.parse().unwrap()
}

fn rpm(count: u32) -> RateLimit {
    RateLimit { requests_per_minute: Some(count), ..RateLimit::default() }
}

fn tpm(count: u64) -> RateLimit {
    RateLimit { tokens_per_minute: Some(count), ..RateLimit::default() }
}

fn concurrent(count: u32) -> RateLimit {
    RateLimit { concurrent: Some(count), ..RateLimit::default() }
}

/// Lets a request through that ends at once.
fn pass(book: &mut RateBook, now: u64, limits: &[(Subject, RateLimit)]) -> Result<(), RateRefusal> {
    let permit = book.enter(now, limits)?;
    book.finish(now, permit, 0);
    Ok(())
}

#[test]
fn a_bucket_holds_a_minute_and_refills_evenly() {
    let limits = [(subject("openai"), rpm(3))];
    let mut book = RateBook::default();
    for _ in 0..3 {
        pass(&mut book, 7, &limits).unwrap();
    }
    let refusal = pass(&mut book, 7, &limits).unwrap_err();
    assert_eq!(
        (refusal.kind, refusal.allowed, refusal.wait_us),
        (RateKind::RequestsPerMinute, 3, 20 * SECOND)
    );
    assert!(pass(&mut book, 7 + 20 * SECOND - 1, &limits).is_err());
    pass(&mut book, 7 + 20 * SECOND, &limits).unwrap();
    assert!(pass(&mut book, 7 + 20 * SECOND, &limits).is_err());
}

#[test]
fn a_refusal_names_the_limit_that_takes_longest_and_takes_nothing() {
    let limits = [(subject("global"), rpm(60)), (subject("agent:ci"), rpm(1)), (subject("openai"), rpm(2))];
    let mut book = RateBook::default();
    pass(&mut book, 0, &limits).unwrap();
    for _ in 0..10 {
        let refusal = pass(&mut book, 0, &limits).unwrap_err();
        assert_eq!((refusal.subject, refusal.wait_us), (subject("agent:ci"), MINUTE));
    }
    assert_eq!(book.used(0, &subject("global")).requests, 1);
    assert_eq!(book.used(0, &subject("openai")).requests, 1);
}

#[test]
fn what_is_refused_later_is_given_back() {
    let both = RateLimit { tokens_per_minute: Some(100), ..rpm(1) };
    let limits = [(subject("agent:ci"), both)];
    let mut book = RateBook::default();
    for _ in 0..50 {
        let mut permit = book.enter(0, &limits).unwrap();
        book.take_tokens(0, &mut permit, 80).unwrap();
        book.refuse(0, permit);
    }
    assert_eq!(book.used(0, &subject("agent:ci")), RateUse::default());
    pass(&mut book, 0, &limits).unwrap();
    assert!(pass(&mut book, 0, &limits).is_err());
}

#[test]
fn tokens_are_corrected_and_a_debt_is_carried() {
    let limits = [(subject("agent:ci"), tpm(600))];
    let mut book = RateBook::default();
    let mut permit = book.enter(0, &limits).unwrap();
    book.take_tokens(0, &mut permit, 500).unwrap();
    book.finish(0, permit, 100);
    assert_eq!(book.used(0, &subject("agent:ci")).tokens, 100);
    let mut permit = book.enter(0, &limits).unwrap();
    book.take_tokens(0, &mut permit, 1).unwrap();
    book.finish(0, permit, 1_100);
    assert_eq!(book.used(0, &subject("agent:ci")).tokens, 1_200);
    let mut permit = book.enter(0, &limits).unwrap();
    let refusal = book.take_tokens(0, &mut permit, 10).unwrap_err();
    assert_eq!((refusal.kind, refusal.wait_us), (RateKind::TokensPerMinute, 61 * SECOND));
    book.refuse(0, permit);
    assert_eq!(book.used(0, &subject("agent:ci")).tokens, 1_200, "a refusal pays no debt");
}

#[test]
fn a_request_larger_than_the_bucket_passes_when_it_is_full() {
    let limits = [(subject("agent:ci"), tpm(100))];
    let mut book = RateBook::default();
    let mut ask = |now, tokens| {
        let mut permit = book.enter(now, &limits).unwrap();
        let taken = book.take_tokens(now, &mut permit, tokens);
        if taken.is_ok() {
            book.finish(now, permit, tokens)
        } else {
            book.refuse(now, permit)
        }
        taken
    };
    ask(0, 250).unwrap();
    assert_eq!(ask(0, 250).unwrap_err().wait_us, 150 * SECOND);
    assert!(ask(150 * SECOND - 1, 250).is_err());
    ask(150 * SECOND, 250).unwrap();
}

#[test]
fn a_limit_that_is_edited_or_set_again_keeps_what_was_used() {
    let ci = subject("agent:ci");
    let mut book = RateBook::default();
    let spend = |book: &mut RateBook, now, limit| pass(book, now, &[(ci.clone(), limit)]);
    for _ in 0..10 {
        spend(&mut book, 0, rpm(10)).unwrap();
    }
    assert_eq!(spend(&mut book, 0, rpm(60)).unwrap_err().wait_us, SECOND, "raised: it refills faster");
    assert!(spend(&mut book, 0, rpm(2)).is_err(), "lowered");
    // Removed, and set again at once.
    pass(&mut book, 0, &[(ci.clone(), concurrent(5))]).unwrap();
    pass(&mut book, 0, &[]).unwrap();
    assert!(spend(&mut book, 0, rpm(10)).is_err());
    // Lowered while it was full: no more than the new limit passes.
    let now = 10 * MINUTE;
    spend(&mut book, now, rpm(3)).unwrap();
    spend(&mut book, now, rpm(3)).unwrap();
    spend(&mut book, now, rpm(3)).unwrap();
    assert!(spend(&mut book, now, rpm(3)).is_err());
}

#[test]
fn a_limit_that_was_removed_takes_and_gives_nothing() {
    let ci = subject("agent:ci");
    let mut book = RateBook::default();
    pass(&mut book, 0, &[(ci.clone(), rpm(1))]).unwrap();
    for _ in 0..5 {
        let permit = book.enter(0, &[(ci.clone(), concurrent(9))]).unwrap();
        book.refuse(0, permit);
        pass(&mut book, 0, &[(ci.clone(), concurrent(9))]).unwrap();
    }
    assert_eq!(book.used(0, &ci).requests, 1);
    assert_eq!(pass(&mut book, 0, &[(ci.clone(), rpm(1))]).unwrap_err().wait_us, MINUTE);
}

#[test]
fn a_limit_of_nothing_lets_nothing_through() {
    let mut book = RateBook::default();
    for limit in [rpm(0), concurrent(0)] {
        assert!(pass(&mut book, 5 * MINUTE, &[(subject("openai"), limit)]).is_err());
    }
    let mut permit = book.enter(0, &[(subject("openai"), tpm(0))]).unwrap();
    assert_eq!(book.take_tokens(0, &mut permit, 0), Ok(()));
    assert_eq!(book.take_tokens(0, &mut permit, 1).unwrap_err().wait_us, NEVER_US);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let limit = RateLimit {
        requests_per_minute: Some(u32::MAX),
        tokens_per_minute: Some(u64::MAX),
        concurrent: Some(u32::MAX),
    };
    let limits = [(subject("global"), limit)];
    let mut book = RateBook::default();
    for now in [0, u64::MAX / 2, u64::MAX, 0] {
        let mut permit = book.enter(now, &limits).unwrap();
        // Whether it has room is not the point here.
        let _ = book.take_tokens(now, &mut permit, u64::MAX);
        let _ = book.take_tokens(now, &mut permit, u64::MAX);
        book.finish(now, permit, u64::MAX);
    }
}

#[test]
fn subjects_that_are_gone_are_forgotten() {
    let mut book = RateBook::default();
    for number in 0..100_000_u64 {
        let one = subject(&format!("capability:{number:08}"));
        // Sixty a second, each fresh again a second after it was used.
        pass(&mut book, number * SECOND / 60, &[(one, rpm(60))]).unwrap();
        assert!(book.entries.len() <= 4 * SWEEP_MIN, "{}", book.entries.len());
    }
    assert_eq!(book.entries.len(), book.places.len() + book.free.len());
}

#[test]
fn what_a_request_has_taken_is_not_forgotten_before_it_ends() {
    let (mut book, slow) = (RateBook::default(), [(subject("agent:slow"), tpm(60))]);
    let mut permit = book.enter(0, &slow).unwrap();
    book.leave(&mut permit);
    for number in 0..1_000_u64 {
        let one = subject(&format!("capability:{number:08}"));
        pass(&mut book, number * SECOND, &[(one, rpm(60))]).unwrap();
    }
    book.finish(1_000 * SECOND, permit, 30);
    assert_eq!(book.used(1_000 * SECOND, &slow[0].0).tokens, 30);
}

#[test]
fn a_refusal_says_which_limit_and_when() {
    let of =
        |kind, wait_us| Denial::from(RateRefusal { subject: subject("agent:ci"), kind, allowed: 5, wait_us });
    let rate = of(RateKind::RequestsPerMinute, SECOND + 1);
    assert_eq!((rate.code(), rate.retry_after()), (DenialCode::RateLimited, Some(2)));
    assert_eq!(rate.details(), [("limit", "agent:ci/requests_per_minute".to_owned())]);
    assert_eq!(of(RateKind::TokensPerMinute, SECOND).retry_after(), Some(1));
    let places = of(RateKind::Concurrent, 0);
    assert_eq!((places.code(), places.retry_after()), (DenialCode::TooManyConcurrent, Some(1)));
}

/// Another way to say the same: the instant, in parts, at which the bucket will be full again (GCRA).
#[derive(Default)]
struct Model {
    full_at: i128,
}

impl Model {
    fn passes(&mut self, now: u64, per_minute: u32) -> bool {
        let (now, limit) = (i128::from(now) * i128::from(per_minute), i128::from(per_minute) * PARTS);
        let full_at = self.full_at.max(now) + PARTS;
        let passes = full_at - now <= limit;
        if passes {
            self.full_at = full_at;
        }
        passes
    }
}

/// Steps in time, short ones and long ones.
fn steps() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![Just(0), 0..SECOND, 0..10 * SECOND, 0..2 * MINUTE];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn no_more_pass_than_the_limit_and_what_refills(steps in steps(), limit in 1..40_u32) {
        let limits = [(subject("openai"), rpm(limit))];
        let (mut book, mut model, mut now) = (RateBook::default(), Model::default(), 0);
        let mut passed: Vec<u64> = Vec::new();
        for step in steps {
            now += step;
            match pass(&mut book, now, &limits) {
                Ok(()) => {
                    prop_assert!(model.passes(now, limit));
                    passed.push(now);
                }
                Err(refusal) => {
                    prop_assert!(!model.passes(now, limit));
                    // After exactly that time it passes, and not before.
                    let wait = refusal.wait_us;
                    prop_assert!(pass(&mut copy(&book), now + wait - 1, &limits).is_err());
                    prop_assert!(pass(&mut copy(&book), now + wait, &limits).is_ok());
                }
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, to) in passed.iter().enumerate().skip(first) {
                let count = (last - first + 1) as u64;
                let refilled = u64::from(limit) * (to - from);
                prop_assert!(count * MINUTE <= u64::from(limit) * MINUTE + refilled);
            }
        }
    }

    #[test]
    fn places_are_never_exceeded_and_never_leak(
        actions in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<u8>()), 1..400),
        of_agent in 1..6_u32, of_provider in 1..6_u32,
    ) {
        let limits = [
            (subject("agent:ci"), concurrent(of_agent)),
            (subject("openai"), RateLimit { concurrent: Some(of_provider), ..rpm(1_000_000) }),
        ];
        let mut book = RateBook::default();
        let mut running: Vec<RatePermit> = Vec::new();
        for (begins, is_refused, which) in actions {
            if begins {
                let has_room = running.len() < of_agent.min(of_provider) as usize;
                let entered = book.enter(0, &limits);
                prop_assert_eq!(entered.is_ok(), has_room);
                running.extend(entered);
            } else if !running.is_empty() {
                let mut permit = running.swap_remove(usize::from(which) % running.len());
                if which > 128 {
                    book.leave(&mut permit);
                    prop_assert_eq!(book.used(0, &subject("openai")).in_flight as usize, running.len());
                }
                if is_refused { book.refuse(0, permit) } else { book.finish(0, permit, 5) }
            }
            let in_flight = u32::try_from(running.len()).unwrap();
            prop_assert_eq!(book.used(0, &subject("agent:ci")).in_flight, in_flight);
            prop_assert_eq!(book.used(0, &subject("openai")).in_flight, in_flight);
        }
        running.drain(..).for_each(|permit| book.finish(0, permit, 0));
        prop_assert_eq!(book.used(MINUTE, &subject("openai")), RateUse::default());
    }

    #[test]
    fn tokens_that_pass_are_paid_for(
        requests in proptest::collection::vec((0..2 * MINUTE, 0..400_u64, 0..800_u64, any::<bool>()), 1..100),
        limit in 1..500_u64,
    ) {
        let limits = [(subject("agent:ci"), tpm(limit))];
        let (mut book, mut now) = (RateBook::default(), 0);
        // What a bucket of fractions would hold, with the debt in it.
        let mut level = i128::from(limit) * PARTS;
        for (step, estimate, actual, is_refused) in requests {
            now += step;
            let full = i128::from(limit) * PARTS;
            level = (level + i128::from(limit) * i128::from(step)).min(full);
            let mut permit = book.enter(now, &limits).unwrap();
            let passes = level >= (i128::from(estimate) * PARTS).min(full);
            let taken = book.take_tokens(now, &mut permit, estimate);
            prop_assert_eq!(taken.is_ok(), passes);
            if let Err(refusal) = taken {
                let at = now + refusal.wait_us;
                let mut later = copy(&book);
                let mut permit = later.enter(now, &limits).unwrap();
                prop_assert!(later.take_tokens(at - 1, &mut permit, estimate).is_err());
                prop_assert!(later.take_tokens(at, &mut permit, estimate).is_ok());
            } else if !is_refused {
                book.finish(now, permit, actual);
                level = (level - i128::from(actual) * PARTS).min(full);
                continue;
            }
            book.refuse(now, permit);
        }
    }
}

fn copy(book: &RateBook) -> RateBook {
    let RateBook { places, entries, free, sweep_at } = book;
    RateBook { places: places.clone(), entries: entries.clone(), free: free.clone(), sweep_at: *sweep_at }
}
