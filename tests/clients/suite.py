"""Drives real SDKs and agents through the gateway to a mock provider, and says what held. Started by `run`."""

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(1, str(HERE.parent / "support"))

import agents
import clients
import fence
import limits
from gateway import VAULT_FILE, Gateway
from process import Failure, Processes
from provider import Mock, Tap
from tokfence import PASSPHRASE

REPOSITORY = HERE.parent.parent
CASES = [*clients.CASES, *limits.CASES, *fence.CASES, *agents.CASES]


def main():
    arguments = parsed_arguments()
    if arguments.list:
        print("\n".join(case.name for case in CASES))
        return 0
    # A terminated suite must still end what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chosen = [case for case in CASES if not arguments.only or case.name in arguments.only]
    with tempfile.TemporaryDirectory(prefix="tokfence-clients-", ignore_cleanup_errors=True) as folder:
        failed = drive(arguments, chosen, Path(folder))
    print(f"{len(chosen) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


def parsed_arguments():
    parser = argparse.ArgumentParser(prog="tests/clients/run", description=__doc__)
    parser.add_argument("--tokfence", type=Path, help="the binary to test (default: TOKFENCE_BIN, else the built one)")
    parser.add_argument("--only", action="append", metavar="NAME", help="try just this case; may be given again")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.only or ()) - {case.name for case in CASES}:
        parser.error(f"no case is named {', '.join(sorted(unknown))}; --list names them")
    return arguments


def drive(arguments, chosen, folder):
    """Runs the cases and returns how many failed."""
    processes = Processes()
    base_env = clean_environment(folder)
    known = {
        "openai": f"sk-proj-{secrets.token_hex(24)}",
        "anthropic": f"sk-ant-api03-{secrets.token_hex(40)}",
        "google": f"AIza{secrets.token_hex(17)}a",
    }
    unknown = {"mistral": secrets.token_hex(16)}
    credentials = known | unknown
    tap = gateway = None
    try:
        program = binary(arguments)
        mock = Mock(arguments.work, HERE / "fixtures.json", folder, list(known.values()), processes, base_env)
        tap = Tap(mock.port)
        gateway = Gateway(program, folder / "home", processes, base_env)
        gateway.set_up(tap.url, credentials)
        gateway.start()
        bench = clients.Bench(arguments.work, gateway, mock, tap, credentials, processes, base_env)
        held = [report(case.name, bench.try_case, case) for case in chosen]
        held.append(report("secrets-stay-secret", search, gateway, processes, [*credentials.values(), PASSPHRASE]))
        return held.count(False)
    except Failure as failure:
        sys.exit(f"tests/clients: could not set up: {failure}")
    finally:
        if gateway:
            gateway.stop()
        if tap:
            tap.stop()
        processes.stop()


def clean_environment(folder):
    """Nothing of the caller's environment but the way to programs: a key in it must not be what makes a case pass."""
    home = folder / "user"
    home.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(folder), "LANG": "C.UTF-8"}


def binary(arguments):
    named = arguments.tokfence or os.environ.get("TOKFENCE_BIN")
    built = [REPOSITORY / "target" / profile / "tokfence" for profile in ("release", "debug")]
    for candidate in [Path(named)] if named else built:
        if shutil.which(candidate):
            return candidate.resolve()
    places = named or " or ".join(map(str, built))
    raise Failure(f"no tokfence program at {places}; build it, or name it with --tokfence")


def report(name, check, *arguments):
    start = time.monotonic()
    try:
        check(*arguments)
    except Exception as error:  # whatever went wrong, the other cases are still worth running
        reason = error if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        print(f"FAIL {name}: {reason}", flush=True)
        return False
    print(f"ok {name} ({time.monotonic() - start:.1f}s)", flush=True)
    return True


def search(gateway, processes, hidden):
    """No key and no passphrase in what anybody printed or the gateway wrote, and no capability in the latter."""
    gateway.log()  # the whole of it is then among what was printed
    gateway.stop()  # so that every file is written out
    printed = {f"what `{command}` printed" for command, text in processes.outputs if contains(text.encode(), hidden)}
    files = [file for file in gateway.home.rglob("*") if file.is_file() and file.name != VAULT_FILE]
    written = {file.name for file in files if contains(file.read_bytes(), hidden + gateway.capabilities)}
    if found := sorted(printed | written):
        raise Failure(f"a secret is in {', '.join(found)}")


def contains(data, hidden):
    return any(secret.encode() in data for secret in hidden)


if __name__ == "__main__":
    sys.exit(main())
