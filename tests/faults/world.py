"""What all faults share: a provider, homes with a gateway in them, and somebody else to run it as."""

import fcntl
import os
import random
import shutil
import signal
import sqlite3
import time
import urllib.request
from pathlib import Path

from caller import Caller
from process import Failure, Processes, expect
from provider import Provider
from tokfence import PASSPHRASE, Tokfence

# `nobody`: neither root, for whom modes mean nothing, nor whoever runs the suite.
USER = 65534
AGENT = "tester"
BUDGET = f"agent:{AGENT}/total"
LIMIT_USD = "100000"
KEYS = {"openai": "sk-proj-SENTINEL-openai-0123456789abcdef", "groq": "gsk_SENTINEL0groq0123456789abcdef"}
VARIABLES = {"openai": "OPENAI_API_KEY", "groq": "GROQ_API_KEY"}
# Nothing that is waited for takes longer, unless a fault says so.
PATIENCE_S = 20


def eventually(what, condition, patience=PATIENCE_S):
    """What `condition` answers as soon as it is something."""
    deadline = time.monotonic() + patience
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise Failure(f"waited {patience} s in vain for: {what}")
        time.sleep(0.02)


class World:
    def __init__(self, folder, binary, seed, is_long):
        self.folder, self.binary, self.is_long = folder, binary, is_long
        self.processes = Processes(user=USER)
        self.as_root = Processes()
        self.provider = Provider()
        self.rounds = 0
        self._seed = seed
        self._houses = []
        self._template = None
        self._made = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self.processes.stop()
        self.as_root.stop()
        self.provider.stop()

    def begin(self, name):
        """The same seed gives each fault the same numbers, whichever others run."""
        self.random = random.Random(f"{self._seed} {name}")
        self.rounds = 0

    def end(self):
        """Stops what the fault has left running."""
        for house in self._houses:
            house.kill()
            house.kill_what_is_left()
        self._houses = []

    def pick(self, short, long):
        return long if self.is_long else short

    def base_env(self):
        # A debug build derives keys at once when it finds this; a release does not look.
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TOKFENCE_TEST_KDF": "1"}

    def house(self, at=None, **settings):
        """A home with keys, an agent and a budget. The first is made by commands and the others are copies of it."""
        if self._template is None:
            self._template = self._new(self.folder / "template")
            self._template.furnish()
        self._made += 1
        folder = (at or self.folder) / f"home{self._made}"
        shutil.copytree(self._template.home, folder, copy_function=shutil.copy2)
        give_to_user(folder)
        house = self._new(folder)
        house.token = self._template.token
        house.configure(**settings)
        return house

    def _new(self, folder):
        house = House(self, folder)
        self._houses.append(house)
        return house


def give_to_user(folder):
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, USER, USER, follow_symlinks=False)


