"""A folder of pictures as rows: a row for each picture, its prompt from the text file of the same name beside it.

Reads folders, captions, and as much of the pictures as any image of a manifest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
"""Names of files that are taken for pictures; what they really are is judged by their content."""
CAPTION = ".txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture: its id in the manifest, its path as a pattern found it, and its caption's file if there is one."""

    row_id: str
    path: Path
    caption: Path | None


def found(patterns: Sequence[str], folder: Path) -> list[Picture]:
    """The pictures that match, each once, in the order in which a user counts: shot2 before shot10.

    Args:
        patterns: paths of folders or of pictures, or globs of them, relative to `folder`.

    Raises:
        ValueError: a pattern finds no picture.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(_matches(pattern, folder), key=_in_order)
        if not matches:
            raise ValueError(f"{pattern!r} finds no pictures ({', '.join(PICTURES)}) in {folder.absolute()}")
        paths.update(dict.fromkeys(matches))
    stems = Counter(path.stem for path in paths)
    return [
        Picture(row_id=path.stem if stems[path.stem] == 1 else path.name, path=path, caption=_caption(path))
        for path in paths
    ]


def _matches(pattern: str, folder: Path) -> Iterable[Path]:
    if (folder / pattern).is_dir():
        pattern = f"{pattern.rstrip('/')}/*"
    parent, _, name = pattern.rpartition("/")
    beside = f"{parent}/*" if parent else "*"
    for match in glob(beside, root_dir=folder, recursive=True):
        path = folder / match
        if fnmatch(path.name.lower(), name.lower()) and path.suffix.lower() in PICTURES and path.is_file():
            yield path


def _in_order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _caption(picture: Path) -> Path | None:
    beside = picture.with_suffix(CAPTION)
    return beside if beside.is_file() else None
