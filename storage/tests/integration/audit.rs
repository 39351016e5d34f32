//! Every change of the owner's has its row, and neither is there without the other.

use jiff::tz::TimeZone;
use policy::{CanaryKind, CanaryValue, DecoyShape, RateLimit, Signal, Subject, Unit};
use storage::{
    Actor, AuditAction as Action, AuditFilter, AuditRow, Error, NewCanary, NewCapability, PlantManner,
    RiskAction, RiskSeen, Store,
};

use crate::common::Home;
use crate::policy_rows::new;

type Change = (&'static str, &'static [Action], fn(&mut Store) -> Result<(), Error>);

const LIMIT: RateLimit =
    RateLimit { requests_per_minute: Some(60), tokens_per_minute: None, concurrent: None };

fn ci() -> Subject {
    "agent:ci".parse().unwrap()
}

fn spare() -> NewCanary {
    NewCanary {
        name: "spare".parse().unwrap(),
        kind: CanaryKind::Decoy,
        shape: Some(DecoyShape::OpenAi),
        value: CanaryValue::Text("sk-a-decoy-that-is-nowhere".into()),
        holder: None,
    }
}

fn id(text: &str) -> policy::CapabilityId {
    text.parse().unwrap()
}

fn the_canary(store: &Store) -> storage::CanarySummary {
    store.canaries().unwrap().remove(0)
}

fn set(store: &mut Store, tokens: i64) -> Result<(), Error> {
    let period = "daily".parse().unwrap();
    store.set_budget(&ci(), period, Unit::Tokens.of(tokens), 10, &TimeZone::UTC).map(drop)
}

/// Everything an owner can change, in an order in which it is possible, and the same again where that changes nothing.
const CHANGES: &[Change] = &[
    ("mint", &[Action::AgentMint], |store| store.mint(&new("aaaaaaaa", "ci"), 10)),
    ("mint another", &[Action::AgentMint], |store| store.mint(&new("bbbbbbbb", "ci"), 10)),
    ("an agent's own child", &[], |store| {
        store.mint(&NewCapability { parent: Some(id("aaaaaaaa")), ..new("cccccccc", "ci") }, 10)
    }),
    ("begin a run", &[Action::RunBegin], |store| store.begin_run(&new("dddddddd", "run"), 10)),
    ("end a run", &[Action::RunEnd], |store| store.end_run(id("dddddddd"), "over", 10).map(drop)),
    ("end it again", &[], |store| store.end_run(id("dddddddd"), "over", 10).map(drop)),
    ("rotate", &[Action::CapabilityRotate], |store| {
        store.rotate_capability(id("aaaaaaaa"), [9; 32], 10).map(drop)
    }),
    ("revoke one", &[Action::CapabilityRevoke], |store| {
        store.revoke_capability(id("bbbbbbbb"), "old", 10).map(drop)
    }),
    ("revoke it again", &[], |store| store.revoke_capability(id("bbbbbbbb"), "old", 10).map(drop)),
    ("revoke an agent", &[Action::AgentRevoke], |store| {
        store.revoke_agent(&"ci".parse().unwrap(), "odd", 10).map(drop)
    }),
    ("revoke it again", &[], |store| store.revoke_agent(&"ci".parse().unwrap(), "odd", 10).map(drop)),
    ("restore it", &[Action::AgentRestore], |store| {
        store.restore_agent(&"ci".parse().unwrap(), 10).map(drop)
    }),
    ("revoke a provider", &[Action::ProviderRevoke], |store| {
        store.revoke_provider(&"openai".parse().unwrap(), "leak", 10).map(drop)
    }),
    ("restore it", &[Action::ProviderRestore], |store| {
        store.restore_provider(&"openai".parse().unwrap(), 10).map(drop)
    }),
    ("restore it again", &[], |store| store.restore_provider(&"openai".parse().unwrap(), 10).map(drop)),
    ("kill", &[Action::Kill], |store| store.kill("a leak", 10).map(drop)),
    ("kill again", &[], |store| store.kill("a leak", 10).map(drop)),
    ("unkill", &[Action::Unkill], |store| store.unkill(10).map(drop)),
    ("unkill again", &[], |store| store.unkill(10).map(drop)),
    ("set a budget", &[Action::BudgetSet], |store| set(store, 5)),
    ("the same", &[], |store| set(store, 5)),
    ("another", &[Action::BudgetSet], |store| set(store, 6)),
    ("clear it", &[Action::BudgetClear], |store| store.clear_budgets(&ci(), None, 10).map(drop)),
    ("clear nothing", &[], |store| store.clear_budgets(&ci(), None, 10).map(drop)),
    ("limit", &[Action::RatelimitSet], |store| store.change_rate_limit(&ci(), 10, |_| LIMIT).map(drop)),
    ("the same limit", &[], |store| store.change_rate_limit(&ci(), 10, |_| LIMIT).map(drop)),
    ("no limit", &[Action::RatelimitClear], |store| {
        store.change_rate_limit(&ci(), 10, |_| RateLimit::default()).map(drop)
    }),
    ("evidence", &[], |store| {
        let seen = RiskSeen::new(Signal::DecoyAsCredential, ci(), RiskAction::Refused);
        store.report_risk(&seen).map(drop)
    }),
    ("lower a risk", &[Action::RiskClear], |store| {
        store.clear_risk(&[ci(), Subject::Global], "a slip", 10).map(drop)
    }),
    ("lower nothing", &[], |store| store.clear_risk(&[ci()], "a slip", 10).map(drop)),
    ("add a canary", &[Action::CanaryAdd], |store| store.add_canary(&spare(), 10).map(drop)),
    ("plant it", &[Action::CanaryPlant], |store| {
        let canary = the_canary(store).canary.id;
        store.remember_plant(canary, "/w/.env", "KEY=x\n", PlantManner::Made, 10).map(drop)
    }),
    ("take it out", &[Action::CanaryUnplant], |store| {
        let plant = the_canary(store).plants[0].id;
        store.forget_plant(plant, 10)
    }),
    ("remove it", &[Action::CanaryRemove], |store| {
        let canary = the_canary(store).canary.id;
        store.remove_canary(canary, 10).map(drop)
    }),
    ("accept the clock", &[Action::ClockAccept], |store| store.accept_clock(10)),
];

