import calendar
import contextlib
import os
import time
from datetime import datetime
from pathlib import Path

from caller import Load, Stream
from process import Failure, expect
from world import AGENT, USER, eventually

TITLE = "the clock jumps, and days of other lengths"
LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"
# A zone, an instant (UTC) in a day that is not like others, and when that day begins and ends there.
DAYS = {
    "New York, 23 hours": ("America/New_York", "2027-03-14 12:00:00", "2027-03-14T05:00:00Z", "2027-03-15T04:00:00Z"),
    "New York, 25 hours": ("America/New_York", "2027-11-07 12:00:00", "2027-11-07T04:00:00Z", "2027-11-08T05:00:00Z"),
    "Cairo, no midnight": ("Africa/Cairo", "2027-04-30 09:00:00", "2027-04-29T22:00:00Z", "2027-04-30T21:00:00Z"),
    "Cairo, 25 hours": ("Africa/Cairo", "2027-10-28 09:00:00", "2027-10-27T21:00:00Z", "2027-10-28T22:00:00Z"),
    "New Year": ("UTC", "2027-01-01 00:00:30", "2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z"),
    "leap day": ("UTC", "2028-02-29 23:59:00", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
}
MONTHS = {
    "New Year": ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
    "leap day": ("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
}
DAILY, MONTHLY = "agent:tester/daily", "agent:tester/monthly"


def run(world):
    for _ in range(world.pick(1, 10)):
        for name in DAYS:
            unlike_others(world, name)
            world.rounds += 1
        for test in (forward_and_back, expired_stays_expired, jitter, midnight_passes, timers_go_on):
            test(world)
            world.rounds += 1
    return world.rounds, f"{len(DAYS)} days, and jumps by a second, hours and a day"


class Clock:
    """The time that the gateway and its commands find, changed while they run."""

    def __init__(self, world, house):
        libraries = list(Path("/").glob(LIBRARIES.lstrip("/")))
        if not libraries:
            raise Failure("libfaketime is not installed")
        self._file = world.folder / f"{house.name}-time"
        self.set("+0")
        house.add_environment(
            LD_PRELOAD=str(libraries[0]),
            FAKETIME_TIMESTAMP_FILE=str(self._file),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            DONT_FAKE_MONOTONIC="1",
            TZ="UTC",
        )

    def set(self, text):
        """`+1d` beside the real time, or an instant at which a process finds itself when it first looks."""
        draft = self._file.with_suffix(".new")
        draft.write_text(text)
        os.chown(draft, USER, USER)
        draft.replace(self._file)

    def set_at(self, instant):
        """An instant from which time goes on, the same for all processes."""
        there = calendar.timegm(time.strptime(instant, "%Y-%m-%d %H:%M:%S"))
        self.set(f"{there - time.time():+.3f}s")


@contextlib.contextmanager
def clockwork(world, timezone="UTC", at=None):
    house = world.house(tables=f'[budget]\ntimezone = "{timezone}"\n')
    clock = Clock(world, house)
    if at:
        clock.set_at(at)
    for period in ("daily", "monthly"):
        house.run("budget", "set", "agent:tester", "1000", period)
    # The one of the template ends before some of these days begin.
    house.token = house.mint(AGENT)
    house.start()
    with contextlib.closing(house.caller()) as caller:
        yield house, clock, caller
    house.expect_no_panic()
    negative = [row["id"] for row in house.rows().values() if row["latency_us"] < 0]
    expect(not negative, f"negative latencies: {negative}")
    house.stop()


def budget(house, name):
    budgets = house.json("budget", "status")["budgets"]
    return next(found for found in budgets if found["name"] == name)


def spent(house, name=DAILY):
    return float(budget(house, name)["spent"]["usd"])


def served(caller):
    answer = caller.ask()
    expect(answer.status == 200, f"refused: {answer}")


def unlike_others(world, name):
    timezone, at, begin, end = DAYS[name]
    with clockwork(world, timezone, at) as (house, _, caller):
        served(caller)
        found = budget(house, DAILY)
        expect(seconds(found["since"]) == seconds(begin), f"{name}: the day begins {found['since']}, not {begin}")
        expect(seconds(found["renews_at"]) == seconds(end), f"{name}: it ends {found['renews_at']}, not {end}")
        expect(spent(house) > 0, f"{name}: nothing was charged")
        if name in MONTHS:
            found = budget(house, MONTHLY)
            month = tuple(seconds(found[key]) for key in ("since", "renews_at"))
            expect(month == tuple(map(seconds, MONTHS[name])), f"{name}: the month is {found}")


def seconds(text):
    return datetime.fromisoformat(text).timestamp()


def forward_and_back(world):
    """A new day has a new budget; a clock that is set back opens the old one no second time."""
    with clockwork(world) as (house, clock, caller):
        served(caller)
        expect(spent(house) > 0, "nothing was charged today")
        since = budget(house, DAILY)["since"]
        clock.set("+1d")
        served(caller)
        cost = spent(house)
        expect(budget(house, DAILY)["since"] > since, "the day did not change")
        expect(0 < cost < 0.001, f"the new day begins with {cost}")
        tomorrow = budget(house, DAILY)["since"]
        clock.set("-1d")
        served(caller)
        expect(budget(house, DAILY)["since"] == tomorrow, "a clock that was set back opened an old day again")
        expect(spent(house) > cost, "what is spent after a clock was set back is not charged to the latest day")
        told = house.try_run("budget", "status")
        expect("clock" in told.stderr, f"the owner is not told that the clock was ahead: {told.output()}")


def expired_stays_expired(world):
    with clockwork(world) as (house, clock, caller):
        token = house.json("agent", "mint", "short", "--ttl", "1h")["token"]
        mine, house.token = house.token, token
        served(caller)
        clock.set("+2h")
        eventually("its end", lambda: caller.ask().code == "expired_capability")
        clock.set("+0")
        for _ in range(5):
            answer = caller.ask()
            expect(answer.code == "expired_capability", f"a clock that was set back gives a capability back: {answer}")
            time.sleep(0.05)
        house.token = mine
        served(caller)


def jitter(world):
    with clockwork(world) as (house, clock, _):
        with Load(house, callers=4) as load:
            eventually("answers", lambda: len(load.acknowledged()) > 20)
            for number in range(world.pick(20, 200)):
                clock.set(world.random.choice(["+1s", "-1s", "+0"]))
                time.sleep(0.05)
        expect(set(load.codes()) == {"200"} and not load.broken, f"{load.codes()} {load.broken[:3]}")
        house.audit(load.answers)


def midnight_passes(world):
    with clockwork(world, at="2026-12-31 23:59:56") as (house, _, caller):
        served(caller)
        first = budget(house, MONTHLY)["since"]
        eventually("midnight", lambda: budget(house, MONTHLY)["since"] != first, 15)
        served(caller)
        for name in (DAILY, MONTHLY):
            expect(spent(house, name) < 0.0003, f"{name} goes on from last year: {spent(house, name)}")


def timers_go_on(world):
    """A jump neither ends a stream nor a wait."""
    with clockwork(world) as (house, clock, caller):
        stream = Stream(house, "slow")
        eventually("the stream", lambda: world.provider.under_way(house.name))
        for jump in ("+1d", "+2d", "-1d", "+0"):
            clock.set(jump)
            time.sleep(0.2)
        stream.join(20)
        expect(b"[DONE]" in stream.body, f"the stream was cut by the clock: {stream.body[-200:]!r} {stream.error}")
        served(caller)
