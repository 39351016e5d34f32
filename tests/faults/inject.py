"""System calls that fail, or kill, when strace says so."""

import contextlib
import pwd
import re
import signal
import subprocess
from pathlib import Path

from process import Failure
from world import USER, eventually


def killed_at(call, count):
    """The beginning of a command line that kills what follows as it enters its so-manieth call."""
    return _traced(call, "/dev/null") + ["-e", f"inject={call}:signal=SIGKILL:when={count}"]


def counting(calls, file):
    """The beginning of a command line that notes in `file` each call that what follows makes."""
    return _traced(",".join(calls), file)


def points(calls, file):
    """Each place where a command may be killed: a call, and which of its kind. strace counts each kind by itself."""
    noted = re.findall(r"(\w+)\(", Path(file).read_text())
    return [(call, count) for call in calls for count in range(1, noted.count(call) + 1)]


def _traced(calls, file):
    # The tracer is root and what it traces is not.
    user = pwd.getpwuid(USER).pw_name
    return ["strace", "-f", "-qq", "-u", user, "-o", str(file), "-e", f"trace={calls}"]


@contextlib.contextmanager
def failing(pid, *injections, calls, trace):
    """While this is open, calls of a running process fail as the injections say (`pwrite64:error=EIO`). The calls are noted
    in `trace`, those that failed with `(INJECTED)`."""
    command = ["strace", "-f", "-qq", "-o", str(trace), "-p", str(pid), "-e", f"trace={calls}"]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually("strace to attach", lambda: _are_all_traced(pid, tracer))
        yield
    finally:
        # Interrupted, it lets go of the process; killed, it would leave calls behind that fail for ever.
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()


def _are_all_traced(pid, tracer):
    if tracer.poll() is not None:
        raise Failure(f"strace could not attach to process {pid}")
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    return all(_tracer_of(thread) == tracer.pid for thread in threads)


def _tracer_of(thread):
    try:
        status = (thread / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(status.partition("TracerPid:")[2].split()[0])
