import time

import rust
from caller import Load, Stream, expect_whole
from process import expect
from provider import COST_NANO_USD
from world import eventually

TITLE = "upgrades under load"
CALLERS = 8
# Each asks every 40 ms: two hundred requests a second, where the machine holds them.
PAUSE_S = 0.035
STREAMS = 50


def run(world):
    world.rounds = rust.run_tests(world, ["upgrade::"]) if world.is_long else 0
    upgrades = world.pick(2, 20)
    house = world.house()
    house.start()
    world.provider.ending.clear()
    streams, pids, slowest = [], {house.pid}, 0
    try:
        with Load(house, callers=CALLERS, pause=PAUSE_S, both_ways=True) as load:
            began = time.monotonic()
            for number in range(upgrades):
                # Some of the streams begin in each process but the last, and go on in it to the end.
                streams += [Stream(house, "paced") for _ in range(len(streams), STREAMS * (number + 1) // upgrades)]
                eventually("the streams", lambda: world.provider.under_way(house.name) >= len(streams))
                since = len(load.acknowledged())
                eventually("answers", lambda: len(load.acknowledged()) > since + 50)
                slowest = max(slowest, upgrade(house, pids))
                world.rounds += 1
            since = len(load.acknowledged())
            eventually("answers of the last", lambda: len(load.acknowledged()) > since + 50)
            rate = len(load.answers) / (time.monotonic() - began)
        expect(not load.broken and set(load.codes()) == {"200"}, f"{load.codes()} {load.broken[:3]}")
        expect(house.in_flight() == STREAMS, f"{house.in_flight()} of {STREAMS} streams run")
    finally:
        world.provider.ending.set()
    for stream in streams:
        stream.join(30)
        expect_whole(stream)
    eventually("the end of those before", lambda: house.status()["predecessor"] is None)
    house.audit(load.answers)
    asked, rows = len(load.answers) + STREAMS, house.rows()
    expect(len(rows) == asked, f"{len(rows)} rows for {asked} requests")
    expect(house.standing() == (asked * COST_NANO_USD, 0, 0), f"{asked} requests are charged as {house.standing()}")
    house.stop()
    return world.rounds, f"{len(load.answers)} requests at {rate:.0f}/s, {STREAMS} streams whole, slowest {slowest:.1f} s"


def upgrade(house, pids):
    """Without a passphrase, as somebody does it whose daemon has its key."""
    began = time.monotonic()
    house.run("upgrade")
    took = time.monotonic() - began
    status = house.status()
    expect(status["state"] == "ok", f"the successor is {status['state']}")
    expect(status["pid"] not in pids, "the process is one that was there before")
    pids.add(status["pid"])
    house._pid = status["pid"]
    return took
