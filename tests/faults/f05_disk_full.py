import contextlib
import os
import subprocess
import time

from caller import Load
from process import Failure, expect
from world import USER, eventually

TITLE = "the disk is full"
DISK_BYTES = 8 << 20
RECOVERY_S = 5


def run(world):
    for number in range(world.pick(2, 20)):
        with small_disk(world, number) as disk:
            attempt(world, disk)
        world.rounds += 1
    return world.rounds, None


@contextlib.contextmanager
def small_disk(world, number):
    disk = world.folder / f"f05-disk{number}"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", disk], check=False)
    if mounted.returncode != 0:
        raise Failure("no tmpfs can be mounted here; run it where that is allowed (CAP_SYS_ADMIN)")
    try:
        yield disk
    finally:
        world.end()
        subprocess.run(["umount", "--lazy", disk], check=True)


def attempt(world, disk):
    house = world.house(at=disk)
    # Its parts are small, so that what was borrowed is soon spent: that much is served without the disk.
    house.run("budget", "set", "global", "10", "daily")
    house.start()
    vault = house.vault.read_bytes()
    with Load(house, callers=4, pause=0.002) as load:
        eventually("answers", lambda: len(load.acknowledged()) > 20)
        filler = fill(disk)
        eventually("a refusal", lambda: load.codes().get("state_unavailable"), 60)
        refused_at = len(load.answers)
        added = house.try_run("vault", "add", "mistral", "-", stdin="key-0123456789", unlocks=True)
        expect(added.code != 0, "a key was stored on a full disk")
        expect(house.vault.read_bytes() == vault, "the vault is not what it was")
        expect(not list(house.home.glob("vault.new.*")), "a draft of the vault is left")
        filler.unlink()
        freed = time.monotonic()
        eventually("an answer", lambda: any(a.status == 200 for a in load.answers[refused_at:]), RECOVERY_S)
    expect(set(load.codes()) <= {"200", "state_unavailable", "overloaded"}, f"{load.codes()}")
    expect(not load.broken, f"{len(load.broken)} requests had no answer: {load.broken[:3]}")
    house.audit(load.answers)
    # What was taken back while there was room holds while there is none.
    house.run("kill")
    filler = fill(disk)
    with contextlib.closing(house.caller()) as caller:
        for _ in range(20):
            expect(caller.ask().code == "killed", "a kill is not honoured on a full disk")
    filler.unlink()
    house.run("unkill")
    with contextlib.closing(house.caller()) as caller:
        load.answers.append(caller.ask())
    expect(load.answers[-1].status == 200, f"not served after an unkill: {load.answers[-1]}")
    house.stop()
    house.audit(load.answers)


def fill(disk):
    """Takes all the room there is."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    os.chown(filler, USER, USER)
    return filler
