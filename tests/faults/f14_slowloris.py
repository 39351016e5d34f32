import contextlib
import selectors
import socket
import time

from caller import Load, request_bytes
from process import expect, resident_bytes
from world import eventually

TITLE = "callers that are slow on purpose"
HEAD_S = 12
BODY_S = 62
HONEST_P99_S = 0.1
SHARED_MACHINE = 4
HONEST = 2
FILLING_S = 30


def run(world):
    notes = []
    for kind in (("head", "body", "reader") if world.is_long else ("head",)):
        house = world.house()
        house.start()
        with Load(house, callers=HONEST, pause=0.02) as load:
            eventually("answers", lambda: len(load.acknowledged()) > 20)
            since = len(load.answers)
            attackers = 50 if kind == "reader" else world.pick(200, 1000)
            slowest = ATTACKS[kind](house, attackers)
            honest = sorted(answer.seconds for answer in load.answers[since:])
        expect(not load.broken and set(load.codes()) == {"200"}, f"{kind}: {load.codes()} {load.broken[:3]}")
        p99 = honest[len(honest) * 99 // 100]
        expect(p99 <= HONEST_P99_S * SHARED_MACHINE, f"{kind}: honest callers wait {p99 * 1000:.0f} ms (p99)")
        house.audit(load.answers)
        house.stop()
        world.rounds += attackers
        notes.append(f"{kind}: all {attackers} closed within {slowest:.1f} s, honest p99 {p99 * 1000:.1f} ms")
    return world.rounds, "; ".join(notes)


def slow_head(house, attackers):
    """A byte of a head each second."""
    head = b"GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 1000
    return drip(house, attackers, b"", head, HEAD_S)


def slow_body(house, attackers):
    """A whole head, and a byte of the body each second."""
    whole, _ = request_bytes(house)
    head, _, body = whole.partition(b"\r\n\r\n")
    return drip(house, attackers, head + b"\r\n\r\n", body, BODY_S)


def slow_reader(house, attackers):
    """Asks for an answer without an end, and reads none of it.

    Whether it was left is seen at the provider: to whom nothing can be sent, no end can be sent either.
    """
    host, port = house.address.rsplit(":", 1)
    before = resident_bytes(house.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(attackers):
            whole, _ = request_bytes(house, scene="endless", stream=True)
            sock = stack.enter_context(socket.socket())
            # Set before it connects, so that the kernel does not take megabytes for it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(10)
            sock.connect((host, int(port)))
            sock.sendall(whole)
        started = time.monotonic()
        answered = lambda: house.provider.under_way(house.name)
        eventually("the answers to begin", lambda: answered() >= attackers)
        grown = 0
        while answered() > HONEST:
            waited = time.monotonic() - started
            # Until its buffers are full, a caller that does not read is not seen.
            expect(waited <= BODY_S + FILLING_S, f"{answered()} answers still run after {waited:.0f} s")
            grown = max(grown, resident_bytes(house.pid) - before)
            time.sleep(0.5)
    expect(grown <= attackers << 20, f"{grown >> 20} MiB are held for {attackers} callers that do not read")
    return time.monotonic() - started


ATTACKS = {"head": slow_head, "body": slow_body, "reader": slow_reader}


def drip(house, attackers, first, rest, most_s):
    """Sends `first` at once and `rest` byte by byte, and answers after how long the last connection was closed."""
    host, port = house.address.rsplit(":", 1)
    waiting, started = {}, time.monotonic()
    selector = selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        for _ in range(attackers):
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            sock.sendall(first)
            sock.setblocking(False)
            waiting[sock] = time.monotonic()
            selector.register(sock, selectors.EVENT_READ)
        slowest, sent = 0, 0
        while waiting:
            if time.monotonic() - started > most_s + 15:
                expect(False, f"{len(waiting)} of {attackers} are still connected after {most_s + 15} s")
            tick = started + sent + 1
            while (left := tick - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if is_over(key.fileobj):
                        slowest = max(slowest, close(waiting, selector, key.fileobj))
            for sock in list(waiting):
                try:
                    sock.send(rest[sent % len(rest) : sent % len(rest) + 1])
                except BlockingIOError:
                    continue
                except OSError:
                    slowest = max(slowest, close(waiting, selector, sock))
            sent += 1
    expect(slowest <= most_s, f"the last was closed after {slowest:.1f} s")
    return slowest


def is_over(sock):
    try:
        return not sock.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        return True


def close(waiting, selector, sock):
    selector.unregister(sock)
    return time.monotonic() - waiting.pop(sock)
