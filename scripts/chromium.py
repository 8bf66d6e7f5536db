"""Drive a headless Chromium over a pipe, with nothing but the standard library: open a page, read it, take its picture.

The DevTools protocol: JSON messages, each ended by a zero byte, on file descriptors 3 and 4 of the browser.
https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chromium-headless-shell")
_SECONDS = 60.0
#: without a sandbox, which root cannot have; and no address but a file's can be reached
_FLAGS = (
    *"--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --no-first-run --hide-scrollbars".split(),
    "--remote-debugging-pipe",
    "--host-rules=MAP * ~NOTFOUND",
)


def find_chromium() -> str | None:
    """The browser's program: what CHROMIUM names, or one on the path; None without any."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CHROMIUM"), *_NAMES)))), None)


class Page:
    """One page.

    Attributes:
        requests: addresses that it asked for, its own first.
        complaints: what it wrote to the console as an error or a warning, and what it threw.
    """

    def __init__(self, pipe: _Pipe, session: str) -> None:
        self._pipe, self._session = pipe, session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; what happens meanwhile is noted."""
        return self._pipe.call(method, parameters, self._session, self._note)

    def look(self, width: int, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """Choose the window's size, light or dark, and screen or print."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, file: Path) -> None:
        """Load a file and wait until it is drawn."""
        self.call("Page.navigate", url=file.resolve().as_uri())
        self._pipe.wait("Page.loadEventFired", self._session, self._note)
        self.rest()

    def rest(self) -> None:
        """Wait until what was begun is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str) -> Any:
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def picture(self, file: Path, height: int | None = None) -> None:
        """The page as a PNG, whole or its upper part."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(answer["data"]))

    def print(self, file: Path) -> None:
        """The page as a PDF."""
        file.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]))

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])


class _Pipe:
    """Messages to and from the browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._buffer, self._last = b"", 0
        self._early: list[dict[str, Any]] = []

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None, note: Any = None) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._heard(answer, session, note)

    def wait(self, method: str, session: str, note: Any) -> None:
        while not any(event["method"] == method for event in self._early):
            self._heard(self._next(), session, note)
        self._early.clear()

    def _heard(self, message: dict[str, Any], session: str | None, note: Any) -> None:
        if message.get("sessionId") == session and "method" in message and note:
            self._early.append(message)
            note(message)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            if not select.select([self._reading], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser says nothing")
            block = os.read(self._reading, 1 << 20)
            if not block:
                raise RuntimeError("the browser has ended")
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed


@contextmanager
def chromium() -> Iterator[Page]:
    """A browser with one empty page, without a network, gone when the block ends."""
    program = find_chromium()
    if program is None:
        raise FileNotFoundError("no Chromium on the path: apt-get install chromium, or name its program in CHROMIUM")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process, reading, writing = _start([program, *_FLAGS, f"--user-data-dir={profile}"])
        try:
            pipe = _Pipe(reading, writing)
            target = pipe.call("Target.createTarget", {"url": "about:blank"})["targetId"]
            yield Page(pipe, pipe.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"])
        finally:
            os.close(writing)
            os.close(reading)
            os.kill(process, signal.SIGTERM)
            os.waitpid(process, 0)


def _start(command: list[str]) -> tuple[int, int, int]:
    """Start the browser with its ends of two pipes as file descriptors 3 and 4.

    Returns:
        (process id, the end to read from, the end to write to).
    """
    theirs_in, writing = os.pipe()
    reading, theirs_out = os.pipe()
    # numbers beyond 4, so that neither is overwritten before it is copied
    far_in, far_out = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out))
    quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    actions = [*quiet, (os.POSIX_SPAWN_DUP2, far_in, 3), (os.POSIX_SPAWN_DUP2, far_out, 4)]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    for end in (theirs_in, theirs_out, far_in, far_out):
        os.close(end)
    return process, reading, writing
