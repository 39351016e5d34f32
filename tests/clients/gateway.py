"""The gateway as agents and their owner meet it: what this suite alone knows about the `tokfence` command line."""

import re
import time
from pathlib import Path

from tokfence import Tokfence

VAULT_FILE = "vault.tfv"
LOG_DEADLINE_S = 10
# The smallest there is, so that a budget ends a stream soon.
SLICE_TOKENS = 256


class Gateway(Tokfence):
    def __init__(self, binary, home, processes, base_env):
        super().__init__(binary, home, processes, base_env)
        self.capabilities = []

    def set_up(self, upstream, credentials):
        """Makes a home whose providers all point at `upstream`, and puts the credentials into its vault."""
        self.home.mkdir(mode=0o700)
        providers = "".join(
            f'\n[providers.{provider}]\nupstream = "{upstream}"\nlocal = true\n' for provider in credentials
        )
        config = self.home / "config.toml"
        budget = f"[budget]\nslice_tokens = {SLICE_TOKENS}\n"
        config.write_text(f'[daemon]\nport = 0\n\n[metrics]\nlisten = ""\n\n{budget}{providers}')
        config.chmod(0o600)
        self._tokfence("init", "--non-interactive", unlocks=True)
        for provider, credential in credentials.items():
            self._tokfence("vault", "add", provider, "-", stdin=credential, unlocks=True)

    def mint(self, agent):
        """A capability, for an agent that is configured by hand."""
        token = super().mint(agent)
        self.capabilities.append(token)
        return token

    def limit(self, agent, amount):
        """Makes an agent and a budget for all that it will ever use."""
        self.mint(agent)
        self._tokfence("budget", "set", f"agent:{agent}", amount, "total")

    def canary(self, name, kind):
        """A new canary, and its text."""
        return self._json("canary", "add", name, "--kind", kind)["value"]

    def plant(self, name, file):
        self._tokfence("canary", "plant", name, "--file", str(file))

    def revoke(self, agent):
        self._tokfence("agent", "revoke", agent)

    def environment(self, agent, env):
        """`env` as it is after `eval "$(tokfence env)"`."""
        change = self._json("env", "--agent", agent)
        return {name: value for name, value in env.items() if name not in change["unset"]} | change["env"]

    def tell(self, kind, agent, home, *options):
        """Writes an agent's own files in its home, and returns those files."""
        told = self._json("setup", kind, "--agent", agent, *options, home=home)
        files = [Path(file["path"]) for file in told["files"]]
        self.capabilities += {token for file in files for token in re.findall(r"tfk_\w+", file.read_text())}
        return files

    def untell(self, kind, home):
        """Puts back what was there before."""
        self._json("setup", kind, "--undo", home=home)

    def run(self, agent, command):
        """The command that starts `command` as `agent`."""
        return [self.binary, "run", "--agent", agent, "--", *command]

    def run_environment(self, env):
        """What `tokfence run` itself needs to know."""
        return env | {"TOKFENCE_HOME": str(self.home)}

    def log(self, agent=None):
        """The requests of an agent, or of everybody, in the order they were made."""
        rows = self._json("log", "--limit", "1000")["requests"]
        return sorted((row for row in rows if agent in (None, row["agent"])), key=lambda row: row["id"])

    def rows(self, agent, count):
        """The agent's requests, once `count` of them are there and complete.

        A request is logged when its last byte has been sent, which may be just after the agent has read it.
        """
        deadline = time.monotonic() + LOG_DEADLINE_S
        while True:
            rows = self.log(agent)
            if len([row for row in rows if row["status"]]) >= count or time.monotonic() > deadline:
                return rows
            time.sleep(0.05)
