"""The contact sheet in a real browser: how heavy, and how soon there.

    .venv/bin/python -m benchmarks.sheet        the figures of docs/internals/contact-sheet.md

Needs Chromium: apt-get install chromium chromium-driver. Nothing is sent anywhere.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver

from pipeline.reports.sheet.page import write_sheet
from tests.support.sheet_run import RUN, make_crowd, make_study

COUNTS = (24, 1_000, 2_000, 10_000)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
HEAD = " cells  written     page   zipped first view   loaded  drawn playing"
SEEN = """
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    const load = performance.getEntriesByType("navigation")[0];
    const count = (kind) => document.querySelectorAll("#sheet " + kind).length;
    return [paint.startTime, load.loadEventEnd, count(".cell"), count("video")]"""


@contextmanager
def browser() -> Iterator[Any]:
    """A fresh Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def opened(driver: Any, page: Path, name: str, width: int, height: int) -> None:
    """The page at a width and height, in light or dark, as soon as it has loaded."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if name == "dark" else "light"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get("about:blank")
    driver.get(page.resolve().as_uri())


def measure() -> None:
    """Weight and times of pages with more and more cells, over the same 20 little clips."""
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder, browser() as driver:
        study = make_study(Path(folder))
        write_sheet(study, Path(folder) / RUN / "warm.html")
        for count in COUNTS:
            view = study if count == COUNTS[0] else make_crowd(Path(folder), count)
            page = Path(folder) / RUN / f"{count}.html"
            started = time.perf_counter()
            write_sheet(view, page)
            written_s = time.perf_counter() - started
            opened(driver, page, "light", 1440, 900)
            driver.execute_script("document.querySelector('#play').click()")
            time.sleep(2)
            paint_ms, load_ms, cells, playing = driver.execute_script(SEEN)
            content = page.read_bytes()
            weight = f"{len(content) / 1000:6.0f}kB {len(gzip.compress(content)) / 1000:6.0f}kB"
            times = f"{paint_ms / 1000:9.2f}s {load_ms / 1000:7.2f}s"
            print(f"{count:6} {written_s:7.2f}s {weight} {times} {cells:6} {playing:7}")


if __name__ == "__main__":
    measure()
