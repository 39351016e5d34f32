"""Programs that a suite starts: bounded in time, and killed together with whatever they started."""

import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path


class Failure(Exception):
    """A check that did not hold; the message is what the person reading the report needs."""


def expect(holds, what):
    if not holds:
        raise Failure(what)


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: str
    stderr: str

    def output(self):
        return f"exit {self.code}\n{self.stdout}\n{self.stderr}".strip()


class Processes:
    """Starts programs and remembers their output, so that it can be searched for secrets at the end.

    With `user` they run as that user id, in the group of the same number and no other.
    """

    def __init__(self, user=None):
        self.outputs = []
        self._servers = []
        self._as_user = {} if user is None else {"user": user, "group": user, "extra_groups": []}

    def run(self, command, env, stdin="", timeout=60, cwd=None):
        with self._start(command, env, cwd, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout=timeout)
            except subprocess.TimeoutExpired as expired:
                printed = b"\n".join(filter(None, (expired.stdout, expired.stderr))).decode(errors="replace")
                self.outputs.append((_named(command), printed))
                raise Failure(f"{_named(command)} did not finish in {timeout} s; it printed:\n{printed}") from None
            finally:
                _kill_group(process)
        self.outputs.append((_named(command), stdout + stderr))
        return Finished(process.returncode, stdout, stderr)

    def serve(self, command, env, until, timeout=30):
        """Starts a server and returns the first line it prints that contains `until`."""
        process = self._start(command, env, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        self._servers.append(process)
        lines, found, settled = [], [], threading.Event()

        def read():
            for line in process.stdout:
                lines.append(line)
                if until in line and not found:
                    found.append(line)
                    settled.set()
            settled.set()

        threading.Thread(target=read, daemon=True).start()
        settled.wait(timeout)
        if not found:
            raise Failure(f"{_named(command)} did not start; it printed:\n{''.join(lines)}")
        return found[0]

    def stop(self):
        for process in self._servers:
            _kill_group(process)
            process.wait()

    def _start(self, command, env, cwd=None, **pipes):
        return subprocess.Popen(
            [str(part) for part in command],
            env=env,
            cwd=cwd,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            **self._as_user,
            **pipes,
        )


# Has a gateway that finds it in its environment give back what is free at once, so that what it has is what it uses.
KEEPS_NOTHING = {"_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}


def resident_bytes(pid):
    """What a process has in memory, now."""
    return _memory_bytes(pid, "VmRSS")


def peak_bytes(pid):
    """The most that it had in memory at once, since it began or `forget_peak`."""
    return _memory_bytes(pid, "VmHWM")


def forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _memory_bytes(pid, name):
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0]) * 1024


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid):
    """The time that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _named(command):
    return " ".join(os.path.basename(str(part)) for part in command[:3])


def _kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # everything in it has ended by itself
