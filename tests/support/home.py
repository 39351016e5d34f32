"""A gateway in a home of its own, as suites need it that attack one: its provider, a key, a capability, its process."""

import os
import re
import sqlite3
import tempfile
import time
from pathlib import Path

from process import Failure, Processes
from tokfence import Tokfence

PROVIDER = "openai"
KEY = "sk-real-openai-0SENTINEL0-7Q2xW9vK4mPz"
# What a caller does has no consequences for it, or everything after the first attack would be refused for that alone.
SIGNALS = (
    "vault_canary secret_in_request decoy_in_request decoy_as_credential decoy_in_response prompt_mark_in_response "
    "key_echo minting_attempt scope_denials dead_capability browser_request wrong_transport spend_slope secret_shaped "
    "unscannable"
).split()
UNRESTRICTED = "[risk.signals]\n" + "".join(f'{signal} = "log"\n' for signal in SIGNALS)


class Home(Tokfence):
    """Use it in a `with`: the gateway ends with the block. `environment` is what it finds beside its own."""

    def __init__(self, binary, upstream, tables="", daemon="", **environment):
        self._folder = tempfile.TemporaryDirectory(prefix="tokfence-attack-")
        path = Path(self._folder.name)
        super().__init__(os.path.abspath(binary), path, Processes(), {"PATH": os.environ["PATH"], **environment})
        config = f'[daemon]\nport = 0\nshutdown_grace = "2s"\n{daemon}\n[metrics]\nlisten = "127.0.0.1:0"\n{tables}\n{UNRESTRICTED}'
        config += f'[providers.{PROVIDER}]\nupstream = "{upstream}"\nlocal = true\n'
        (path / "config.toml").write_text(config)

    def __enter__(self):
        self._tokfence("init", "--non-interactive", unlocks=True)
        self._tokfence("vault", "add", PROVIDER, "-", stdin=KEY, unlocks=True)
        self.token = self.mint("attacker")
        self.start()
        status = self.status()
        host, port = self.address.rsplit(":", 1)
        self.tcp, self.socket = (host, int(port)), status["socket"]
        self.metrics_port = int(re.search(r":(\d+)/", status["metrics"]).group(1))
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        except Failure:
            pass  # what went wrong was told already, and the process is killed
        self._folder.cleanup()

    def is_alive(self):
        """Whether it is still the process that was started."""
        return os.path.exists(f"/proc/{self.pid}") and self.status()["pid"] == self.pid

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
        with sqlite3.connect(f"file:{self.home}/tokfence.db?mode=ro", uri=True) as database:
            return database.execute(f"SELECT {columns} FROM requests WHERE {where}").fetchall()

    def logs(self):
        """What the daemon wrote for people to read, all files together."""
        return "".join(path.read_text(errors="replace") for path in self.home.rglob("*.log*") if path.is_file())
