"""The documentation as data: its blocks, the commands in them, its links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(dop [^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the paragraph before it."""

    language: str
    text: str
    before: str


def blocks(text: str, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, in order."""
    found = []
    for match in _BLOCK.finditer(text):
        if match[1] in languages:
            before = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
            found.append(Block(match[1], match[2], before))
    return found


def shell_lines(block: Block) -> list[str]:
    """The commands of a shell block. In a console block only lines after a `$` are commands, the others are output."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    if block.language == "console":
        return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    if text.startswith("#!"):
        return []
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def words(line: str) -> list[str]:
    """The words of a command, without a comment behind it."""
    return shlex.split(line, comments=True)


def mentioned_commands(text: str) -> list[list[str]]:
    """Every `dop ...` of a page, in blocks and in sentences, as words."""
    found = [line for block in blocks(text, "sh", "console", "") for line in block.text.splitlines()]
    commands = [match[1] for line in found if (match := re.match(r"^(?:\$ )?(dop [a-z].*)$", line.strip()))]
    return [words(command) for command in (*commands, *_INLINE.findall(text)) if re.match(r"dop [a-z]", command)]


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures, without those to other sites."""
    plain = _BLOCK.sub("", text)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", plain) if "://" not in target]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = _BLOCK.sub("", text)
    titles = re.findall(r"^#+ (.+)$", plain, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
