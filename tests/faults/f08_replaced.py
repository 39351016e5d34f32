import contextlib
import os
import shutil

from process import Failure, expect
from world import PATIENCE_S, USER, eventually

TITLE = "database or vault moved away or replaced under the daemon"


def run(world):
    for _ in range(world.pick(1, 20)):
        for change in (moved_database, copied_database, foreign_database, moved_vault, foreign_vault):
            house = world.house()
            house.start()
            with contextlib.closing(house.caller()) as caller:
                answers = [caller.ask() for _ in range(10)]
                expect(all(answer.status == 200 for answer in answers), "not served at first")
                try:
                    change(world, house, caller)
                except Failure as failure:
                    raise Failure(f"{change.__name__}: {failure}") from None
            house.expect_no_panic()
            house.kill()
            world.rounds += 1
    return world.rounds, None


def expect_refused(house, caller):
    # For a tenth of a second what was borrowed before may still be spent.
    told(house)
    for _ in range(20):
        answer = caller.ask()
        expect(answer.code == "state_unavailable", f"served without its database: {answer}")


def aside(house):
    place = house.home / "aside"
    place.mkdir()
    for suffix in ("", "-wal", "-shm"):
        os.rename(f"{house.database}{suffix}", place / f"{house.database.name}{suffix}")
    return place


def back(house, place):
    for file in place.iterdir():
        os.replace(file, house.home / file.name)
    place.rmdir()


def moved_database(_, house, caller):
    place = aside(house)
    expect_refused(house, caller)
    expect(not house.database.exists(), "a new database was made")
    back(house, place)
    eventually("service after it is back", lambda: caller.ask().status == 200)


def copied_database(_, house, caller):
    """The same content in another file: what is written to the old one would be lost with it."""
    place = aside(house)
    for file in place.iterdir():
        shutil.copy2(file, house.home / file.name)
        os.chown(house.home / file.name, USER, USER)
    expect_refused(house, caller)


def foreign_database(world, house, caller):
    """One of another home, in which this caller is not revoked and has another limit."""
    other = world.house()
    other.run("budget", "set", "global", "100000", "daily")
    aside(house)
    shutil.copy2(other.database, house.database)
    os.chown(house.database, USER, USER)
    before = house.database.read_bytes()
    expect_refused(house, caller)
    expect(house.database.read_bytes() == before, "the foreign database was written to")


def moved_vault(_, house, caller):
    """The keys that were loaded stay, and the owner is told."""
    os.rename(house.vault, house.home / "vault.aside")
    told(house)
    expect(caller.ask().status in (200, 503), "neither served nor refused")
    expect(not house.vault.exists(), "a new vault was made")
    os.rename(house.home / "vault.aside", house.vault)
    eventually("service after it is back", lambda: caller.ask().status == 200)


def foreign_vault(world, house, caller):
    """A vault with another owner's keys: its key is never sent with this owner's requests."""
    other = world.folder / f"{house.name}-other"
    other.mkdir(mode=0o700)
    os.chown(other, USER, USER)
    env = house.environment(unlocks=True) | {"TOKFENCE_HOME": str(other)}
    made = world.processes.run([house.binary, "init", "--non-interactive"], env)
    expect(made.code == 0, made.output())
    os.replace(other / "vault.tfv", house.vault)
    before = house.vault.read_bytes()
    told(house)
    expect(caller.ask().status in (200, 503), "neither served nor refused")
    expect(house.vault.read_bytes() == before, "the foreign vault was written to")


def told(house):
    eventually("a line in the log", lambda: "old state stays in force" in house.log_text(), PATIENCE_S)
