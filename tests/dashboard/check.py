"""Logs a browser in to the dashboard, looks at what it shows, and changes what it can change."""

import argparse
import http.client
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from chromium import Chromium
from home import KEY, Home
from pages import serve
from process import Failure, expect

CHAT = "/openai/v1/chat/completions"
HOSTILE = '<img src=x onerror="window.hit=1">"\'<script>window.hit=1</script>'
REASON = "<b onclick=window.hit=1>odd</b>"
TAB, ENTER = ("Tab", 9), ("Enter", 13)
LISTENS = ("Runtime", "Log", "Network")


class Provider(BaseHTTPRequestHandler):
    """Answers at once, or begins a stream and holds it until it is let go."""

    protocol_version = "HTTP/1.1"
    goes_on = threading.Event()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        if not body.get("stream"):
            answer = {"model": body["model"], "choices": [], "usage": {"prompt_tokens": 1200000, "completion_tokens": 350000}}
            text = json.dumps(answer).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        event = b'data: {"choices":[{"index":0,"delta":{"content":"a few words and some more"}}]}\n\n'
        try:
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                if Provider.goes_on.wait(0.3):
                    break
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the gateway cut it

    def log_message(self, *_):
        pass


class Neighbour(BaseHTTPRequestHandler):
    """What an agent serves on another port, which hears the cookies of the whole host."""

    cookies = []

    def do_GET(self):
        Neighbour.cookies.append(self.headers.get("Cookie") or "")
        body = b"<!doctype html><title>a preview</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ask(home, token, model, stream=False):
    """A connection on which a request was sent and its answer has begun."""
    connection = http.client.HTTPConnection(*home.tcp, timeout=30)
    body = json.dumps({"model": model, "messages": [], "stream": stream})
    connection.request("POST", CHAT, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    response = connection.getresponse()
    return response, connection


def text_of(page, selector):
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def shows(page, selector, text):
    """An expression: whether the element tells that."""
    return f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(text)})"


def walk_to(page, name):
    """Presses Tab until the button of this name has the focus, and can be seen to have it."""
    page.evaluate("document.activeElement.blur()")
    label = "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText)"
    for _ in range(80):
        page.press(*TAB)
        if page.evaluate(f"document.activeElement.matches('button') && {label} === {json.dumps(name)}"):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            return expect(outline == "solid", f"the focus on {name} cannot be seen")
    raise Failure(f"the keyboard does not lead to {name}")


def answer_dialog(page, reason=""):
    """Writes a reason into the dialog and says yes, by keyboard alone."""
    page.until("document.querySelector('#ask').open", "the question")
    if reason:
        page.evaluate("document.activeElement.id") == "ask-reason" or page.evaluate("document.querySelector('#ask-reason').focus()")
        page.write(reason)
    page.press(*ENTER)
    page.until("!document.querySelector('#ask').open", "the answer")


def prepare(home):
    """Something of everything: a budget, requests of known and of unknown price, refusals, evidence."""
    tokens = {name: home.mint(name) for name in ("builder", "reviewer")}
    narrow = home._json("agent", "mint", "narrow", "--model", "gpt-5*")["token"]
    home._tokfence("budget", "set", "agent:narrow", "50000 tokens", "weekly")
    home._tokfence("budget", "set", "agent:builder", "1.2", "daily")
    for agent, model, times in (("builder", "gpt-4o-mini", 2), ("reviewer", "gpt-4o", 3)):
        for _ in range(times):
            response, _ = ask(home, tokens[agent], model)
            expect(response.status == 200, f"{response.status} {response.read()}")
    expect(ask(home, narrow, HOSTILE)[0].status == 403, "the narrow capability is too wide")
    response, _ = ask(home, tokens["reviewer"], "gpt-4o")
    expect(response.status == 200, response.status)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": KEY}]}
    connection = http.client.HTTPConnection(*home.tcp, timeout=30)
    headers = {"Authorization": f"Bearer {tokens['reviewer']}", "Content-Type": "application/json"}
    connection.request("POST", CHAT, json.dumps(body), headers)
    expect(connection.getresponse().status == 403, "a key in a request is not refused")
    return tokens


