"""Help must come at once, and reading must not wait for what buying needs: which libraries a command loads."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.parser import build_parser

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


@pytest.mark.parametrize(
    ("verb", "shown"),
    [
        ("run", {"--quiet", "--no-progress", "--log-json"}),
        ("check", {"--no-progress"}),
        ("show", {"--verbose"}),
        ("plan", set()),
        ("status", set()),
    ],
)
def test_help_shows_the_output_flags_that_the_command_uses_and_every_command_takes_them(
    verb: str, shown: set[str]
) -> None:
    flags = ["--quiet", "--no-progress", "--log-json", "--verbose"]
    args = build_parser().parse_args([verb, "x", *flags])
    helped = [action for action in args.parser._actions if action.help != argparse.SUPPRESS]
    assert {flag for action in helped for flag in action.option_strings if flag in flags} == shown
    assert args.quiet
    assert args.verbose


NEEDED_BY_NO_READER = {"aiohttp", "av", "jinja2", "numpy", "pandas", "PIL"}
NEEDED_AFTER_A_PURCHASE = {"av", "jinja2", "numpy", "pandas", "PIL"}


def loaded(folder: Path, *words: str) -> set[str]:
    """The libraries that one command loads."""
    end = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return set(end.stdout.splitlines()[-1].split()[1:])


@pytest.mark.long
def test_commands_that_only_read_load_no_client_decoder_or_sheet_reader(tmp_path: Path) -> None:
    (tmp_path / "shots.csv").write_text("image,prompt,seed\nsandbox:coffee,Steam rises.,5\n")
    assert loaded(tmp_path, "plan", "shots.csv") & NEEDED_AFTER_A_PURCHASE == set()
    bought = loaded(tmp_path, "run", "shots.csv", "--yes", "-q", "--set", "sandbox.generation_s=0.1")
    assert {"aiohttp", "av", "sqlalchemy"} <= bought
    for words in (["status"], ["list"], ["spend"], ["show", "--row", "shots-1"]):
        assert loaded(tmp_path, *words) & NEEDED_BY_NO_READER == set(), words
