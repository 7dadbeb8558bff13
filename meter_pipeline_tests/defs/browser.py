"""Dagster's UI in a headless Chromium, as a person clicks it. Needs chromium, chromedriver and selenium; a test without
them is skipped.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class Page:
    """One window."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver, self.base = driver, base

    def go(self, path: str) -> None:
        self.driver.get(self.base + path)

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def wait(self, ready: Callable[[], Any], what: str, seconds: float = 40) -> Any:
        """Poll until true; the page's words are in the failure."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := ready():
                return found
            time.sleep(0.2)
        raise AssertionError(f"{what} did not come in {seconds} s; the page says:\n{self.text()[:3000]}")

    def says(self, words: str, seconds: float = 40) -> None:
        """Wait until the page holds these words."""
        self.wait(lambda: words in self.text(), repr(words), seconds)

    def click(self, words: str, tag: str = "button", seconds: float = 40) -> None:
        """Click the first visible, enabled element of a kind with exactly these words."""
        from selenium.common.exceptions import WebDriverException

        def tried() -> bool:
            try:
                for element in self.driver.find_elements("xpath", f"//{tag}[normalize-space()='{words}']"):
                    if element.is_displayed() and element.is_enabled():
                        element.click()
                        return True
            except WebDriverException:  # redrawn between finding and clicking, or covered by what is just going away
                return False
            return False

        self.wait(tried, f"a {tag} that says {words!r}", seconds)

    def picture(self, path: Path) -> None:
        """A screenshot of the window, as a palette image: a third of the size."""
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))
        with Image.open(path) as shot:
            small = shot.convert("RGB").quantize(96)
        small.save(path, optimize=True)


@contextmanager
def browse(base: str, width: int = 1400, height: int = 800) -> Iterator[Page]:
    """A browser on a server; closed, with its profile, at the end."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver here")
    profile = tempfile.mkdtemp(prefix="chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
        options.add_argument(option)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield Page(opened, base)
    finally:
        opened.quit()
        shutil.rmtree(profile, ignore_errors=True)
