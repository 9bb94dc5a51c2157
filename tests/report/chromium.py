"""A headless Chromium driven over a pipe, by the few commands of the DevTools protocol that tests of the page need."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-dev-shm-usage", "--disable-component-update", "--hide-scrollbars",
    "--disable-default-apps",
)  # fmt: skip
# Chromium reads commands from file 3 and writes answers to file 4.
_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One browser with one page. A context manager; `events` are those that came so far, as the protocol has them, and
    `profile` is the protocol's name of the profile that the page belongs to."""

    def __init__(self, folder: Path):
        assert PROGRAM
        to_read, self._out = os.pipe()
        self._in, to_write = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_read, to_write)]
        words = [sys.executable, "-c", _START, *map(str, ends), PROGRAM, *_FLAGS, f"--user-data-dir={folder}"]
        environment = os.environ | {"HOME": str(folder), "TMPDIR": str(folder)}
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "log", "wb") as log:
            self._process = subprocess.Popen(words, pass_fds=ends, stdout=log, stderr=log, env=environment)
        for end in (to_read, to_write, *ends):
            os.close(end)
        self._numbers, self._buffer = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        self.profile = ""
        self.forget()

    def forget(self) -> None:
        """Goes on with an empty page of an empty profile, in which nothing is kept yet.

        `localStorage.clear()` would not do: it may take effect after what the next page has written.
        """
        self._session: str | None = None  # the commands are the browser's, not a page's
        if self.profile:
            self.call("Target.disposeBrowserContext", browserContextId=self.profile)
        self.profile = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=self.profile)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command of the protocol. RuntimeError where it fails."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(60)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._in, 1 << 16) if ready else b""
            if not more:
                raise RuntimeError("Chromium does not answer")
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, address: str, width: int = 1440, height: int = 900, dark: bool = False) -> float:
        """Opens a page and waits until it says that it is drawn; returns the seconds this took, by its own clock."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait("document.documentElement?.dataset.ready === 'yes'")
        # Two frames later the drawing is on the screen.
        drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
        return self.js(drawn) / 1000

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited. RuntimeError where it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Waits until a JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.js(condition):
            if time.monotonic() > until:
                raise RuntimeError(f"this never became true: {condition}\n{self.complaints()}")
            time.sleep(0.03)

    def click(self, x: float, y: float) -> None:
        """Moves the mouse to a place of the window and clicks."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        time.sleep(0.1)  # the plot looks for the nearest point at most every 50 ms
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, *keys: str) -> None:
        """Presses keys by their names (`ArrowRight`, `Enter`, `a`)."""
        codes = {"Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
            common = {"key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def requests(self) -> list[str]:
        """The addresses that the page asked for, but those that its own policy held back."""
        self.js("1")  # what was sent before is received now
        held = [e["params"] for e in self.events if e.get("method") == "Network.loadingFailed"]
        blocked = {failed["requestId"] for failed in held if failed.get("blockedReason") == "csp"}
        sent = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [request["request"]["url"] for request in sent if request["requestId"] not in blocked]

    def complaints(self) -> list[str]:
        """What the page threw, logged as an error or was forbidden."""
        self.js("1")
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"])[:800] for e in self.events if e.get("method") in kinds]

    def picture(self, path: Path, whole: bool = False) -> None:
        """Keeps what the window shows, or the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def paper(self, path: Path) -> None:
        """Keeps the page as it prints."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))
