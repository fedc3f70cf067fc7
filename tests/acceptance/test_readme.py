"""The README keeps its word: its two commands do what is printed under them, and it knows every word of the program."""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")


def first_block() -> dict[str, list[str]]:
    """Command -> the lines printed under it, in the README's first block."""
    block = README.split("```console\n", 1)[1].split("```", 1)[0]
    said: dict[str, list[str]] = {}
    for line in block.splitlines():
        if line.startswith("$ "):
            said[line.removeprefix("$ ")] = []
        else:
            list(said.values())[-1].append(line)
    return said


def words(line: str) -> list[str]:
    """A printed line without its numbers, names of runs and time: what must be the same every time."""
    return [word for word in re.sub(r"run=\S+|outputs/\S+|\S*\d\S*", "", line).split() if word.isalpha()]


def test_two_commands_and_their_output_stand_in_the_first_fifteen_lines() -> None:
    block = first_block()
    assert list(block) == ["make batch", "make test"]
    assert all(block.values())
    head = README.splitlines()[:15]
    assert head.count("```") == 1, "the block ends by line 15"


@pytest.mark.long
def test_make_batch_prints_what_the_readme_says_and_leaves_the_videos(tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", "-o", ".venv/.ready", "batch", f"ARGS=--outputs {tmp_path}/out"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    for line in first_block()["make batch"]:
        assert words(line) in [words(printed) for printed in said.splitlines()], (line, said)
    with (tmp_path / "out" / "latest" / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 12
    assert {row["status"] for row in rows} == {"done"}
    assert all((tmp_path / "out" / "latest" / row["local_path"]).stat().st_size > 10_000 for row in rows)


def test_make_test_is_the_fast_tests() -> None:
    command = ["make", "-n", "-o", ".venv/.ready", "test"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=True)
    assert ".venv/bin/pytest -q" in done.stdout
    assert re.search(r"\d+ passed", " ".join(first_block()["make test"]))


def test_every_file_the_documents_point_to_exists() -> None:
    for page in (REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_every_price_in_the_readme_is_the_configurations() -> None:
    live = (REPO / "configs" / "live.yaml").read_text(encoding="utf-8")
    prices = dict(re.findall(r"^  (dop-[a-z]+): ([0-9.]+)", live, flags=re.M))
    assert dict(re.findall(r"^\| `(dop-[a-z]+)` \| \$([0-9.]+) \|", README, flags=re.M)) == prices


def test_every_verb_is_documented() -> None:
    command = [str(REPO / ".venv" / "bin" / "dop"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    verbs = re.findall(r"^    ([a-z]+)  +\S", done.stdout, flags=re.M)
    assert len(verbs) >= 9, done.stdout
    pages = [REPO / "README.md", *(REPO / "docs").glob("*.md")]
    documents = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert [verb for verb in verbs if f"dop {verb}" not in documents] == []
