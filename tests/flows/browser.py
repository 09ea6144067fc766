"""A headless Chromium, driven over its DevTools protocol: what a person would read on a page, and what it asked for.

``python tests/flows/browser.py ADDRESS FILE`` writes a picture of a page, such as those in docs/images.
"""

import base64
import json
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


class Page:
    """One tab: ``show`` an address, ``read`` its text, ``hosts`` it contacted."""

    def __init__(self, address: str) -> None:
        self.socket, self.count, self.hosts = connect(address, max_size=None), 0, set()
        for method in ("Page.enable", "Network.enable"):
            self.call(method)
        size = {"width": 1400, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def call(self, method: str, **parameters) -> dict:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("method") == "Network.requestWillBeSent":
                self.hosts.add(urllib.parse.urlparse(answer["params"]["request"]["url"]).hostname)
            if answer.get("id") == self.count:
                return answer.get("result", {})

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]
        return result.get("value")

    def read(self, address: str, *texts: str, seconds: float = 30) -> str:
        """Open ``address`` and return its text as soon as it has all ``texts``; fail when it lacks one."""
        self.call("Page.navigate", url=address)
        deadline, text = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            text = self.evaluate("document.body ? document.body.innerText : ''") or ""
            if all(wanted in text for wanted in texts):
                return text
            time.sleep(0.2)
        missing = [wanted for wanted in texts if wanted not in text]
        raise AssertionError(f"{address} lacks {missing}; it says: {text}")

    def until(self, expression: str, seconds: float = 10) -> bool:
        """Whether the JavaScript ``expression`` becomes true in time."""
        deadline = time.monotonic() + seconds
        while not (true := self.evaluate(expression)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return bool(true)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def page():
    """Run a browser with a profile of its own for the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["chromium", *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = Path(profile, "DevToolsActivePort")
            deadline = time.monotonic() + 60
            while not (port.exists() and port.read_text().strip()) and time.monotonic() < deadline:
                time.sleep(0.1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json/list") as answer:
                tabs = json.load(answer)
            yield Page(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    address, picture = sys.argv[1:]
    with page() as tab:
        tab.read(address)
        assert tab.until("document.readyState == 'complete'")
        tab.screenshot(Path(picture))
