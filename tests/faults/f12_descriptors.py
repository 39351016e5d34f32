import contextlib
import time

from caller import Stream, connect
from process import cpu_seconds, expect, open_files
from world import eventually

TITLE = "no file descriptors are left"
FILES = 64
CLIENTS = 200
CPU_SHARE_MAX = 0.10
KILL_S = 2


def run(world):
    seen = []
    for _ in range(world.pick(1, 20)):
        seen.append(attempt(world))
        world.rounds += 1
    shares, waits = zip(*seen)
    told = f"`kill` returns within {max(waits):.1f} s"
    return world.rounds, f"CPU while it starves {max(shares):.1%} of one core; {told}"


def attempt(world):
    house = world.house()
    house.start()
    stream = Stream(house)
    eventually("the stream", lambda: world.provider.under_way(house.name))
    limit = f"--nofile={FILES}:{FILES}"
    limited = world.processes.run(["prlimit", "--pid", str(house.pid), limit], house.environment())
    expect(limited.code == 0, limited.output())
    idle = []
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):
            idle.append(stack.enter_context(connect(house)))
        eventually("the limit", lambda: open_files(house.pid) >= FILES - 1)
        used, began = cpu_seconds(house.pid), time.monotonic()
        time.sleep(world.pick(2, 10))
        share = (cpu_seconds(house.pid) - used) / (time.monotonic() - began)
        expect(share <= CPU_SHARE_MAX, f"{share:.0%} of a core is burnt while nothing can be accepted")
        expect(stream.is_alive(), "a stream that was there before has ended")
        # The switch is a row of the database, whose files are open: the daemon sees it, and cuts what runs.
        asked = time.monotonic()
        house.run("kill")
        waited = time.monotonic() - asked
        expect(waited <= KILL_S, f"`kill` took {waited:.1f} s")
        eventually("the stream to be cut", lambda: not stream.is_alive(), 5)
        expect(b"killed" in stream.body, f"the stream ended otherwise: {stream.body[-300:]!r} {stream.error}")
    house.run("unkill")
    with contextlib.closing(house.caller()) as caller:
        eventually("service once they are gone", lambda: caller.ask().status == 200, 5)
    house.expect_no_panic()
    house.stop()
    return share, waited
