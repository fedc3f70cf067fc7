"""The contact sheet in a real browser, opened from a file: what the user sees, hears and can do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.reports.sheet.page import write_sheet
from tests.support.browser import NEEDS_BROWSER, axe_faults, chromium, show
from tests.support.sheet_run import RUN, make_crowd, make_study

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
pytestmark = NEEDS_BROWSER

WAIT_S = 20.0
IN_STEP_S = 0.1


class Sheet:
    """One page in the browser, driven in the words of its user."""

    def __init__(self, driver: Any, page: Path) -> None:
        self.driver = driver
        self.page = page

    def open(self, **screen: Any) -> None:
        show(self.driver, **screen)
        self.driver.get("about:blank")
        self.driver.get(self.page.as_uri())

    def js(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def click(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).click()", selector)

    def choose(self, selector: str, value: str) -> None:
        script = """
            const field = document.querySelector(arguments[0]);
            field.value = arguments[1];
            field.dispatchEvent(new Event(field.type === "search" ? "input" : "change", {bubbles: true}));"""
        self.js(script, selector, value)

    def press(self, *keys: str) -> None:
        for key in keys:
            webdriver.ActionChains(self.driver).send_keys(key).perform()

    def texts(self, selector: str) -> list[str]:
        return self.each(selector, "e.textContent")

    def each(self, selector: str, what: str) -> list[Any]:
        """For every matching element `e` the value of a JavaScript expression."""
        found: list[Any] = self.js(f"return [...document.querySelectorAll(arguments[0])].map((e) => {what})", selector)
        return found

    def shown(self) -> list[str]:
        return self.each("#sheet .cell", "e.dataset.n")

    def until(self, is_so: Callable[[], object], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < end, f"never happened: {what}"
            self.driver.execute_async_script("requestAnimationFrame(arguments[0])")

    def times(self) -> list[float]:
        return self.each("#sheet video", "e.currentTime")

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """The schemes of everything that the browser asked for since the last look."""
        asked = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"].split(":")[0])
        return asked


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    write_sheet(make_study(folder), folder / RUN / "report.html")
    write_sheet(make_crowd(folder, 1000), folder / RUN / "crowd.html")
    write_sheet(make_crowd(folder, 4500), folder / RUN / "throng.html")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(logs=("browser", "performance")) as driver:
        yield driver


@pytest.fixture
def sheet(outputs: Path, browser: Any) -> Iterator[Sheet]:
    """The study, opened fresh; at the end the console must be silent and nothing foreign asked for or run."""
    page = Sheet(browser, outputs / RUN / "report.html")
    browser.get(page.page.as_uri())
    page.js("localStorage.clear()")
    page.complaints()
    page.requests()
    page.open()
    yield page
    assert page.complaints() == []
    assert page.requests() <= {"file", "data", "about", "blob"}
    assert page.js("return window.hacked ?? null") is None


def test_the_page_opens_with_the_asked_rows_columns_and_tab(sheet: Sheet) -> None:
    assert sheet.texts("#sheet thead th") == ["seed11", "seed12", "seed13", "seed14"]
    assert sheet.texts("#sheet tbody th") == [f"strength{one}4 clips" for one in ("0.3", "0.6", "0.9")]
    assert sheet.texts("#tabs .chip span") == ["dop-lite", "dop-turbo", "all"]
    assert len(sheet.shown()) == 12
    assert len(sheet.each("#sheet th img.start", "e.src")) == 3


def test_every_clip_bears_its_id_and_the_longest_row_fills_the_page(sheet: Sheet) -> None:
    ids = [f"mill@dop-lite-0.3-{seed}" for seed in (11, 12, 13, 14)]
    assert sheet.texts("#sheet tbody tr:first-child .name") == ids
    sheet.choose("#axis-x", "")
    assert sheet.texts("#sheet .group:first-child .name") == ids
    assert set(sheet.texts("#sheet .tells")) == {""}
    edges = sheet.each("#sheet .group:first-child .shot", "e.getBoundingClientRect().right")
    assert edges == sorted(edges)
    assert 1100 < edges[-1] <= 1280
    sheet.open(width=390, height=844, touch=True)
    sheet.choose("#axis-x", "")
    assert len(set(sheet.each("#sheet .group:first-child .shot", "e.getBoundingClientRect().x"))) == 2


def test_troubles_stay_in_the_grid_with_reason_and_price(sheet: Sheet) -> None:
    text = {state: sheet.texts(f"#sheet .cell.{state}") for state in ("failed", "refused", "unknown", "accepted")}
    assert text["failed"] == ["failedthe render ran out of memorymill@dop-lite-0.3-14  $0.135 disputed"]
    assert text["refused"] == ["refusednsfwmill@dop-lite-0.6-13  $0.135 disputed"]
    assert "read time-out" in text["unknown"][0]
    assert len(text["accepted"]) == 1
    sheet.click("#tabs input[value='dop-turbo']")
    assert sheet.texts("#sheet .cell.skipped .note") == ["left out by the manifest"]


def test_any_two_axes_become_columns_and_rows_and_the_rest_tabs(sheet: Sheet) -> None:
    sheet.choose("#axis-x", "model")
    assert sheet.texts("#sheet thead th") == ["modeldop-lite", "modeldop-turbo"]
    assert sheet.texts("#tabs legend") == ["seed"]
    sheet.choose("#axis-y", "model")
    assert sheet.js("return [document.querySelector('#axis-x').value, document.querySelector('#axis-y').value]") == [
        "strength",
        "model",
    ]
    assert len(sheet.shown()) == 24
    sheet.choose("#axis-x", "")
    assert len(sheet.shown()) == 24
    assert sheet.texts("#sheet thead th") == []


def test_an_arrangement_is_in_the_address_and_opens_again(sheet: Sheet) -> None:
    sheet.choose("#axis-x", "model")
    sheet.click("#tabs input[value='13']")
    address = sheet.driver.current_url
    sheet.driver.get("about:blank")
    sheet.driver.get(address)
    assert sheet.texts("#sheet thead th") == ["modeldop-lite", "modeldop-turbo"]
    assert sheet.js("return document.querySelector('#tabs input:checked').value") == "13"


def test_videos_of_a_row_play_in_step(sheet: Sheet) -> None:
    sheet.click("#tabs input[value='dop-turbo']")
    sheet.until(lambda: len(sheet.shown()) == 12, "the other tab")
    sheet.click("#play")
    sheet.until(lambda: min(sheet.times(), default=0.0) > 0.5, "all clips running")
    spreads = []
    for _ in range(20):
        times = sheet.times()
        spreads.append(max(times) - min(times))
        sheet.driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert len(sheet.times()) == 11
    assert sorted(spreads)[len(spreads) // 2] < IN_STEP_S
    sheet.click("#play")
    sheet.until(lambda: max(sheet.times()) - min(sheet.times()) < 0.001, "paused at the same frame")


def test_scrubbing_moves_every_clip_and_escape_brings_the_posters_back(sheet: Sheet) -> None:
    sheet.js("const s = document.querySelector('#scrub'); s.value = 2.5; s.dispatchEvent(new Event('input'))")
    sheet.until(lambda: sheet.times() and all(abs(at - 2.5) < 0.01 for at in sheet.times()), "all at 2.5 s")
    sheet.press(".")
    sheet.until(lambda: all(abs(at - 2.5 - 1 / 24) < 0.01 for at in sheet.times()), "one frame on")
    sheet.press("\ue00c")
    assert sheet.times() == []


def test_speed_and_loop_keep_the_clips_together(sheet: Sheet) -> None:
    sheet.choose("#speed", "2")
    sheet.click("#play")
    sheet.until(lambda: min(sheet.times(), default=0.0) > 3.0, "near the end")
    sheet.until(lambda: max(sheet.times()) < 1.0, "from the start again")
    sheet.until(lambda: min(sheet.times()) > 0.5, "running again")
    assert max(sheet.times()) - min(sheet.times()) < 0.2


def test_a_clip_is_enlarged_with_its_whole_request_as_text(sheet: Sheet) -> None:
    sheet.click("#sheet .cell.done .shot")
    assert sheet.js("return document.querySelector('#box').open")
    facts = dict(zip(sheet.texts("#box dt"), sheet.texts("#box dd"), strict=True))
    assert facts["seed"] == "11"
    assert facts["prompt"].startswith("Old mill <script>")
    assert facts["cost"] == "$0.135 confirmed"
    sheet.press("\ue014", "\ue014", "\ue014")
    assert sheet.texts("#box .history") == ["failed: the render ran out of memory"]
    sheet.press("\ue00c")
    assert not sheet.js("return document.querySelector('#box').open")
    sheet.until(lambda: sheet.js("return document.activeElement.closest('.cell.failed') !== null"), "focus is back")


def test_reviews_by_keyboard_are_kept_and_saved_as_a_file_that_another_page_loads(sheet: Sheet, outputs: Path) -> None:
    sheet.press("k", "5", "\ue014", "p", "\ue015", "x", "u", "2")
    assert sheet.texts("#progress") == ["2 of 19 judged, 2 kept, 0 rejected"]
    sheet.open()
    assert sheet.texts("#progress") == ["2 of 19 judged, 2 kept, 0 rejected"]
    assert sheet.texts("#sheet .said") == ["keep★★★★★", "keep", "★★"]
    sheet.click("#reviews-save")
    file = sheet.driver.downloads / "reviews.json"
    sheet.until(file.exists, "reviews.json saved")
    saved = json.loads(file.read_text())
    assert (saved["version"], saved["run"]) == (1, RUN)
    assert [(one.get("verdict"), one.get("stars")) for one in saved["reviews"]] == [
        ("keep", None), (None, 5), ("keep", None), ("reject", None), ("", None), (None, 2),
    ]  # fmt: skip
    sheet.js("localStorage.clear()")
    sheet.open()
    assert sheet.texts("#sheet .said") == []
    sheet.driver.find_element("css selector", "#reviews-file").send_keys(str(file))
    sheet.until(lambda: sheet.texts("#sheet .said") == ["keep★★★★★", "keep", "★★"], "loaded")


def test_the_clip_under_the_pointer_is_the_current_one_and_the_first_one_is_at_the_start(sheet: Sheet) -> None:
    at = "return document.activeElement.closest('.cell').dataset.n"
    assert sheet.js(at) == "0"
    sixth = sheet.driver.find_elements("css selector", "#sheet .shot")[5]
    webdriver.ActionChains(sheet.driver).move_to_element(sixth).perform()
    sheet.press("p")
    assert sheet.each("#sheet .cell.keep", "e.dataset.n") == ["5"]
    assert sheet.js(at) == "5"
    sheet.press("\ue012", "x")
    assert sheet.each("#sheet .cell.reject", "e.dataset.n") == ["4"]


def test_every_run_is_grouped_and_sorted_by_what_was_said_and_found(sheet: Sheet) -> None:
    sheet.press("k", "3", "\ue014", "5")
    options = set(sheet.each("#axis-y option", "e.value"))
    assert options >= {"row", "tag", "motion", "model", "seed", "check", "stars", "verdict"}
    sheet.choose("#axis-x", "")
    sheet.choose("#axis-y", "stars")
    assert sheet.texts("#sheet tbody th") == ["stars★★★★★1 clip", "stars★★★1 clip", "stars–10 clips"]
    sheet.choose("#axis-y", "tag")
    assert sheet.texts("#sheet tbody th") == ["tag–8 clips", "taghero4 clips"]
    sheet.choose("#axis-y", "")
    sheet.choose("#sort", "stars")
    assert sheet.shown()[:3] == ["1", "0", "2"]


def test_marked_clips_are_compared_side_by_side_in_step_and_wiped(sheet: Sheet) -> None:
    sheet.press("c", "\ue014", "c", "v")
    sheet.until(lambda: min(sheet.each("#panes video", "e.currentTime"), default=0.0) > 0.5, "both running")
    first, second = sheet.each("#panes video", "e.currentTime")
    assert abs(first - second) < IN_STEP_S
    assert sheet.texts("#panes .number") == ["1", "2"]
    assert sheet.texts("#panes .under p") == [
        f"mill@dop-lite-0.3-{seed} dop-lite, $0.135, seed {seed}" for seed in (11, 12)
    ]
    sheet.press("k", "\ue012", "x", "4")
    assert sheet.texts("#panes .said") == ["reject ★★★★", "keep"]
    sheet.press("w")
    assert "inset" in sheet.js("return getComputedStyle(document.querySelectorAll('#panes video')[1]).clipPath")
    assert axe_faults(sheet.driver) == []
    sheet.press("\ue00c")
    assert sheet.each("#versus", "e.open") == [False]
    sheet.until(lambda: sheet.each("#panes video", "e.src") == [], "the clips are let go")


def test_in_triage_the_keys_judge_the_large_clip_and_what_is_missing_is_in_words(sheet: Sheet, outputs: Path) -> None:
    sheet.press("j", "\ue007")
    assert sheet.texts("#box-title") + sheet.texts("#box-where") == ["mill@dop-lite-0.3-12", "2 of 12"]
    assert len(sheet.each("#box-takes button", "e.dataset.take")) == 23
    sheet.press("k", "3", "n", "the hand", "\ue007")
    assert sheet.texts("#box-said") == ["keep★★★the hand"]
    sheet.press("\ue014", "x", "u")
    assert sheet.texts("#progress") == ["1 of 19 judged, 1 kept, 0 rejected"]
    sheet.press("i")
    assert sheet.js("return getComputedStyle(document.querySelector('#box-facts')).display") != "none"
    assert axe_faults(sheet.driver) == []
    sheet.press("i", "\ue00c")
    focused = "return document.activeElement.closest('.cell')?.dataset.n"
    sheet.until(lambda: sheet.js(focused) == "2", "the clip that was shown has the focus")


def test_a_duel_is_blind_and_the_winner_counts(sheet: Sheet) -> None:
    sheet.press("b")
    assert sheet.texts("#duel-panes") == ["12"]
    for _ in range(3):
        sheet.press("\ue012")
    sheet.press("u")
    assert sheet.texts("#duel-sure")[0].startswith("2 duels of this shot")
    sheet.press("o")
    assert sheet.texts("#duel-result li b")[0].startswith("1. mill@")
    assert axe_faults(sheet.driver) == []
    sheet.press("\ue00c")
    sheet.choose("#sort", "duels")
    assert sheet.texts("#sheet .rank")


def test_filters_hide_what_is_not_asked_for_and_say_how_much_is_left(sheet: Sheet) -> None:
    sheet.click("#filter-open")
    sheet.click("#filters input[value='failed']")
    assert len(sheet.shown()) == 1
    assert sheet.texts("#shown") == ["1 of 24 clips"]
    assert sheet.texts("#tabs .chip span") == ["dop-lite (1)", "dop-turbo (0)", "all"]
    sheet.click("#filter-clear")
    sheet.until(lambda: len(sheet.shown()) == 12, "all again")
    sheet.choose("#filter-tag", "hero")
    sheet.js("document.querySelector('#filters').dispatchEvent(new Event('input'))")
    assert sheet.texts("#sheet tbody th") == ["strength0.64 clips"]
    sheet.choose("#filter-tag", "")
    sheet.choose("#filter-text", "nsfw")
    assert len(sheet.shown()) == 1
    sheet.choose("#filter-text", "no such words")
    assert sheet.texts("#sheet .nothing") == ["No clip here passes these filters."]


def test_arrows_move_the_way_the_eye_does_and_one_clip_is_in_the_tab_order(sheet: Sheet) -> None:
    sheet.js("document.querySelector('#sheet .shot').focus()")
    at = "return document.activeElement.closest('.cell').dataset.n"
    walked = []
    for key in ("\ue014", "\ue015", "\ue012", "\ue013"):
        sheet.press(key)
        walked.append(sheet.js(at))
    assert walked == ["1", "5", "4", "0"]
    assert sheet.js("return document.querySelectorAll('#sheet [tabindex=\"0\"]').length") == 1


def test_the_page_is_readable_on_a_phone(sheet: Sheet) -> None:
    sheet.open(width=390, height=844, touch=True)
    assert sheet.js("return document.documentElement.clientWidth") == 390
    overflowing = """
        return [...document.querySelectorAll('.head *, .view *, .tabs *, .transport *, .numbers *')]
          .filter((e) => e.getBoundingClientRect().right > 391 && !e.closest('.sr, .sprite, .wide table')).length"""
    assert sheet.js(overflowing) == 0
    assert sheet.each("#sheet tbody tr:first-child .shot", "e.getBoundingClientRect().right")[1] < 391


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_fault(sheet: Sheet, dark: bool) -> None:
    sheet.open(dark=dark)
    sheet.click("#filter-open")
    for opener in ("", "#sheet .cell.done .shot"):
        if opener:
            sheet.click(opener)
        assert axe_faults(sheet.driver) == []


def test_a_thousand_cells_open_quickly_and_only_what_is_seen_is_loaded(sheet: Sheet, outputs: Path) -> None:
    crowd = Sheet(sheet.driver, outputs / RUN / "crowd.html")
    started = time.monotonic()
    crowd.open()
    assert time.monotonic() - started < 10
    assert len(crowd.shown()) == 1000
    crowd.click("#play")
    crowd.until(crowd.times, "players on screen")
    assert len(crowd.times()) <= 48
    assert set(crowd.each("#sheet img", "e.loading")) == {"lazy"}
    assert crowd.page.stat().st_size < 1_500_000


def test_beyond_two_thousand_cells_the_sheet_has_pages(sheet: Sheet, outputs: Path) -> None:
    throng = Sheet(sheet.driver, outputs / RUN / "throng.html")
    throng.open()
    assert len(throng.shown()) == 2000
    assert throng.texts("#pager span") == ["page 1 of 3, 4500 clips"]
    for page in ("1", "2"):
        throng.click(f"#pager [data-page='{page}']")
    assert len(throng.shown()) == 500
    assert throng.shown()[0] == "4000"


def test_a_cell_made_by_the_script_is_the_one_that_the_page_came_with(sheet: Sheet, outputs: Path) -> None:
    """The same cells twice: as written into the page, and as the script makes those beyond the first page."""
    plain = """
        const copy = arguments[0].cloneNode(true);
        copy.removeAttribute("data-n");
        copy.querySelector(".tools")?.remove();
        return copy.outerHTML"""
    throng = Sheet(sheet.driver, outputs / RUN / "throng.html")
    throng.open()
    throng.click("#pager [data-page='1']")
    for state in ("done", "failed"):
        made = throng.js(plain, throng.driver.find_element("css selector", f"#sheet .cell.{state}"))
        throng.click("#pager [data-page='0']")
        came = throng.js(plain, throng.driver.find_element("css selector", f"#sheet .cell.{state}"))
        throng.click("#pager [data-page='1']")
        assert _shape(made) == _shape(came)


def _shape(html: str) -> list[str]:
    """Tags, classes and attribute names in order, without the texts that differ from cell to cell."""
    found = []
    for part in html.split("<")[1:]:
        head = part.split(">")[0]
        names = [word.split("=")[0] for word in head.split(" ") if "=" in word or word == head.split(" ")[0]]
        found.append(" ".join([names[0], *sorted(names[1:])]))
    return found
