import re
from pathlib import Path

from inject import counting
from process import expect
from world import USER

TITLE = "what other processes of the same user get to see"


def run(world):
    house = world.house()
    house.start()
    keeps_to_itself(world, house)
    house.stop()
    narrow_from_the_start(world, house)
    world.rounds = 2
    return world.rounds, None


def keeps_to_itself(world, house):
    """Memory and environment of the daemon belong to root, whoever it runs as."""
    pid = house.pid
    owner = Path(f"/proc/{pid}/environ").stat().st_uid
    expect(owner == 0, f"/proc/PID/environ belongs to user {owner}")
    for name in ("environ", "mem", "maps"):
        looked = world.processes.run(["cat", f"/proc/{pid}/{name}"], {"PATH": "/usr/bin:/bin"})
        expect(looked.code != 0 and not looked.stdout, f"its user reads /proc/PID/{name}")
    traced = world.processes.run(["strace", "-p", str(pid), "-o", "/dev/null"], {"PATH": "/usr/bin:/bin"}, timeout=10)
    expect(traced.code != 0, "its user attaches to it")
    status = Path(f"/proc/{pid}/status").read_text()
    expect(re.search(r"NoNewPrivs:\s+1", status), "it may gain rights")
    expect(re.search(rf"Uid:\s+{USER}\s", status), "it runs as somebody else")
    limits = Path(f"/proc/{pid}/limits").read_text()
    expect(re.search(r"Max core file size\s+0\s+0", limits), "it may leave a core dump")


def narrow_from_the_start(world, house):
    """No socket is wider than intended, not even for the instant between `bind` and `chmod`."""
    trace = world.folder / "p01-trace"
    calls = ("umask", "bind", "chmod", "fchmod", "fchmodat")
    line = [*counting(calls, trace), str(house.binary), "--json", "start"]
    world.as_root.serve(line, house.environment(unlocks=True), until='"pid"')
    house.run("stop")
    mask, bound, widened = None, [], []
    for text in trace.read_text().splitlines():
        if found := re.search(r"umask\((0\d+)\)", text):
            mask = int(found.group(1), 8)
        elif found := re.search(r'bind\(.*sun_path="([^"]+)"', text):
            expect(mask is not None and mask & 0o077 == 0o077, f"{found.group(1)} is bound with the mask {mask}")
            bound.append(found.group(1))
        elif found := re.search(r'chmod\w*\(.*"([^"]+\.sock)", (0\d+)', text):
            widened.append((Path(found.group(1)).name, int(found.group(2), 8)))
    expect(len(bound) == 2, f"sockets: {bound}")
    expect(set(widened) == {("tokfence.sock", 0o660), ("control.sock", 0o600)}, f"modes: {widened}")
