from rust import run_tests

TITLE = "kill -9 under load"


def run(world):
    """The test is in Rust, where the records of caller and provider are at hand: cli/tests/it/budgets/crash.rs."""
    kills = world.pick(5, 200)
    run_tests(world, ["budgets::crash"], TOKFENCE_TEST_KILLS=str(kills))
    return 2 * kills, "budgets rolling and strict"
