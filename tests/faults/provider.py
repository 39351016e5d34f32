"""A provider that plays scenes, good and bad, and remembers what it was asked and what it may bill."""

import contextlib
import itertools
import json
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter, defaultdict

INPUT_TOKENS, OUTPUT_TOKENS = 10, 300
# Nano-dollars a token: 0.15 and 0.60 dollars a million, as the provider's price page says of gpt-4o-mini.
COST_NANO_USD = INPUT_TOKENS * 150 + OUTPUT_TOKENS * 600
USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}
_ASKED = re.compile(rb"house=(\w+) number=(\d+) scene=(\w+)")


def json_answer(body=None):
    if body is None:
        message = {"role": "assistant", "content": "hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"model": "gpt-4o-mini", "choices": [choice], "usage": USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(document):
    return chunk(b"data: " + json.dumps(document).encode() + b"\n\n")


def content_event(text):
    return event({"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": text}}]})


def stream_end():
    done = {"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"model": "gpt-4o-mini", "choices": [], "usage": USAGE}
    return event(done) + event(usage) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def plain(connection):
    connection.sendall(json_answer())
    return True


def stream(connection):
    """Twenty events and an end."""
    connection.sendall(STREAM_HEAD)
    for number in range(20):
        connection.sendall(content_event(f"word {number} "))
    connection.sendall(stream_end())
    return True


def slow(connection):
    """The same, over two seconds."""
    connection.sendall(STREAM_HEAD)
    for number in range(20):
        connection.sendall(content_event(f"word {number} "))
        time.sleep(0.1)
    connection.sendall(stream_end())
    return True


def endless(connection):
    """Events as long as somebody takes them."""
    connection.sendall(STREAM_HEAD)
    for number in range(1_000_000):
        connection.sendall(content_event(f"word {number} " + "x" * 4000))
    return False


def held(connection):
    """An event, and then nothing until the gateway leaves."""
    connection.sendall(STREAM_HEAD + content_event("first "))
    wait_for_end(connection)
    return False


def silent(connection):
    wait_for_end(connection)
    return False


def wait_for_end(connection):
    connection.settimeout(120)
    try:
        while connection.recv(65536):
            pass
    except OSError:
        pass


def reset(connection):
    """Ends a connection with a reset, which a close does only with nothing to linger for."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return False


# What bills a request: an answer that went out whole.
WHOLE = {"plain", "stream", "slow", "paced"}
PACE_S = 0.5


class Provider:
    def __init__(self):
        self.scenes = {"plain": plain, "stream": stream, "slow": slow, "endless": endless, "held": held, "silent": silent}
        self.scenes["paced"] = self._paced
        # Set when what is paced shall come to its end.
        self.ending = threading.Event()
        self._lock = threading.Lock()
        self._received = defaultdict(Counter)
        self._billed = Counter()
        self._open = Counter()
        self._idle = set()
        provider = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                provider._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_):
                pass  # a gateway that is killed, or cuts a stream, leaves like this

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()

    def received(self, house):
        """How many requests of this house arrived."""
        with self._lock:
            return self._received[house].total()

    def has_received(self, house, number):
        with self._lock:
            return self._received[house][number]

    def sent_twice(self, house):
        with self._lock:
            return [number for number, times in self._received[house].items() if times > 1]

    def billed(self, house):
        with self._lock:
            return self._billed[house]

    def under_way(self, house):
        """How many of its requests are being answered."""
        with self._lock:
            return self._open[house]

    def close_idle(self):
        """Closes the connections that wait for a request, as a provider does after a while."""
        with self._lock:
            idle = list(self._idle)
        for connection in idle:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _paced(self, connection):
        """An event now and then for as long as the test likes, and an end."""
        connection.sendall(STREAM_HEAD)
        for number in itertools.count():
            connection.sendall(content_event(f"word {number} "))
            if self.ending.wait(PACE_S):
                break
        connection.sendall(stream_end())
        return True

    def _serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffered = b""
        while True:
            with self._lock:
                self._idle.add(connection)
            try:
                request, buffered = read_request(connection, buffered)
            finally:
                with self._lock:
                    self._idle.discard(connection)
            if request is None:
                return
            asked = _ASKED.search(request)
            house, number, name = (part.decode() for part in asked.groups()) if asked else ("", "0", "plain")
            with self._lock:
                self._received[house][int(number)] += 1
                self._open[house] += 1
            try:
                goes_on = self.scenes[name](connection)
                if name in WHOLE:
                    with self._lock:
                        self._billed[house] += COST_NANO_USD
            finally:
                with self._lock:
                    self._open[house] -= 1
            if not goes_on:
                return


def read_request(connection, buffered):
    """A whole request, and what followed it; none at the end."""
    while b"\r\n\r\n" not in buffered:
        data = connection.recv(65536)
        if not data:
            return None, b""
        buffered += data
    head, _, rest = buffered.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    wanted = int(length.group(1)) if length else 0
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        while not rest.endswith(b"0\r\n\r\n"):
            data = connection.recv(65536)
            if not data:
                return None, b""
            rest += data
        return head + b"\r\n\r\n" + rest, b""
    while len(rest) < wanted:
        data = connection.recv(65536)
        if not data:
            return None, b""
        rest += data
    return head + b"\r\n\r\n" + rest[:wanted], rest[wanted:]
