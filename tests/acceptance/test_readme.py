"""The README: its order, its prices, and what it prints under its commands; test_pages.py runs the commands."""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.cli_driver import Dop

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")


def console() -> dict[str, list[str]]:
    """Command -> the lines printed under it, in all console blocks of the README."""
    said: dict[str, list[str]] = {}
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                said[line.removeprefix("$ ")] = []
            else:
                list(said.values())[-1].append(line)
    return said


def words(line: str) -> list[str]:
    """A printed line without its numbers, names of runs and time: what must be the same every time."""
    return [
        word for word in re.sub(r"run=\S+|outputs/\S+|\bin [\d a-z]+ s\b|\S*\d\S*", "", line).split() if word.isalpha()
    ]


def test_the_readme_is_short_and_in_the_readers_order() -> None:
    assert len(README.splitlines()) <= 130
    titles = re.findall(r"^## (.*)$", README, flags=re.M)
    words_of_titles = ["Install", "30 seconds", "first own sheet", "Look", "real key", "Safety", "want to do"]
    assert len(titles) == len(words_of_titles)
    assert all(word in title for word, title in zip(words_of_titles, titles, strict=True)), titles
    head = README.split("## Install")[0]
    assert re.search(r"!\[.*\]\(docs/pictures/.*\)", head), "a picture comes before anything is to be done"


def test_the_rehearsal_prints_what_the_readme_says(rehearsal: Dop) -> None:
    rehearsal.environ |= {"DOP_SANDBOX__GENERATION_S": "0", "DOP_SANDBOX__SIZE": "180p", "DOP_POLL__FIRST_S": "0.05"}
    assert rehearsal.typed("init").code == 0
    printed = [words(line) for line in rehearsal.typed("run", "shots.csv").err.splitlines()]
    shown = console()["dop run shots.csv"]
    assert len(shown) >= 2
    for line in shown:
        assert words(line) in printed, (line, printed)


@pytest.mark.long
def test_make_batch_prints_what_the_readme_says_and_leaves_the_videos(tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", "-o", ".venv/.ready", "batch", f"ARGS=--outputs {tmp_path}/out"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    printed = [words(line.rpartition(" in ")[0] or line) for line in said.splitlines()]  # a slow machine takes minutes
    for line in console()["make batch"]:
        assert words(line.rpartition(" in ")[0] or line) in printed, (line, said)
    with (tmp_path / "out" / "latest" / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    made = [row for row in rows if row["status"] == "done"]
    assert len(made) >= 12
    assert {row["reason"] for row in rows if row not in made} <= {"not needed"}, "a candidate that keep did not need"
    assert all((tmp_path / "out" / "latest" / row["local_path"]).stat().st_size > 10_000 for row in made)


def test_make_test_is_the_fast_tests() -> None:
    command = ["make", "-n", "-o", ".venv/.ready", "test"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=True)
    assert ".venv/bin/pytest -q" in done.stdout
    assert re.search(r"\d+ passed", " ".join(console()["make test"]))


def test_every_price_in_the_readme_is_the_configurations() -> None:
    live = (REPO / "configs" / "live.yaml").read_text(encoding="utf-8")
    prices = dict(re.findall(r"^  (dop-[a-z]+): ([0-9.]+)", live, flags=re.M))
    assert dict(re.findall(r"^\| `(dop-[a-z]+)` \| \$([0-9.]+) \|", README, flags=re.M)) == prices
