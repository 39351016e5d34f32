import os
import signal
import time

from caller import Load
from process import expect
from world import eventually

TITLE = "the machine sleeps and wakes"
# Each of the callers holds one connection to the provider at most.
CALLERS = 8


def run(world):
    seconds = world.pick(3, 90)
    failed = 0
    for _ in range(world.pick(1, 5)):
        house = world.house()
        house.start()
        with Load(house, callers=CALLERS, pause=0.002, timeout=seconds + 30) as load:
            eventually("answers", lambda: len(load.acknowledged()) > 50)
            os.kill(house.pid, signal.SIGSTOP)
            # What the provider closes meanwhile is found closed when it wakes.
            world.provider.close_idle()
            time.sleep(seconds)
            since = len(load.answers)
            os.kill(house.pid, signal.SIGCONT)
            eventually("answers after it", lambda: len(load.answers) > since + 100)
        late = load.codes(since)
        # A connection that was kept for a minute and more is closed on waking, whichever side it is on.
        bad = sum(count for code, count in late.items() if code != "200") + len(load.broken)
        expect(bad <= CALLERS, f"more failed than there were connections: {late} {load.broken}")
        house.audit(load.answers)
        house.stop()
        failed += bad
        world.rounds += 1
    return world.rounds, f"{seconds} s each, {failed} requests failed on waking"
