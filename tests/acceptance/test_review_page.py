"""The review page in a real browser, by keyboard alone: what is judged stays, and duels are ranked."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.ledger.reviews import all_reviews, clip_reviews
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.records import Request
from tests.support.browser import NEEDS_BROWSER, axe_faults, chromium, show
from tests.support.cli_driver import Dop, Here
from tests.support.review_run import make_review_run
from tests.support.viewer_process import View, start_view

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")

pytestmark = [*NEEDS_BROWSER, pytest.mark.xdist_group("review page")]
SHOTS, TAKES = 12, 8
WAIT_S = 30.0
ENTER, ESCAPE, LEFT, RIGHT = "\ue007", "\ue00c", "\ue012", "\ue014"
TEMPLATES = Path(__file__).resolve().parents[2] / "pipeline" / "reports" / "sheet" / "templates"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        show(driver)
        yield driver


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Request]]:
    """12 shots of 8 takes, never reviewed; a test copies it."""
    outputs = tmp_path_factory.mktemp("takes")
    return outputs, make_review_run(outputs, shots=SHOTS, takes=TAKES)


@pytest.fixture
def reviewed(takes: tuple[Path, list[Request]], tmp_path: Path) -> Iterator[tuple[Dop, list[Request]]]:
    outputs, rows = takes
    dop = Here(folder=tmp_path)
    shutil.copytree(outputs, dop.outputs, copy_function=_linked)
    yield dop, rows
    dop.end_all()


def _linked(source: str, target: str) -> str:
    """Clips are linked, the ledger is copied: a copied file of its own number would be taken for a copy of it."""
    if source.endswith(".mp4"):
        Path(target).hardlink_to(source)
        return target
    return str(shutil.copy2(source, target))


def press(driver: Any, *keys: str) -> None:
    webdriver.ActionChains(driver).send_keys("".join(keys)).perform()


def until(driver: Any, script: str, what: str) -> Any:
    """The value of an expression once it is true."""
    end = time.monotonic() + WAIT_S
    while not (found := driver.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"never happened: {what}"
        driver.execute_async_script("requestAnimationFrame(arguments[0])")
    return found


def open_page(driver: Any, view: View) -> None:
    driver.get(view.address)
    until(driver, "document.querySelector('#sheet .cell.current')", "a clip is current")


def saved(driver: Any) -> None:
    until(driver, "document.getElementById('saved').textContent === 'saved'", "the page says saved")


def ledger_reviews(dop: Dop) -> dict[str, tuple[str | None, int | None, str | None]]:
    ledger = SqliteLedger(dop.outputs / "ledger.db", inline=True)
    try:
        return {name: (one.verdict, one.stars, one.note) for name, one in clip_reviews(ledger).items()}
    finally:
        ledger.close(clean=False)


def judgement(number: int) -> tuple[str, int, str | None]:
    """What the test says of the clip of that number."""
    shot, take = divmod(number, TAKES)
    return ("keep" if take == shot % TAKES else "reject", number % 5 + 1, f"take {take}" if take == 7 else None)


def test_ninety_six_takes_are_judged_by_keyboard_and_neither_reload_nor_kill_loses_one(
    reviewed: tuple[Dop, list[Request]], browser: Any
) -> None:
    dop, rows = reviewed
    view = start_view(dop, "--as", "ana")
    open_page(browser, view)
    press(browser, "f")
    for number in range(SHOTS * TAKES):
        verdict, stars, note = judgement(number)
        if number == 40:  # in the middle of the work
            saved(browser)
            view.process.kill()
            view.process.wait()
            view = start_view(dop, "--as", "ana")
            open_page(browser, view)
            assert browser.execute_script("return document.getElementById('progress').textContent").startswith(
                "40 of 96"
            )
            press(browser, "j" * 40 + ENTER)
        if number == 70:
            saved(browser)
            browser.refresh()
            open_page(browser, view)
            press(browser, "j" * 70 + ENTER)
        where = browser.execute_script("return document.getElementById('box-where').textContent")
        assert where == f"{number + 1} of 96"
        press(browser, "k" if verdict == "keep" else "x", str(stars))
        if note:
            press(browser, "n")
            press(browser, note, ENTER)
        press(browser, RIGHT)
    press(browser, ESCAPE)
    saved(browser)
    view.process.kill()
    view.process.wait()
    wanted = {row.request_id: judgement(number) for number, row in enumerate(rows)}
    assert ledger_reviews(dop) == wanted
    view = start_view(dop)
    open_page(browser, view)
    kept = "document.querySelectorAll('#sheet .cell.keep').length"
    assert browser.execute_script(f"return {kept}") == SHOTS
    assert (
        browser.execute_script("return document.getElementById('next-sum').textContent")
        == "12 kept x dop-preview = $6.88"
    )
    assert view.interrupt() == 0


def test_two_pages_at_once_lose_nothing_and_two_reviewers_do_not_overwrite_each_other(
    reviewed: tuple[Dop, list[Request]], browser: Any
) -> None:
    dop, rows = reviewed
    ana, ben = start_view(dop, "--as", "ana"), start_view(dop, "--as", "ben")
    windows = [browser.current_window_handle]
    open_page(browser, ana)
    for view in (ana, ben):
        browser.switch_to.new_window("tab")
        windows.append(browser.current_window_handle)
        open_page(browser, view)
    try:
        for turn in range(12):  # three pages: two of ana, one of ben, each judges other clips, and all the first one
            for page, window in enumerate(windows):
                browser.switch_to.window(window)
                press(browser, str(page + 1), *("xk"[page % 2] if turn == 0 else ""), "j")
        for window in windows:
            browser.switch_to.window(window)
            saved(browser)
        assert len(dop.ledger("select 1 from reviews")) == 3 * 12 + 3
        assert ledger_reviews(dop)[rows[0].request_id] == ("reject", 3, None)
        browser.switch_to.window(windows[0])
        first = "document.querySelector('#sheet .cell .said').textContent"
        until(browser, f"{first} === 'reject★★★ben: reject ★★★'", "ana hears of ben, and her own verdict stays hers")
        by = dop.ledger("select who, verdict from reviews where verdict is not null order by number")
        assert by == [("ana", "reject"), ("ana", "keep"), ("ben", "reject")]
    finally:
        for window in windows[1:]:
            browser.switch_to.window(window)
            browser.close()
        browser.switch_to.window(windows[0])


def test_what_the_server_does_not_take_is_kept_and_sent_again(
    reviewed: tuple[Dop, list[Request]], browser: Any
) -> None:
    dop, rows = reviewed
    view = start_view(dop, "--as", "ana")
    open_page(browser, view)
    view.process.kill()
    view.process.wait()
    press(browser, "k", "5")
    until(browser, "document.getElementById('saved').textContent.startsWith('2 not saved')", "the page says so")
    again = start_view(dop, "--as", "ana", "--port", view.port)
    open_page(browser, again)  # the same origin: the browser kept what was not sent
    saved(browser)
    assert ledger_reviews(dop) == {rows[0].request_id: ("keep", 5, None)}
    assert again.interrupt() == 0


# --- duels


def likeliest(wins: np.ndarray) -> np.ndarray:
    """Bradley-Terry by minorisation-maximisation (Hunter 2004), where the likelihood has a largest value."""
    strengths = np.ones(len(wins))
    both = wins + wins.T
    for _ in range(20_000):
        shares = (both / (strengths[:, None] + strengths[None, :])).sum(axis=1)
        fresh = wins.sum(axis=1) / shares
        fresh /= np.exp(np.log(fresh).mean())
        if np.abs(fresh - strengths).max() < 1e-13:
            break
        strengths = fresh
    return np.log(strengths)


def reference_fit(wins: np.ndarray, prior_sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Strengths and covariance of the same model with the same prior, by plain gradient ascent and numpy's inverse."""
    strengths = np.zeros(len(wins))
    both = wins + wins.T
    for _ in range(200_000):
        p = 1 / (1 + np.exp(-(strengths[:, None] - strengths[None, :])))
        slope = wins.sum(axis=1) - (both * p).sum(axis=1) - strengths / prior_sd**2
        strengths = strengths + slope / (both.sum() / 4 + 1)
        if np.abs(slope).max() < 1e-11:
            break
    p = 1 / (1 + np.exp(-(strengths[:, None] - strengths[None, :])))
    bend = -(both * p * (1 - p))
    np.fill_diagonal(bend, -bend.sum(axis=1) + 1 / prior_sd**2)
    return strengths, np.linalg.inv(bend)


