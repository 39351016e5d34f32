"""Whoever calls the gateway, and what it remembers of its answers."""

import contextlib
import http.client
import itertools
import json
import re
import socket
import threading
import time
from dataclasses import dataclass

from process import expect

_numbers = itertools.count(1)


def chat(provider):
    return f"/{provider}/v1/chat/completions"


@dataclass(frozen=True)
class Answer:
    """One that was read to its end, which is what acknowledges a request."""

    number: int
    status: int
    id: str
    code: str | None
    body: bytes
    seconds: float


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Caller:
    """One connection, made anew when it breaks; to the socket, or to the port where `is_tcp`."""

    def __init__(self, house, timeout=30, provider="openai", is_tcp=False):
        self._house, self._timeout, self._provider, self._is_tcp = house, timeout, provider, is_tcp
        self._connection = None

    def ask(self, scene="plain", stream=False, max_tokens=300):
        """A chat request that the provider answers as `scene` says. Raises when it has no whole answer."""
        number = next(_numbers)
        body = request_body(self._house, number, scene, stream, max_tokens)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._house.token}"}
        return self._exchange("POST", chat(self._provider), body, headers, number)

    def health(self):
        return self._exchange("GET", "/__tokfence/health", None, {}, 0)

    def attenuate(self, token=None):
        """A capability made from the caller's own, which the gateway has to have on the disk before it answers."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token or self._house.token}"}
        return self._exchange("POST", "/__tokfence/capabilities/attenuate", b'{"note":"made under a fault"}', headers, 0)

    def close(self):
        if self._connection:
            self._connection.close()
            self._connection = None

    def _connect(self):
        if self._is_tcp:
            return http.client.HTTPConnection(self._house.address, timeout=self._timeout)
        return UnixConnection(self._house.socket, self._timeout)

    def _exchange(self, method, path, body, headers, number):
        started = time.monotonic()
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return answer_of(response, text, number, started)


def answer_of(response, text, number, started):
    identity = response.getheader("x-tokfence-request-id", "")
    seconds = time.monotonic() - started
    return Answer(number, response.status, identity, code_of(response.status, text), text, seconds)


def read_answer(sock, number, started):
    """The answer to a request that was sent over a bare connection."""
    with http.client.HTTPResponse(sock) as response:
        response.begin()
        return answer_of(response, response.read(), number, started)


def request_body(house, number, scene="plain", stream=False, max_tokens=300, padding=0):
    content = f"house={house.name} number={number} scene={scene}." + (" and more" * (padding // 9 + 1))[:padding]
    document = {"model": "gpt-4o-mini", "max_tokens": max_tokens, "messages": [{"role": "user", "content": content}]}
    if stream:
        document["stream"] = True
    return json.dumps(document).encode()


def request_bytes(house, scene="plain", stream=False, body_bytes=0):
    """A whole request as it goes over the wire, for those who send it in pieces, and its number.

    Its body has at least `body_bytes`, what is missing is text.
    """
    number = next(_numbers)
    body = request_body(house, number, scene, stream)
    body = request_body(house, number, scene, stream, padding=max(0, body_bytes - len(body)))
    head = (
        f"POST {chat('openai')} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {house.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body, number


def connect(house, timeout=30):
    """A bare connection to the gateway."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    sock.connect(str(house.socket))
    return sock


def code_of(status, text):
    if status < 400:
        return None
    try:
        return json.loads(text)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None


class Load:
    """Callers that ask until they are told to stop. `answers` are whole ones, `broken` what had none.

    With `both_ways` every other caller comes over TCP, and connects anew for each request.
    """

    def __init__(self, house, callers=4, pause=0.01, timeout=30, both_ways=False, **request):
        self.answers, self.broken = [], []
        self._house, self._pause, self._timeout, self._request = house, pause, timeout, request
        self._over = threading.Event()
        ways = [both_ways and number % 2 == 1 for number in range(callers)]
        self._threads = [threading.Thread(target=self._ask_on, args=(is_tcp,), daemon=True) for is_tcp in ways]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def acknowledged(self):
        return [answer for answer in self.answers if answer.status == 200]

    def codes(self, since=0):
        """How often each outcome was seen."""
        counts = {}
        for answer in self.answers[since:]:
            name = answer.code or str(answer.status)
            counts[name] = counts.get(name, 0) + 1
        return counts

    def _ask_on(self, is_tcp):
        caller = self._house.caller(timeout=self._timeout, is_tcp=is_tcp)
        with contextlib.closing(caller):
            while not self._over.is_set():
                try:
                    self.answers.append(caller.ask(**self._request))
                    if is_tcp:
                        caller.close()
                except (OSError, http.client.HTTPException) as error:
                    self.broken.append(error)
                    self._over.wait(0.02)
                self._over.wait(self._pause)


class Stream(threading.Thread):
    """One streamed answer, read to its end beside everything else: its body, or the error that it ended with."""

    def __init__(self, house, scene="held"):
        super().__init__(daemon=True)
        self.body, self.error = b"", None
        self._house, self._scene = house, scene
        self.start()

    def run(self):
        with contextlib.closing(self._house.caller(timeout=180)) as caller:
            try:
                self.body = caller.ask(scene=self._scene, stream=True).body
            except (OSError, http.client.HTTPException) as error:
                self.error = error


def expect_whole(stream):
    """A paced stream that has every event in its order, and its end."""
    words = [int(word) for word in re.findall(rb"word (\d+) ", stream.body)]
    whole = words == list(range(len(words))) and words and stream.body.endswith(b"data: [DONE]\n\n")
    expect(whole, f"a broken stream: {stream.error} {stream.body[-300:]!r}")
