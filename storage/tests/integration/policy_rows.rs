//! Agents and capabilities, and how a change of them is noticed.

use policy::{Capability, Method, RouteClass, Scope};
use storage::{CapabilityFilter, Error, NewCapability, Store};

use crate::common::{FREE, Home, refusal, reserve, row};

fn scope() -> Scope {
    Scope {
        providers: vec!["openai".parse().unwrap(), "groq".parse().unwrap()],
        models: vec!["gpt-4o*".parse().unwrap(), "a\"b\\c".parse().unwrap()],
        routes: RouteClass::ALL.to_vec(),
        methods: Method::ALL.to_vec(),
        requires_unix_socket: true,
    }
}

pub(crate) fn new(id: &str, agent: &str) -> NewCapability {
    let mut secret_hash = [0; 32];
    secret_hash[..8].copy_from_slice(id.as_bytes());
    NewCapability {
        id: id.parse().unwrap(),
        secret_hash,
        agent: agent.parse().unwrap(),
        agent_note: Some("made by a test".to_owned()),
        budgets: vec!["5.00/daily".parse().unwrap(), "2M tokens/5h".parse().unwrap()],
        parent: None,
        scope: scope(),
        expires_at: Some(1_000),
        rate: policy::RateLimit::default(),
        note: None,
    }
}

pub(crate) fn loaded(store: &Store) -> Vec<Capability> {
    let mut all: Vec<_> = store.load_policy().unwrap().rules.capabilities.into_values().collect();
    all.sort_by_key(|capability| capability.id);
    all
}

#[test]
fn what_is_minted_is_what_is_loaded() {
    let home = Home::new();
    let mut store = home.store();
    let minted = new("aaaaaaaa", "ci");
    store.mint(&minted, 10).unwrap();
    let open = NewCapability { scope: Scope::default(), expires_at: None, ..new("bbbbbbbb", "ci") };
    store.mint(&open, 11).unwrap();
    let expected = |new: &NewCapability, created_at| Capability {
        id: new.id,
        secret_hash: new.secret_hash,
        agent: new.agent.clone(),
        parent: new.parent,
        scope: new.scope.clone(),
        created_at,
        expires_at: new.expires_at,
        revoked_at: None,
    };
    assert_eq!(loaded(&store), [expected(&minted, 10), expected(&open, 11)]);
    assert_eq!(loaded(&Store::open_existing(&home.path()).unwrap()), loaded(&store));
}

#[test]
fn a_capability_is_minted_once() {
    let home = Home::new();
    let mut store = home.store();
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    let same_id = NewCapability { secret_hash: [9; 32], ..new("aaaaaaaa", "other") };
    let same_secret = NewCapability { id: "cccccccc".parse().unwrap(), ..new("aaaaaaaa", "other") };
    let too_late = NewCapability { expires_at: Some(10), ..new("dddddddd", "other") };
    assert!(matches!(store.mint(&same_id, 10), Err(Error::CapabilityExists { .. })));
    assert!(matches!(store.mint(&same_secret, 10), Err(Error::CapabilityExists { .. })));
    assert!(matches!(store.mint(&too_late, 10), Err(Error::ExpiresTooEarly { .. })));
    let agents = store.agents(10).unwrap();
    assert_eq!(agents.len(), 1, "a mint that failed makes no agent: {agents:?}");
}

#[test]
fn revoking_is_once_and_for_good() {
    let home = Home::new();
    let mut store = home.store();
    for id in ["aaaaaaaa", "bbbbbbbb", "cccccccc"] {
        store.mint(&new(id, "ci"), 10).unwrap();
    }
    store.mint(&new("dddddddd", "other"), 10).unwrap();
    let id = "aaaaaaaa".parse().unwrap();
    assert!(store.revoke_capability(id, "leaked", 20).unwrap());
    assert!(!store.revoke_capability(id, "again", 30).unwrap());
    let revoked: Vec<_> = loaded(&store).iter().map(|capability| capability.revoked_at).collect();
    assert_eq!(revoked, [Some(20), None, None, None]);
    let listed = store.capabilities(&CapabilityFilter::default()).unwrap();
    let reasons: Vec<_> = listed.iter().map(|listed| listed.revoke_reason.as_deref()).collect();
    assert_eq!(reasons, [Some("leaked"), None, None, None]);
}

#[test]
fn unknown_names_are_errors_of_their_own() {
    let home = Home::new();
    let mut store = home.store();
    let (id, name) = ("aaaaaaaa".parse().unwrap(), "nobody".parse().unwrap());
    assert!(matches!(store.revoke_capability(id, "", 1), Err(Error::NoSuchCapability { .. })));
    assert!(matches!(store.revoke_agent(&name, "", 1), Err(Error::NoSuchAgent { .. })));
    assert!(matches!(store.restore_agent(&name, 2), Err(Error::NoSuchAgent { .. })));
    let filter = CapabilityFilter { agent: Some(name), active_at: None };
    assert!(matches!(store.capabilities(&filter), Err(Error::NoSuchAgent { .. })));
    assert_eq!(store.policy_epoch().unwrap(), 0, "nothing was written");
}