fn rows(store: &Store) -> Vec<AuditRow> {
    let mut rows = store.audit_rows(AuditFilter { action: None, since: None, limit: u32::MAX }).unwrap();
    rows.reverse();
    rows
}

/// All that a change could have touched, but for the audit log.
fn everything(home: &Home) -> Vec<(String, String)> {
    let conn = rusqlite::Connection::open(home.path()).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'audit' ORDER BY name";
    let mut statement = conn.prepare(sql).unwrap();
    let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let names: Vec<String> = names.map(Result::unwrap).collect();
    let content = |name: String| {
        let mut statement = conn.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cells = (0..columns).map(|index| row.get::<_, rusqlite::types::Value>(index));
            Ok(format!("{:?}", cells.collect::<rusqlite::Result<Vec<_>>>()?))
        });
        (name, rows.unwrap().map(Result::unwrap).collect::<Vec<_>>().join("\n"))
    };
    names.into_iter().map(content).collect()
}

#[test]
fn every_change_has_one_row_and_what_changes_nothing_has_none() {
    let home = Home::new();
    let mut store = home.store().acting_as(Actor::new("a test"));
    let mut told = 0;
    for (name, actions, change) in CHANGES {
        change(&mut store).unwrap();
        let rows = rows(&store);
        let new: Vec<&str> = rows[told..].iter().map(|row| row.action.as_str()).collect();
        let expected: Vec<&str> = actions.iter().map(|action| action.as_str()).collect();
        assert_eq!(new, expected, "{name}");
        told = rows.len();
        let report = store.verify_audit(None).unwrap();
        assert_eq!((report.unanchored, report.faults), (0, vec![]), "{name}");
    }
    for row in rows(&store) {
        let actor = Actor::parse(&row.actor).unwrap();
        assert_eq!((actor.pid, actor.command.as_str()), (std::process::id(), "a test"));
        assert!(!row.detail.contains("sk-a-decoy"), "{}", row.detail);
    }
}

