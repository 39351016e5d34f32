"""Inputs that were made to cost much: requests and answers of about the same size."""

import gzip
import json
import random
import zlib
from dataclasses import dataclass

import seeds
from home import KEY

BYTES = 256 * 1024
# What a request in chunks may have, and a head.
CHUNKED_BYTES, HEAD_BYTES = 60 * 1024, 60 * 1024
JSON_TYPE, SSE_TYPE = "Content-Type: application/json", "Content-Type: text/event-stream"
# All but the end of what is looked for.
ALMOST = KEY[:-1]


@dataclass(frozen=True)
class Case:
    """A request and what the provider answers. What an ordinary one of its size costs depends on which of both it is about."""

    name: str
    request: bytes
    answer: bytes
    is_answer: bool = False

    @property
    def bytes(self):
        return len(self.request) + len(self.answer)


def plain_answer():
    return next(seeds.answers())


def chat(token, content="hi", **more):
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]} | more


def post(token, body, *fields):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return seeds.request(f"POST {seeds.CHAT}", token, JSON_TYPE, *fields, body=body)


def ordinary_request(token, size):
    words = "The capital of France is Paris, and it has been so for long. "
    return Case(f"text of {size}", post(token, chat(token, (words * (size // len(words) + 1))[:size])), plain_answer())


def ordinary_answer(token, size):
    one = event({"content": " capital"})
    return answered(f"events of {size}", token, one * max(1, size // len(one)))


def corpus(token):
    for number, request in enumerate(seeds.requests(token)):
        yield Case(f"request {number} of the corpus: {request[:60]!r}", request, plain_answer())
    for number, answer in enumerate(seeds.answers()):
        yield Case(f"answer {number} of the corpus", post(token, chat(token)), answer, is_answer=True)


def worst(token):
    yield from _bodies(token)
    yield from _heads(token)
    yield from _answers(token)


def _bodies(token):
    def body(name, value):
        return Case(name, post(token, value), plain_answer())

    nest = b"[" * 60 + b"]" * 60
    for name, piece in {
        "arrays in arrays": nest,
        "objects in objects": b'{"a":' * 60 + b"1" + b"}" * 60,
        "empty arrays": b"[]",
        "numbers": b"1",
        "numbers of 300 digits": b"1" * 300,
        "numbers with exponents": b"1.5e-300",
        "empty texts": b'""',
        "texts of a letter": b'"a"',
    }.items():
        metadata = b"[" + b",".join([piece] * (BYTES // (len(piece) + 1))) + b"]"
        yield body(name, json.dumps(chat(token)).encode()[:-1] + b',"metadata":' + metadata + b"}")
    for name, text in {
        "one number": b"1" * BYTES,
        "one number behind a point": b"0." + b"1" * BYTES,
        "brackets that are never closed": b"[" * BYTES,
        "a text that is never closed": b'"' + b"a" * BYTES,
        "spaces": b" " * BYTES + b"1",
        "escapes": b'"' + b"\\u0061" * (BYTES // 6) + b'"',
        "pairs of surrogates": b'"' + b"\\ud83d\\ude00" * (BYTES // 12) + b'"',
        "backslashes": b'"' + b"\\\\" * (BYTES // 2) + b'"',
    }.items():
        yield body(name, json.dumps(chat(token)).encode()[:-1] + b',"metadata":' + text + b"}")
    for name, text in {
        "nearly a key": ALMOST,
        "the beginning of a key": KEY[:4],
        "a key with spaces between": " ".join(ALMOST) + " ",
        "a key in escapes": "".join(f"\\u{ord(letter):04x}" for letter in ALMOST),
        "hexadecimal": KEY.encode().hex()[:-2],
        "base64": "c2stcmVhbC1vcGVuYWktMFNFTlRJTkVM",
        "percent escapes": "".join(f"%{ord(letter):02x}" for letter in ALMOST),
        "letters beyond ASCII": "é\U0001f600",
        "a picture": "data:image/png;base64,iVBORw0KGgo",
    }.items():
        yield body(f"content: {name}", chat(token, text * (BYTES // len(text.encode()))))
    many = BYTES // 12
    yield body("many keys", chat(token, metadata={f"k{number}": 1 for number in range(many)}))
    yield body("many keys at the top", chat(token) | {f"k{number}": 1 for number in range(many)})
    same = b"{" + b",".join([b'"a":1'] * (BYTES // 6)) + b"}"
    yield body("one key many times", json.dumps(chat(token)).encode()[:-1] + b',"metadata":' + same + b"}")
    yield body("keys in escapes", json.dumps(chat(token, metadata={chr(1000 + n) * 3: 1 for n in range(10_000)})).encode())
    messages = [{"role": "user", "content": "a"}] * (BYTES // 34)
    yield body("many messages", {"model": "gpt-4o-mini", "messages": messages})
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    yield body("many tools", chat(token, tools=[tool] * (BYTES // 74)))
    yield body("many stops", chat(token, stop=["a"] * (BYTES // 5)))


def _heads(token):
    def get(name, target, *fields):
        return Case(name, seeds.request(f"GET {target}", token, *fields), plain_answer())

    yield get("many fields", "/openai/v1/models", *(f"x-{number}: {number}" for number in range(90)))
    yield get("long fields", "/openai/v1/models", *(f"x-{number}: {'a' * 600}" for number in range(90)))
    yield get("one field many times", "/openai/v1/models", *(f"Accept: {'a' * 600}" for _ in range(90)))
    few = [f"x{number}: 1" for number in range(90)]
    yield get("a list of connection", "/openai/v1/models", "Connection: " + "a," * (HEAD_BYTES // 2), *few)
    named = ",".join(f"x{number % 90}" for number in range(HEAD_BYTES // 4))
    yield get("a list of connection that names each field", "/openai/v1/models", f"Connection: {named}", *few)
    names = ",".join(f"{number:x}" for number in range(HEAD_BYTES // 5))
    yield get("a list of connection of many names", "/openai/v1/models", f"Connection: {names}", *few)
    yield get("commas", "/openai/v1/models", "Accept: " + "," * HEAD_BYTES)
    for size in (2_000, 7_000, 30_000):
        yield get(f"a path of {size} in escapes", "/openai/v1/models/" + "%61" * (size // 3))
        yield get(f"a path of {size} in slashes", "/openai/v1/models" + "/a" * (size // 2))
        yield get(f"a query of {size}", "/openai/v1/models?" + "a=b&" * (size // 4))
    one_by_one = json.dumps(chat(token, "a" * CHUNKED_BYTES)).encode()
    chunks = b"".join(b"1\r\n" + one_by_one[at : at + 1] + b"\r\n" for at in range(len(one_by_one))) + b"0\r\n\r\n"
    yield Case("chunks of a byte", post(token, b"", "Transfer-Encoding: chunked") + chunks, plain_answer())
    pipelined = seeds.request("GET /__tokfence/health", token)
    yield Case("many requests at once", pipelined * 500, plain_answer())


def event(delta):
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def answered(name, token, body, *fields, kind=SSE_TYPE, in_chunks_of=0):
    """A stream whose answer is `body`, unless it is of another `kind`."""
    request = post(token, chat(token, stream=kind == SSE_TYPE))
    head = "\r\n".join(["HTTP/1.1 200 OK", kind, *fields, ""])
    if in_chunks_of:
        parts = [body[at : at + in_chunks_of] for at in range(0, len(body), in_chunks_of)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        return Case(name, request, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body, is_answer=True)
    return Case(name, request, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, is_answer=True)


def _answers(token):
    for name, piece in {
        "empty events": b"data: {}\n\n",
        "comments": b":\n\n",
        "empty lines": b"\n",
        "lines of data": b"data:\n",
        "lines without a colon": b"a\n",
        "events of a letter": event({"content": "a"}),
        "events of the letters of a key": b"".join(event({"content": letter}) for letter in ALMOST),
        "arguments of a letter": event({"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}),
        "tools without end": b"".join(event({"tool_calls": [{"index": n, "function": {"arguments": "a"}}]}) for n in range(300)),
        "usage in each event": b'data: {"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
    }.items():
        yield answered(f"answer: {name}", token, piece * (BYTES // len(piece) + 1))
    for name, text in {
        "nearly a key": ALMOST.encode(),
        "a key with spaces between": " ".join(ALMOST).encode() + b" ",
        "escapes": b"\\u0061",
        "a key in escapes": b"".join(b"\\u%04x" % ord(letter) for letter in ALMOST),
        "whole keys": KEY.encode() + b" ",
    }.items():
        whole = b'{"choices":[{"index":0,"message":{"content":"' + text * (BYTES // len(text)) + b'"}}]}'
        yield answered(f"answer: {name}", token, whole, kind=JSON_TYPE)
        yield answered(f"one event: {name}", token, b"data: " + whole + b"\n\n")
    yield answered("answer: brackets", token, b"[" * BYTES, kind=JSON_TYPE)
    yield answered("answer: one number", token, b"1" * BYTES, kind=JSON_TYPE)
    yield answered("answer: keys", token, json.dumps({f"k{n}": n for n in range(BYTES // 16)}).encode(), kind=JSON_TYPE)
    letters = event({"content": " capital"}) * 600
    yield answered("answer: chunks of a byte", token, letters, in_chunks_of=1)
    yield answered("answer: chunks of a byte, nearly a key", token, event({"content": ALMOST}) * 300, in_chunks_of=1)
    fields = [f"x-{number}: {ALMOST}" for number in range(200)]
    yield answered("answer: many fields", token, event({"content": "a"}), *fields)
    named = ",".join(f"x{number % 90}" for number in range(12_000))
    fields = [f"Connection: {named}", *(f"x{number}: 1" for number in range(90))]
    yield answered("answer: a list of connection", token, event({"content": "a"}), *fields)
    coded = "Content-Encoding: gzip"
    # As much as may be: what is read at once means a little less than forty times its size.
    noise = b": " + random.Random(0).randbytes(48_000).hex().encode() + b"\n\n"
    yield answered("compressed: almost too much", token, gzip.compress(noise + letters * 55), coded)
    yield answered("compressed: almost too much, often", token, gzip.compress(noise + letters * 55) * 10, coded)
    for name, text, kind in (
        ("events", letters, SSE_TYPE),
        ("spaces", b" " * (8 << 20), JSON_TYPE),
        ("nearly a key", ALMOST.encode() * 200_000, JSON_TYPE),
        ("empty events", b"data: {}\n\n" * 800_000, SSE_TYPE),
        ("brackets", b"[" * (8 << 20), JSON_TYPE),
    ):
        yield answered(f"compressed: {name}", token, gzip.compress(text), coded, kind=kind)
    deflated = zlib.compress(letters)
    yield answered("compressed: deflate", token, deflated, "Content-Encoding: deflate")