#[test]
fn lists_count_what_was_used_and_spent() {
    let home = Home::new();
    let mut store = home.store();
    store.mint(&new("abcdefgh", "ci"), 10).unwrap();
    store.mint(&new("bbbbbbbb", "ci"), 20).unwrap();
    store.revoke_capability("bbbbbbbb".parse().unwrap(), "leaked", 30).unwrap();
    store.mint(&NewCapability { expires_at: None, ..new("cccccccc", "idle") }, 30).unwrap();
    let unpriced = storage::RequestRow { cost: None, ..row(3) };
    home.log([row(1), row(2), unpriced, refusal(9, "invalid_capability", "/openai")]);

    let agents = store.agents(500).unwrap();
    let (ci, idle) = (&agents[0], &agents[1]);
    assert_eq!((ci.capabilities, ci.capabilities_active, ci.requests, ci.unpriced), (2, 1, 4, 1));
    assert_eq!(ci.spent.nanos(), 21);
    assert_eq!(ci.last_used_at, Some(3_000_000), "a refusal is no use");
    assert_eq!(ci.note.as_deref(), Some("made by a test"));
    assert_eq!((idle.capabilities_active, idle.requests, idle.last_used_at), (1, 0, None));
    assert_eq!(store.agents(1_000).unwrap()[0].capabilities_active, 0, "expired");

    let active = CapabilityFilter { agent: Some("ci".parse().unwrap()), active_at: Some(500) };
    let listed = store.capabilities(&active).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].capability.id.as_str(), listed[0].last_used_at), ("abcdefgh", Some(3_000_000)));
}

#[test]
fn the_epoch_moves_with_policy_and_not_with_the_log() {
    let home = Home::new();
    let reader = home.store();
    let mut other = home.store();
    let mut epoch = reader.policy_epoch().unwrap();
    let mut moved = || {
        let before = std::mem::replace(&mut epoch, reader.policy_epoch().unwrap());
        epoch > before
    };
    let quiet = reader.data_version().unwrap();
    assert_eq!(reader.data_version().unwrap(), quiet);

    other.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    assert!(moved(), "mint");
    let after_mint = reader.data_version().unwrap();
    assert_ne!(after_mint, quiet);
    other.revoke_capability("aaaaaaaa".parse().unwrap(), "", 20).unwrap();
    assert!(moved(), "revoke a capability");
    other.mint(&new("bbbbbbbb", "ci"), 10).unwrap();
    assert!(moved(), "mint for an agent that exists");
    let ci = "ci".parse().unwrap();
    other.revoke_agent(&ci, "", 20).unwrap();
    assert!(moved(), "revoke an agent");
    other.restore_agent(&ci, 25).unwrap();
    assert!(moved(), "restore an agent");
    other.rotate_capability("bbbbbbbb".parse().unwrap(), [5; 32], 30).unwrap();
    assert!(moved(), "rotate a capability");
    assert_eq!(reader.load_policy().unwrap().epoch, reader.policy_epoch().unwrap());

    let before_log = reader.data_version().unwrap();
    home.log([row(1)]);
    other.delete_older_than(2_000_000, 10).unwrap();
    assert_ne!(reader.data_version().unwrap(), before_log, "the log is another connection");
    assert!(!moved(), "the log is no policy");
}

#[test]
fn a_scope_that_cannot_be_read_fails_the_load() {
    let home = Home::new();
    let mut store = home.store();
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    let raw = rusqlite::Connection::open(home.path()).unwrap();
    for list in [r#"["openai", 7]"#, r#"["OPENAI"]"#, "[null]"] {
        raw.execute("UPDATE capabilities SET providers_json = ?1", [list]).unwrap();
        assert_eq!(store.load_policy().unwrap_err().code(), "database_damaged", "{list}");
    }
    for list in ["{}", "", "[", "null"] {
        let refused = raw.execute("UPDATE capabilities SET providers_json = ?1", [list]);
        assert!(refused.is_err(), "the schema refuses {list}");
    }
}

#[test]
fn policy_can_be_written_while_the_log_is() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let mut store = home.store();
    for number in 0..20 {
        reserve(&ledger).unwrap().settle(row(number), FREE);
        store.mint(&new(&format!("{number:08}"), "ci"), 10).unwrap();
    }
    writer.shutdown().unwrap();
    assert_eq!(loaded(&store).len(), 20);
    assert_eq!(store.agents(10).unwrap()[0].requests, 20);
}
