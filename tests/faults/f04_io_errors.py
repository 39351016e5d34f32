import contextlib
import json
import time

from caller import Load
from inject import failing
from process import expect
from world import eventually

TITLE = "failing writes, syncs and opens under the daemon"
# SQLite syncs with `fsync`, as it is built here.
INJECTIONS = [
    ("pwrite64", "pwrite64:error=EIO"),
    ("pwrite64", "pwrite64:error=EIO:when=5+3"),
    ("fsync", "fsync:error=EIO"),
    ("fsync", "fsync:error=EIO:when=3+2"),
    ("openat", "openat:error=EMFILE"),
]
ALLOWED = {"200", "201", "state_unavailable", "overloaded"}
RECOVERY_S = 5
# A family of capabilities grows no faster than sixty a minute.
CHILDREN = 20


def run(world):
    failed, refused, slowest = 0, 0, 0
    for call, injection in INJECTIONS * world.pick(1, 10):
        seen = attempt(world, call, injection)
        failed, refused, slowest = failed + seen[0], refused + seen[1], max(slowest, seen[2])
        world.rounds += 1
    return world.rounds, f"{failed} calls failed, {refused} answers refused, slowest recovery {slowest:.2f} s"


def attempt(world, call, injection):
    house = world.house()
    # Its parts are small, so that the writer has to borrow while it fails.
    house.run("budget", "set", "global", "1", "daily")
    house.start()
    trace = world.folder / "f04-trace"
    with Load(house, callers=4) as load, contextlib.closing(house.caller()) as asker:
        eventually("answers", lambda: len(load.acknowledged()) > 20)
        with failing(house.pid, injection, calls=call, trace=trace):
            until = time.monotonic() + world.pick(1.5, 5)
            asked = [asker.attenuate() for _ in range(CHILDREN)]
            if call == "openat":
                # Who tells the daemon makes it read its files again.
                house.try_run("budget", "set", "global", "2", "daily")
            time.sleep(max(0, until - time.monotonic()))
        since, freed = len(load.answers), time.monotonic()
        eventually("an answer after it", lambda: any(a.status == 200 for a in load.answers[since:]), RECOVERY_S)
        eventually("a new capability", lambda: asker.attenuate().status == 201, RECOVERY_S)
        recovery = time.monotonic() - freed
    failed = trace.read_text().count("(INJECTED)")
    expect(failed, f"{injection}: nothing failed, so nothing was tried")
    expect(set(load.codes()) <= ALLOWED, f"{injection}: {load.codes()}")
    codes = {answer.code or str(answer.status) for answer in asked}
    expect(codes <= ALLOWED, f"{injection}: capabilities: {codes}")
    expect(not load.broken, f"{injection}: {len(load.broken)} requests had no answer: {load.broken[:3]}")
    house.audit(load.answers)
    # What a failed sync was followed by is not taken for good: what was promised is there after a crash.
    house.kill()
    house.start()
    with contextlib.closing(house.caller()) as asker:
        for answer in asked:
            if answer.status == 201:
                made = asker.attenuate(json.loads(answer.body)["token"])
                expect(made.code not in ("invalid_capability", "revoked_capability"), f"{injection}: it is lost: {made}")
    house.audit(load.answers)
    house.stop()
    refused = sum(answer.code == "state_unavailable" for answer in [*asked, *load.answers])
    return failed, refused, recovery
