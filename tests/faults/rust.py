"""Faults whose test is in Rust: run by command, not written twice."""

import os
import re
from pathlib import Path

from process import Failure

REPOSITORY = Path(__file__).resolve().parents[2]
TIME_MAX_S = 3600


def run_tests(world, names, **variables):
    """Runs tests of the workspace whose names begin like this, and answers how many there were."""
    command = ["cargo", "test", "--quiet", "--locked", "--workspace", "--test", "it", "--", *names]
    finished = world.as_root.run(command, os.environ | variables, timeout=TIME_MAX_S, cwd=REPOSITORY)
    if finished.code != 0:
        raise Failure(f"cargo test {' '.join(names)}: {finished.output()[-3000:]}")
    passed = sum(int(count) for count in re.findall(r"(\d+) passed", finished.stdout))
    if passed < len(names):
        raise Failure(f"only {passed} of {names} are there to be run")
    return passed
