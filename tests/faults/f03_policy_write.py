import json
import shutil

from inject import counting, killed_at, points
from f02_vault_write import restore
from process import expect
from world import AGENT

TITLE = "kill -9 at each write and sync of a policy change"
CALLS = ("fdatasync", "fsync", "pwrite64")


def revoked(house):
    return house.json("agent", "show", AGENT)["revoked_at"] is not None


def limited(house):
    budgets = house.json("budget", "status")["budgets"]
    return any(budget["name"] == "global/daily" for budget in budgets)


def killed(house):
    status = house.try_run("status", "--json")
    return json.loads(status.stdout)["killed"] is not None


CHANGES = {
    "agent revoke": (["agent", "revoke", AGENT], revoked),
    "budget set": (["budget", "set", "global", "3", "daily"], limited),
    "kill": (["kill"], killed),
}


def run(world):
    house = world.house()
    saved = world.folder / "f03-saved"
    shutil.copytree(house.home, saved)
    seen = []
    for name, (command, is_done) in CHANGES.items():
        trace = world.folder / "f03-trace"
        line = [str(house.binary), *command]
        finished = world.as_root.run([*counting(CALLS, trace), *line], house.environment())
        expect(finished.code == 0, f"{name} failed under strace: {finished.output()}")
        expect(is_done(house), f"{name} ended well and did nothing")
        # As it is after a crash: the change is there when the next process looks, with everything else of the home.
        house.rows()
        done, places = 0, points(CALLS, trace)
        expect(places, f"{name} writes nothing")
        for call, count in places:
            restore(house, saved)
            finished = world.as_root.run([*killed_at(call, count), *line], house.environment())
            expect(finished.code != 0, f"{name} was not killed at {call} {count}")
            done += is_done(house)
            house.rows()
            expect(house.json("agent", "show", AGENT)["name"] == AGENT, "the agent is gone")
            world.rounds += 1
        restore(house, saved)
        seen.append(f"{name} {len(places)} ({done} in force)")
    return world.rounds, ", ".join(seen)
