"""The reader of private words, which `test_architecture` runs over the program, finds each way to break the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.plain_words import private_words, private_words_below


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('"""A call that is never answered holds nobody up."""', "nobody"),
        ("# whoever asks first takes the slot", "whoever"),
        ("told = settings.uploads", "told"),
        ("def f(*, poll_told: int) -> None: ...", "told"),
        ("class ToldRate: ...", "told"),
        ("looked_at = 3", "looked at"),
        ('"""The queue is made anew."""', "anew"),
        ("print('the run goes on')", "goes on"),
        ('raise UsageError(f"{name} stands twice")', "stands"),
        ("MOST_CELLS = 3", "MOST_"),
        ("_LONGEST_PAUSE_S = 3", "LONGEST_"),
        ("math.floor(1) + desk", "desk"),
    ],
)
def test_a_private_word_is_noticed(line: str, word: str) -> None:
    assert (1, word) in list(private_words(line))


@pytest.mark.parametrize(
    "line", ["math.floor(2.5)", "MAX_CELLS = 3", "opened = open(path)", "outstanding = understands"]
)
def test_other_words_pass(line: str) -> None:
    assert list(private_words(line)) == []


def test_a_file_that_breaks_the_rule_is_named(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "step.py").write_text("x = 1\n# of its own accord\n", encoding="utf-8")
    (tmp_path / "pipeline" / "page.js").write_text("let pen;\n", encoding="utf-8")
    (tmp_path / "pipeline" / "shelf.py").write_text("booked = heard(stranger)\n", encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_step.py").write_text("heard = []\nthe_desk = 1\n", encoding="utf-8")
    assert private_words_below(tmp_path, "pipeline", "tests") == [
        "pipeline/page.js:1 pen",
        "pipeline/shelf.py:1 booked",
        "pipeline/shelf.py:1 heard",
        "pipeline/shelf.py:1 stranger",
        "pipeline/step.py:2 own accord",
        "tests/test_step.py:2 desk",
    ]
