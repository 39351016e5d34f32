import time

from caller import Load
from inject import failing
from world import eventually, expect

TITLE = "failing writes, syncs and opens under the daemon"
INJECTIONS = [
    ("pwrite64", "pwrite64:error=EIO"),
    ("pwrite64", "pwrite64:error=EIO:when=5+3"),
    ("fdatasync", "fdatasync:error=EIO"),
    ("fdatasync", "fdatasync:error=EIO:when=3+2"),
    ("openat", "openat:error=EMFILE"),
]
ALLOWED = {"200", "state_unavailable", "overloaded"}
RECOVERY_S = 5


def run(world):
    seconds, rounds = world.pick(1.5, 5), world.pick(1, 10)
    slowest = 0
    for call, injection in INJECTIONS * rounds:
        house = world.house()
        house.start()
        with Load(house, callers=4) as load:
            eventually("answers", lambda: len(load.acknowledged()) > 20)
            with failing(house.pid, injection, calls=call):
                time.sleep(seconds)
            since = len(load.answers)
            freed = time.monotonic()
            eventually("an answer after it", lambda: any(a.status == 200 for a in load.answers[since:]), RECOVERY_S)
            slowest = max(slowest, time.monotonic() - freed)
        expect(set(load.codes()) <= ALLOWED, f"{injection}: {load.codes()}")
        expect(not load.broken, f"{injection}: {len(load.broken)} requests had no answer: {load.broken[:3]}")
        house.audit(load.answers)
        house.stop()
        house.audit(load.answers)
        world.rounds += 1
    return world.rounds, f"slowest recovery {slowest:.2f} s"