#[test]
fn before_and_after_are_told() {
    let home = Home::new();
    let mut store = home.store();
    CHANGES.iter().for_each(|(_, _, change)| change(&mut store).unwrap());
    let rows = rows(&store);
    let of = |action: Action| rows.iter().filter(|row| row.action == action.as_str()).collect::<Vec<_>>();
    for (action, subject, detail) in [
        (Action::RiskClear, "agent:ci", r#"{"before":"RED","after":"GREEN","reason":"a slip"}"#),
        (Action::Kill, "global", r#"{"before":"served","after":"killed","reason":"a leak"}"#),
        (Action::ProviderRevoke, "openai", r#"{"before":"served","after":"revoked","reason":"leak"}"#),
        (Action::BudgetClear, "agent:ci", r#"{"before":["6 tokens/daily"],"after":null}"#),
        (Action::CanaryPlant, "canary:spare", r#"{"path":"/w/.env","manner":"made"}"#),
        (Action::RunEnd, "capability:dddddddd", r#"{"reason":"over"}"#),
    ] {
        let row = of(action)[0];
        assert_eq!((row.subject.as_str(), row.detail.as_str()), (subject, detail));
    }
    let set: Vec<&str> = of(Action::BudgetSet).iter().map(|row| row.detail.as_str()).collect();
    assert!(set[0].contains(r#""before":null,"after":"5 tokens""#), "{set:?}");
    assert!(set[1].contains(r#""before":"5 tokens","after":"6 tokens""#), "{set:?}");
}

/// Whatever goes wrong with the row, a full disk or a fault of ours: the change is not there either.
#[test]
fn a_change_whose_row_cannot_be_written_is_none() {
    let home = Home::new();
    let mut store = home.store();
    let shell = rusqlite::Connection::open(home.path()).unwrap();
    for (name, actions, change) in CHANGES {
        if !actions.is_empty() {
            let fault = "CREATE TRIGGER fault BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END";
            shell.execute_batch(fault).unwrap();
            let before = everything(&home);
            assert!(change(&mut store).is_err(), "{name}");
            assert_eq!(everything(&home), before, "{name}");
            shell.execute_batch("DROP TRIGGER fault").unwrap();
        }
        change(&mut store).unwrap();
    }
    assert_eq!(store.verify_audit(None).unwrap().faults, []);
}

#[test]
fn a_change_that_is_refused_has_no_row() {
    let home = Home::new();
    let mut store = home.store();
    assert!(store.revoke_capability(id("aaaaaaaa"), "", 1).is_err());
    assert!(store.mint(&NewCapability { expires_at: Some(1), ..new("aaaaaaaa", "ci") }, 10).is_err());
    assert!(
        store
            .add_canary(
                &NewCanary {
                    holder: Some(policy::Holder { agent: "nobody".parse().unwrap(), capability: None }),
                    ..spare()
                },
                1
            )
            .is_err()
    );
    assert_eq!(rows(&store), []);
}

#[test]
fn rows_are_listed_by_action_and_time_the_newest_first() {
    let home = Home::new();
    let mut store = home.store();
    for at in [10, 20, 30] {
        store.kill("a leak", at).unwrap();
        store.unkill(at + 5).unwrap();
    }
    let list = |filter: AuditFilter| {
        let rows = store.audit_rows(filter).unwrap();
        rows.iter().map(|row| (row.action.clone(), row.at)).collect::<Vec<_>>()
    };
    let all = AuditFilter { action: None, since: None, limit: 10 };
    let (kill, unkill) = ("kill".to_owned(), "unkill".to_owned());
    assert_eq!(list(all).len(), 6);
    assert_eq!(list(AuditFilter { limit: 1, ..all }), [(unkill.clone(), 35)]);
    assert_eq!(list(AuditFilter { since: Some(30), ..all }), [(unkill, 35), (kill.clone(), 30)]);
    assert_eq!(
        list(AuditFilter { action: Some(Action::Kill), limit: 2, ..all }),
        [(kill.clone(), 30), (kill, 20)]
    );
}
