"""The page of seed bracketing: its table is what `plan` says, its manifests are some, and the pick loop works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import pipeline
from pipeline.cli.parser import build_parser
from tests.support.cli_driver import Dop

REPO = Path(__file__).resolve().parents[2]
DOCUMENT = (REPO / "docs" / "guides" / "seed-bracketing.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| \[([a-z.-]+)\].*\| (\d+) \| \$([\d.]+) \|$", DOCUMENT, flags=re.M)


def blocks(language: str) -> list[str]:
    """The document's blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, flags=re.S | re.M)


def commands(block: str) -> list[list[str]]:
    """The words of each `dop` command, without the shell around it."""
    found = re.findall(r'dop ([^|>")\n]+)', block)
    return [shlex.split(words) for words in found]


@pytest.mark.parametrize(("name", "videos", "price"), TABLE)
def test_the_table_is_what_plan_says(tmp_path: Path, name: str, videos: str, price: str) -> None:
    found = pipeline.plan(REPO / "manifests" / name, outputs__dir=tmp_path)
    assert (str(found.requests), f"{found.price_usd:.3f}") == (videos, price)


def test_every_example_is_in_the_table() -> None:
    there = {path.name for path in (REPO / "manifests").iterdir() if path.suffix in (".yaml", ".csv")}
    assert {name for name, _, _ in TABLE} == there


@pytest.mark.parametrize(("block", "videos"), [(0, 24), (1, 3)])
def test_the_manifests_in_the_text_are_manifests(tmp_path: Path, block: int, videos: int) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(blocks("yaml")[block], encoding="utf-8")
    assert pipeline.plan(path, outputs__dir=tmp_path).requests == videos


def test_every_command_in_the_text_is_one() -> None:
    parser = build_parser()
    found = [words for block in blocks("sh") for words in commands(block)]
    assert len(found) >= 8
    for words in found:
        assert parser.parse_args(words).verb == words[0]


@pytest.mark.long
def test_the_pick_loop_of_the_text_buys_the_winners(rehearsal: Dop) -> None:
    small = ("--set", "sandbox.size=180p", "--set", "sandbox.generation_s=0")
    bracket = REPO / "manifests" / "seed-bracket.yaml"
    assert rehearsal.buy(bracket, *small, "--first", "1").code == 0
    first, second, *_ = (row["row_id"] for row in rehearsal.rows())
    derive, _ = commands(blocks("sh")[2])
    made = rehearsal.call(derive[0], *derive[1:], "--row", second)
    assert made.code == 0, made.err
    assert "to buy now: 1 for $0.573" in made.out
    assert rehearsal.buy(rehearsal.folder / "winners.yaml", *small).code == 0
    assert [row["row_id"] for row in rehearsal.rows()] == [f"{second}+dop-preview"]
    assert first != second
