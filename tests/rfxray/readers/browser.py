"""Debian's Chromium over its debugging pipe: no driver and no library is needed."""

import base64
import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

WIDTH, HEIGHT = 1280, 800
FLAGS = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"


class Browser:
    """A running browser.

    Attributes:
      requests: Every address that its pages asked for.
      dialogs: Kind of every dialog that opened; each was accepted.
    """

    def __init__(self, process, read, write):
        self.process, self._read, self._write = process, read, write
        self._numbers, self._buffer = itertools.count(1), b""
        self.requests: list[str] = []
        self.dialogs: list[str] = []

    def call(self, method: str, session: str | None = None, **parameters):
        """Calls a method of Chrome's DevTools protocol and returns its result."""
        number = next(self._numbers)
        self._send(number, method, session, parameters)
        while True:
            while b"\0" not in self._buffer:
                more = os.read(self._read, 1 << 16)
                assert more, "the browser ended"
                self._buffer += more
            line, self._buffer = self._buffer.split(b"\0", 1)
            found = json.loads(line)
            if found.get("method") == "Page.javascriptDialogOpening":
                self.dialogs.append(found["params"]["type"])
                self._send(
                    0, "Page.handleJavaScriptDialog", found.get("sessionId"), {"accept": True}
                )
            if found.get("method") == "Network.requestWillBeSent":
                self.requests.append(found["params"]["request"]["url"])
            if found.get("id") == number:
                assert "error" not in found, (method, found)
                return found["result"]

    def _send(self, number: int, method: str, session: str | None, parameters: dict) -> None:
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")

    def page(self) -> "Page":
        """A new window."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, target, session)

    def downloads(self, folder: Path) -> None:
        """Sends downloads into a folder."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def kill(self) -> None:
        """Ends all processes of the browser at once, as a crash does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


class Page:
    """A window of 1280 × 800 pixels."""

    def __init__(self, browser: Browser, target: str, session: str):
        self.browser, self.target, self._session = browser, target, session
        for domain in ("Page", "Network", "Runtime", "DOM"):
            self.call(f"{domain}.enable")
        self.resize(WIDTH, HEIGHT)

    def call(self, method: str, **parameters):
        return self.browser.call(method, self._session, **parameters)

    def resize(self, width: int, height: int, factor: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=factor,
            mobile=False,
        )

    def open(self, file: Path) -> None:
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.until("document.readyState === 'complete' && typeof forward === 'function'")

    def before_load(self, code: str) -> None:
        """Runs code at the start of every page that is opened from now on."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=code)

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)

    def run(self, code: str):
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, code: str) -> None:
        for _ in range(400):
            if self.run(code):
                return
            time.sleep(0.02)
        raise AssertionError(f"never true: {code}")

    def press(self, key: str, shift: bool = False) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        pressed = {"key": key, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, start: tuple, end: tuple, button: str = "left", shift: bool = False) -> None:
        more = {"button": button, "modifiers": 8 if shift else 0}
        buttons = {"left": 1, "right": 2}[button]
        self.mouse("mousePressed", *start, clickCount=1, buttons=buttons, **more)
        self.mouse("mouseMoved", *end, buttons=buttons, **more)
        self.mouse("mouseReleased", *end, clickCount=1, **more)

    def click(self, selector: str) -> None:
        """Clicks the middle of an element, with the mouse."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({ block: 'center' }); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def touch(self, *moments) -> None:
        """Fingers: each moment lists where they are; they are lifted after the last one."""
        kinds = itertools.chain(["touchStart"], itertools.repeat("touchMove"))
        for kind, points in zip(kinds, moments, strict=False):
            fingers = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def choose_file(self, selector: str, file: Path) -> None:
        """Chooses a file in an `<input type=file>`, as a person does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextlib.contextmanager
def started(program: str, profile: Path):
    """A browser with its profile in a folder; it ends with the block, if it was not killed."""
    there, write = os.pipe()
    read, back = os.pipe()
    command = f'exec "$0" {FLAGS} --remote-debugging-pipe --user-data-dir="$1" 3<&{there} 4>&{back}'
    process = subprocess.Popen(
        ["bash", "-c", command, program, str(profile)],
        pass_fds=(there, back),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(there)
    os.close(back)
    try:
        yield Browser(process, read, write)
    finally:
        process.terminate()
        process.wait(20)
        os.close(read)
        os.close(write)
