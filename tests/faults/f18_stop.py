import contextlib
import os
import signal
import subprocess
import time

from caller import Stream, connect
from process import expect
from world import USER, eventually

TITLE = "SIGTERM with 100 idle and 10 active callers"
GRACE_S = 2
IDLE, ACTIVE = 100, 10


def run(world):
    slowest = 0
    for number in range(world.pick(2, 20)):
        # Active ones that end within the grace period, and ones that do not.
        scene, grace = ("slow", 10) if number % 2 == 0 else ("held", GRACE_S)
        slowest = max(slowest, attempt(world, scene, grace))
        world.rounds += 1
    return world.rounds, f"slowest end {slowest:.1f} s"


def attempt(world, scene, grace):
    house = world.house(daemon=f'shutdown_grace = "{grace}s"')
    process = subprocess.Popen(
        [str(house.binary), "start", "--json"],
        env=house.environment(unlocks=True),
        user=USER,
        group=USER,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually("the daemon", lambda: house.try_run("status").code == 0)
        status = house.json("status")
        house.address, house._pid = status["address"], status["pid"]
        with contextlib.ExitStack() as stack:
            for _ in range(IDLE):
                stack.enter_context(connect(house))
            streams = [Stream(house, scene) for _ in range(ACTIVE)]
            eventually("the streams", lambda: world.provider.under_way(house.name) == ACTIVE)
            os.kill(process.pid, signal.SIGTERM)
            began = time.monotonic()
            code = process.wait(15)
            seconds = time.monotonic() - began
        house.address = None
        expect(code == 0, f"it ended with {code}: {process.stderr.read()}")
        expect(seconds <= 10, f"it took {seconds:.1f} s to end")
        for stream in streams:
            stream.join(10)
        whole = sum(b"[DONE]" in stream.body for stream in streams)
        expect(whole == (ACTIVE if scene == "slow" else 0), f"{whole} of {ACTIVE} streams were whole ({scene})")
    finally:
        process.kill()
        process.wait()
    left = [name for name in ("tokfence.sock", "control/control.sock") if (house.home / name).exists()]
    left += [path.name for path in house.home.glob("tokfence.db-lease-*")]
    expect(not left, f"these are left: {left}")
    rows = house.rows()
    expect(len(rows) == ACTIVE, f"{len(rows)} rows for {ACTIVE} requests")
    house.audit([])
    return seconds