def tournament(seed: int, takes: int, rounds: int) -> np.ndarray:
    """Duels of every pair, with winners drawn by strengths that lie apart."""
    draw = random.Random(seed)
    strengths = [draw.gauss(0, 1.2) for _ in range(takes)]
    wins = np.zeros((takes, takes), dtype=int)
    for i, j in itertools.combinations(range(takes), 2):
        for _ in range(rounds):
            i_wins = draw.random() < 1 / (1 + math.exp(strengths[j] - strengths[i]))
            wins[(i, j) if i_wins else (j, i)] += 1
    return wins


def fitted(driver: Any, wins: np.ndarray) -> dict[str, Any]:
    """What the page's own fit says."""
    script = (TEMPLATES / "bradley.js").read_text()
    found: dict[str, Any] = driver.execute_script(
        f"{script}\nconst fit = fitDuels(arguments[0]);"
        "return {...fit, sure: sureness(fit, 0, 1), pair: nextPair(arguments[0], fit)};",
        wins.tolist(),
    )
    return found


def test_the_order_of_duels_is_that_of_a_reference_fit(browser: Any) -> None:
    browser.get("about:blank")
    compared = 0
    for seed in range(40):
        wins = tournament(seed, takes=8, rounds=4)
        found = fitted(browser, wins)
        strengths, covariance = reference_fit(wins, prior_sd=5)
        assert found["strengths"] == pytest.approx(list(strengths), abs=1e-6)
        assert np.allclose(found["covariance"], covariance, atol=1e-6)
        spread = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        sure = 0.5 * (1 + math.erf((strengths[0] - strengths[1]) / spread / math.sqrt(2)))
        assert found["sure"] == pytest.approx(sure, abs=1e-6)
        if wins.sum(axis=1).min() > 0 and wins.sum(axis=0).min() > 0:
            order = np.argsort(-np.array(found["strengths"]))
            assert (np.diff(likeliest(wins)[order]) < 1e-6).all()  # takes with as many wins are equal: either may lead
            compared += 1
    assert compared >= 20


