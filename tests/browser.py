"""A real headless browser on this machine, driven through chromedriver's HTTP interface.

The picture of a report in the documentation: ``python -m tests.browser REPORT.html PICTURE.png``.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from tests.loopback import free_ports

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
# Without the flags about networking, each start looks up hosts that have nothing to do with this.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--force-device-scale-factor=1",
]  # fmt: skip
PAGE_TIMEOUT_SECONDS = 60.0

# Elements that a person would click, with this text or label, the innermost first.
FIND = """
const [text, kinds] = arguments;
const found = [...document.querySelectorAll(kinds)].filter(e =>
  e.getClientRects().length && [e.innerText, e.getAttribute("aria-label"), e.title]
    .some(t => (t || "").trim() === text));
return found.at(-1) || null;
"""
KINDS = "button, a, [role=tab], [role=radio], [role=menuitem], [role=checkbox], input, label"


class Page:
    """One tab of a browser.

    Attributes:
        clicks: Number of clicks since the page was opened.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self.clicks = 0

    def _ask(self, path: str, **body: Any) -> Any:
        answer = requests.post(f"{self._session}/{path}", json=body, timeout=PAGE_TIMEOUT_SECONDS)
        assert answer.ok, answer.text
        return answer.json()["value"]

    def open(self, url: str) -> None:
        self.clicks = 0
        self._ask("url", url=url)

    def run(self, script: str, *args: Any) -> Any:
        return self._ask("execute/sync", script=script, args=list(args))

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def wait_for(self, script: str, *args: Any) -> Any:
        """Return the script's value as soon as it is true."""
        limit = time.monotonic() + PAGE_TIMEOUT_SECONDS
        while not (found := self.run(script, *args)):
            assert time.monotonic() < limit, f"not in time: {script}\n{self.text()[:3000]}"
            time.sleep(0.2)
        return found

    def wait_for_text(self, *texts: str) -> str:
        self.wait_for(
            "return [...arguments].every(t => document.body.innerText.includes(t))", *texts
        )
        return self.text()

    def click(self, text: str) -> None:
        """Click what has this text or label."""
        self._click(self.wait_for(FIND, text, KINDS))

    def click_at(self, selector: str) -> None:
        """Click the first element of a CSS selector."""
        self._click(self.wait_for("return document.querySelector(arguments[0])", selector))

    def _click(self, element: dict[str, str]) -> None:
        (key,) = element.values()
        self._ask(f"element/{key}/click")
        self.clicks += 1

    def resize(self, width: int, height: int) -> None:
        self._ask("window/rect", width=width, height=height)

    def picture(self, file: Path) -> None:
        answer = requests.get(f"{self._session}/screenshot", timeout=PAGE_TIMEOUT_SECONDS)
        file.write_bytes(base64.b64decode(answer.json()["value"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile."""
    assert DRIVER is not None
    assert BROWSER is not None
    (port,) = free_ports(1)
    driver = subprocess.Popen(
        [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address, session = f"http://127.0.0.1:{port}", ""
    options = {"binary": BROWSER, "args": [*FLAGS, f"--user-data-dir={profile}"]}
    wanted: dict[str, Any] = {"browserName": "chrome", "goog:chromeOptions": options}
    try:
        limit = time.monotonic() + PAGE_TIMEOUT_SECONDS
        while not session:
            with contextlib.suppress(requests.ConnectionError):
                answer = requests.post(
                    f"{address}/session",
                    json={"capabilities": {"alwaysMatch": wanted}},
                    timeout=PAGE_TIMEOUT_SECONDS,
                )
                assert answer.ok, answer.text
                session = f"{address}/session/{answer.json()['value']['sessionId']}"
            assert time.monotonic() < limit
            time.sleep(0.1)
        yield Page(session)
    finally:
        if session:
            requests.delete(session, timeout=PAGE_TIMEOUT_SECONDS)
        driver.terminate()
        driver.wait(timeout=10)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as shown:
        shown.resize(1200, 1560)
        shown.open(source.resolve().as_uri())
        shown.run("document.documentElement.style.scrollbarWidth = 'none'")
        shown.picture(target)
    Image.open(target).quantize().save(target, optimize=True)  # a third of the size
