"""Runs the faults and says how many rounds of each were survived. Started by `run`."""

import argparse
import importlib
import json
import multiprocessing
import os
import queue
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(1, str(HERE.parent / "support"))

from process import Failure
from world import World

# In the order of the table that names them. Each is a module with a TITLE and a `run(world)`, which answers how many
# rounds were survived and, if there is more to say, in a few words what was seen.
FAULTS = {
    "F1": "f01_killed",
    "F2": "f02_vault_write",
    "F3": "f03_policy_write",
    "F4": "f04_io_errors",
    "F5": "f05_disk_full",
    "F6": "f06_locked",
    "F7": "f07_corrupt_database",
    "F8": "f08_replaced",
    "F9": "f09_corrupt_vault",
    "F10": "f10_upstream",
    "F11": "f11_callers",
    "F12": "f12_descriptors",
    "F13": "f13_memory",
    "F14": "f14_slowloris",
    "F15": "f15_clock",
    "F16": "f16_edits",
    "F17": "f17_upgrade",
    "F18": "f18_stop",
    "F19": "f19_second",
    "F20": "f20_panic",
    "F21": "f21_asleep",
    "P1": "p01_process",
}
LONG = {"F1", "F2", "F9", "F15", "F16"}


def main():
    arguments = parsed_arguments()
    # A terminated suite must still end what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"seed {arguments.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tokfence-faults-", ignore_cleanup_errors=True) as folder:
        results = drive(arguments, Path(folder))
    results.sort(key=lambda result: list(FAULTS).index(result["fault"]))
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "is_long": arguments.long, "faults": results}, indent=1))
    else:
        show(results)
    return 0 if all(result["survived"] for result in results) else 1


def parsed_arguments():
    parser = argparse.ArgumentParser(prog="tests/faults/run", description=__doc__)
    parser.add_argument("--tokfence", type=Path, help="the binary to test")
    parser.add_argument("--long", action="store_true", help="as many rounds as before a release")
    parser.add_argument("--only", metavar="F2,F15", help="just these; their names as --list prints them")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--lanes", type=int, default=2, help="how many faults are tried at the same time (default: 2)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the names of the faults")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name}\t{importlib.import_module(module).TITLE}" for name, module in FAULTS.items()))
        sys.exit(0)
    if arguments.tokfence is None or not arguments.tokfence.is_file():
        parser.error("--tokfence names no binary")
    arguments.only = arguments.only.split(",") if arguments.only else list(FAULTS)
    if unknown := set(arguments.only) - set(FAULTS):
        parser.error(f"no fault is named {', '.join(sorted(unknown))}; --list names them")
    return arguments


def drive(arguments, folder):
    # The gateway runs as somebody who must be able to come here, and to nothing of whoever runs this.
    folder.chmod(0o755)
    binary = folder / "tokfence"
    shutil.copy(arguments.tokfence, binary)
    binary.chmod(0o755)
    # Each lane is a process with a provider and homes of its own. The longest faults are tried first.
    names, results = multiprocessing.Queue(), multiprocessing.Queue()
    lanes = [
        multiprocessing.Process(target=lane, args=(arguments, folder / f"lane{number}", binary, names, results))
        for number in range(min(arguments.lanes, len(arguments.only)))
    ]
    for name in sorted(arguments.only, key=lambda name: name not in LONG):
        names.put(name)
    for process in lanes:
        names.put(None)
        process.start()
    try:
        return [next_result(results, lanes) for _ in arguments.only]
    finally:
        for process in lanes:
            process.terminate()
            process.join()


def next_result(results, lanes):
    while True:
        try:
            result = results.get(timeout=1)
        except queue.Empty:
            if not any(process.is_alive() for process in lanes) and results.empty():
                sys.exit("tests/faults: a lane ended before its faults did")
            continue
        verdict = "ok" if result["survived"] else f"FAILED: {result['note']}"
        print(f"{result['fault']:4} {result['seconds']:6.1f} s  {verdict}", file=sys.stderr)
        return result


def lane(arguments, folder, binary, names, results):
    folder.mkdir()
    with World(folder, binary, arguments.seed, arguments.long) as world:
        while (name := names.get()) is not None:
            results.put(attempt(name, world))


def attempt(name, world):
    fault = importlib.import_module(FAULTS[name])
    world.begin(name)
    started = time.monotonic()
    try:
        rounds, note = fault.run(world)
        survived = True
    except (Failure, OSError, ValueError, KeyError) as failure:
        rounds, note, survived = world.rounds, describe(failure), False
        if not isinstance(failure, Failure):
            traceback.print_exc()
    finally:
        world.end()
    seconds = round(time.monotonic() - started, 1)
    return {
        "fault": name,
        "title": fault.TITLE,
        "rounds": rounds,
        "survived": survived,
        "seconds": seconds,
        "note": note,
    }


def describe(failure):
    text = str(failure) or type(failure).__name__
    return text if isinstance(failure, Failure) else f"{type(failure).__name__}: {text}"


def show(results):
    for result in results:
        verdict = "survived" if result["survived"] else "FAILED"
        line = f"{result['fault']:4} {result['title']:58} {result['rounds']:5} rounds {result['seconds']:6.1f} s  {verdict}"
        print(f"{line}\n     {result['note']}" if result["note"] else line)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