def test_a_take_that_never_lost_and_duels_that_never_were_have_an_order_too(browser: Any) -> None:
    browser.get("about:blank")
    wins = np.zeros((4, 4), dtype=int)
    found = fitted(browser, wins)
    assert (found["strengths"], found["sure"]) == ([0, 0, 0, 0], pytest.approx(0.5))
    wins[2, :] = (5, 5, 0, 5)
    found = fitted(browser, wins)
    assert max(range(4), key=lambda one: found["strengths"][one]) == 2
    assert all(math.isfinite(one) for one in found["strengths"])
    assert 2 not in found["pair"]


def test_duels_by_keyboard_are_blind_durable_and_end_in_the_reference_order(
    reviewed: tuple[Dop, list[Request]], browser: Any
) -> None:
    dop, rows = reviewed
    view = start_view(dop, "--as", "ana")
    open_page(browser, view)
    taste = {row.row_id: number for number, row in enumerate(rows[:TAKES])}  # the later take is the better one
    link_of = {f"take-{number:04d}.mp4": row.row_id for number, row in enumerate(rows)}
    press(browser, "b")
    for _ in range(40):
        sources = browser.execute_script("return [...document.querySelectorAll('#duel-panes video')].map((v) => v.src)")
        left, right = (link_of[source.rsplit("/", 1)[1]] for source in sources)
        shown = browser.execute_script("return document.getElementById('duel').innerText")
        assert "sh001" not in shown
        press(browser, LEFT if taste[left] > taste[right] else RIGHT)
    press(browser, "u", "o")
    assert axe_faults(browser) == []
    lines = browser.execute_script(
        "return [...document.querySelectorAll('#duel-result li')].map((e) => e.dataset.request)"
    )
    press(browser, ESCAPE)
    saved(browser)
    view.process.kill()
    view.process.wait()
    wins = _wins(dop, rows[:TAKES])
    assert wins.sum() == 39
    strengths, _ = reference_fit(wins, prior_sd=5)
    order = [rows[int(one)].request_id for one in np.argsort(-strengths, kind="stable")]
    assert lines == order
    assert lines[0] == rows[TAKES - 1].request_id
    assert json.loads(dop.call("review export").out)["reviews"]


def _wins(dop: Dop, rows: Sequence[Request]) -> np.ndarray:
    at = {row.request_id: number for number, row in enumerate(rows)}
    wins = np.zeros((len(rows), len(rows)), dtype=int)
    ledger = SqliteLedger(dop.outputs / "ledger.db", inline=True)
    for review in all_reviews(ledger):
        if review.rival is not None and review.duel is not None:
            wins[at[review.request_id], at[review.rival]] += review.duel
    ledger.close(clean=False)
    return wins


# --- sharing


