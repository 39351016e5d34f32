"""What an input costs: the time and the memory that the gateway needs for each byte, against an ordinary one of its size."""

import http.client
import socket

import worst
from home import Home
from process import KEEPS_NOTHING, cpu_seconds, expect, forget_peak, peak_bytes, resident_bytes

CPU_TIMES_MAX = 100
MEMORY_TIMES_MAX = 100
# A connection may have a head of this size before anything is known of it, so no input counts as smaller.
MEMORY_FLOOR_BYTES = 64 * 1024
# Sizes of ordinary inputs; what lies between them is taken from the line between their costs.
SIZES = [100, 1_000, 10_000, 50_000, 250_000, 1_000_000]
# The clock of a process has hundredths of a second: an input is repeated until it has run for this long, or this often.
MEASURED_S = 0.05
REPEATS_MAX = 60
LEAST_S = 0.005
MEMORY_REPEATS = 2
TOLD = 5
TIMEOUT_S = 60


def run(binary, provider):
    """Measures everything there is; answers what is wrong."""
    upstream = f"http://127.0.0.1:{provider.port}"
    with Home(binary, upstream) as home:
        times = measured(Meter(home, provider).times())
    with Home(binary, upstream, **KEEPS_NOTHING) as home:
        sizes = measured(Meter(home, provider).sizes())
    tell("time", times)
    tell("memory", sizes)
    faults = [f"{case.name} costs {ratio:.0f} times the time" for ratio, case in times if ratio > CPU_TIMES_MAX]
    return faults + [f"{case.name} takes {ratio:.0f} times its memory" for ratio, case in sizes if ratio > MEMORY_TIMES_MAX]


def measured(costs):
    """The dearest first."""
    return sorted(costs, key=lambda cost: -cost[0])


def inputs(token):
    yield from worst.corpus(token)
    yield from worst.worst(token)


def ordinary(token):
    yield [worst.ordinary_request(token, size) for size in SIZES]
    yield [worst.ordinary_answer(token, size) for size in SIZES]


def cost(reference, size):
    """What an ordinary input of this size costs."""
    below = max((one for one in reference if one[0] <= size), default=reference[0])
    above = min((one for one in reference if one[0] > size), default=reference[-1])
    if above[0] == below[0]:
        return below[1] * max(1, size / below[0])
    return below[1] + (above[1] - below[1]) * max(0, size - below[0]) / (above[0] - below[0])


def tell(what, costs):
    print(f"what costs most {what}, of {len(costs)} inputs:")
    for ratio, case in costs[:TOLD]:
        print(f"  {ratio:6.1f} times  {case.bytes:7} bytes  {case.name}")


class Meter:
    def __init__(self, home, provider):
        self.home, self.provider = home, provider

    def times(self):
        """What each input costs, in times of an ordinary one."""
        for _ in range(2):
            # The first time it is what fills pools and caches.
            references = [[(case.bytes, self._cpu(case)) for case in cases] for cases in ordinary(self.home.token)]
        for case in inputs(self.home.token):
            yield self._cpu(case) / cost(references[case.is_answer], case.bytes), case
        expect(self.home.is_alive(), "the gateway is gone")

    def sizes(self):
        """What each input needs, in times of its size."""
        for cases in ordinary(self.home.token):
            for case in cases:
                self._ask(case)
        pid = self.home.pid
        for case in inputs(self.home.token):
            base = resident_bytes(pid)
            forget_peak(pid)
            for _ in range(MEMORY_REPEATS):
                self._ask(case)
            yield max(0, peak_bytes(pid) - base) / max(case.bytes, MEMORY_FLOOR_BYTES), case
        expect(self.home.is_alive(), "the gateway is gone")

    def _cpu(self, case):
        """The time that the gateway computes for one such input."""
        began, count = cpu_seconds(self.home.pid), 0
        while count < REPEATS_MAX and (count < 2 or cpu_seconds(self.home.pid) - began < MEASURED_S):
            self._ask(case)
            count += 1
        return max(cpu_seconds(self.home.pid) - began, LEAST_S) / count

    def _ask(self, case):
        self.provider.plain = case.answer
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(self.home.socket)
            try:
                sock.sendall(case.request)
                response = http.client.HTTPResponse(sock, method=case.request.partition(b" ")[0].decode())
                response.begin()
                response.read()
            except (ConnectionError, http.client.HTTPException):
                # It may be refused before all of it is sent, and an answer that is none be cut off.
                pass
