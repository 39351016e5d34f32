import contextlib
import http.client
import socket
import socketserver
import ssl
import threading
import time

import certificates
from caller import connect, request_bytes
from provider import STREAM_HEAD, chunk, content_event, json_answer, reset, wait_for_end
from process import expect, open_files
from world import eventually

TITLE = "providers that fail in every way"
LIMITS = 'connect_timeout = "2s"\nfirst_byte_timeout = "1s"\nidle_timeout = "1s"'
# The longest of the limits, and what a loaded machine adds.
END_S = 6
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def sends(*pieces, then=lambda connection: False):
    """A scene that sends these and ends like that."""

    def scene(connection):
        for piece in pieces:
            connection.sendall(piece)
        return then(connection)

    return scene


def hangs_up(connection):
    connection.close()
    return False


def byte_a_second(connection):
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n":
        connection.sendall(bytes([byte]))
        time.sleep(0.9)
    return False


def endless_head(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(1_000_000):
        connection.sendall(b"X-%d: %s\r\n" % (number, b"a" * 1000))
    return False


def endless_body(connection):
    connection.sendall(STREAM_HEAD)
    for _ in range(1_000_000):
        connection.sendall(chunk(b"data: " + b"x" * 8000 + b"\n\n"))
    return False


# What is seen of each: an answer with one of these codes, or `broken` where a part of an answer was passed on already.
# `200` where the answer is whole as far as anybody can tell.
SCENES = {
    "reset": (reset, {"upstream_reset"}),
    "closes": (hangs_up, {"upstream_reset"}),
    "halfhead": (sends(b"HTTP/1.1 200 OK\r\nContent-Ty"), {"upstream_reset"}),
    "halfbody": (sends(JSON, b'Content-Length: 100\r\n\r\n{"choices":['), {"broken"}),
    "halfbodyreset": (sends(JSON, b'Content-Length: 100\r\n\r\n{"choices":[', then=reset), {"broken", "upstream_reset"}),
    "hangs": (lambda connection: wait_for_end(connection) or False, {"upstream_timeout"}),
    "hangsinbody": (sends(JSON, b"Content-Length: 100\r\n\r\n{", then=lambda c: wait_for_end(c) or False), {"broken"}),
    "byteasecond": (byte_a_second, {"upstream_timeout", "upstream_reset"}),
    "garbage": (sends(bytes(range(128, 256)) * 4 + b"\r\n\r\n"), {"upstream_reset"}),
    "ssh": (sends(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), {"upstream_reset"}),
    "http09": (sends(b"<html>hello</html>"), {"upstream_reset"}),
    "continues": (sends(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, json_answer()), {"upstream_reset", "200"}),
    "bighead": (sends(JSON, b"X-Big: " + b"a" * (2 << 20) + b"\r\n\r\n"), {"upstream_reset"}),
    "endlesshead": (endless_head, {"upstream_reset"}),
    "badchunk": (sends(STREAM_HEAD, content_event("a "), b"zz\r\nnonsense\r\n"), {"broken"}),
    # In one piece: what a provider sends while the next request is on its way already is an answer as good as any.
    "toolong": (sends(JSON + b"Content-Length: 2\r\n\r\n{}" + json_answer(b'{"poison":1}')), {"200"}),
    "tooshort": (sends(JSON, b"Content-Length: 1000\r\n\r\n{}"), {"broken"}),
    "nobody": (sends(b"HTTP/1.1 204 No Content\r\n\r\n" + json_answer(b'{"poison":1}')), {"204", "upstream_reset"}),
}


def run(world):
    world.provider.scenes |= {name: scene for name, (scene, _) in SCENES.items()} | {"endlessbody": endless_body}
    with Elsewhere(world.folder / "f10") as elsewhere:
        house = world.house(provider=LIMITS, tables=elsewhere.tables())
        house.start()
        warm_up(house)
        files = open_files(house.pid)
        rounds = world.pick(3, 200)
        for name, (_, expected) in SCENES.items():
            # One that takes its time is tried as often at once.
            attempts(world, house, name, expected, rounds)
        for provider, expected in elsewhere.expected.items():
            attempts(world, house, provider, expected, rounds, provider=provider)
        leave_endless(world, house, rounds)
        eventually("files to be closed", lambda: open_files(house.pid) <= files + 2)
        house.audit([])
        unsent = [row for row in house.rows().values() if row["provider"] in elsewhere.unsent and row["cost_nano_usd"]]
        expect(not unsent, f"{len(unsent)} requests that were never sent are charged")
        house.stop()
    return world.rounds, f"{len(SCENES)} scenes, {len(elsewhere.expected)} other addresses, and an answer without an end"


def warm_up(house):
    with contextlib.closing(house.caller()) as caller:
        for _ in range(5):
            expect(caller.ask().status == 200, "not served at first")


def attempts(world, house, name, expected, rounds, provider="openai"):
    at_once = min(rounds, 20)
    seen, slowest = [], []

    def attempt():
        caller = house.caller(timeout=END_S * 3, provider=provider)
        with contextlib.closing(caller):
            for _ in range(rounds // at_once):
                began = time.monotonic()
                seen.append(outcome(caller, name if provider == "openai" else "plain"))
                slowest.append(time.monotonic() - began)

    threads = [threading.Thread(target=attempt) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.rounds += len(seen)
    expect(set(seen) <= expected, f"{name}: expected {sorted(expected)}, seen {sorted(set(seen))}")
    expect(max(slowest) <= END_S, f"{name}: took {max(slowest):.1f} s")
    with contextlib.closing(house.caller()) as caller:
        answer = caller.ask()
        expect(answer.status == 200 and b"poison" not in answer.body, f"after {name} the next answer is {answer}")


def outcome(caller, scene):
    try:
        answer = caller.ask(scene=scene)
    except (OSError, http.client.HTTPException):
        return "broken"
    if b"poison" in answer.body:
        return "poison"
    return answer.code or str(answer.status)


def leave_endless(world, house, rounds):
    """An answer without an end goes on as long as its caller reads, and ends when he leaves."""
    for _ in range(rounds):
        whole, _ = request_bytes(house, scene="endlessbody", stream=True)
        with contextlib.closing(connect(house)) as sock:
            sock.sendall(whole)
            received = 0
            while received < 1 << 20:
                received += len(sock.recv(1 << 16))
        eventually("the provider to be left", lambda: world.provider.under_way(house.name) == 0, 5)
        world.rounds += 1


class Elsewhere:
    """Addresses that are no provider: nobody there, resets, and TLS that must not be trusted."""

    expected = {
        "refused": {"upstream_unreachable"},
        "resets": {"upstream_reset", "upstream_unreachable"},
        "tlsgarbage": {"upstream_tls"},
        "tlsresets": {"upstream_tls", "upstream_unreachable", "upstream_reset"},
        "tlsselfsigned": {"upstream_tls"},
        "tlsexpired": {"upstream_tls"},
        "tlswrongname": {"upstream_tls"},
        "tlssilent": {"upstream_tls", "upstream_timeout", "upstream_unreachable"},
    }
    # Nothing of a request is ever sent there.
    unsent = {"refused", "tlsgarbage", "tlsresets", "tlsselfsigned", "tlsexpired", "tlswrongname", "tlssilent"}

    def __init__(self, folder):
        self._authority = certificates.Authority(folder)
        self._servers = []
        self._ports = {
            "refused": unused_port(),
            "resets": self._serve(reset),
            "tlsgarbage": self._serve(lambda connection: connection.sendall(b"\x16\x03\x01\xff\xff" + b"x" * 4096)),
            "tlsresets": self._serve(reset),
            "tlsselfsigned": self._serve_tls(self._authority.self_signed()),
            "tlsexpired": self._serve_tls(self._authority.expired()),
            "tlswrongname": self._serve_tls(self._authority.of_another_name()),
            "tlssilent": self._serve(wait_for_end),
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.shutdown()

    def tables(self):
        text = ""
        for name, port in self._ports.items():
            scheme = "https" if name.startswith("tls") else "http"
            ca = f'ca_file = "{self._authority.file}"\n' if scheme == "https" else ""
            text += f'[providers.{name}]\nupstream = "{scheme}://localhost:{port}"\nwire = "openai"\n'
            text += f'auth = "none"\nlocal = true\n{LIMITS}\n{ca}'
        return text

    def _serve(self, scene):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                scene(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_):
                pass

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)
        return server.server_address[1]

    def _serve_tls(self, files):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)

        def scene(connection):
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(65536)
                secured.sendall(json_answer())

        return self._serve(scene)


def unused_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