class House(Tokfence):
    """A home, whose providers are all the mock, and whose requests the mock tells from others by its name."""

    def __init__(self, world, folder):
        super().__init__(world.binary, folder, world.processes, world.base_env())
        self.world, self.provider, self.name = world, world.provider, folder.name
        self.token = None

    @property
    def socket(self):
        return self.home / "tokfence.sock"

    @property
    def database(self):
        return self.home / "tokfence.db"

    @property
    def vault(self):
        return self.home / "vault.tfv"

    def furnish(self):
        self.home.mkdir(mode=0o700)
        os.chown(self.home, USER, USER)
        self.configure()
        self.run("init", "--non-interactive", unlocks=True)
        lines = "".join(f"{VARIABLES[name]}={key}\n" for name, key in KEYS.items())
        self.run("vault", "import", "-", stdin=lines, unlocks=True)
        self.token = self.mint(AGENT)
        self.run("budget", "set", f"agent:{AGENT}", LIMIT_USD, "total")

    def configure(self, daemon="", provider="", tables="", metrics=""):
        providers = "".join(
            f'[providers.{name}]\nupstream = "{self.provider.url}"\nlocal = true\n{provider}\n' for name in KEYS
        )
        config = self.home / "config.toml"
        config.write_text(f'[daemon]\nport = 0\n{daemon}\n[metrics]\nlisten = "{metrics}"\n{tables}\n{providers}')
        config.chmod(0o600)
        os.chown(config, USER, USER)

    def run(self, *arguments, **options):
        return self._tokfence(*arguments, **options)

    def json(self, *arguments):
        return self._json(*arguments)

    def try_run(self, *arguments, **options):
        """Runs a command that may fail."""
        return self._finish(*arguments, **options)

    def environment(self, unlocks=False):
        return self._env | ({"TOKFENCE_VAULT_PASSPHRASE": PASSPHRASE} if unlocks else {})

    def add_environment(self, **variables):
        """For all that is run in this home from here on."""
        self._env |= variables

    def kill(self):
        if self._pid and self.address is not None:
            self.address = None
            try:
                os.kill(self._pid, signal.SIGCONT)
                os.kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            eventually("the end of a killed daemon", lambda: not is_alive(self._pid))

    def kill_what_is_left(self):
        """A daemon of this home that nobody knows of, because the fault ended before it was asked."""
        lock = self.home / "tokfence.lock"
        if not lock.exists():
            return
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.kill(int(file.read()), signal.SIGKILL)

    def caller(self, **options):
        return Caller(self, **options)

    def log_text(self):
        file = self.home / "log" / "tokfence.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def expect_no_panic(self):
        for word in ("panic", "ended in a panic"):
            expect(word not in self.log_text(), f"the daemon's log tells of a panic: {self.log_text()[-2000:]}")

    def figure(self, name):
        """A figure without labels, from the listener for figures, which `metrics` sets up."""
        with urllib.request.urlopen(self.status()["metrics"], timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def in_flight(self):
        return self.json("status")["in_flight"]

    def standing(self):
        """The budget in nano-dollars: spent, forfeited, reserved."""
        budgets = self.json("budget", "status")["budgets"]
        budget = next(budget for budget in budgets if budget["name"] == BUDGET)
        return tuple(nano(budget[name]["usd"]) for name in ("spent", "forfeited", "reserved"))

    def rows(self):
        """Every row of the log by its id, from a copy of the database, which is checked on the way."""
        copy = self.world.folder / f"{self.name}-copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(mode=0o700)
        try:
            for suffix in ("", "-wal"):
                source = Path(f"{self.database}{suffix}")
                if source.exists():
                    shutil.copy(source, copy / source.name)
            with sqlite3.connect(copy / self.database.name) as connection:
                connection.row_factory = sqlite3.Row
                verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
                expect(verdict == "ok", f"integrity_check of the database says {verdict}")
                rows = connection.execute("SELECT * FROM requests").fetchall()
            connection.close()
        finally:
            shutil.rmtree(copy)
        return {row["id"]: row for row in rows}

    def audit(self, answers):
        """Holds the log and the budget against the records of the caller and of the provider.

        Copying a database that is being written tears it, so nothing may be under way; the daemon may run.
        """
        if self.address is not None:
            eventually("the end of the last request", lambda: self.in_flight() == 0)
            eventually("nothing to be held", lambda: self.standing()[2] == 0)
        rows = self.rows()
        for answer in answers:
            if answer.status != 200:
                continue
            row = rows.get(answer.id)
            expect(row is not None, f"request {answer.id} was acknowledged and has no row")
            expect(row["status"] == 200, f"request {answer.id} was answered with 200, and the row says {row['status']}")
        spent, forfeited, reserved = self.standing()
        logged = sum(row["cost_nano_usd"] or 0 for row in rows.values())
        expect(spent == logged + forfeited, f"spent {spent}, but rows say {logged} and forfeited is {forfeited}")
        expect(reserved == 0 or self.address is None, f"{reserved} is held and nothing runs")
        billed = self.provider.billed(self.name)
        expect(spent >= billed, f"the provider billed {billed} and only {spent} is charged")
        twice = self.provider.sent_twice(self.name)
        expect(not twice, f"requests reached the provider more than once: {twice[:5]}")
        self.expect_no_panic()


def nano(text):
    whole, _, part = text.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0")[:9] or 0)


def is_alive(pid):
    """Whether a process runs; one that only waits for its parent to take notice does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
