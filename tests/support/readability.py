"""How plain a page is: lengths of its sentences, how often it says "you", and words that only this project uses.

Counted are paragraphs and list items. Code blocks, tables, headings and pictures are left out: a table's cells are no
sentences, and would make a page look plainer than it reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from tests.support.plain_words import private_words

PAGE_WORDS = re.compile(
    r"\b(?:dear|dearer|doubtful|settled?|settles|booked|booking|books it|lies|eyes|house|go on|under way|persons)\b",
    re.IGNORECASE,
)
"""Besides the words that code avoids (plain_words.py): each has a usual word, such as expensive, resolve, record."""

_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"^\s*(?:#|\||!\[|<|---)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[A-Z`\"'(*\[0-9])|(?<=[.!?])[\"')*_]*$")
_WORD = re.compile(r"[^\W_][\w'’.,%$/@+=-]*|\$[\d.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readability:
    """What was counted on some pages. Lengths are in words; `you_per_thousand` counts you, your, yours, yourself."""

    sentences: int
    words: int
    median_words: float
    p90_words: float
    you_per_thousand: float


def measured(texts: list[str]) -> Readability:
    """The figures of the pages together."""
    found = [sentence for text in texts for sentence in sentences(text)]
    lengths = [len(_WORD.findall(sentence)) for sentence in found]
    words = sum(lengths)
    you = sum(len(re.findall(r"\byou(?:r|rs|rself)?\b", sentence, flags=re.IGNORECASE)) for sentence in found)
    return Readability(
        sentences=len(found),
        words=words,
        median_words=median(lengths),
        p90_words=quantiles(lengths, n=10)[-1],
        you_per_thousand=1000 * you / words,
    )


def sentences(text: str) -> list[str]:
    """The sentences of a page's paragraphs and list items. Code in backticks counts as one word."""
    return [
        sentence.strip()
        for paragraph in paragraphs(text)
        for sentence in _END.split(paragraph)
        if len(_WORD.findall(sentence)) > 1
    ]


def paragraphs(text: str) -> list[str]:
    """The paragraphs and list items of a page, each as one line."""
    found: list[str] = []
    open_one = False
    for line in _FENCE.sub("", text).splitlines():
        if not line.strip() or _NOT_PROSE.match(line):
            open_one = False
            continue
        item = _ITEM.match(line)
        plain = _plain(line[item.end() :] if item else line)
        if open_one and item is None:
            found[-1] += f" {plain}"
        else:
            found.append(plain)
        open_one = True
    return found


def page_words(text: str) -> list[str]:
    """Words of the page's prose and tables that have a usual word. Code is not read."""
    prose = re.sub(r"`[^`]*`", "`", _FENCE.sub("", text))
    return [word for _, word in private_words(prose)] + PAGE_WORDS.findall(prose)


def _plain(line: str) -> str:
    code = re.sub(r"`[^`]*`", "code", line)
    return _LINK.sub(r"\1", code).replace("**", "").strip()


def pages(root: Path) -> list[Path]:
    """The pages for users: the README and docs/, without those for developers."""
    docs = root / "docs"
    found = sorted(page for page in docs.rglob("*.md") if "internals" not in page.parts)
    return [root / "README.md", *(page for page in found if page != docs / "architecture.md")]
