import os
import shutil

from f02_vault_write import digest
from process import Failure, expect
from world import AGENT, eventually

TITLE = "the database is damaged"


def flip(random, data):
    for _ in range(64):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def no_schema(random, data):
    """The head of the tree in which SQLite keeps what tables there are."""
    data[100:112] = random.randbytes(12)


def no_tables(random, data):
    """Every page but the first, with the owner's rules."""
    data[4096:] = random.randbytes(len(data) - 4096)


def halve(_, data):
    del data[len(data) // 2 :]


def no_header(_, data):
    data[:100] = bytes(100)


def empty(_, data):
    data.clear()


def noise(random, data):
    data[:] = random.randbytes(len(data))


# Whether a start can notice: bits within a row are nobody's to tell.
DAMAGES = [(no_schema, True), (no_tables, True), (halve, True), (no_header, True), (empty, True), (noise, True), (flip, False)]


def run(world):
    noticed = 0
    for damage, must_be_noticed in DAMAGES * world.pick(1, 20):
        house = busy_house(world)
        house.stop()
        data = bytearray(house.database.read_bytes())
        damage(world.random, data)
        house.database.write_bytes(data)
        noticed += check_start(house, damage.__name__, must_be_noticed)
        world.rounds += 1
    for _ in range(world.pick(1, 20)):
        missing_beside(world)
        damaged_while_it_runs(world)
        world.rounds += 2
    return world.rounds, f"{noticed} damages noticed at the start"


def busy_house(world):
    house = world.house()
    house.start()
    caller = house.caller()
    for _ in range(20):
        caller.ask()
    caller.close()
    return house


def check_start(house, damage, must_be_noticed):
    before = digest(house.database)
    started = house.try_run("start", "-d", unlocks=True)
    if started.code == 0:
        expect(not must_be_noticed, f"{damage}: the daemon starts")
        # What was not noticed is not made worse: the owner's rules are there, or nothing is served.
        shown = house.try_run("agent", "show", AGENT, "--json")
        house.try_run("stop")
        house.expect_no_panic()
        expect(shown.code == 0 or "damaged" in shown.stderr or "malformed" in shown.stderr, f"{damage}: {shown.output()}")
        return 0
    text = started.output()
    expect(str(house.database) in text or house.database.name in text, f"{damage}: the file is not named: {text}")
    expect("panicked" not in text, f"{damage}: {text}")
    expect(digest(house.database) == before, f"{damage}: the file was changed by a start that refused it")
    return 1


def missing_beside(world):
    """-wal and -shm are gone after a kill: what was committed and not yet moved is lost, but nothing else breaks."""
    house = busy_house(world)
    house.kill()
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{house.database}{suffix}")
    try:
        house.start()
    except Failure as failure:
        expect(house.database.name in str(failure), f"the file is not named: {failure}")
        return
    house.expect_no_panic()
    house.stop()


def damaged_while_it_runs(world):
    house = busy_house(world)
    # Rows reach the log some hundredths of a second after their answers.
    eventually("a log", lambda: len(house.rows()) > 0)
    with open(house.database, "r+b") as file:
        file.write(world.random.randbytes(os.path.getsize(house.database)))
    caller = house.caller()
    codes = set()
    for _ in range(30):
        answer = caller.ask()
        codes.add(answer.code or answer.status)
    caller.close()
    expect(codes <= {200, "state_unavailable", "overloaded"}, f"damaged while it runs: {codes}")
    house.expect_no_panic()
    house.kill()
    shutil.rmtree(house.home)
