"""The review page with many clips in a real browser: how soon it is there, and how long it blocks while it is used.

    .venv/bin/python -m benchmarks.review_page              2,000 clips: 250 shots of 8 takes
    .venv/bin/python -m benchmarks.review_page --shots 500
    .venv/bin/python -m benchmarks.review_page --pictures outputs    docs/pictures/review-*.jpg of the newest run there

`dop view` serves a run from its ledger, as for a reviewer. "First view" is the time from asking for the page to its
first clips on the screen, the server's work included. A long task is one that keeps the page from answering for 50 ms
or more, as the browser itself counts them. Needs Chromium. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from selenium.webdriver import ActionChains, Keys

from pipeline.reports.sheet.page import write_sheet
from pipeline.reports.sheet.thumbnails import make_stills
from tests.support.browser import chromium, show
from tests.support.review_run import make_review_run
from tests.support.sheet_run import RUN, make_study

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
DOP = Path(sys.executable).with_name("dop")
WATCH = """
    window.tasks = [];
    new PerformanceObserver((list) => list.getEntries().forEach((task) => tasks.push(task.duration)))
        .observe({type: "longtask", buffered: true});"""
FIRST_VIEW = """
    const [navigation] = performance.getEntriesByType("navigation");
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    return [navigation.responseStart, paint.startTime, navigation.domContentLoadedEventEnd, navigation.loadEventEnd,
        document.querySelectorAll("#sheet .cell").length];"""
SCROLL = """
    const done = arguments[0];
    const step = () => {
        scrollBy(0, 240);
        if (scrollY + innerHeight < document.documentElement.scrollHeight - 300 && (window.left -= 1) > 0)
            requestAnimationFrame(step);
        else done(scrollY);
    };
    window.left = 600;
    step();"""
ROUNDS = 3


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.review_page")
    parser.add_argument("--shots", type=int, default=250)
    parser.add_argument("--takes", type=int, default=8)
    parser.add_argument("--pictures", type=Path, metavar="OUTPUTS", help="make the documents' pictures instead")
    args = parser.parse_args()
    if args.pictures is not None:
        pictures(args.pictures)
        return
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        make_review_run(outputs, shots=args.shots, takes=args.takes)
        make_stills(sorted(outputs.glob("*/videos/take-*.mp4")), ())
        with served(outputs) as address:
            report(address, args.shots * args.takes)


@contextmanager
def served(outputs: Path) -> Iterator[str]:
    """The address of the newest run's page."""
    command = [str(DOP), "view", "--no-open", "--as", "ana", "--outputs", str(outputs)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def report(address: str, clips: int) -> None:
    """Prints the figures of some rounds, each in a fresh browser."""
    rounds = [measure(address) for _ in range(ROUNDS)]
    print(f"{clips} clips, medians of {ROUNDS} rounds (worst in brackets)")
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        print(f"{name:>34}  {statistics.median(values):7.0f}  ({max(values):.0f})")


def measure(address: str) -> dict[str, float]:
    """Times in ms of one visit: open, scroll to the end, walk and judge by keyboard, group anew, filter."""
    found: dict[str, float] = {}
    with chromium() as driver:
        show(driver, width=1440, height=900)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        driver.get(address)
        driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        time.sleep(1)
        answer, paint, drawn, loaded, cells = driver.execute_script(FIRST_VIEW)
        found |= {"answer begins": answer, "first view": paint, "scripts done": drawn, "loaded": loaded, "cells": cells}
        found["longest task while it opens"] = longest(driver)
        found["end of the scroll, px"] = driver.execute_async_script(SCROLL)
        found["longest task while scrolling"] = longest(driver)
        driver.execute_script("scrollTo(0, 0)")
        longest(driver)
        for key in (Keys.ARROW_RIGHT, "k", Keys.ARROW_DOWN, "x", "j", "4") * 5:
            ActionChains(driver).send_keys(key).perform()
        found["longest task while judging"] = longest(driver)
        driver.execute_script(choose("axis-y", "tag"))
        found["longest task: group by tag"] = longest(driver)
        driver.execute_script(choose("sort", "stars"))
        found["longest task: sort by stars"] = longest(driver)
        driver.execute_script("document.querySelector('[name=verdict][value=keep]').click()")
        found["longest task: filter by verdict"] = longest(driver)
    return found


def pictures(outputs: Path) -> None:
    """Judges some clips of a copy of the newest run, and takes the pictures of docs/choosing.md."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "outputs"
        shutil.copytree(outputs, copy, symlinks=True)
        with served(copy) as address, chromium() as driver:
            show(driver, width=1440, height=900)
            driver.get(address)
            time.sleep(2)
            for keys in ("k5", "x", "4", "k4", "x", "2", "x2", "3"):
                press(driver, *keys, "j")
            press(driver, "n")
            press(driver, "the best light so far", Keys.ENTER)
            press(driver, "b", *(Keys.ARROW_LEFT,) * 9)
            time.sleep(1)
            keep(driver, "duel")
            press(driver, Keys.ESCAPE)
            for name, opening, closing in (("triage", Keys.ENTER, Keys.ESCAPE), ("compare", "v", Keys.ESCAPE)):
                press(driver, opening)
                time.sleep(2)
                keep(driver, name)
                press(driver, closing)
            for name, width, dark in (("light", 1440, False), ("dark", 1440, True), ("phone", 390, False)):
                show(driver, width=width, height=900 if width > 700 else 844, dark=dark, touch=width < 700)
                driver.get(address)
                time.sleep(2)
                keep(driver, name)
            study = Path(folder) / RUN / "report.html"
            write_sheet(make_study(Path(folder)), study)
            show(driver, width=1280, height=720)
            driver.get(study.as_uri())
            time.sleep(2)
            keep(driver, "troubles")


def keep(driver: Any, name: str) -> None:
    """One picture, small."""
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as picture:
        small = picture.convert("RGB")
        small.thumbnail((1_100, 1_100))
        small.save(PICTURES / f"review-{name}.jpg", quality=72, optimize=True)
    print(PICTURES / f"review-{name}.jpg")


def press(driver: Any, *keys: str) -> None:
    """Keys, one after the other."""
    for key in keys:
        ActionChains(driver).send_keys(key).perform()
        time.sleep(0.1)


def choose(name: str, value: str) -> str:
    """A script that chooses a value of a list on the page."""
    change = "list.dispatchEvent(new Event('change', {bubbles: true}))"
    return f"const list = document.getElementById('{name}'); list.value = '{value}'; {change}"


def longest(driver: Any) -> float:
    """The longest task since the last look, in ms; 0 where none took 50 ms."""
    time.sleep(0.5)
    longest_ms: float = driver.execute_script("const most = Math.max(0, ...tasks); tasks.length = 0; return most")
    return longest_ms


if __name__ == "__main__":
    main()