def complaints(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


def plays(driver: Any, selector: str) -> None:
    until(driver, f"(document.querySelector({selector!r})?.currentTime ?? 0) > 0.2", f"{selector} plays")


def test_two_takes_are_wiped_subtracted_and_downloaded_by_keyboard(
    reviewed: tuple[Dop, list[Request]], browser: Any
) -> None:
    dop, _ = reviewed
    view = start_view(dop, "--as", "ana")
    open_page(browser, view)
    press(browser, "c", RIGHT, "c", "v")
    until(browser, "document.querySelectorAll('#versus[open] .pane').length === 2", "two panes")
    for key, name in (("w", "wiping"), ("e", "differing"), ("e", "")):
        press(browser, key)
        assert (
            browser.execute_script("return document.getElementById('versus').className") == f"box versus {name}".strip()
        )
    press(browser, ESCAPE, "k")
    saved(browser)
    until(browser, "document.getElementById('kept-download').checkVisibility()", "the kept clips can be had")
    kept = zipfile.ZipFile(io.BytesIO(view.ask(f"{view.page}kept.zip").body))
    assert [name.startswith("take-") for name in kept.namelist()] == [True]
    browser.execute_script("HTMLAnchorElement.prototype.click = function () { window.downloaded = this.download }")
    press(browser, "d")
    chosen = browser.execute_script(
        "return [window.downloaded, document.querySelector('#sheet .cell.keep .name').textContent]"
    )
    assert chosen[0] == f"{chosen[1]}.mp4"


def test_a_zip_plays_anywhere_and_its_reviews_come_back(reviewed: tuple[Dop, list[Request]], browser: Any) -> None:
    dop, rows = reviewed
    assert dop.call("report", "-o", dop.folder / "review.zip").code == 0
    with zipfile.ZipFile(dop.folder / "review.zip") as archive:
        archive.extractall(dop.folder / "elsewhere")
    folder = dop.folder / "elsewhere" / "review"
    assert {"index.html", "reviews.json", "clips", "README.txt"} == {path.name for path in folder.iterdir()}
    shutil.move(dop.outputs, dop.folder / "gone")
    complaints(browser)
    browser.get((folder / "index.html").as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    until(browser, "document.querySelectorAll('#sheet .cell').length === 96", "every clip is there")
    assert str(dop.folder) not in (folder / "index.html").read_text()
    press(browser, ENTER)
    plays(browser, "#box-show video")
    press(browser, "k", "n")
    press(browser, "from the train", ENTER, ESCAPE)
    browser.execute_script("document.getElementById('reviews-save').click()")
    file = browser.downloads / "reviews.json"
    until(browser, "true", "")
    end = time.monotonic() + WAIT_S
    while not file.exists():
        assert time.monotonic() < end
    assert complaints(browser) == []
    shutil.move(dop.folder / "gone", dop.outputs)
    assert dop.call("review import", file, "--as", "cleo").code == 0
    file.unlink()
    assert ledger_reviews(dop) == {rows[0].request_id: ("keep", None, "from the train")}


def test_one_html_file_holds_its_clips_and_a_broken_link_never_shows(tmp_path: Path, browser: Any) -> None:
    dop = Here(folder=tmp_path)
    make_review_run(dop.outputs, shots=2, takes=2)
    page = tmp_path / "mail" / "one.html"
    assert dop.call("report", "-o", page, "--embed").code == 0
    assert dop.call("report", "-o", tmp_path / "two.csv", "--embed").code == 2
    complaints(browser)
    browser.get(page.as_uri())
    until(browser, "[...document.querySelectorAll('#sheet img')].filter((i) => i.naturalWidth).length >= 4", "posters")
    press(browser, ENTER)
    plays(browser, "#box-show video")
    assert complaints(browser) == []

    assert dop.call("report").code == 0
    lost = tmp_path / "mail" / "report.html"
    shutil.copy(next(dop.outputs.glob("*/report.html")), lost)
    browser.get(lost.as_uri())  # a page that was sent without its folder
    until(browser, "document.querySelectorAll('#sheet .cell .note').length === 4", "words in place of pictures")
    assert (
        browser.execute_script(
            "return [...document.images].filter((i) => !i.hidden && i.complete && !i.naturalWidth).length"
        )
        == 0
    )

    whole = next(dop.outputs.glob("*/report.html"))
    for clip in whole.parent.glob("videos/*.mp4"):
        clip.unlink()
    browser.get(whole.as_uri())
    press(browser, ENTER)
    until(
        browser,
        "document.querySelector('#box-show img') && !document.querySelector('#box-show video')",
        "the poster stays",
    )
    complaints(browser)
    dop.end_all()
