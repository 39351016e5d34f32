"""The attack: first requests are changed, then answers, and it is looked at what must hold; then what an input costs."""

import argparse
import asyncio
import collections
import multiprocessing
import random
import socket
import sys
import threading
import time

import amplify
from caller import attack
from home import KEY, Home
from process import Failure, open_files, resident_bytes
from provider import Provider

PROCESSES = 2
# What is asked before the measure is taken, so that pools, caches and the allocator have what they keep.
WARM_UP = 2000
GROWTH_MAX_KIB = 32 * 1024
FILES_MAX_MORE = 16
# Rows that refusals without end may add: what is kept apart of one caller, and some for each ten seconds of it.
FLOOD_ROWS_MAX = 256
FLOOD_ROWS_EACH_10_S = 3
# Requests that are sent before their answers are read.
FLOOD_AT_ONCE = 50


class Attack:
    def __init__(self, home, provider, seed):
        self.home, self.provider, self.seed = home, provider, seed
        self.faults = []

    def run(self, what, count, mutate, seed):
        """Has callers send `count` requests; answers what they were answered."""
        statuses, began = collections.Counter(), time.monotonic()
        jobs = [
            {
                "address": self.home.tcp,
                "socket": self.home.socket,
                "token": self.home.token,
                "seed": seed + number,
                "count": count // PROCESSES,
                "mutate": mutate,
            }
            for number in range(PROCESSES)
        ]
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            for found, faults in pool.imap_unordered(attack, jobs):
                statuses += found
                self.faults += faults
        took = time.monotonic() - began
        told = ", ".join(f"{number} x {status}" for status, number in statuses.most_common())
        print(f"{what}: {sum(statuses.values())} in {took:.0f} s ({sum(statuses.values()) / took:.0f}/s): {told}")
        return statuses

    def flood(self, count):
        """Asks `count` times for ever new paths of a provider that there is not, and looks at what the log makes of it."""
        rows, began = self.home.rows("count(*)")[0][0], time.monotonic()
        with socket.create_connection(self.home.tcp, 60) as connection:
            for first in range(0, count, FLOOD_AT_ONCE):
                asked = range(first, min(first + FLOOD_AT_ONCE, count))
                heads = (f"GET /nobody/{'x' * 400}/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n" for number in asked)
                connection.sendall("".join(heads).encode())
                answers = b""
                while answers.count(b"HTTP/1.1 404") < len(asked) or not answers.endswith(b"}"):
                    part = connection.recv(65536)
                    if not part:
                        raise Failure("a refused caller was cut off")
                    answers += part
        took = time.monotonic() - began
        time.sleep(0.2)
        more = self.home.rows("count(*)")[0][0] - rows
        size = sum(path.stat().st_size for path in self.home.home.glob("tokfence.db*"))
        print(f"a flood: {count} refusals in {took:.0f} s are {more} rows; the database has {size // 1024} KiB")
        self.expect(more <= FLOOD_ROWS_MAX + FLOOD_ROWS_EACH_10_S * (took // 10 + 2), f"{more} rows of a flood")

    def expect(self, holds, what):
        if not holds:
            self.faults.append(what)

    def check_rows(self):
        """Each request that the provider got has a row, with the method and path that it got."""
        provider, home = self.provider, self.home

        def missing():
            rows = collections.Counter(home.rows("method, path", "outcome <> 'refused'"))
            return {line: count - rows[line] for line, count in provider.lines.items() if count > rows[line]}

        home.settled(lambda: not missing())
        for line, count in list(missing().items())[:5]:
            self.faults.append(f"{count} requests without a row: {line}")

    def check_process(self, resident_kib, files):
        home = self.home
        self.expect(home.is_alive(), "the gateway is gone")
        growth = resident_bytes(home.pid) // 1024 - resident_kib
        self.expect(growth <= GROWTH_MAX_KIB, f"the gateway grew by {growth} KiB")
        has_let_go = home.settled(lambda: open_files(home.pid) <= files + FILES_MAX_MORE, 90)
        self.expect(has_let_go, f"{open_files(home.pid)} open files, {files} before")
        told = home.logs()
        self.expect("panicked" not in told, f"a panic: {told[max(0, told.find('panicked') - 200):][:1000]}")
        self.expect(KEY not in told and home.token not in told, "a secret in the log")
        self.expect(home.settled(lambda: home.status()["in_flight"] == 0), "a request that never ends")
        return growth


def served():
    """A provider in a thread of its own, that listens."""
    provider = Provider()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(provider.start(), loop).result(10)
    return provider


def run(args):
    print(f"seed {args.seed}")
    faults = change(args, served()) + amplify.run(args.tokfence, served())
    for fault in faults[:20]:
        print(f"  {fault}", file=sys.stderr)
    print(f"{len(faults)} faults (seed {args.seed})")
    return 1 if faults else 0


def change(args, provider):
    """Changes requests, then answers; answers what is wrong."""
    with Home(args.tokfence, f"http://127.0.0.1:{provider.port}") as home:
        this = Attack(home, provider, args.seed)
        this.run("warming up", min(WARM_UP, args.requests), True, args.seed + 1000)
        home.settled(lambda: home.status()["in_flight"] == 0)
        resident_kib, files = resident_bytes(home.pid) // 1024, open_files(home.pid)
        statuses = this.run("mutated requests", args.requests, True, args.seed)
        this.expect(statuses["200"] and statuses["400"], "nothing was served, or nothing refused")
        this.check_rows()
        asked = provider.requests
        provider.lie(args.seed)
        statuses = this.run("mutated answers", args.answers, False, args.seed)
        this.expect(provider.requests - asked <= args.answers, "a request was sent twice")
        this.expect(statuses["200"] and statuses["502"], "every answer passed, or none")
        this.check_rows()
        this.flood(args.flood)
        growth = this.check_process(resident_kib, files)
        rows = home.rows("count(*), sum(repeats)")[0]
        print(f"the provider got {provider.requests} requests; the log has {rows[0]} rows for {rows[1]}")
        print(f"{growth} KiB more memory than after the warm-up")
        return this.faults + provider.faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokfence", required=True)
    parser.add_argument("--requests", type=int, default=15_000)
    parser.add_argument("--answers", type=int, default=4_000)
    parser.add_argument("--flood", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    try:
        sys.exit(run(parser.parse_args()))
    except Failure as failure:
        sys.exit(f"tests/attack: {failure}")


if __name__ == "__main__":
    main()
