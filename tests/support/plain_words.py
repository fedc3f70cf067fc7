"""Words that code does not use: names and sentences say who does what in the field's standard terms."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path

WORDS = {
    *(
        "told",
        "whoever",
        "somebody",
        "nobody",
        "anybody",
        "anew",
        "stands",
        "wishes",
        "desk",
        "desks",
        "weather",
        "trade",
    ),
    *("floor", "pen", "door", "doors", "scribe"),
}
"""Each hides an actor (`nobody`, `told`) or is a metaphor for a module (`desk`, `pen`)."""

PHRASES = (
    ("looked", "at"),
    ("by", "itself"),
    ("by", "himself"),
    ("by", "themselves"),
    ("goes", "on"),
    ("own", "accord"),
    ("a", "person"),
    ("the", "person"),
    ("holds", "nobody"),
    ("under", "way"),
    ("for", "eyes"),
)

PROGRAM_WORDS = frozenset({"heard", "booked", "booking", "stranger", "strangers", "doubtful", "standing", "standings"})
"""More of them, which the program and its benchmarks do without: parsed or received, recorded, unknown, has_errors."""

PREFIXES = ("MOST_", "LEAST_", "LONGEST_", "SHORTEST_", "FEW_", "MANY_")
"""A bound is called MAX_ or MIN_, a threshold by what it decides."""

ENGLISH = (
    re.compile(r"\b(?:math|np|Math)\.floor\b"),
    re.compile(r"\bdesk lamp\b"),
    re.compile(r"\bfloor\(\(n - 1\) / L\)"),
    re.compile(r'"\.booked"'),
)
"""Where a word means what English means: the rounding function, the lamp of the language's
example, a formula, and the ending of a file on the disk of an older version."""

SUFFIXES = frozenset({".py", ".js", ".css", ".html", ".j2"})
"""Files of code and of pages; fixtures and data files quote others."""

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_CONSTANT = re.compile(r"\b_?[A-Z][A-Z0-9_]+\b")


def private_words(text: str, more: Collection[str] = ()) -> Iterator[tuple[int, str]]:
    """(line, word) of each word, phrase or prefix in `text` that the lists above forbid, in names and in prose.

    Args:
        more: words that are forbidden besides.
    """
    for allowed in ENGLISH:
        text = allowed.sub("", text)
    for number, line in enumerate(text.splitlines(), 1):
        parts = [part.lower() for part in _PART.findall(line)]
        yield from ((number, part) for part in parts if part in WORDS or part in more)
        pairs = set(itertools.pairwise(parts))
        yield from ((number, " ".join(phrase)) for phrase in PHRASES if phrase in pairs)
        for name in _CONSTANT.findall(line):
            yield from ((number, prefix) for prefix in PREFIXES if name.lstrip("_").startswith(prefix))


def private_words_below(root: Path, *folders: str) -> list[str]:
    """Each place in these folders of `root`, as `file:line word`, but for the lists of words themselves."""
    exempt = {Path(__file__).name, "test_plain_words.py", "readability.py"}
    files = sorted(file for folder in folders for file in (root / folder).rglob("*") if file.suffix in SUFFIXES)
    return [
        f"{file.relative_to(root)}:{line} {word}"
        for file in files
        if file.name not in exempt
        for line, word in private_words(
            file.read_text(encoding="utf-8"), () if file.relative_to(root).parts[0] == "tests" else PROGRAM_WORDS
        )
    ]