def check_shown(page, home):
    """What is told is what is so."""
    page.until("!document.querySelector('#in').hidden", "what is inside")
    expect(page.evaluate("location.href.includes('#')") is False, "the secret stays in the address")
    page.until(shows(page, "#state", "serving"), "that it serves")
    page.until(shows(page, "#live", "stream"), "the stream")
    rows = text_of(page, "#live tbody")
    expect("reviewer" in rows and "onerror" in rows, f"the model is not shown as text: {rows}")
    first = page.evaluate("Number(document.querySelector('#live td:nth-child(5)').innerText.replace(/\\D/g, ''))")
    page.until(f"Number(document.querySelector('#live td:nth-child(5)').innerText.replace(/\\D/g, '')) > {first}", "how tokens grow")
    page.until(shows(page, "#budgets", "agent:builder/daily"), "the budget")
    page.until(shows(page, "#budgets", "reserved"), "what is reserved")
    page.until("document.querySelectorAll('#chart-cost rect.spent').length > 0", "what was spent")
    page.until(shows(page, "#refusals", "out_of_scope"), "the refusal")
    page.until(shows(page, "#providers", "openai"), "the provider")
    expect(page.evaluate("window.hit === undefined"), "what a caller sent was run")
    spent = json.loads(home._tokfence("stats", "--json"))["total"]["cost_usd"]
    shown = page.until("document.querySelector('#today-cost').innerText", "what was spent")
    expect(abs(float(shown.strip("$")) - float(spent)) < 0.01, f"{shown} is shown, {spent} was spent")


def check_explained(page):
    walk_to(page, page.evaluate("document.querySelector('#risk button').getAttribute('aria-label')"))
    page.press(*ENTER)
    page.until("document.querySelector('#explain').open", "the explanation")
    page.until(shows(page, "#explain", "a key of the vault was in a request"), "why")
    page.press("Escape", 27)
    page.until("!document.querySelector('#explain').open", "the page again")


def check_revoking(page, home, tokens, held):
    walk_to(page, "Revoke reviewer")
    page.press(*ENTER)
    answer_dialog(page, REASON)
    page.until("[...document.querySelectorAll('#agents tr')].some((row) => row.innerText.includes('reviewer') && row.innerText.includes('revoked'))", "that the agent is revoked")
    expect(b"revoked" in held.read(), "the stream of the agent was not cut")
    expect(ask(home, tokens["reviewer"], "gpt-4o")[0].status == 401, "a revoked agent is served")
    page.until("document.activeElement.innerText === 'Restore'", "that the focus stays on the agent")
    page.press(*ENTER)
    page.until("[...document.querySelectorAll('#agents tr')].every((row) => !row.innerText.includes('revoked'))", "that the agent is back")
    expect(ask(home, tokens["reviewer"], "gpt-4o")[0].status == 200, "a restored agent is not served")


def check_killing(page, home, tokens):
    walk_to(page, "Kill")
    page.press(*ENTER)
    answer_dialog(page, REASON)
    page.until(shows(page, "#state", REASON), "why it is killed, as text")
    response, _ = ask(home, tokens["builder"], "gpt-4o-mini")
    expect(response.status == 403 and b"killed" in response.read(), "a killed gateway serves")
    rows = home._json("audit")["changes"]
    told = {row["action"]: (row["command"], row["detail"].get("reason")) for row in rows}
    expect(told.get("kill") == ("dashboard", REASON), f"the audit log tells {told.get('kill')}")
    expect(told.get("agent_revoke") == ("dashboard", REASON), f"the audit log tells {told.get('agent_revoke')}")
    walk_to(page, "Serve again")
    page.press(*ENTER)
    answer_dialog(page)
    page.until(shows(page, "#state", "serving"), "that it serves again")
    expect(ask(home, tokens["builder"], "gpt-4o-mini")[0].status == 200, "it does not serve again")


