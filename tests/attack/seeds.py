"""Requests and answers as they should be, before something is done to them."""

import gzip
import json

from home import KEY

CHAT = "/openai/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]


def request(line, token, *fields, body=b""):
    head = [f"{line} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *fields]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _bodies():
    plain = {"model": "gpt-4o-mini", "messages": MESSAGES}
    yield plain
    yield plain | {"stream": True}
    yield plain | {"stream": True, "stream_options": {"include_usage": False}, "max_tokens": 16}
    yield plain | {"temperature": 0.5, "n": 2, "max_completion_tokens": 1000, "stop": ["\n", "é", "\ud83d\ude00"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    yield plain | {"tools": [tool], "tool_choice": "auto", "metadata": {"a": [1, [2, [3, {"b": None}]]]}}


def _targets():
    yield from ("/openai/v1/models", "/openai/v1/models/gpt-4o", "/openai/v1/models?limit=2&after=a%2Fb")
    yield from ("/__tokfence/health", "/openai/v1/models/gpt%2d4o", "/openai/v1/responses/resp_1")


def requests(token):
    """138 of them: every body in every framing, every target in every way to present a capability."""
    json_type = "Content-Type: application/json"
    for document in _bodies():
        for body in (json.dumps(document).encode(), json.dumps(document, ensure_ascii=True, indent=1).encode()):
            for extra in ((), ("Expect: 100-continue",), ("Connection: close",), ("X-Stainless-Lang: js",)):
                yield request(f"POST {CHAT}", token, json_type, *extra, body=body)
            chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
            yield request(f"POST {CHAT}", token, json_type, "Transfer-Encoding: chunked") + chunks
            twice = request(f"POST {CHAT}", token, json_type, body=body)
            yield twice + request("GET /openai/v1/models", token)
    for target in _targets():
        for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
            yield request(f"{method} {target}", token)
        for place in ("x-api-key: ", "x-goog-api-key: ", "api-key: ", "X-Tokfence-Capability: "):
            yield f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{place}{token}\r\n\r\n".encode()
        joint = "&" if "?" in target else "?"
        yield f"GET {target}{joint}key={token} HTTP/1.1\r\nHost: [::1]\r\n\r\n".encode()
        for extra in ("Upgrade: websocket", "Origin: http://evil.test", "Cookie: a=b", "Connection: X-Api-Key"):
            yield request(f"GET {target}", token, extra)


def answer(status, fields, body):
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _chunked(fields, parts):
    head = f"HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode()
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return head + chunks + b"0\r\n\r\n"


def answers():
    """Answers of a provider; in some it tells the key that it was asked with."""
    kind = "Content-Type: application/json\r\n"
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    message = {"role": "assistant", "content": "Paris"}
    whole = {"id": "c", "model": "gpt-4o-mini", "choices": [{"index": 0, "message": message}], "usage": usage}
    text = json.dumps(whole).encode()
    telling = text.replace(b"Paris", KEY.encode())
    yield answer("200 OK", kind, text)
    yield answer("200 OK", kind, telling)
    yield answer("200 OK", kind + "Content-Encoding: gzip\r\n", gzip.compress(telling))
    yield answer("401 Unauthorized", kind, json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}}).encode())
    yield answer("302 Found", f"Location: http://evil.test/?k={KEY}\r\nSet-Cookie: k={KEY}\r\nX-Debug: {KEY}\r\n", b"")
    yield answer("200 OK", "Content-Type: text/html\r\n", f"<p>{KEY}</p>".encode())
    yield b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + answer("200 OK", kind, text)
    yield b"HTTP/1.1 204 No Content\r\n\r\n"
    for said in ("Paris", KEY):
        deltas = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in (said[:5], said[5:9], said[9:])]
        events = [b"data: " + json.dumps(delta).encode() + b"\n\n" for delta in deltas]
        events += [b'data: {"choices":[],"usage":' + json.dumps(usage).encode() + b"}\n\n", b"data: [DONE]\n\n"]
        yield _chunked("Content-Type: text/event-stream\r\n", events)
