"""Chromium without a window, driven by its own protocol; tests that need it are skipped, and say
so, where there is none."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def browser(width, height):
    """A page of this size in pixels, a phone where it is narrow."""
    websocket = pytest.importorskip("websocket", reason="needs websocket-client")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        pytest.skip(f"needs a browser: {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [
                program,
                *options,
                "--remote-allow-origins=*",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            address = next(line.split("ws://")[1] for line in process.stderr if "ws://" in line)
            page = _page(websocket, address.split("/")[0])
            page.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=width < 600,
            )
            yield page
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def _page(websocket, host):
    """The first page; it may take a moment."""
    for _ in range(100):
        with urllib.request.urlopen(f"http://{host}/json") as answer:
            pages = [page for page in json.load(answer) if page["type"] == "page"]
        if pages:
            return Page(websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=60))
        time.sleep(0.1)
    raise RuntimeError("the browser has no page")


class Page:
    """requests   addresses that were asked for
    said       messages of the console and of what failed"""

    def __init__(self, connection):
        self._connection, self._count = connection, 0
        self.requests, self.said, self._loaded = [], [], False
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """The result of one call of the protocol."""
        self._count += 1
        wanted = self._count
        self._connection.send(json.dumps({"id": wanted, "method": method, "params": parameters}))
        while True:
            message = self._receive()
            if message.get("id") == wanted:
                assert "error" not in message, message
                return message["result"]

    def _receive(self):
        message = json.loads(self._connection.recv())
        what, told = message.get("method"), message.get("params", {})
        if what == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif what in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(told)
        elif what == "Page.loadEventFired":
            self._loaded = True
        return message

    def open(self, address):
        """Go there and wait until it is shown."""
        self._loaded = False
        moved = "loaderId" not in self.call("Page.navigate", url=address)  # within the same page
        while not (moved or self._loaded):
            self._receive()
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def evaluate(self, script):
        """The value of JavaScript."""
        told = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def print_media(self):
        """Show the page as paper would."""
        self.call("Emulation.setEmulatedMedia", media="print")
