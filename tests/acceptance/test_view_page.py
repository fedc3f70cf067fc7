"""The live page in a real browser: cells become clips without a reload, and picks are kept beside the run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Opened
from tests.acceptance.driving import shots
from tests.acceptance.viewing import start_view

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"),
]
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
)
WAIT_S = 30.0


@pytest.fixture
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(WAIT_S)
    yield driver
    driver.quit()


def until(driver: Any, script: str, what: str) -> Any:
    """The value of an expression once it is true; each look waits for the browser's next frame."""
    end = time.monotonic() + WAIT_S
    while not (found := driver.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"never happened: {what}"
        driver.execute_async_script("requestAnimationFrame(arguments[0])")
    return found


def test_the_page_follows_the_run_and_keeps_the_picks(
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

    until(
        browser, "document.querySelectorAll('#sheet .cell.done .shot[href] img:not(.inset)').length === 4", "clips came"
    )
    until(browser, "[...document.querySelectorAll('#sheet img')].every((i) => i.complete && i.naturalWidth)", "posters")
    until(browser, "document.querySelector('#sheet .cell.rejected')", "the failed one")
    assert (
        browser.execute_script("return document.querySelector('#sheet .cell.rejected').textContent").count("<b>no</b>")
        == 1
    )
    until(browser, "document.querySelector('.totals dd').textContent === '4/5'", "the head counts")
    assert "$0.540" in browser.execute_script("return document.querySelector('.totals').textContent")
    assert browser.execute_script("return document.getElementById('live-badge').hidden")
    assert browser.execute_script("return window.notReloaded")

    browser.execute_script("document.querySelectorAll('#sheet .cell.done .shot')[1].focus()")
    webdriver.ActionChains(browser).send_keys("p").perform()
    picks = dop.latest / "picks.json"
    until(browser, "fetch('picks').then((a) => a.json()).then((found) => found.picks.length === 1)", "saved")
    assert [pick["row_id"] for pick in json.loads(picks.read_text())["picks"]] == ["row-2"]
    browser.refresh()
    until(browser, "document.querySelectorAll('#sheet .cell.picked').length === 1", "the pick is there again")
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
