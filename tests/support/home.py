"""A gateway in a home of its own, as suites need it that attack one: its provider, a key, a capability, its process."""

import json
import os
import re
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

PASSPHRASE = "only for this test, and long enough"
PROVIDER = "openai"
KEY = "sk-real-openai-0SENTINEL0-7Q2xW9vK4mPz"
# What a caller does has no consequences for it, or everything after the first attack would be refused for that alone.
SIGNALS = (
    "vault_canary secret_in_request decoy_in_request decoy_as_credential decoy_in_response prompt_mark_in_response "
    "key_echo minting_attempt scope_denials dead_capability browser_request wrong_transport spend_slope secret_shaped "
    "unscannable"
).split()
UNRESTRICTED = "[risk.signals]\n" + "".join(f'{signal} = "log"\n' for signal in SIGNALS)


class Failure(Exception):
    """Something that must hold does not."""


class Home:
    """Use it in a `with`: the gateway ends with the block."""

    def __init__(self, tokfence, upstream, tables=""):
        self._tokfence = os.path.abspath(tokfence)
        self._folder = tempfile.TemporaryDirectory(prefix="tokfence-attack-")
        self.path = Path(self._folder.name)
        self._env = {
            "PATH": os.environ["PATH"],
            "TOKFENCE_HOME": str(self.path),
            "TOKFENCE_VAULT_BACKEND": "file",
            "TOKFENCE_VAULT_PASSPHRASE": PASSPHRASE,
        }
        config = f'[daemon]\nport = 0\nshutdown_grace = "2s"\n[metrics]\nlisten = "127.0.0.1:0"\n{tables}\n{UNRESTRICTED}'
        config += f'[providers.{PROVIDER}]\nupstream = "{upstream}"\nlocal = true\n'
        (self.path / "config.toml").write_text(config)

    def __enter__(self):
        self.run("init", "--non-interactive")
        self.run("vault", "add", PROVIDER, "-", stdin=KEY)
        self.token = self.json("agent", "mint", "attacker")["token"]
        self.run("start", "-d")
        status = self.json("status")
        self.pid = status["pid"]
        host, port = status["address"].rsplit(":", 1)
        self.address = (host, int(port))
        self.socket = status["socket"]
        self.metrics_port = int(re.search(r":(\d+)/", status["metrics"]).group(1))
        return self

    def __exit__(self, *_):
        subprocess.run([self._tokfence, "stop"], env=self._env, capture_output=True, check=False, timeout=60)
        self._folder.cleanup()

    def run(self, *arguments, stdin=""):
        done = subprocess.run(
            [self._tokfence, *arguments], env=self._env, input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failure(f"`tokfence {' '.join(arguments)}`: {done.stderr or done.stdout}")
        return done.stdout

    def json(self, *arguments):
        return json.loads(self.run("--json", *arguments))

    def is_alive(self):
        """Whether it is still the process that was started."""
        return os.path.exists(f"/proc/{self.pid}") and self.json("status")["pid"] == self.pid

    def resident_kib(self):
        """What the daemon has in memory, now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise Failure("the daemon is gone")

    def cpu_seconds(self):
        """The time that the daemon has computed so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def settled(self, condition, seconds=10):
        """Waits until `condition` holds; answers whether it does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def rows(self, columns, where="1"):
        """Rows of the log."""
        with sqlite3.connect(f"file:{self.path}/tokfence.db?mode=ro", uri=True) as database:
            return database.execute(f"SELECT {columns} FROM requests WHERE {where}").fetchall()

    def logs(self):
        """What the daemon wrote for people to read, all files together."""
        return "".join(path.read_text(errors="replace") for path in self.path.rglob("*.log*") if path.is_file())
