"""Lets pages of several origins loose on a gateway, and looks at what they got, what it logged, what its provider heard."""

import argparse
import collections
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from chromium import Chromium
from home import Home
from pages import serve
from process import Failure, expect

HERE = Path(__file__).resolve().parent
# A name whose owner has it lead to this machine, once the browser has his page.
REBOUND = "evil.test"
CHAT, HEALTH, METRICS = "/openai/v1/chat/completions", "/__tokfence/health", "/metrics"
DASHBOARD = "/dashboard/history"
REFUSALS = {"origin_not_allowed", "host_not_allowed"}
# What a page may read where the browser thinks that it is its own server that refuses.
OF_A_REBOUND_HOST = ("host_not_allowed", "the Host is not one of this gateway's")


class Attacker(BaseHTTPRequestHandler):
    """The server of the page."""

    def do_GET(self):
        files = {"/attempts.js": "attempts.js", "/service-worker.js": "service-worker.js"}
        name = files.get(self.path)
        text = (HERE / name).read_text() if name else '<!doctype html><body><script src="/attempts.js"></script>'
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if name else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Open(BaseHTTPRequestHandler):
    """A server that refuses nothing, and remembers which attempts reached it with more than a question."""

    arrived = collections.Counter()

    def handle_any(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command != "OPTIONS":
            Open.arrived[parse_qs(urlsplit(self.path).query).get("attempt", ["?"])[0]] += 1
        self.send_response(200)
        for name, value in (
            ("Access-Control-Allow-Origin", self.headers.get("Origin") or "*"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Allow-Methods", "GET, POST, PUT"),
            ("Access-Control-Allow-Headers", self.headers.get("Access-Control-Request-Headers") or "*"),
            ("Content-Length", "4"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"open")

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = handle_any

    def log_message(self, *_):
        pass


class Provider:
    """Counts who connects."""

    def __init__(self):
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self):
        while True:
            self._listener.accept()[0].close()
            self.connections += 1


def attempt(page, base, path, token):
    """What a page could read of `base`, by attempt."""
    arguments = ", ".join(map(json.dumps, (base, path, token)))
    return page.evaluate(f"window.attempt({arguments})")


def check_open(browser, attacker, token):
    """The attempts are real: on a server that lets everybody in they all arrive, and what can be read is read."""
    target = serve(Open)
    found = attempt(browser.page(f"http://127.0.0.1:{attacker}/"), f"http://127.0.0.1:{target}", "/open", token)
    missing = sorted(name for name in found if not Open.arrived[name])
    expect(not missing, f"the browser does not make these attempts: {', '.join(missing)}")
    for name in ("fetch", "fetch-credentials", "fetch-bearer", "fetch-post", "xhr", "worker-bearer", "service-worker-bearer"):
        expect(found[name] == "200 open", f"{name} cannot read an open server: {found[name]}")
    return len(found)


def check_pages(browser, attacker, home):
    """Pages of other origins read nothing, by whatever name they call the gateway."""
    count = 0
    for own in ("127.0.0.1", "localhost", REBOUND):
        page = browser.page(f"http://{own}:{attacker}/")
        for name in ("127.0.0.1", "localhost"):
            of_owner = ((home.metrics_port, METRICS), (home.metrics_port, DASHBOARD))
            for port, path in ((home.tcp[1], CHAT), (home.tcp[1], HEALTH), *of_owner):
                found = attempt(page, f"http://{name}:{port}", path, home.token)
                read = {how: text for how, text in found.items() if text is not None}
                expect(not read, f"a page of {own} could read {path} at {name}: {read}")
                count += len(found)
    return count


def check_rebinding(browser, home):
    """A page whose name leads here is of the gateway's own origin to the browser. It reads that it is not served."""
    count = 0
    for port, paths in ((home.tcp[1], (CHAT, HEALTH)), (home.metrics_port, (METRICS, DASHBOARD))):
        page = browser.page(f"http://{REBOUND}:{port}{paths[0]}")
        page.evaluate((HERE / "attempts.js").read_text() + "\n;0")
        for path in paths:
            found = attempt(page, f"http://{REBOUND}:{port}", path, home.token)
            for how, text in found.items():
                # The answer to a HEAD request is its status, and a preload tells nothing of what it has loaded.
                is_nothing = text in (None, "403 ") or how == "preload"
                is_refusal = is_nothing or any(part in text for part in OF_A_REBOUND_HOST)
                expect(is_refusal and "tokfence_requests" not in (text or ""), f"{how} read {path} as {REBOUND}: {text}")
            expect(found["fetch"] is not None, "a page does not see its own refusal, so nothing was tried")
            count += len(found)
    return count


def check_listed(browser, attacker, args, provider):
    """The owner may list a page. That one reads what it asks for with a capability, and a page on another port does not."""
    listed = f"http://127.0.0.1:{attacker}"
    with Home(args.tokfence, f"http://127.0.0.1:{provider.port}", daemon=f'allowed_origins = ["{listed}"]') as home:
        base = f"http://127.0.0.1:{home.tcp[1]}"
        found = attempt(browser.page(f"{listed}/"), base, CHAT, home.token)
        # The provider ends every connection, which the page is told.
        expect("upstream_" in (found["fetch-post"] or ""), f"a listed page reads no answer: {found['fetch-post']}")
        expect("missing_capability" in (found["fetch"] or ""), f"a listed page needs no capability: {found['fetch']}")
        found = attempt(browser.page(f"http://127.0.0.1:{serve(Attacker)}/"), base, CHAT, home.token)
        read = {how: text for how, text in found.items() if text is not None}
        expect(not read, f"a page that is not listed could read {read}")


def check_log(home):
    """Everything was refused, and the log says why."""
    home.settled(lambda: home.status()["in_flight"] == 0)
    time.sleep(0.1)
    refused = dict(home.rows("error_code, sum(repeats)", "outcome = 'refused' GROUP BY error_code"))
    served = home.rows("method, path, outcome, error_code", "outcome <> 'refused'")
    expect(not served, f"these were not refused: {served[:5]}")
    expect(set(refused) == REFUSALS, f"refused for other reasons: {refused}")
    return refused


def run(args):
    began = time.monotonic()
    provider, attacker = Provider(), serve(Attacker)
    with Home(args.tokfence, f"http://127.0.0.1:{provider.port}") as home:
        with Chromium(args.chromium, f"MAP {REBOUND} 127.0.0.1") as browser:
            print(browser.version())
            known = check_open(browser, attacker, home.token)
            tried = check_pages(browser, attacker, home) + check_rebinding(browser, home)
        refused = check_log(home)
        expect(provider.connections == 0, f"{provider.connections} connections to the provider")
        expect(home.is_alive(), "the gateway is gone")
    with Chromium(args.chromium, f"MAP {REBOUND} 127.0.0.1") as browser:
        check_listed(browser, attacker, args, provider)
    told = ", ".join(f"{count} x {code}" for code, count in sorted(refused.items()))
    print(f"{tried} attempts of {known} kinds in {time.monotonic() - began:.0f} s: nothing was read or sent on; {told}; a listed page reads")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokfence", required=True)
    parser.add_argument("--chromium", required=True)
    try:
        run(parser.parse_args())
    except Failure as failure:
        sys.exit(f"tests/browser: {failure}")


main()
