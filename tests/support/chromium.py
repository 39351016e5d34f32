"""A headless Chromium, driven over its DevTools protocol through a pair of pipes."""

import base64
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from process import Failure

# The browser must not do our work: what keeps pages from reaching this machine is switched off.
FEATURES_OFF = (
    "LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessSendPreflights,HttpsUpgrades,"
    "HttpsFirstBalancedModeAutoEnable"
)
PATIENCE_S = 120
LOADED = 'document.readyState === "complete" || new Promise((resolve) => addEventListener("load", resolve))'


class Chromium:
    """Use it in a `with`."""

    def __init__(self, program, resolver_rules):
        self._profile = tempfile.TemporaryDirectory(prefix="tokfence-browser-", ignore_cleanup_errors=True)
        (commands, self._commands), (self._events, events) = os.pipe(), os.pipe()
        self._number, self._replies, self._arrived = 0, {}, threading.Condition()
        self.told = []
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--disable-features={FEATURES_OFF}", f"--host-resolver-rules={resolver_rules}",
            f"--user-data-dir={self._profile.name}", "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip

        # It reads from 3 and writes to 4, whatever their numbers are here; not every `sh` knows numbers of two digits.
        wired = ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{events}', "bash", program, *arguments]
        self._process = subprocess.Popen(
            wired, pass_fds=(commands, events), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(events)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(PATIENCE_S)
        os.close(self._commands)
        self._profile.cleanup()

    def version(self):
        return self._ask("Browser.getVersion")["product"]

    def page(self, url, listens=()):
        """Opens a page; what is evaluated in it runs once it is loaded. `told` gets the events of the domains in `listens`."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in listens:
            self._ask(f"{domain}.enable", session)
        went = self._ask("Page.navigate", session, url=url)
        if "errorText" in went:
            raise Failure(f"{url}: {went['errorText']}")
        page = Page(self, session)
        page.evaluate(LOADED)
        return page

    def _ask(self, method, session=None, **params):
        with self._arrived:
            self._number += 1
            number = self._number
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        with self._arrived:
            if not self._arrived.wait_for(lambda: number in self._replies or self._replies is None, PATIENCE_S):
                raise Failure(f"the browser does not answer to {method}")
            reply = self._replies.pop(number)
        if "error" in reply:
            raise Failure(f"{method}: {reply['error']}")
        return reply["result"]

    def _read(self):
        with os.fdopen(self._events, "rb") as events:
            buffer = b""
            while part := events.read1(65536):
                *messages, buffer = (buffer + part).split(b"\0")
                for message in map(json.loads, messages):
                    if "id" in message:
                        with self._arrived:
                            self._replies[message["id"]] = message
                            self._arrived.notify_all()
                    else:
                        self.told.append(message)


class Page:
    def __init__(self, browser, session):
        self._browser, self._session = browser, session

    def evaluate(self, expression):
        """What an expression, or the promise of it, comes to."""
        done = self._browser._ask(
            "Runtime.evaluate", self._session, expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in done:
            raise Failure(f"{expression[:80]}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def until(self, expression, what, seconds=20):
        """Waits until an expression holds, and answers what it came to."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise Failure(f"the page does not come to show {what}: {self.evaluate('document.body.innerText')}")
            time.sleep(0.05)
        return value

    def press(self, key, number):
        """A key, by its name and its number on a keyboard."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            pressed = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number} | (text if kind == "keyDown" else {})
            self._browser._ask("Input.dispatchKeyEvent", self._session, **pressed)

    def write(self, text):
        self._browser._ask("Input.insertText", self._session, text=text)

    def look(self, width, height, is_dark=False):
        """How large the window is, and what its reader likes. It comes before others, or nothing would be drawn."""
        self._browser._ask("Page.bringToFront", self._session)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._browser._ask("Emulation.setDeviceMetricsOverride", self._session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._browser._ask("Emulation.setEmulatedMedia", self._session, features=[scheme])

    def screenshot(self, path):
        """The whole page as a picture."""
        shot = self._browser._ask("Page.captureScreenshot", self._session, format="png", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))
