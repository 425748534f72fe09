"""Debian's Chromium over its debugging pipe: no driver and no library is needed."""

import contextlib
import itertools
import json
import os
import subprocess
import time
from pathlib import Path


class Browser:
    """A page in a browser of its own; `requests` lists every address that it asked for."""

    def __init__(self, process, read, write):
        self._process, self._read, self._write = process, read, write
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        self.requests: list[str] = []

    def call(self, method: str, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                more = os.read(self._read, 1 << 16)
                assert more, "the browser ended"
                self._buffer += more
            line, self._buffer = self._buffer.split(b"\0", 1)
            found = json.loads(line)
            if found.get("method") == "Page.javascriptDialogOpening":
                dialog = {
                    "id": 0,
                    "method": "Page.handleJavaScriptDialog",
                    "params": {"accept": True},
                }
                dialog["sessionId"] = self._session
                os.write(self._write, json.dumps(dialog).encode() + b"\0")
            if found.get("method") == "Network.requestWillBeSent":
                self.requests.append(found["params"]["request"]["url"])
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=1280,
            height=800,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, file: Path) -> None:
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.until("document.readyState === 'complete' && typeof csv === 'function'")

    def run(self, code: str):
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, code: str) -> None:
        for _ in range(400):
            if self.run(code):
                return
            time.sleep(0.02)
        raise AssertionError(f"never true: {code}")

    def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)


@contextlib.contextmanager
def started(program: str, profile: Path):
    """A browser with an empty profile."""
    there, write = os.pipe()
    read, back = os.pipe()
    flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
    command = f'exec "$0" {flags} --remote-debugging-pipe --user-data-dir="$1" 3<&{there} 4>&{back}'
    process = subprocess.Popen(
        ["bash", "-c", command, program, str(profile)],
        pass_fds=(there, back),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    os.close(there)
    os.close(back)
    browser = Browser(process, read, write)
    try:
        browser.attach()
        yield browser
    finally:
        process.terminate()
        process.wait(20)
        os.close(read)
        os.close(write)
