"""The gateway as its user meets it: everything that the suites share of the `tokfence` command line."""

import json
import os
import signal

from process import Failure

PASSPHRASE = "a passphrase for the test vault"


class Tokfence:
    """A home, and the daemon in it. `base_env` is what its commands find in their environment."""

    def __init__(self, binary, home, processes, base_env):
        self.binary = binary
        self.home = home
        self.address = None
        self._processes = processes
        self._env = base_env | {"TOKFENCE_HOME": str(home), "TOKFENCE_VAULT_BACKEND": "file"}
        self._pid = None

    def start(self):
        self._tokfence("start", "-d", unlocks=True)
        status = self.status()
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

    @property
    def pid(self):
        return self._pid

    def status(self):
        return self._json("status")

    def url(self, path):
        return f"http://{self.address}{path}"

    def mint(self, agent):
        """A capability, for an agent that is configured by hand."""
        return self._json("agent", "mint", agent)["token"]

    def _json(self, *arguments, home=None):
        text = self._tokfence(*arguments, "--json", home=home)
        try:
            return json.loads(text)
        except ValueError:
            raise Failure(f"`tokfence {' '.join(arguments)} --json` printed no JSON document: {text!r}") from None

    def _tokfence(self, *arguments, stdin="", unlocks=False, home=None):
        finished = self._finish(*arguments, stdin=stdin, unlocks=unlocks, home=home)
        if finished.code != 0:
            raise Failure(f"`tokfence {' '.join(arguments)}`: {finished.output()}")
        return finished.stdout

    def _finish(self, *arguments, stdin="", unlocks=False, home=None):
        """Runs a command, however it ends; in the home of another user than usual where one is given."""
        env = self._env | ({"TOKFENCE_VAULT_PASSPHRASE": PASSPHRASE} if unlocks else {})
        env |= {"HOME": str(home)} if home else {}
        return self._processes.run([self.binary, *arguments], env, stdin=stdin)
