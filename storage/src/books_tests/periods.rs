//! To which period something is charged, and that no zone gives anything back.

use super::*;

#[test]
fn a_request_is_charged_to_the_period_in_which_it_started() {
    let mut world = World::new();
    world.reserve(0, World::quote(100, 0, 100));
    let today = world.now / DAY_US * DAY_US;
    world.now += DAY_US;
    world.reserve(0, World::quote(10, 0, 0));
    world.settle(0, 0, 100);
    world.settle(0, 0, 100);
    world.round(0, true);
    let spent_on = |day: i64| {
        let sql = "SELECT spent_amount FROM budget_spend WHERE budget_id = 1 AND bucket_start_us = ?1";
        world.conn.query_row(sql, [day], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((spent_on(today), spent_on(today + DAY_US)), (200, 10));
}

/// The day of one zone ends in the middle of another's, and neither what was spent in it nor what is still held of it is
/// given back by that.
#[test]
fn a_change_of_zone_gives_nothing_back() {
    for (zone, hours) in [
        ("America/Los_Angeles", 6),
        ("America/Los_Angeles", 12),
        ("Asia/Tokyo", 12),
        ("Asia/Tokyo", 20),
        ("Pacific/Kiritimati", 12),
        ("Europe/Berlin", 12),
        ("Europe/Berlin", 23),
    ] {
        let mut world = World::new();
        world.limit_days(2_000);
        world.now += hours * 3_600_000_000 + 1;
        world.at += Duration::from_secs(2);
        assert!(world.lets_through(0, 700) && world.lets_through(0, 800));
        world.settle(0, 0, 100);
        world.round(0, false);
        world.move_to(zone);
        for which in 0..PROCESSES {
            assert!(!world.lets_through(which, 501), "{zone} at {hours}: {which} passes the limit");
        }
        for _ in 0..3 {
            world.grow(0, 0, 501);
            world.round(0, false);
        }
        assert_eq!(world.processes[0].requests[0].output, 0, "{zone} at {hours}: what runs passes the limit");
        world.settle(0, 0, 100);
        world.round(0, true);
        world.at += Duration::from_secs(2);
        assert!(world.lets_through(1, 500), "{zone} at {hours}: what is left is left");
        assert!(!world.lets_through(0, 1), "{zone} at {hours}");
        world.move_to("UTC");
        assert!(!world.lets_through(0, 1), "{zone} at {hours}: there and back");
        // Two days later nothing of it counts.
        world.now += 2 * DAY_US;
        world.at += Duration::from_secs(2 * 86_400);
        world.settle(1, 0, 100);
        world.round(1, true);
        world.move_to("UTC");
        assert!(world.lets_through(0, 1_900), "{zone} at {hours}");
    }
}
