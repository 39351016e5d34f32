from rust import run_tests

TITLE = "a panic within one request"


def run(world):
    """The test is in Rust, where a debug build can be told to panic: cli/tests/it/panics.rs."""
    rounds = world.pick(1, 20)
    for _ in range(rounds):
        world.rounds += run_tests(world, ["panics::"])
    return world.rounds, None
