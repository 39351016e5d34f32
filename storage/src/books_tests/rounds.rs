//! What a round of the writer lends, and to whom; and what is refused where there is nothing to lend.

use super::*;

#[test]
fn an_answer_that_costs_more_than_it_held_is_booked_in_full_and_blocks_what_follows() {
    let mut world = World::new();
    world.reserve(0, World::quote(100, 0, 900));
    let request = world.processes[0].requests.remove(0);
    let charges = world.processes[0].books.settle(&request.held, |_| 5_000, world.at);
    world.processes[0].charges = charges;
    world.round(0, false);
    let spent = world.sum("SELECT sum(spent_amount) FROM budget_spend WHERE budget_id = ?1", BudgetId(1));
    assert_eq!(spent, 5_000);
    world.reserve(0, World::quote(1, 0, 0));
    world.reserve(1, World::quote(1, 0, 0));
    assert!(world.processes.iter().all(|process| process.requests.is_empty()), "the debt is carried");
    world.now += DAY_US;
    world.at += Duration::from_secs(86_400);
    world.edit(0, 100_000);
    for index in 0..4 {
        world.edit(index, 100_000);
    }
    world.reserve(1, World::quote(1, 0, 0));
    assert_eq!(world.processes[1].requests.len(), 1, "under a higher limit it goes on");
}

#[test]
fn a_refusal_names_the_budget_and_its_numbers() {
    let mut world = World::new();
    world.reserve(0, World::quote(1_500, 0, 0));
    let plan = world.plan(World::quote(1_000, 0, 0));
    let mut waited_for = None;
    let shortage = loop {
        match world.processes[0].books.try_reserve(&plan, world.now, world.at, waited_for) {
            Attempt::Short(shortage) => break shortage,
            Attempt::Wait(round) => waited_for = Some(round),
            Attempt::Held(..) => panic!("there is no room for it"),
        }
        world.round(0, false);
    };
    assert_eq!(shortage.needed, 1_000);
    assert_eq!(shortage.reserved, 1_500);
    assert!(shortage.left() < 1_000, "{shortage}");
}

#[test]
fn an_edit_during_a_round_is_not_decided_by_what_the_round_read() {
    let mut world = World::new();
    world.limit_days(100);
    let plan = world.plan(World::quote(500, 0, 0));
    let Attempt::Wait(round) = world.processes[0].books.try_reserve(&plan, world.now, world.at, None) else {
        panic!("nothing is borrowed yet")
    };
    let steps = world.processes[0].books.plan_round([].iter(), world.now, world.at, false);
    let holder = world.processes[0].holder.clone();
    let done: Vec<_> =
        steps.iter().map(|step| (*step, leases::take_step(&world.conn, &holder, step).unwrap())).collect();
    world.limit_days(10_000);
    world.processes[0].books.finish_round(done.into_iter(), world.at);
    let attempt = world.processes[0].books.try_reserve(&plan, world.now, world.at, Some(round));
    assert!(matches!(attempt, Attempt::Wait(_)), "the limit was raised: {attempt:?}");
    assert!(world.lets_through(0, 500));
}

/// Whoever wants to read what is held asks for everything to be given back; a stream that waits for its next slice at
/// that moment gets it all the same.
#[test]
fn what_somebody_waits_for_is_borrowed_even_when_all_is_given_back() {
    let mut world = World::new();
    world.limit_days(1_000);
    assert!(world.lets_through(0, 100));
    world.round(0, true);
    let process = &mut world.processes[0];
    let request = &mut process.requests[0];
    let grown = process.books.try_grow(&mut request.held, &request.quote, 200, world.at, None);
    let Err(Attempt::Wait(round)) = grown else { panic!("nothing is left to grow into: {grown:?}") };
    world.round(0, true);
    let process = &mut world.processes[0];
    let request = &mut process.requests[0];
    let grown = process.books.try_grow(&mut request.held, &request.quote, 200, world.at, Some(round));
    assert!(grown.is_ok(), "{grown:?}");
    process.books.forget_waiting();
    world.round(0, true);
    world.processes[0].books.check();
    let held = world.processes[0].books.reserved(BudgetId(1));
    let leased = world.sum("SELECT sum(amount) FROM budget_leases WHERE budget_id = ?1", BudgetId(1));
    assert_eq!((leased, held), (300, 300));
}

/// Otherwise a burst would borrow all that there is, for another process to refuse by, and for a crash to charge.
#[test]
fn many_that_wait_together_borrow_one_step_beyond_their_need() {
    let mut world = World::new();
    world.limit_days(10_000);
    let plan = world.plan(World::quote(10, 0, 0));
    for _ in 0..100 {
        let attempt = world.processes[0].books.try_reserve(&plan, world.now, world.at, None);
        assert!(matches!(attempt, Attempt::Wait(_)), "{attempt:?}");
    }
    world.round(0, false);
    let leased = world.sum("SELECT sum(amount) FROM budget_leases WHERE budget_id = ?1", BudgetId(1));
    assert_eq!(leased, 100 * 10 + 10_000 / crate::pot::LEASE_PARTS);
}
