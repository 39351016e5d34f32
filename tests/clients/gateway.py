"""The gateway as its user meets it: everything the suite knows about the `tokfence` command line stands here."""

import json
import os
import signal
import time

from process import Failure

PASSPHRASE = "a passphrase for the test vault"
VAULT_FILE = "vault.tfv"
LOG_DEADLINE_S = 10
# The smallest there is, so that a budget ends a stream soon.
SLICE_TOKENS = 256


class Gateway:
    def __init__(self, binary, home, processes, base_env):
        self.binary = binary
        self.home = home
        self.address = None
        self.capabilities = []
        self._processes = processes
        self._env = base_env | {"TOKFENCE_HOME": str(home), "TOKFENCE_VAULT_BACKEND": "file"}
        self._pid = None

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

    def start(self):
        self._tokfence("start", "-d", unlocks=True)
        status = self._json("status")
        self.address, self._pid = status["address"], status.get("pid")

    def stop(self):
        if self.address is None:
            return
        self.address = None
        try:
            self._tokfence("stop")
        except Failure:
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
            raise

    def url(self, path):
        return f"http://{self.address}{path}"

    def mint(self, agent):
        """A capability, for an agent that is configured by hand."""
        token = self._json("agent", "mint", agent)["token"]
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

    def _json(self, *arguments):
        text = self._tokfence(*arguments, "--json")
        try:
            return json.loads(text)
        except ValueError:
            raise Failure(f"`tokfence {' '.join(arguments)} --json` printed no JSON document: {text!r}") from None

    def _tokfence(self, *arguments, stdin="", unlocks=False):
        env = self._env | ({"TOKFENCE_VAULT_PASSPHRASE": PASSPHRASE} if unlocks else {})
        finished = self._processes.run([self.binary, *arguments], env, stdin=stdin)
        if finished.code != 0:
            raise Failure(f"`tokfence {' '.join(arguments)}`: {finished.output()}")
        return finished.stdout
