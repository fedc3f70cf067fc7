"""What the tests of real-life sheets share: the cases' folders, and what a plan says about a sheet."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from tests.support.cli_driver import Dop, Ended

CASES = Path(__file__).parents[1] / "fixtures" / "field"
"""One folder for each kind of trouble; each file is what a user had."""

HEAD = "id,image,prompt,seed\n"


def case(dop: Dop, name: str) -> Path:
    """A copy of one file of the cases, with everything beside it, in the user's folder."""
    source = CASES / name
    for beside in source.parent.iterdir():
        shutil.copy(beside, dop.folder / beside.name)
    return dop.folder / source.name


def written(dop: Dop, name: str, text: str | bytes) -> Path:
    """A file of the user's folder with exactly these bytes."""
    path = dop.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def sheet(dop: Dop, *lines: str, head: str = HEAD, name: str = "shots.csv") -> Path:
    """A sheet of lines under a header."""
    return written(dop, name, head + "".join(f"{line}\n" for line in lines))


def planned(dop: Dop, manifest: Path, *words: object) -> dict[str, Any]:
    """The object of `dop plan --json`, which must succeed."""
    end = dop.call("plan", manifest, "--json", *words)
    assert end.code == 0, end.err
    found: dict[str, Any] = json.loads(end.out)
    return found


def refused(dop: Dop, manifest: Path, *words: object) -> str:
    """What `dop validate` says about a sheet that must be refused."""
    end = dop.call("validate", manifest, *words)
    assert end.code == 2, (end.code, end.out, end.err)
    assert re.search(r"^dop: ([1-9]\d* mistakes?|.*; nothing was sent)$", end.err, flags=re.M), end.err
    return end.err


def mistakes_of(said: str, file: str, line: int) -> list[str]:
    """The mistakes of one line of a file, without their place."""
    return re.findall(rf"^(?:\S*/)?{re.escape(file)}:{line}:(?:\d+:)? *(.*)$", said, flags=re.M)


def mistake_of(said: str, file: str, line: int) -> str:
    """The one mistake of a line."""
    found = mistakes_of(said, file, line)
    assert len(found) == 1, (line, found, said)
    return found[0]


def lines_refused(said: str, file: str) -> set[int]:
    """The lines of a file that have a mistake."""
    return {int(line) for line in re.findall(rf"^(?:\S*/)?{re.escape(file)}:(\d+):", said, flags=re.M)}


def warnings_of(end: Ended) -> list[str]:
    """The warnings of a command that succeeded."""
    assert end.code == 0, end.err
    return [line for line in end.err.splitlines() if line.startswith("warning: ")]


def warned(dop: Dop, manifest: Path, *words: object) -> list[str]:
    """The warnings of a plan, which must succeed."""
    return warnings_of(dop.call("plan", manifest, *words))


def names(text: str, *rows: str) -> bool:
    """Whether a text names each of the rows as a word of its own."""
    return all(re.search(rf"(?<![\w-]){re.escape(row)}(?![\w-])", text) for row in rows)
