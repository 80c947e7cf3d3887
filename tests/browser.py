"""A real browser without a past, driven by DevTools' own protocol: what people see, not what we think they do."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

try:
    from websockets.sync.client import connect
except ImportError:
    connect = None
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parents[1] / "build/npm/node_modules/axe-core/axe.min.js"
PATIENCE_S = 90  # on a machine that is busy with other things; no test waits for its end
needs_browser = pytest.mark.skipif(
    (CHROMIUM is None or connect is None) and "LITSEXP_BROWSER" not in os.environ,  # there it has to be, or fail
    reason="no chromium, or no websockets to talk to it; apt-get install chromium",
)
needs_axe = pytest.mark.skipif(
    not AXE.is_file() and "LITSEXP_BROWSER" not in os.environ, reason="no axe-core; make browser"
)
FAULTS = """axe.run().then(found => JSON.stringify(found.violations.filter(
    each => ["serious", "critical"].includes(each.impact)).map(
    each => each.id + ": " + each.nodes.slice(0, 3).map(node => node.html).join(" | "))))"""


class Page:
    """A tab, by DevTools' own protocol."""

    def __init__(self, address: str):
        self.socket, self.numbers = connect(address, max_size=None), count(1)
        self.events: list[dict[str, Any]] = []  # that came while something else was waited for

    def call(self, method: str, **words: Any) -> Any:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": words}))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def ask(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str) -> Any:
        """Until the script's value is true; it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if value := self.ask(script):
                return value
            time.sleep(0.2)
        raise AssertionError(f"{script}: never; the page says {self.ask('document.body.innerText')}")

    def size(self, width: int, height: int = 1000) -> None:
        """Of the window, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def theme(self, name: str) -> None:
        """``light`` or ``dark``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def faults(self) -> list[str]:
        """What axe-core calls serious or critical in the page as it is shown, its details opened."""
        self.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
        self.ask(AXE.read_text(encoding="utf-8"))
        assert self.ask("typeof axe") == "object"
        found = self.call("Runtime.evaluate", expression=FAULTS, awaitPromise=True, returnByValue=True)
        faults: list[str] = json.loads(found["result"]["value"])
        return faults

    def shows(self, *words: str) -> str:
        """Wait until all of these can be read; the whole text."""
        wanted = json.dumps(words)
        text: str = self.wait(
            f"{wanted}.every(word => document.body.innerText.includes(word)) && document.body.innerText"
        )
        return text


def looked_at(path: Path, profile: Path, theme: str) -> tuple[list[str], list[dict[str, Any]]]:
    """A page with a figure, in a theme: what axe-core finds, and what the browser complains of."""
    with browser(profile) as browse:
        page = browse(path.as_uri())
        page.wait("document.readyState === 'complete' && !!document.querySelector('svg.chart')")
        page.theme(theme)
        return page.faults(), [event for event in page.events if event["method"] == "Log.entryAdded"]


@contextmanager
def browser(profile: Path) -> Iterator[Callable[[str], Page]]:
    """Opens an address in the one tab of a browser without a past."""
    assert CHROMIUM is not None, "no chromium"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=1600,1000"]
    command = [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    opened: list[Page] = []

    def browse(address: str) -> Page:
        end, file = time.monotonic() + PATIENCE_S, profile / "DevToolsActivePort"
        while not (file.is_file() and "\n" in file.read_text()) and time.monotonic() < end:
            time.sleep(0.1)
        tabs = f"http://127.0.0.1:{file.read_text().splitlines()[0]}/json"
        with urllib.request.urlopen(tabs, timeout=PATIENCE_S) as answer:
            tab = next(each for each in json.load(answer) if each["type"] == "page")
        page = Page(tab["webSocketDebuggerUrl"])
        opened.append(page)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.size(1600)
        page.call("Page.navigate", url=address)
        return page

    try:
        yield browse
    finally:
        for page in opened:
            page.socket.close()
        running.kill()
        running.wait()
