"""The provider of the attack: it believes nothing, and remembers what it should never have got."""

import asyncio
import collections
import random
import re
from urllib.parse import unquote_to_bytes

import mutate
import seeds
from home import KEY

# The form in which a path is sent on: each byte that need not be escaped is itself, the others are in upper case.
CANONICAL = re.compile(
    rb"(?:/(?!\.{1,2}(?:[/?]|$))(?:[A-Za-z0-9\-_~.:@!$&'()*+,=]|%(?:[2-9A-F][0-9A-F]))*)+(?:\?[\x21-\x7e]*)?"
)
FORBIDDEN_ESCAPES = re.compile(rb"%(?:2E|2F|5C|25|3B|23|3F|7F|[01][0-9A-F])")
CREDENTIALS = {b"x-api-key", b"x-goog-api-key", b"api-key", b"x-tokfence-capability", b"cookie", b"proxy-authorization"}
FIELDS_ONCE = {b"host", b"authorization", b"content-length", b"content-type"}
HEAD_BYTES_MAX = 128 * 1024


class Provider:
    """Serves in the event loop that it is started in."""

    def __init__(self):
        self.requests = 0
        self.lines = collections.Counter()
        self.faults = []
        # What is answered: this, or one of the seeds, changed.
        self.random = None
        self._answers = list(seeds.answers())
        self.plain = self._answers[0]

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def lie(self, seed):
        """From now on answers are changed."""
        self.random = random.Random(seed)

    async def _serve(self, reader, writer):
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            # The gateway may end a connection whenever it likes, and does when it is lied to.
            pass
        finally:
            writer.close()

    async def _answer(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            if end.partial:
                self._fault("half a head", end.partial)
            return False
        except asyncio.LimitOverrunError:
            self._fault("a head without an end", b"")
            return False
        length = self._judge(head)
        await reader.readexactly(length)
        if self.random is None:
            whole = self.plain
            writer.write(whole[: whole.index(b"\r\n\r\n") + 4] if head.startswith(b"HEAD ") else whole)
            await writer.drain()
            return True
        writer.write(mutate.mutated(self.random, self.random.choice(self._answers), self._answers))
        await writer.drain()
        return False

    def _judge(self, head):
        """Looks at a head; answers how long the body is."""
        self.requests += 1
        line, *fields = head[:-4].split(b"\r\n")
        method, _, rest = line.partition(b" ")
        target, _, version = rest.rpartition(b" ")
        self.lines[method.decode("latin-1"), target.split(b"?")[0].decode("latin-1")] += 1
        if version != b"HTTP/1.1" or not re.fullmatch(rb"GET|HEAD|POST|PUT|PATCH|DELETE", method):
            self._fault("a request line", head)
        if not CANONICAL.fullmatch(target) or FORBIDDEN_ESCAPES.search(target.split(b"?")[0]):
            self._fault("a path that is not canonical", head)
        values = collections.defaultdict(list)
        for field in fields:
            name, colon, value = field.partition(b":")
            if not colon or not re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(rb"[\r\n\0]", value):
                self._fault("a field that is none", head)
            values[name.lower()].append(value.strip())
        if values[b"authorization"] != [b"Bearer " + KEY.encode()] or any(values[name] for name in CREDENTIALS):
            self._fault("a second credential, or another", head)
        query = target.partition(b"?")[2]
        if any(unquote_to_bytes(pair.split(b"=")[0]) == b"key" for pair in query.split(b"&")):
            self._fault("a key in the query", head)
        if any(len(values[name]) > 1 for name in FIELDS_ONCE) or values[b"transfer-encoding"]:
            self._fault("a field twice, or two framings", head)
        if values[b"host"] != [f"127.0.0.1:{self.port}".encode()]:
            self._fault("another host", head)
        return int((values[b"content-length"] or [b"0"])[0])

    def _fault(self, what, head):
        self.faults.append(f"{what}: {bytes(head[:600])!r}")
