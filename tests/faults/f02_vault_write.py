import hashlib
import json
import os
import pty
import shutil

from inject import counting, killed_at, points
from process import Failure, expect
from tokfence import PASSPHRASE
from world import give_to_user

TITLE = "kill -9 at each sync and rename of a vault write"
CALLS = ("fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat")
OTHER_PASSPHRASE = "another passphrase for the test vault"
OTHER_KEY = "gsk_another_key_that_is_stored_0123456789"
# A command, what is typed or piped into it, and the passphrase that opens what it leaves.
CHANGES = {
    "add": (["vault", "add", "mistral", "-"], OTHER_KEY, PASSPHRASE),
    "rotate": (["vault", "rotate", "groq", "-"], OTHER_KEY, PASSPHRASE),
    "remove": (["vault", "remove", "groq"], "", PASSPHRASE),
    "import": (["vault", "import", "-"], f"MISTRAL_API_KEY={OTHER_KEY}\nXAI_API_KEY={OTHER_KEY}\n", PASSPHRASE),
    "passphrase": (["vault", "passphrase"], None, OTHER_PASSPHRASE),
}


def run(world):
    house = world.house()
    before = keys(house, PASSPHRASE)
    saved = world.folder / "f02-saved"
    shutil.copytree(house.home, saved)
    seen = []
    for name, (command, typed, passphrase) in CHANGES.items():
        trace = world.folder / "f02-trace"
        code = change(world, house, counting(CALLS, trace), command, typed)
        expect(code == 0, f"vault {name} failed under strace with exit {code}")
        after = keys(house, passphrase)
        expect(after != before or name == "passphrase", f"vault {name} changed nothing")
        places = points(CALLS, trace)
        expect(places, f"vault {name} syncs and renames nothing")
        kept = 0
        for call, count in places:
            restore(house, saved)
            old = digest(house.vault)
            code = change(world, house, killed_at(call, count), command, typed)
            expect(code != 0, f"vault {name} was not killed at {call} {count}")
            if digest(house.vault) == old:
                kept += 1
            else:
                found = keys(house, passphrase)
                expect(found == after, f"vault {name} killed at {call} {count} left neither old nor new: {found}")
            world.rounds += 1
        expect_tidied(house, passphrase if digest(house.vault) != old else PASSPHRASE)
        restore(house, saved)
        seen.append(f"{name} {len(places)} ({kept} old)")
    return world.rounds, ", ".join(seen)


def expect_tidied(house, passphrase):
    """What dead writers left may open with a passphrase that was given up. The next write removes it."""
    env = house.environment() | {"TOKFENCE_VAULT_PASSPHRASE": passphrase}
    command = [house.binary, "vault", "rotate", "openai", "-"]
    written = house.world.processes.run(command, env, stdin="sk-next-key-0123456789")
    expect(written.code == 0, f"the next write fails: {written.output()}")
    stray = [path.name for path in house.home.glob("vault.new.*")]
    expect(not stray, f"after the next write these are still there: {stray}")


def change(world, house, prefix, command, typed):
    line = [*prefix, str(house.binary), *command]
    if typed is None:
        return at_terminal(line, house.environment(), [PASSPHRASE, OTHER_PASSPHRASE, OTHER_PASSPHRASE])
    return world.as_root.run(line, house.environment(unlocks=True), stdin=typed).code


def at_terminal(line, env, answers):
    """Runs a command that asks at a terminal, and answers it. What it asks is not looked at: the order is known."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(line[0], line, env)
    try:
        for answer in answers:
            if not ask(terminal):
                break
            os.write(terminal, f"{answer}\n".encode())
        while ask(terminal, until=b""):
            pass
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ask(terminal, until=b": "):
    """Reads up to a question; false at the end."""
    text = b""
    while not text.endswith(until) or not text:
        try:
            data = os.read(terminal, 1024)
        except OSError:
            return False
        if not data:
            return False
        text += data
    return True


def keys(house, passphrase):
    """What is in the vault, if this passphrase opens it."""
    env = house.environment() | {"TOKFENCE_VAULT_PASSPHRASE": passphrase}
    finished = house.world.processes.run([house.binary, "vault", "list", "--json"], env)
    if finished.code != 0:
        raise Failure(f"the vault does not open: {finished.output()}")
    found = json.loads(finished.stdout)["keys"]
    return sorted((key["provider"], key["kind"], key["last4"]) for key in found)


def restore(house, saved):
    shutil.rmtree(house.home)
    shutil.copytree(saved, house.home)
    give_to_user(house.home)


def digest(path):
    return hashlib.sha256(path.read_bytes()).digest()
