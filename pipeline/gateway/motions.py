"""The catalogue of motion presets: a name or a UUID becomes the preset that `motions_id` names.

It never asks the network and never guesses: an unknown name has no preset, and the caller reports that.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import FatalError
from pipeline.records import UUID_PATTERN

COLUMNS = ("name", "id", "start_end_frame")
PREVIEW = "preview_url"
SOURCE_MARK = "# "
"""Begins the line above the header that says where the list is from."""

SHIPPED_SOURCE = "seen in two public lists, 2026-07"
"""Of the list that ships. Source: seen; the API document has none."""

_FRAMES = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionPreset:
    """One motion preset. `start_end_frame` is None where it is unknown whether it takes an end frame."""

    name: str
    motions_id: str
    start_end_frame: bool | None = None
    preview_url: str | None = None


def normalize_name(name: str) -> str:
    """A preset's name without case, spaces, underscores and hyphens: what two spellings of one name share."""
    return name.casefold().translate({ord(mark): None for mark in " _-"})


class MotionCatalog:
    """Presets by name (any case; spaces, underscores and hyphens forgiven) and by UUID. `source` is for display."""

    def __init__(self, presets: Iterable[MotionPreset], *, source: str = SHIPPED_SOURCE) -> None:
        self.presets = tuple(presets)
        self.source = source
        self._by_name = {normalize_name(preset.name): preset for preset in self.presets}
        self._by_id = {preset.motions_id.lower(): preset for preset in self.presets}

    @property
    def digest(self) -> str:
        """What names mean here: the same digest gives the same ids and end frames."""
        text = "".join(f"{one.name}\n{one.motions_id} {one.start_end_frame}\n" for one in self.presets)
        return hashlib.sha256(text.encode()).hexdigest()

    def find(self, name_or_id: str) -> MotionPreset | None:
        """The preset of that name or UUID; None if the catalogue has none."""
        # An id first: a preset's name that looks like one would otherwise hide the preset of that id.
        if UUID_PATTERN.fullmatch(name_or_id):
            return self._by_id.get(name_or_id.lower())
        return self._by_name.get(normalize_name(name_or_id))

    def search(self, words: str) -> list[MotionPreset]:
        """Presets whose name holds every one of `words`, or whose UUID begins with them; in the catalogue's order."""
        wanted = [normalize_name(word) for word in words.split()]
        start = words.strip().lower()
        return [
            preset
            for preset in self.presets
            if all(word in normalize_name(preset.name) for word in wanted)
            or (start and preset.motions_id.startswith(start))
        ]

    def suggest(self, name: str) -> str | None:
        """The catalogue's name that is nearest to a misspelt one; None if none is near."""
        near = difflib.get_close_matches(normalize_name(name), self._by_name, n=1, cutoff=0.6)
        return self._by_name[near[0]].name if near else None


def parse(text: str) -> MotionCatalog:
    """The catalogue of a CSV with the columns name, id, start_end_frame (true, false or empty), perhaps preview_url.

    A first line that begins with `# ` names its source.

    Raises:
        FatalError: another header, an id that is no UUID, or a name that appears twice.
    """
    source = SHIPPED_SOURCE
    if text.startswith(SOURCE_MARK):
        first, _, text = text.partition("\n")
        source = first.removeprefix(SOURCE_MARK).strip()
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = tuple(next(lines, ()))
    if columns not in (COLUMNS, (*COLUMNS, PREVIEW)):
        raise FatalError(f"the motion catalogue must begin with the header {','.join(COLUMNS)}")
    presets = []
    seen: set[str] = set()
    for line in filter(None, lines):
        if len(line) != len(columns) or not UUID_PATTERN.fullmatch(line[1]) or normalize_name(line[0]) in seen:
            raise FatalError(f"the motion catalogue's line {lines.line_num} is ragged, repeated or has no UUID")
        seen.add(normalize_name(line[0]))
        preview = line[3] if len(line) > len(COLUMNS) else ""
        presets.append(
            MotionPreset(
                name=line[0],
                motions_id=line[1].lower(),
                start_end_frame=_FRAMES.get(line[2]),
                preview_url=preview or None,
            )
        )
    return MotionCatalog(presets, source=source)


def as_csv(catalogue: MotionCatalog) -> str:
    """The text that `parse` reads back as the same catalogue."""
    text = io.StringIO(newline="")
    text.write(f"{SOURCE_MARK}{catalogue.source}\n")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow((*COLUMNS, PREVIEW))
    for preset in catalogue.presets:
        frames = {True: "true", False: "false", None: ""}[preset.start_end_frame]
        lines.writerow((preset.name, preset.motions_id, frames, preset.preview_url or ""))
    return text.getvalue()


def load(path: Path) -> MotionCatalog:
    """The catalogue in a file, `configs/motions.csv` as shipped. Source: seen (two public lists, 2026-07)."""
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FatalError(f"{path} is no motion catalogue ({error})") from None
    except FatalError as error:
        raise FatalError(f"{path}: {error}") from None
