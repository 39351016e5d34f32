"""Callers who send mutated requests, each on a connection of its own, and look at what comes back."""

import asyncio
import collections
import random
import re
import time

import mutate
import seeds
from home import KEY

# How many are under way at the same time, in each process.
AT_ONCE = 24
# An incomplete request gets no answer: its caller says that nothing more will come, after this long and some times
# what an answer takes on this machine now. Who says so while he is answered would be taken for one who has left.
PATIENCE_S = 0.1
PATIENCE_TIMES = 5
# And after this long it leaves. Nothing that is said above takes longer.
DEADLINE_S = 20


def attack(job):
    """Runs one process's share: `job` has `address`, `socket`, `token`, `seed`, `count`, and whether to `mutate`."""
    return asyncio.run(_Callers(job).run())


class _Callers:
    def __init__(self, job):
        self.job = job
        self.random = random.Random(job["seed"])
        self.seeds = list(seeds.requests(job["token"]))
        self.posts = [seed for seed in self.seeds if seed.startswith(b"POST") and seed.count(b" HTTP/1.1\r\n") == 1]
        self.left = job["count"]
        self.pace_s = 0.2
        self.statuses = collections.Counter()
        self.faults = []

    async def run(self):
        await asyncio.gather(*(self._caller() for _ in range(AT_ONCE)))
        return self.statuses, self.faults[:20]

    async def _caller(self):
        while self.left > 0:
            self.left -= 1
            await self._ask(self._next())

    def _next(self):
        if self.job["mutate"]:
            return mutate.mutated(self.random, self.random.choice(self.seeds), self.seeds)
        # Only what a provider may never get twice, so that each is counted once.
        return self.random.choice(self.posts)

    async def _ask(self, data):
        try:
            answer = await asyncio.wait_for(self._exchange(data), DEADLINE_S)
        except asyncio.TimeoutError:
            self.faults.append(f"neither an answer nor an end: {data[:600]!r}")
            return
        except OSError:
            self.statuses["reset"] += 1
            return
        self._judge(data, answer)

    async def _exchange(self, data):
        connect = self.random.random() < 0.5
        opened = asyncio.open_connection(*self.job["address"]) if connect else asyncio.open_unix_connection(self.job["socket"])
        reader, writer = await opened
        answer, began, has_ended = b"", time.monotonic(), False
        try:
            writer.write(data)
            while True:
                try:
                    patience = DEADLINE_S if has_ended else PATIENCE_S + PATIENCE_TIMES * self.pace_s
                    part = await asyncio.wait_for(reader.read(65536), patience)
                except asyncio.TimeoutError:
                    if not writer.is_closing():
                        writer.write_eof()
                    has_ended = True
                    continue
                answer += part
                if not part or _is_whole(answer):
                    if not has_ended:
                        self.pace_s += (time.monotonic() - began - self.pace_s) / 16
                    return answer
        finally:
            writer.close()

    def _judge(self, data, answer):
        if not answer:
            self.statuses["closed"] += 1
            return
        line = re.match(rb"HTTP/1\.1 ([1-5]\d\d)[ \r]", _final(answer) or answer)
        if not line:
            self.faults.append(f"no HTTP: {answer[:200]!r} to {data[:600]!r}")
            return
        self.statuses[line.group(1).decode()] += 1
        if KEY.encode() in answer or KEY.encode() in _without_chunks(answer):
            self.faults.append(f"the key: {answer[:2000]!r} to {data[:600]!r}")


def _final(answer):
    """What comes after interim answers."""
    while answer.startswith(b"HTTP/1.1 1"):
        answer = answer.partition(b"\r\n\r\n")[2]
    return answer


def _is_whole(answer):
    """Whether the first answer is there to its end, as far as its length tells."""
    head, end, body = _final(answer).partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    if not end:
        return False
    if length:
        return len(body) >= int(length.group(1))
    return b"\r\ntransfer-encoding: chunked" in head.lower() and body.endswith(b"0\r\n\r\n")


def _without_chunks(answer):
    return re.sub(rb"\r\n[0-9a-f]+\r\n", b"", answer)