def check_neighbours(browser, home, origin):
    """Whoever serves another port of the host hears the cookie, and gets nowhere with it."""
    port = serve(Neighbour)
    page = browser.page(f"http://127.0.0.1:{port}/dashboard/")
    cookie = next((cookie for cookie in Neighbour.cookies if "tokfence_" in cookie), None)
    expect(cookie, "browsers do not send the cookie to other ports any more; the token may go")
    for path in ("events", "history", "risk/1"):
        read = page.evaluate(f"fetch('{origin}/dashboard/{path}', {{ credentials: 'include' }}).then((r) => r.text(), () => null)")
        expect(read is None, f"a page of another port reads {path}: {read}")
        request = urllib.request.Request(f"{origin}/dashboard/{path}", headers={"Cookie": cookie})
        try:
            urllib.request.urlopen(request, timeout=10)
            raise Failure(f"the cookie alone reads {path}")
        except urllib.error.HTTPError as error:
            expect(error.code == 401, f"{path}: {error.code}")
    change = "{ method: 'POST', credentials: 'include', mode: 'no-cors', headers: { 'Content-Type': 'text/plain' }, body: '{\"do\":\"kill\",\"reason\":\"\"}' }"
    page.evaluate(f"fetch('{origin}/dashboard/change', {change}).then(() => 0, () => 0)")
    framed = page.evaluate(f"""new Promise((resolve) => {{
        const frame = document.createElement('iframe');
        frame.onload = frame.onerror = () => resolve(frame.contentDocument === null);
        frame.src = '{origin}/dashboard/';
        document.body.append(frame);
    }})""")
    expect(framed, "the page can be framed")
    expect(home.status()["state"] == "ok", "a page of another port changed something")


def check_log_out(browser, page, home, url):
    second = browser.page(url)
    # The tab is of the same browser, which is in already; the link as such is of no use.
    second.until("!document.querySelector('#in').hidden", "what is inside")
    expect(home._json("dashboard", "--logout") == {"logged_out": 1}, "one browser was in")
    page.until("!document.querySelector('#out').hidden", "that it is logged out", 60)
    expect("tokfence dashboard" in text_of(page, "#out"), "it does not say how to come in")


def check_quiet(browser, origin):
    """The page spoke to nobody else, and nothing went wrong in it."""
    asked, wrong = set(), []
    for event in browser.told:
        params = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            asked.add(params["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            wrong.append(params["exceptionDetails"])
        elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            wrong.append(params["entry"])
        elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            wrong.append(params["args"])
    foreign = [url for url in asked if not url.startswith(origin + "/dashboard/")]
    expect(asked and not foreign, f"the page asked others: {foreign}")
    expect(not wrong, f"something went wrong in the page: {wrong}")
    return len(asked)


def take(page, folder, name, *look):
    """A picture of the page, in which nothing may stick out at the side."""
    page.look(*look)
    # What is drawn to another size is drawn by then.
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    width = page.evaluate("document.documentElement.scrollWidth")
    expect(width <= look[0], f"{name}: the page is {width} wide on a screen of {look[0]}")
    if folder:
        page.screenshot(folder / f"{name}.png")


def run(args):
    began = time.monotonic()
    folder = args.screenshots and Path(args.screenshots)
    upstream = serve(Provider)
    with Home(args.tokfence, f"http://127.0.0.1:{upstream}") as home:
        origin = f"http://127.0.0.1:{home.metrics_port}"
        tokens = prepare(home)
        held, _ = ask(home, tokens["reviewer"], HOSTILE, stream=True)
        also, _ = ask(home, tokens["builder"], "gpt-4o-mini", stream=True)
        with Chromium(args.chromium, "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1") as browser:
            print(browser.version())
            url = home._json("dashboard")["url"]
            page = browser.page(url, LISTENS)
            page.look(1280, 1000)
            check_shown(page, home)
            take(page, folder, "light", 1280, 1400)
            take(page, folder, "dark", 1280, 1400, True)
            take(page, folder, "narrow", 390, 3200)
            take(page, folder, "narrow-dark", 390, 3200, True)
            page.look(1280, 1000)
            check_explained(page)
            check_revoking(page, home, tokens, held)
            check_killing(page, home, tokens)
            asked = check_quiet(browser, origin)
            check_neighbours(browser, home, origin)
            check_log_out(browser, page, home, url)
            take(page, folder, "out", 800, 600)
        also.close()
        expect(home.is_alive(), "the gateway is gone")
    print(f"everything held in {time.monotonic() - began:.0f} s; the page asked for {asked} addresses, all of them its own")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokfence", required=True)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--screenshots")
    try:
        run(parser.parse_args())
    except Failure as failure:
        sys.exit(f"tests/dashboard: {failure}")


main()
