"""The review page with many clips in a real browser: how soon it is there, and how long it blocks while it is used.

    .venv/bin/python -m benchmarks.review_page              2,000 clips: 250 shots of 8 takes
    .venv/bin/python -m benchmarks.review_page --shots 500
    .venv/bin/python -m benchmarks.review_page --pictures outputs    docs/pictures/review-*.jpg of the newest run there

`dop view` serves a run from its ledger, as for a reviewer. "First view" is the time from asking for the page to its
first clips on the screen, the server's work included. Tasks are those of the page's main thread, which keep it from
answering, from the browser's own trace: `wall` is how long the longest one took, `CPU` how much of that it computed.
On a machine with other work the two differ. Needs Chromium. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
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
FIRST_VIEW = """
    const [navigation] = performance.getEntriesByType("navigation");
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    return [navigation.responseStart, paint.startTime, navigation.domContentLoadedEventEnd,
        document.querySelectorAll("#sheet .cell").length];"""
SCROLL = """
    const done = arguments[1];
    let frames = 0;
    const end = Math.min((arguments[0] + 1) / 4, 1) * document.documentElement.scrollHeight - innerHeight;
    scrollTo(0, arguments[0] / 4 * document.documentElement.scrollHeight);
    const step = () => {
        scrollBy(0, 400);
        if (scrollY < end - 400 && (frames += 1) < 40) requestAnimationFrame(step);
        else done(scrollY);
    };
    requestAnimationFrame(step);"""
TRACED = "blink.user_timing,disabled-by-default-devtools.timeline"
MARK = "part: "
CHOOSE = """
    const list = document.getElementById("{}");
    list.value = "{}";
    list.dispatchEvent(new Event("change", {{bubbles: true}}))"""
ROUNDS = 2


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
    """Prints the figures of some rounds, each part in a fresh browser: a browser's trace holds only so much."""
    figures: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, act in PARTS.items():
            for figure, value in measure(address, name, act).items():
                figures.setdefault(figure, []).append(value)
    print(f"{clips} clips, ms, medians of {ROUNDS} rounds (worst in brackets); load {os.getloadavg()[0]:.1f}")
    for figure, values in figures.items():
        print(f"{figure:>40}  {statistics.median(values):7.0f}  ({max(values):.0f})")


def measure(address: str, name: str, act: Callable[[Any], object]) -> dict[str, float]:
    """Times in ms of one visit: the page is opened, and one thing is done on it."""
    with chromium(logs=("performance",), trace=TRACED) as driver:
        show(driver, width=1440, height=900)
        driver.get(address)
        driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        time.sleep(1)
        answer, paint, drawn, cells = driver.execute_script(FIRST_VIEW)
        mark(driver, "begin")
        act(driver)
        time.sleep(0.7)
        mark(driver, "end")
        opening, part = longest_tasks(driver)
    found = {"answer begins": answer, "first view": paint, "scripts done": drawn, "cells": cells}
    found |= {"longest task, opening: wall": opening[0], "longest task, opening: CPU": opening[1]}
    return found | {f"longest task, {name}: wall": part[0], f"longest task, {name}: CPU": part[1]}


def mark(driver: Any, name: str) -> None:
    """A mark in the trace."""
    driver.execute_script("performance.mark(arguments[0])", MARK + name)


def judge(driver: Any) -> None:
    """Walks over the clips and judges some, by keyboard."""
    for key in (Keys.ARROW_RIGHT, "k", Keys.ARROW_DOWN, "x", "j", "4") * 5:
        ActionChains(driver).send_keys(key).perform()


def longest_tasks(driver: Any) -> list[tuple[float, float]]:
    """The longest tasks of the page's main thread as wall ms and CPU ms, before the first mark and after it."""
    driver.get("about:blank")
    time.sleep(1)
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    events = [one["params"] for one in messages if one["method"] == "Tracing.dataCollected"]
    marks = {one["name"].removeprefix(MARK): one for one in events if str(one.get("name")).startswith(MARK)}
    begin, end = marks["begin"], marks["end"]  # without its end the trace was full, and the figures would be wrong
    thread = (begin["pid"], begin["tid"])
    tasks = [one for one in events if one.get("name") == "RunTask" and (one["pid"], one["tid"]) == thread]
    parts = [
        [one for one in tasks if one["ts"] < begin["ts"]],
        [one for one in tasks if begin["ts"] <= one["ts"] < end["ts"]],
    ]
    return [
        (max(one.get("dur", 0) for one in part) / 1000, max(one.get("tdur", 0) for one in part) / 1000)
        for part in parts
    ]


PARTS: Mapping[str, Callable[[Any], object]] = {
    "scrolling, 1st quarter": lambda driver: driver.execute_async_script(SCROLL, 0),
    "scrolling, 2nd quarter": lambda driver: driver.execute_async_script(SCROLL, 1),
    "scrolling, 3rd quarter": lambda driver: driver.execute_async_script(SCROLL, 2),
    "scrolling, 4th quarter": lambda driver: driver.execute_async_script(SCROLL, 3),
    "judging by keyboard": judge,
    "grouping by tag": lambda driver: driver.execute_script(CHOOSE.format("axis-y", "tag")),
    "sorting by check": lambda driver: driver.execute_script(CHOOSE.format("sort", "check")),
}


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


if __name__ == "__main__":
    main()
