//! Limits on rates: what is set is what is loaded, and a limit on nothing is no row.

use policy::{RateLimit, Subject};
use storage::NewCapability;

use crate::common::Home;
use crate::policy_rows::new;

fn limit(requests: u32) -> RateLimit {
    RateLimit { requests_per_minute: Some(requests), ..RateLimit::default() }
}

#[test]
fn what_is_set_is_what_is_loaded() {
    let home = Home::new();
    let mut store = home.store();
    let mut expected: Vec<(Subject, RateLimit)> = Vec::new();
    for (text, number) in [("global", 1), ("openai", 2), ("agent:ci", 3), ("capability:abcdefgh", 4)] {
        let subject: Subject = text.parse().unwrap();
        let limit = RateLimit {
            requests_per_minute: Some(number),
            tokens_per_minute: Some(1_000_000_000_000),
            concurrent: Some(number),
        };
        let changed = store.change_rate_limit(&subject, 1, |_| limit).unwrap();
        assert_eq!(changed, (RateLimit::default(), limit));
        expected.push((subject, limit));
    }
    assert_eq!(home.store().rate_limits().unwrap(), expected);
    assert_eq!(store.load_policy().unwrap().rules.rate_limits, expected.into_iter().collect());
}

#[test]
fn a_part_is_changed_and_the_rest_stays() {
    let home = Home::new();
    let (mut store, ci) = (home.store(), "agent:ci".parse().unwrap());
    store.change_rate_limit(&ci, 1, |_| limit(5)).unwrap();
    let epoch = store.policy_epoch().unwrap();
    store.change_rate_limit(&ci, 1, |limit| RateLimit { concurrent: Some(2), ..limit }).unwrap();
    assert!(store.policy_epoch().unwrap() > epoch);
    let both = RateLimit { concurrent: Some(2), ..limit(5) };
    let epoch = store.policy_epoch().unwrap();
    assert_eq!(store.change_rate_limit(&ci, 1, |limit| limit).unwrap(), (both, both));
    assert_eq!(store.policy_epoch().unwrap(), epoch, "nothing was changed");
    assert_eq!(store.change_rate_limit(&ci, 1, |_| RateLimit::default()).unwrap().0, both);
    assert_eq!(store.rate_limits().unwrap(), []);
}

#[test]
fn a_number_beyond_reason_is_refused() {
    let home = Home::new();
    let (mut store, ci) = (home.store(), "agent:ci".parse().unwrap());
    for limit in [
        limit(1_000_001),
        RateLimit { tokens_per_minute: Some(u64::MAX), ..RateLimit::default() },
        RateLimit { concurrent: Some(1_000_001), ..RateLimit::default() },
    ] {
        assert!(store.change_rate_limit(&ci, 1, |_| limit).is_err(), "{limit:?}");
    }
    assert_eq!(store.rate_limits().unwrap(), []);
}

#[test]
fn a_capability_is_minted_with_its_limit_or_not_at_all() {
    let home = Home::new();
    let mut store = home.store();
    let minted = NewCapability { rate: limit(7), ..new("aaaaaaaa", "ci") };
    store.mint(&minted, 10).unwrap();
    assert_eq!(store.rate_limits().unwrap(), [(Subject::Capability(minted.id), limit(7))]);
    let refused = NewCapability { rate: limit(1_000_001), ..new("bbbbbbbb", "ci") };
    assert!(store.mint(&refused, 10).is_err());
    assert_eq!(store.load_policy().unwrap().rules.capabilities.len(), 1);
}
