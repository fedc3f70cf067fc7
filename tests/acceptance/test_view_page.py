"""The live page in a real browser: cells become clips without a reload, and reviews are kept in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Opened
from tests.support.browser import NEEDS_BROWSER, axe_faults, chromium, show
from tests.support.cli_driver import shots
from tests.support.viewer_process import start_view

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")

pytestmark = NEEDS_BROWSER
WAIT_S = 30.0
LOADED = "(image) => image.complete && image.naturalWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


def until(driver: Any, script: str, what: str) -> Any:
    """The value of an expression once it is true; each look waits for the browser's next frame."""
    end = time.monotonic() + WAIT_S
    while not (found := driver.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"never happened: {what}"
        driver.execute_async_script("requestAnimationFrame(arguments[0])")
    return found


def test_the_page_follows_the_run_and_keeps_the_reviews(
    against: Callable[..., Opened], browser: Any, tmp_path: Path
) -> None:
    dop, _ = against(generation_s=0.2, prompts={"scene 4": {"status": 422, "body": {"error": "<b>no</b> such scene"}}})
    manifest = dop.csv(shots(5))
    assert dop.buy(manifest, "--max-new", "1").code == 5
    view = start_view(dop)
    browser.get(view.address)
    until(browser, "document.querySelectorAll('#sheet .cell.planned').length === 4", "four cells wait")
    until(browser, "document.getElementById('live-badge').textContent === '0 in flight, 4 to go'", "the badge says so")
    browser.execute_script("window.notReloaded = true")
    assert dop.buy(manifest).code == 1

    until(browser, "document.querySelectorAll('#sheet .cell.done .shot[href] img').length === 4", "clips came")
    until(browser, "[...document.querySelectorAll('#sheet img')].every((i) => i.complete && i.naturalWidth)", "posters")
    until(browser, "document.querySelector('#sheet .cell.rejected')", "the failed one")
    assert (
        browser.execute_script("return document.querySelector('#sheet .cell.rejected').textContent").count("<b>no</b>")
        == 1
    )
    until(browser, "document.querySelector('.totals dd').textContent === '4/5'", "the head counts")
    until(browser, "document.querySelector('.totals .failed:not([hidden]) dd').textContent === '1'", "the failed too")
    assert "$0.540" in browser.execute_script("return document.querySelector('.totals').textContent")
    assert browser.execute_script("return document.getElementById('live-badge').hidden")
    assert browser.execute_script("return window.notReloaded")

    until(
        browser, "document.querySelectorAll('#numbers .money .figures td')[2].textContent === '4'", "the charts are new"
    )

    browser.execute_script("document.querySelectorAll('#sheet .cell.done .shot')[1].focus()")
    webdriver.ActionChains(browser).send_keys("p").perform()
    until(browser, "document.getElementById('saved').textContent === 'saved'", "saved")
    until(browser, "document.getElementById('next-sum').textContent === '1 kept x dop-preview = $0.57'", "the panel")
    assert [line[0] for line in dop.ledger("select verdict from reviews")] == ["keep"]
    browser.refresh()
    until(browser, "document.querySelectorAll('#sheet .cell.keep').length === 1", "the verdict is there again")
    webdriver.ActionChains(browser).send_keys(" ").perform()
    until(
        browser, "[...document.querySelectorAll('#sheet video')].some((video) => video.currentTime > 0.2)", "it plays"
    )
    assert [entry["message"] for entry in browser.get_log("browser")] == []

    for path, words in (("../../", "shots"), ("../../spend", "by model")):
        browser.get(view.address + path)
        until(browser, f"document.body.textContent.includes({words.split()[-1]!r})", path)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert view.interrupt() == 0


def test_the_list_of_runs_and_the_spend_book_can_be_read_by_everybody(
    against: Callable[..., Opened], browser: Any
) -> None:
    dop, _ = against(generation_s=0.2, prompts={"scene 2": {"status": 422, "body": {"error": "no such scene"}}})
    assert dop.buy(dop.csv(shots(6))).code == 1
    view = start_view(dop)
    for dark, width in ((False, 1280), (True, 1280), (False, 390), (True, 390)):
        show(browser, width=width, dark=dark, touch=width < 700)
        for path in ("../../", "../../spend"):
            browser.get(view.address + path)
            assert axe_faults(browser) == []
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            if path == "../../":
                until(
                    browser, "[...document.images].filter((i) => i.complete && i.naturalWidth).length === 4", "stills"
                )
    browser.execute_script("document.querySelector('.book a').click()")
    until(browser, "document.querySelectorAll('#sheet .cell').length === 6", "from the book to the run")
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert view.interrupt() == 0
