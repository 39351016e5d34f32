import contextlib

from f02_vault_write import digest
from process import expect
from world import eventually

TITLE = "the vault is damaged"


def truncate(random, data):
    del data[random.randrange(1, len(data)) :]


def empty(_, data):
    data.clear()


def flip(random, data):
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def append(_, data):
    data.append(0)


def magic(_, data):
    data[:8] = bytes(8)


def version(_, data):
    data[8:10] = b"\xff\xff"


DAMAGES = [truncate, empty, flip, append, magic, version]


def run(world):
    for _ in range(world.pick(1, 20)):
        for damage in DAMAGES:
            attempt(world, damage)
            world.rounds += 1
    return world.rounds, None


def attempt(world, damage):
    name = damage.__name__
    house = world.house()
    sound = house.vault.read_bytes()
    data = bytearray(sound)
    damage(world.random, data)
    house.vault.write_bytes(data)
    before = digest(house.vault)
    # The daemon serves without keys and says why. A flipped bit can look like another passphrase, which starts nothing.
    started = house.try_run("start", "-d", unlocks=True)
    told = "the keys are not loaded" in started.stderr if started.code == 0 else started.code == 4
    expect(told, f"{name}: it is not told what is wrong: {started.output()}")
    house.try_run("stop")
    started = house.try_run("start", "-d")
    expect(started.code == 0, f"{name}: without a passphrase the daemon does not start: {started.output()}")
    status = house.json("status")
    house.address, house._pid = status["address"], status["pid"]
    expect(status["state"] == "locked", f"{name}: the state is {status['state']}")
    unlocked = house.try_run("unlock", unlocks=True)
    expect(unlocked.code != 0 and unlocked.stderr.strip(), f"{name}: unlock says {unlocked.output()}")
    with contextlib.closing(house.caller()) as caller:
        expect(caller.ask().code == "vault_locked", f"{name}: served without keys")
        house.run("kill")
        expect(caller.ask().code == "killed", f"{name}: a kill does not hold")
        house.run("unkill")
        expect(digest(house.vault) == before, f"{name}: the file was changed")
        house.vault.write_bytes(sound)
        house.run("unlock", unlocks=True)
        expect(caller.ask().status == 200, f"{name}: not served after the vault is sound again")
        # And while it is open: the keys that were loaded stay, or nothing is served; the file stays what it is.
        house.vault.write_bytes(data)
        eventually("a line in the log", lambda: "old state stays in force" in house.log_text())
        expect(caller.ask().status in (200, 503), f"{name}: neither served nor refused")
    expect(digest(house.vault) == before, f"{name}: the file was changed by the daemon")
    house.expect_no_panic()
    house.stop()
