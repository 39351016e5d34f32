"""The mock provider, and a relay in front of it that keeps the bytes the gateway really sent."""

import json
import re
import socket
import socketserver
import threading
import urllib.request

# What to say for an answer that takes ten seconds unless somebody ends it: 500 pieces of 800 letters, of which none is
# like another, as agents stop by themselves when a model repeats itself.
LONG_QUESTION = "TELL_ME_EVERYTHING"
LONG_FIXTURE = {
    "match": {"userMessage": LONG_QUESTION},
    "latency": 20,
    "chunkSize": 800,
    "response": {
        "content": "".join(f"Fact {number} is {number * number:x}. " for number in range(25_000))[: 500 * 800],
        "usage": {"prompt_tokens": 1000, "input_tokens": 1000, "promptTokenCount": 1000, "output_tokens": 1},
    },
}

CREDENTIAL_HEADERS = {"authorization", "x-api-key", "x-goog-api-key", "api-key", "xi-api-key"}


class Mock:
    """aimock, which refuses a request unless every credential in it is one of `credentials`."""

    def __init__(self, work, fixtures, folder, credentials, processes, base_env):
        self._credential = credentials[0]
        self._fixtures = [LONG_FIXTURE, *json.loads(fixtures.read_text())["fixtures"]]
        fixtures = folder / "fixtures.json"
        fixtures.write_text(json.dumps({"fixtures": self._fixtures}))
        program = work / "node_modules/@copilotkit/aimock/dist/cli.js"
        line = processes.serve(
            ["node", program, "--port", "0", "--fixtures", fixtures, "--validate-on-load"],
            base_env | {"AIMOCK_API_KEYS": ",".join(credentials)},
            until="listening on http://",
        )
        self._url = re.search(r"http://\S+", line).group()
        self.port = int(self._url.rsplit(":", 1)[1])

    def journal(self):
        """The requests that were let in; a refused one is not in it."""
        return json.loads(self._control("GET", "/journal"))

    def clear_journal(self):
        self._control("POST", "/reset/journal")

    def answer(self, model, content):
        """Answers a model like this from now on, in small pieces. The first that fits is taken, so it goes to the front."""
        usage = {"prompt_tokens": 300, "completion_tokens": 20, "input_tokens": 300, "output_tokens": 20}
        response = {"content": content, "usage": usage}
        self._fixtures.insert(0, {"match": {"model": model}, "chunkSize": 7, "response": response})
        self._control("DELETE", "/fixtures")
        self._control("POST", "/fixtures", json.dumps({"fixtures": self._fixtures}).encode())

    def _control(self, method, path, body=None):
        request = urllib.request.Request(f"{self._url}/__aimock{path}", body, method=method)
        request.add_header("Authorization", f"Bearer {self._credential}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=10) as answer:
            return answer.read()


class Tap:
    """A relay to the mock. The mock's journal blanks credentials; here they can be seen as they came off the wire."""

    def __init__(self, port):
        self._target = ("127.0.0.1", port)
        self._sent = bytearray()
        self._answered = 0
        self._lock = threading.Lock()
        tap = self

        class Relay(socketserver.BaseRequestHandler):
            def handle(self):
                tap._relay(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self):
        """What the gateway sent since the last call."""
        with self._lock:
            sent, self._sent, self._answered = bytes(self._sent), bytearray(), 0
        return sent

    def answered(self):
        """How many bytes the mock answered since the last `take`."""
        with self._lock:
            return self._answered

    def stop(self):
        self._server.shutdown()

    def _relay(self, gateway):
        with socket.create_connection(self._target) as mock:
            back = threading.Thread(target=_pump, args=(mock, gateway, self._count), daemon=True)
            back.start()
            _pump(gateway, mock, self._keep)
            back.join()

    def _keep(self, data):
        with self._lock:
            self._sent += data

    def _count(self, data):
        with self._lock:
            self._answered += len(data)


def _pump(source, sink, keep):
    try:
        while data := source.recv(65536):
            keep(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: so must be the other, or its reader waits for ever.
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
