"""The catalogue of motion presets: a name or a UUID becomes the preset that `motions_id` names.

It never asks the network and never guesses: an unknown name is nobody's preset, and the caller says so.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import FatalError
from pipeline.records import UUID_PATTERN

COLUMNS = ("name", "id", "start_end_frame")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One motion preset. `start_end_frame` is None where nobody knows whether it takes an end frame."""

    name: str
    motions_id: str
    start_end_frame: bool | None = None


def folded(name: str) -> str:
    """A preset's name without case, spaces, underscores and hyphens: what two spellings of one name share."""
    return name.casefold().translate({ord(mark): None for mark in " _-"})


class Catalogue:
    """Presets by name (any case; spaces, underscores and hyphens forgiven) and by UUID."""

    def __init__(self, presets: Iterable[Preset]) -> None:
        self.presets = tuple(presets)
        self._by_name = {folded(preset.name): preset for preset in self.presets}
        self._by_id = {preset.motions_id.lower(): preset for preset in self.presets}

    def find(self, name_or_id: str) -> Preset | None:
        """The preset of that name or UUID; None if the catalogue has none."""
        if UUID_PATTERN.fullmatch(name_or_id):
            return self._by_id.get(name_or_id.lower())
        return self._by_name.get(folded(name_or_id))

    def suggest(self, name: str) -> str | None:
        """The catalogue's name that is nearest to a misspelt one; None if none is near."""
        near = difflib.get_close_matches(folded(name), self._by_name, n=1, cutoff=0.6)
        return self._by_name[near[0]].name if near else None


def parse(text: str) -> Catalogue:
    """The catalogue of a CSV with the columns name, id, start_end_frame (true, false or empty).

    Raises:
        FatalError: another header, an id that is no UUID, or a name that stands twice.
    """
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    if tuple(next(lines, ())) != COLUMNS:
        raise FatalError(f"the motion catalogue must begin with the header {','.join(COLUMNS)}")
    presets = []
    seen: set[str] = set()
    for line in filter(None, lines):
        if len(line) != len(COLUMNS) or not UUID_PATTERN.fullmatch(line[1]) or folded(line[0]) in seen:
            raise FatalError(f"the motion catalogue's line {lines.line_num} is ragged, repeated or has no UUID")
        seen.add(folded(line[0]))
        frames = {"true": True, "false": False}.get(line[2])
        presets.append(Preset(name=line[0], motions_id=line[1].lower(), start_end_frame=frames))
    return Catalogue(presets)


def load(path: Path) -> Catalogue:
    """The catalogue in a file, `configs/motions.csv` as shipped. Source: seen (two public lists, 2026-07)."""
    return parse(path.read_text(encoding="utf-8-sig"))
