"""A real Chromium that drives pages, and keeps what it complains of and what it asks the network for."""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

WAIT_S = 90.0


@dataclass
class Watched:
    """A page, and what it has said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def until(self, expression: str, value: object = True) -> Any:
        """Wait until a JavaScript expression has a value; the page's policy forbids Playwright's own way of waiting."""
        end = time.monotonic() + WAIT_S
        while (found := self._now(expression)) != value:
            if time.monotonic() > end:
                raise AssertionError(f"{expression} is {found!r} and not {value!r}; the page said {self.said}")
            self.page.wait_for_timeout(30)
        return found

    def _now(self, expression: str) -> Any:
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(expression)
        except Error as error:  # between two pages
            return error.message

    def settled(self) -> None:
        """Wait until all views are open and no longer move."""
        self.until("page.shown.every((view) => !view.url || view.ready)")
        self.until("page.shown.every((view) => !view.ready || view.osd.world.getItemAt(0).getFullyLoaded())")
        frames = "page.shown.filter((v) => v.ready).map((v) => Object.values(v.frame()))"
        seen: list[Any] = []
        # a busy machine may pause in the midst of a move
        while len(seen) < 4 or any(frame != seen[-1] for frame in seen[-4:]):
            self.page.wait_for_timeout(120)
            seen.append(self.page.evaluate(frames))

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def name_reader(self, name: str) -> None:
        """Give the reader's name."""
        self.page.fill("#reviewer", name)
        self.page.locator("#reviewer").blur()

    def screen(self) -> np.ndarray:
        """Return the page as grey levels, (rows, cols)."""
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("L"))


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start the system's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, url: str, size: tuple[int, int] = (1366, 768), context: Any = None) -> Iterator[Watched]:
    """Open a page in a profile of its own, or in a given one."""
    own = context or browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
    page = own.new_page()
    page.set_default_timeout(1000 * WAIT_S)
    watched = Watched(page)
    page.on("console", lambda message: watched.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: watched.said.append(f"error: {error}"))
    page.on("request", lambda request: watched.asked.append(request.url))
    page.goto(url)
    watched.until("document.readyState === 'complete' && document.body.matches('.from-disk, .served, .agreement')")
    yield watched
    page.close()
    if context is None:
        own.close()
