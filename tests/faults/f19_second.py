from rust import run_tests

TITLE = "a second instance, stale sockets and locks, a taken port"
TESTS = [
    "process::a_second_start_refuses_and_does_not_disturb_the_first",
    "process::starts_at_the_same_time_start_one_daemon",
    "process::the_sockets_of_a_daemon_that_was_killed_are_replaced",
    "process::a_file_in_the_place_of_a_socket_is_left_alone",
    "process::a_taken_port_is_an_error_and_nothing_is_left_running",
    "process::a_lock_file_of_a_dead_daemon_is_no_obstacle",
]


def run(world):
    """The tests are in Rust: cli/tests/it/process.rs."""
    rounds = world.pick(1, 20)
    for _ in range(rounds):
        world.rounds += run_tests(world, TESTS)
    return world.rounds, None
