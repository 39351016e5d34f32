//! The owner's switches: each turns one thing, keeps its first date and reason, and outlives the process.

use policy::{ProviderId, Revocation};
use storage::{CapabilityFilter, Controls, Error, NewCapability, Store};

use crate::common::Home;
use crate::policy_rows::{loaded, new};

fn revocation(at: i64, reason: &str) -> Revocation {
    Revocation { at, reason: reason.to_owned() }
}

fn ids(store: &Store, now: i64) -> Vec<String> {
    let filter = CapabilityFilter { agent: None, active_at: Some(now) };
    let mut ids: Vec<_> =
        store.capabilities(&filter).unwrap().iter().map(|one| one.capability.id.to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn a_switch_keeps_its_first_date_and_reason() {
    let home = Home::new();
    let mut store = home.store();
    assert!(store.kill("leak", 10).unwrap());
    assert!(!store.kill("again", 20).unwrap());
    let openai: ProviderId = "openai".parse().unwrap();
    assert!(store.revoke_provider(&openai, "outage", 30).unwrap());
    assert!(!store.revoke_provider(&openai, "again", 40).unwrap());
    drop(store);
    let store = home.store();
    let expected = Controls {
        killed: Some(revocation(10, "leak")),
        revoked_providers: vec![(openai.clone(), revocation(30, "outage"))],
        revoked_agents: Vec::new(),
    };
    assert_eq!(store.controls().unwrap(), expected);
    let rules = store.load_policy().unwrap().rules;
    assert_eq!(rules.killed, Some(revocation(10, "leak")));
    assert_eq!(rules.revoked_providers.get(&openai), Some(&revocation(30, "outage")));
}

#[test]
fn lifting_one_switch_changes_no_other() {
    let home = Home::new();
    let mut store = home.store();
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    let (openai, ci) = ("openai".parse().unwrap(), "ci".parse().unwrap());
    store.revoke_provider(&openai, "outage", 20).unwrap();
    store.revoke_agent(&ci, "odd", 20).unwrap();
    let before = store.controls().unwrap();
    store.kill("leak", 30).unwrap();
    assert!(store.unkill(35).unwrap());
    assert!(!store.unkill(35).unwrap());
    assert_eq!(store.controls().unwrap(), before);
    assert!(store.restore_provider(&openai, 36).unwrap());
    assert!(!store.restore_provider(&openai, 36).unwrap());
    assert_eq!(store.controls().unwrap().revoked_agents, [(ci, revocation(20, "odd"))]);
}

#[test]
fn an_agent_gets_back_exactly_what_it_had() {
    let home = Home::new();
    let mut store = home.store();
    for id in ["aaaaaaaa", "bbbbbbbb", "cccccccc"] {
        store.mint(&new(id, "ci"), 10).unwrap();
    }
    store.mint(&new("dddddddd", "other"), 10).unwrap();
    store.revoke_capability("bbbbbbbb".parse().unwrap(), "leaked", 20).unwrap();
    let (before, ci) = (loaded(&store), "ci".parse().unwrap());
    assert!(store.revoke_agent(&ci, "odd", 30).unwrap());
    assert!(!store.revoke_agent(&ci, "again", 40).unwrap());
    assert_eq!(ids(&store, 50), ["dddddddd"]);
    let listed = store.agents(50).unwrap();
    assert_eq!((listed[0].capabilities_active, &listed[0].revoked), (0, &Some(revocation(30, "odd"))));
    let refused = store.mint(&new("eeeeeeee", "ci"), 50);
    assert!(matches!(refused, Err(Error::AgentRevoked { .. })), "{refused:?}");
    assert!(store.restore_agent(&ci, 60).unwrap());
    assert!(!store.restore_agent(&ci, 60).unwrap());
    assert_eq!(loaded(&store), before);
    assert_eq!(ids(&store, 50), ["aaaaaaaa", "cccccccc", "dddddddd"]);
    assert_eq!(store.agents(50).unwrap()[0].revoked, None);
}

#[test]
fn a_subtree_ends_with_its_root() {
    let home = Home::new();
    let mut store = home.store();
    let child = |id, parent: &str| NewCapability { parent: Some(parent.parse().unwrap()), ..new(id, "ci") };
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    store.mint(&child("bbbbbbbb", "aaaaaaaa"), 10).unwrap();
    store.mint(&child("cccccccc", "bbbbbbbb"), 10).unwrap();
    store.mint(&new("dddddddd", "ci"), 10).unwrap();
    assert_eq!(ids(&store, 20).len(), 4);
    store.revoke_capability("aaaaaaaa".parse().unwrap(), "leaked", 20).unwrap();
    assert_eq!(ids(&store, 20), ["dddddddd"]);
    assert_eq!(store.agents(20).unwrap()[0].capabilities_active, 1);
}

#[test]
fn a_child_needs_a_parent_in_force() {
    let home = Home::new();
    let mut store = home.store();
    let child = |id, parent: &str| NewCapability { parent: Some(parent.parse().unwrap()), ..new(id, "ci") };
    let missing = store.mint(&child("bbbbbbbb", "aaaaaaaa"), 10);
    assert!(matches!(missing, Err(Error::NoSuchCapability { .. })), "{missing:?}");
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    store.mint(&child("bbbbbbbb", "aaaaaaaa"), 10).unwrap();
    store.revoke_capability("aaaaaaaa".parse().unwrap(), "leaked", 20).unwrap();
    let ended = store.mint(&child("cccccccc", "bbbbbbbb"), 30);
    assert!(matches!(ended, Err(Error::CapabilityEnded { .. })), "{ended:?}");
}

#[test]
fn children_that_ended_long_ago_are_forgotten_and_nobody_else() {
    const HOUR: i64 = 3_600_000_000;
    let home = Home::new();
    let mut store = home.store();
    let root = NewCapability { expires_at: None, ..new("aaaaaaaa", "ci") };
    store.mint(&root, 10).unwrap();
    store.mint(&new("bbbbbbbb", "ci"), 10).unwrap();
    let limit = policy::RateLimit { concurrent: Some(1), ..policy::RateLimit::default() };
    let child = |id, expires_at| NewCapability {
        parent: Some(root.id),
        expires_at: Some(expires_at),
        rate: limit,
        ..new(id, "ci")
    };
    store.mint(&child("cccccccc", 1_000), 10).unwrap();
    store.mint(&child("dddddddd", HOUR), 10).unwrap();
    store.mint(&child("eeeeeeee", 9 * HOUR), HOUR + 2_000).unwrap();
    let ids: Vec<String> = loaded(&store).iter().map(|one| one.id.to_string()).collect();
    assert_eq!(ids, ["aaaaaaaa", "bbbbbbbb", "dddddddd", "eeeeeeee"]);
    let limited: Vec<String> =
        store.rate_limits().unwrap().iter().map(|(subject, _)| subject.to_string()).collect();
    assert_eq!(limited, ["capability:dddddddd", "capability:eeeeeeee"]);
}

#[test]
fn a_new_secret_keeps_everything_but_what_came_from_the_old_one() {
    let home = Home::new();
    let mut store = home.store();
    let child = |id, parent: &str| NewCapability { parent: Some(parent.parse().unwrap()), ..new(id, "ci") };
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    store.mint(&child("bbbbbbbb", "aaaaaaaa"), 10).unwrap();
    store.mint(&child("cccccccc", "bbbbbbbb"), 10).unwrap();
    let before = loaded(&store);
    let id = "aaaaaaaa".parse().unwrap();
    assert_eq!(store.rotate_capability(id, [7; 32], 20).unwrap(), 2);
    let mut expected = before[0].clone();
    expected.secret_hash = [7; 32];
    assert_eq!(loaded(&store)[0], expected);
    assert_eq!(ids(&store, 20), ["aaaaaaaa"]);
    let ended = store.rotate_capability("bbbbbbbb".parse().unwrap(), [8; 32], 20);
    assert!(matches!(ended, Err(Error::CapabilityEnded { .. })), "{ended:?}");
    let expired = store.rotate_capability(id, [8; 32], 1_000);
    assert!(matches!(expired, Err(Error::CapabilityEnded { .. })), "{expired:?}");
    let unknown = store.rotate_capability("zzzzzzzz".parse().unwrap(), [8; 32], 20);
    assert!(matches!(unknown, Err(Error::NoSuchCapability { .. })), "{unknown:?}");
}
