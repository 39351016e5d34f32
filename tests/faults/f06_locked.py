import contextlib
import sqlite3
import time

from caller import Load
from process import expect
from world import eventually

TITLE = "another process locks the database"
HEALTH_S = 0.05
# A wait of two seconds, and what a loaded machine adds.
REFUSAL_S = 2.5
RECOVERY_S = 1
SHARED_MACHINE = 4


def run(world):
    seconds = world.pick(5, 10)
    health, refusals, recoveries = [], [], []
    for _ in range(world.pick(1, 20)):
        house = world.house()
        # Its parts are small, so that what was borrowed is soon spent and has to be borrowed again.
        house.run("budget", "set", "global", "2", "daily")
        house.start()
        with Load(house, callers=16, pause=0) as load, contextlib.closing(house.caller()) as prober:
            eventually("answers", lambda: len(load.acknowledged()) > 20)
            with locked(house.database):
                since, until = len(load.answers), time.monotonic() + seconds
                while time.monotonic() < until:
                    health.append(prober.health().seconds)
                    time.sleep(0.05)
                held = load.answers[since:]
            freed, since = time.monotonic(), len(load.answers)
            eventually("an answer", lambda: any(a.status == 200 for a in load.answers[since:]), RECOVERY_S * SHARED_MACHINE)
            recoveries.append(time.monotonic() - freed)
        expect(set(load.codes()) <= {"200", "state_unavailable", "overloaded"}, f"{load.codes()}")
        refusals += [answer.seconds for answer in held if answer.code == "state_unavailable"]
        expect(not load.broken, f"{load.broken[:3]}")
        house.audit(load.answers)
        house.stop()
        world.rounds += 1
    health.sort()
    expect(health[len(health) * 99 // 100] <= HEALTH_S * SHARED_MACHINE, f"/health took {health[-1]:.3f} s")
    expect(refusals, "nothing had to be borrowed")
    expect(max(refusals) <= REFUSAL_S, f"a refusal took {max(refusals):.2f} s")
    worst = f"health p50 {health[len(health) // 2] * 1000:.1f} ms, worst {health[-1] * 1000:.0f} ms"
    slowest = f"slowest refusal {max(refusals):.2f} s, recovery {max(recoveries):.2f} s"
    return world.rounds, f"{worst}; {len(refusals)} refused, {slowest}"


@contextlib.contextmanager
def locked(database):
    """Holds the database as another process does that writes and does not end. Its files are there, so it makes none."""
    connection = sqlite3.connect(database, isolation_level=None, timeout=10)
    try:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("COMMIT")
    finally:
        connection.close()
