"""A real Chromium for the pages: how it is started, and what axe says of the page that is open in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NEEDS_BROWSER = [
    pytest.mark.long,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"),
]
SCRIPT_S = 60
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
)  # fmt: skip
_AXE = """
    const done = arguments[0];
    axe.run({resultTypes: ["violations"]}).then((found) => done(found.violations))"""


@contextmanager
def chromium(*, logs: tuple[str, ...] = ("browser",), trace: str = "") -> Iterator[Any]:
    """A fresh Chromium with a profile of its own; `driver.downloads` is the folder that it saves to.

    Args:
        trace: categories of the browser's trace, which then comes with the log "performance".
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        downloads = Path(folder) / "downloads"
        downloads.mkdir()
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*_FLAGS, f"--user-data-dir={folder}/profile"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        if trace:
            options.add_experimental_option("perfLoggingPrefs", {"traceCategories": trace})
        options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
        driver.set_script_timeout(SCRIPT_S)
        driver.downloads = downloads
        try:
            yield driver
        finally:
            driver.quit()


def show(driver: Any, *, width: int = 1280, height: int = 900, dark: bool = False, touch: bool = False) -> None:
    """The size of the screen and its colours, for what is opened from now on."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def axe_faults(driver: Any) -> list[tuple[str, str]]:
    """What axe finds on the open page beyond minor faults, as (rule, markup)."""
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed (extra dev)")
    driver.execute_script((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script(_AXE)
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] != "minor"]
