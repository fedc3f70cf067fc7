"""Help must come at once: it loads none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
HEAVY = {"aiohttp", "av", "jinja2", "numpy", "pandas", "PIL", "pydantic", "sqlalchemy", "yaml"}

LOADED_BY = """
import sys
from pipeline.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["sandbox", "serve", "--help"]])
def test_help_loads_no_heavy_library(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *words], cwd=REPO, capture_output=True, text=True, timeout=60, check=True
    )
    *said, loaded = done.stdout.splitlines()
    assert len(said) >= 1
    assert set(loaded.split()[1:]) & HEAVY == set()
