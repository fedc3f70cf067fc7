"""docs/reliability.md: plain words first, then the evidence, whose commands name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TEXT = (REPO / "docs" / "reliability.md").read_text(encoding="utf-8")
MAX_WORDS = 25


def test_every_command_of_the_evidence_names_tests_that_exist() -> None:
    named = {file for command in re.findall(r"`pytest ([^`]+)`", TEXT) for file in command.split() if "/" in file}
    assert len(named) > 40
    assert [name for name in sorted(named) if not (REPO / name).is_file()] == []


def test_every_promise_of_the_evidence_has_a_command() -> None:
    rows = [line for line in TEXT.split("# The evidence")[1].splitlines() if line.startswith("| ")]
    promises = [line for line in rows if not line.startswith(("| promise", "| broken twin"))]
    assert len(promises) > 50
    assert [line for line in promises if "`pytest " not in line] == []


def test_no_sentence_is_longer_than_a_reader_holds() -> None:
    prose = re.sub(r"`[^`]*`", "code", TEXT)
    sentences = re.split(r"(?<=[.!?:])\s+|\n(?=[|#-])|\|", prose)
    assert [one for one in sentences if len(one.split()) > MAX_WORDS] == []
