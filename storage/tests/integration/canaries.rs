//! Canaries: what is added is loaded, what is planted is remembered, and what ends takes its canaries along.

use policy::{CanaryKind, CanaryValue, DecoyShape, Holder, decoy, prompt_mark};
use storage::{Error, NewCanary, PlantManner, Store};

use crate::common::Home;
use crate::policy_rows::new;

fn a_decoy(name: &str) -> NewCanary {
    let shape = DecoyShape::OpenAi;
    let value = CanaryValue::Text(decoy(shape, [7; 32]).into());
    NewCanary {
        name: name.parse().unwrap(),
        kind: CanaryKind::Decoy,
        shape: Some(shape),
        value,
        holder: None,
    }
}

fn holder(agent: &str, capability: Option<&str>) -> Option<Holder> {
    Some(Holder { agent: agent.parse().unwrap(), capability: capability.map(|id| id.parse().unwrap()) })
}

fn names(store: &Store) -> Vec<String> {
    store.load_policy().unwrap().rules.canaries.iter().map(|canary| canary.name.to_string()).collect()
}

#[test]
fn what_is_added_is_what_is_loaded() {
    let home = Home::new();
    let mut store = home.store();
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    let mark = CanaryValue::Text(prompt_mark([1; 32]).into());
    let of_vault = CanaryValue::hash_of(&decoy(DecoyShape::Groq, [2; 32]));
    let added = [
        NewCanary { holder: holder("ci", Some("aaaaaaaa")), ..a_decoy("one") },
        NewCanary { kind: CanaryKind::Prompt, shape: None, value: mark, ..a_decoy("two") },
        NewCanary { kind: CanaryKind::Vault, value: of_vault, ..a_decoy("three") },
        NewCanary { holder: holder("ci", None), ..a_decoy("four") },
    ];
    for (number, canary) in added.iter().enumerate() {
        store.add_canary(canary, i64::try_from(number).unwrap()).unwrap();
    }
    let loaded = home.store().load_policy().unwrap().rules.canaries;
    assert_eq!(loaded.len(), added.len());
    for (canary, new) in loaded.iter().zip(&added) {
        assert_eq!((&canary.name, canary.kind, canary.shape), (&new.name, new.kind, new.shape));
        assert_eq!((&canary.value, &canary.holder), (&new.value, &new.holder));
    }
    let listed = store.canaries().unwrap();
    assert_eq!(listed.iter().map(|one| &one.canary).collect::<Vec<_>>(), loaded.iter().collect::<Vec<_>>());
    assert_eq!(listed.iter().map(|one| one.created_at).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_name_is_free_again_once_its_canary_is_removed() {
    let home = Home::new();
    let mut store = home.store();
    let id = store.add_canary(&a_decoy("spare"), 1).unwrap();
    let taken = store.add_canary(&a_decoy("spare"), 2);
    assert!(matches!(taken, Err(Error::CanaryExists { .. })), "{taken:?}");
    let nobody = store.add_canary(&NewCanary { holder: holder("nobody", None), ..a_decoy("other") }, 2);
    assert!(matches!(nobody, Err(Error::NoSuchAgent { .. })), "{nobody:?}");
    assert!(store.remove_canary(id, 3).unwrap());
    assert!(!store.remove_canary(id, 4).unwrap());
    assert_eq!(names(&store), [""; 0]);
    assert_ne!(store.add_canary(&a_decoy("spare"), 5).unwrap(), id);
    assert_eq!(names(&store), ["spare"]);
}

#[test]
fn the_value_of_a_canary_of_the_vault_is_in_no_database() {
    let home = Home::new();
    let mut store = home.store();
    let value = CanaryValue::Text(decoy(DecoyShape::Groq, [2; 32]).into());
    let refused = store.add_canary(&NewCanary { kind: CanaryKind::Vault, value, ..a_decoy("leaky") }, 1);
    assert_eq!(refused.unwrap_err().code(), "constraint");
}

#[test]
fn a_gateway_notices_what_is_added_and_removed_and_not_what_is_planted() {
    let home = Home::new();
    let mut store = home.store();
    let mut epoch = store.policy_epoch().unwrap();
    let mut has_moved = |store: &Store| {
        let now = store.policy_epoch().unwrap();
        std::mem::replace(&mut epoch, now) != now
    };
    let id = store.add_canary(&a_decoy("spare"), 1).unwrap();
    assert!(has_moved(&store));
    let plant = store.remember_plant(id, "/w/.env", "A=b\n", PlantManner::Made, 2).unwrap();
    store.forget_plant(plant, 3).unwrap();
    assert!(!has_moved(&store));
    store.remove_canary(id, 3).unwrap();
    assert!(has_moved(&store));
}

#[test]
fn what_was_planted_is_remembered_until_it_is_forgotten() {
    let home = Home::new();
    let mut store = home.store();
    let id = store.add_canary(&a_decoy("spare"), 1).unwrap();
    let manners = [PlantManner::Made, PlantManner::EndedLine, PlantManner::Appended];
    let ids =
        manners.map(|manner| store.remember_plant(id, "/w/.env", "KEY=sk-secret\n", manner, 2).unwrap());
    let plants = |store: &Store| store.canaries().unwrap().remove(0).plants;
    let found = plants(&home.store());
    assert_eq!(found.iter().map(|plant| plant.manner).collect::<Vec<_>>(), manners);
    assert_eq!((found[0].path.as_str(), found[0].lines.as_str()), ("/w/.env", "KEY=sk-secret\n"));
    assert!(!format!("{found:?}").contains("sk-secret"));
    store.forget_plant(ids[1], 3).unwrap();
    assert_eq!(plants(&store).iter().map(|plant| plant.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
}

#[test]
fn a_run_ends_with_its_canaries_and_with_no_others() {
    let home = Home::new();
    let mut store = home.store();
    store.mint(&new("aaaaaaaa", "ci"), 10).unwrap();
    store.mint(&new("bbbbbbbb", "ci"), 10).unwrap();
    for (name, capability) in [("mine", Some("aaaaaaaa")), ("other", Some("bbbbbbbb")), ("agents", None)] {
        store.add_canary(&NewCanary { holder: holder("ci", capability), ..a_decoy(name) }, 20).unwrap();
    }
    let id = "aaaaaaaa".parse().unwrap();
    assert!(store.revoke_capability(id, "odd", 30).unwrap());
    assert_eq!(names(&store), ["mine", "other", "agents"], "what runs may still show what it was given");
    assert!(!store.end_run(id, "its run ended", 40).unwrap());
    assert_eq!(names(&store), ["other", "agents"]);
    let unknown = store.end_run("zzzzzzzz".parse().unwrap(), "", 50);
    assert!(matches!(unknown, Err(Error::NoSuchCapability { .. })), "{unknown:?}");
    let revoked = store.load_policy().unwrap().rules.capabilities[&id].revoked_at;
    assert_eq!(revoked, Some(30), "the first date stays");
}
