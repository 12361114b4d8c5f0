# SPDX-License-Identifier: Apache-2.0
"""A person with a browser: Debian's Chromium, without a screen."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_PATIENCE = 1_200_000  # milliseconds until a page that does not come is given up


class Person:
    """Clicks through Horizon, and keeps a picture of each page.

    :ivar address: of Horizon.
    :ivar faults: what the pages' scripts complained of.
    """

    def __init__(self, page: Any, address: str, pictures: pathlib.Path) -> None:
        self.page = page
        self.faults: list[str] = []
        self.address = address
        self._pictures = pictures
        page.set_default_timeout(_PATIENCE)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def log_in(self, environment: dict[str, str]) -> None:
        self.page.goto(f"{self.address}/auth/login/")
        self.page.fill("#id_username", environment["OS_USERNAME"])
        self.page.fill("#id_password", environment["OS_PASSWORD"])
        if self.page.query_selector("#id_domain"):
            self.page.fill("#id_domain", "Default")
        with self.page.expect_navigation():
            self.page.click("#loginBtn")
        self.page.wait_for_load_state("networkidle")

    def open(self, panel: str) -> None:
        """A page of the group "Backup and Restore": ``actions``, or ``actions/create``."""
        self.page.goto(f"{self.address}/project/freezer-{panel}" + "/" * ("/" not in panel))
        self.page.wait_for_load_state("networkidle")

    def create(self) -> None:
        """Open the dialogue behind the button "Create ..." of a page."""
        self.page.click(".table_actions a.ajax-modal:has-text('Create')")
        self.page.wait_for_selector(".modal.in form")

    def tab(self, name: str) -> None:
        """Turn to a tab of the dialogue."""
        self.page.click(f".modal .nav a:has-text('{name}')")

    def see(self, name: str) -> None:
        """Keep a picture of the page, whole."""
        self.page.wait_for_timeout(500)  # what fades in is there then
        self.page.screenshot(path=str(self._pictures / f"{name}.png"), full_page=True)

    def submit(self) -> None:
        """Press the dialogue's button, and wait for the page behind it."""
        with self.page.expect_navigation():
            self.page.click(".modal form .modal-footer .btn-primary")
        self.page.wait_for_load_state("networkidle")

    def refused(self) -> list[str]:
        """Press the dialogue's button, and read why it stays."""
        with self.page.expect_response(lambda answer: answer.request.method == "POST"):
            self.page.click(".modal form .modal-footer .btn-primary")
        self.page.wait_for_selector(".modal.in .form-group.has-error", state="attached")
        return [
            re.sub(r"\s+", " ", text).strip()
            for text in self.page.eval_on_selector_all(
                ".modal .form-group.has-error .help-block, .modal .alert-danger",
                "found => found.map(one => one.textContent)",
            )
        ]

    def visible_fields(self) -> set[str]:
        """The names of the fields that the dialogue's open tab shows."""
        return set(
            self.page.evaluate(
                "[...document.querySelectorAll('.modal.in .tab-pane.active [name]')]"
                ".filter(field => field.type !== 'hidden')"
                ".filter(field => field.closest('.form-group')?.offsetParent)"
                ".map(field => field.name)"
            )
        )

    def text(self, selector: str) -> str:
        return re.sub(r"\s+", " ", self.page.inner_text(selector)).strip()

    def overflow(self) -> list[str]:
        """The texts and fields that are cut off at their right, or reach out of the page."""
        return list(self.page.evaluate(_OVERFLOW))


# Every visible element with a text or a value of its own must end within the page and its dialogue.
_OVERFLOW = """
() => {
  const box = document.querySelector('.modal.in .modal-content') || document.body;
  const right = Math.min(box.getBoundingClientRect().right, window.innerWidth) + 1;
  const shown = [...box.querySelectorAll('label, input, select, p, h4, dd, td, th, a, button')];
  return shown.filter(one => one.offsetParent !== null && one.closest('.sidebar') === null)
    .filter(one => one.getBoundingClientRect().right > right)
    .map(one => one.tagName + ' ' + (one.id || one.textContent.trim().slice(0, 40)));
}
"""


@contextlib.contextmanager
def person(
    address: str, pictures: pathlib.Path, *, size: tuple[int, int] = (1400, 1000), **more: Any
) -> Iterator[Person]:
    """A new browser window on a Horizon.

    :param size: of the window, in pixels.
    :param more: settings of Playwright for it, such as ``locale``.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: package chromium")
    pictures.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **more)
            yield Person(page, address, pictures)
        finally:
            browser.close()
