"""A headless Chromium, spoken to by the DevTools protocol over two pipes: no driver, no package.

Benchmarks measure pages with it and take pictures of them; tests press keys.
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import psutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Programs that are tried."""
LOOKED_AT = "document.querySelectorAll('.card').length > 0 && [...document.querySelectorAll('.card .picture-box')]"
"""The pictures of a gallery that are in view."""
WHOLE = f"{LOOKED_AT}.every(box => box.childElementCount && [...box.querySelectorAll('img')].every(i => i.complete))"
"""True in a gallery when all cards in view have their pictures."""


def find_browser() -> str | None:
    """Return the program, or None where this machine has none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """An open page."""

    def __init__(self, to_browser: BinaryIO, from_browser: BinaryIO, pid: int) -> None:
        self._pid = pid
        self._to, self._from = to_browser, from_browser
        self._number, self._session = 0, ""
        self._kept = b""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result.

        Raises:
            RuntimeError: when the browser answers with an error.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def attach(self) -> None:
        """Open an empty page and speak to it from now on."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def show(self, width: int, height: int, *, is_dark: bool = False, is_print: bool = False) -> None:
        """Set the size of the window, and whether the reader wants dark pages, or paper."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if is_print else "screen", features=[scheme])

    def open(self, url: str, limit_s: float = 60.0) -> None:
        """Go to an address, and wait until its scripts have run."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        place = json.dumps(url.split("#")[0])
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({place})", limit_s)

    def wait(self, condition: str, limit_s: float = 60.0) -> float:
        """Wait until an expression of the page is true; return the milliseconds that it took there.

        Raises:
            RuntimeError: when it does not become true.
        """
        script = (
            "new Promise((yes, no) => { const from = performance.now(); const look = () => { let is = false;"
            f" try {{ is = {condition}; }} catch {{ is = false; }}"
            " if (is) yes(performance.now() - from);"
            f" else if (performance.now() - from > {1000 * limit_s}) no(new Error('not within the time'));"
            " else requestAnimationFrame(look); }; look(); })"
        )
        return self.value(script)

    def value(self, expression: str) -> Any:
        """Return the value of an expression of the page, a promise's result where it is one.

        Raises:
            RuntimeError: when it raises.
        """
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def cpu_s(self) -> float:
        """Return the CPU seconds that the browser with all its processes has taken so far."""
        browser = psutil.Process(self._pid)
        times = [one.cpu_times() for one in (browser, *browser.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def press(self, key: str) -> None:
        """Press a key: a letter, or a name such as ArrowDown, Enter, Escape."""
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        more: dict[str, Any] = {"windowsVirtualKeyCode": codes[key]} if key in codes else {"text": key}
        if key == "Enter":
            more["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, *, whole: bool = False) -> bytes:
        """Return what is seen as PNG, or the whole page."""
        return base64.b64decode(
            self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))["data"]
        )

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._kept:
            piece = os.read(self._from.fileno(), 1 << 20)
            if not piece:
                raise RuntimeError("the browser ended")
            self._kept += piece
        message, _, self._kept = self._kept.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def browser_page(program: str) -> Iterator[Page]:
    """Yield an empty page of a new browser, which ends with it."""
    hears, to_browser = os.pipe()
    from_browser, says = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip

        def place() -> None:
            # The protocol wants the pipes as files 3 and 4; out of the way first, where they may lie already.
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (hears, says)]
            for end, number in zip(ends, (3, 4), strict=True):
                os.dup2(end, number)

        quiet = subprocess.DEVNULL
        process = subprocess.Popen(arguments, preexec_fn=place, pass_fds=(3, 4), stdout=quiet, stderr=quiet)
        os.close(hears)
        os.close(says)
        try:
            with os.fdopen(to_browser, "wb") as to, os.fdopen(from_browser, "rb") as back:
                page = Page(to, back, process.pid)
                page.attach()
                yield page
                with contextlib.suppress(RuntimeError, OSError):
                    page.call("Browser.close")
        finally:
            process.terminate()
            process.wait(timeout=20)
