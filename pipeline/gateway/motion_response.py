"""The gateway's own list of motion presets as the catalogue's records. Pure; no shape raises.

Source: upstream answers a bare list of `{id, name, description, preview_url, start_end_frame}`; that this gateway does
is inferred, and so are the wrappings and spellings taken beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.gateway.json_fields import Json, first, objects, one_line
from pipeline.gateway.motions import MotionCatalog, MotionPreset, normalize_name
from pipeline.records import UUID_PATTERN

WRAPPINGS = ("motions", "data", "results", "items", "result", "output")
MAX_WRAPPED = 3
"""Objects around the list of motions that are opened to find it."""
MAX_PRESETS = 10_000
"""Motions of one response that are kept; the vendor lists about a hundred."""
NAME_CHARS = 80
"""Characters of a motion's name that are kept, as names are printed in one line."""
URL_CHARS = 2_000
"""Characters of a preview's address; a longer one is dropped."""
SPREADSHEET_MARKS = "=+-@\t\r"
"""A name that begins with one would be a formula to a spreadsheet that opens the kept list."""

_IDS = ("id", "motion_id", "motionId", "motions_id", "motionsId", "uuid")
_NAMES = ("name", "title", "label")
_FRAMES = ("start_end_frame", "startEndFrame", "supports_end_frame", "start_end")
_PREVIEWS = ("preview_url", "previewUrl", "preview", "thumbnail_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedMotions:
    """What an answer lists; `left_out` counts entries without a UUID, or with one that stood before."""

    presets: tuple[MotionPreset, ...]
    left_out: int = 0


def parse_motions(payload: object, known: MotionCatalog) -> ParsedMotions | None:
    """The presets of an answer; None when it holds no list of any.

    Args:
        known: says whether a preset takes an end frame, and its name, where the answer does not.
    """
    entries = _entries(payload)
    if entries is None:
        return None
    presets: dict[str, MotionPreset] = {}
    names: set[str] = set()
    for entry in entries[:MAX_PRESETS]:
        preset = _preset(entry, known, names)
        if preset is not None and preset.motions_id not in presets:
            presets[preset.motions_id] = preset
            names.add(normalize_name(preset.name))
    if not presets:
        return None
    return ParsedMotions(presets=tuple(presets.values()), left_out=len(entries) - len(presets))


def _entries(payload: object) -> list[Json] | None:
    """The list itself, bare or wrapped; a mapping of UUID -> entry counts as one, too."""
    for _ in range(MAX_WRAPPED + 1):
        if isinstance(payload, list):
            return objects(payload)
        if not isinstance(payload, dict):
            return None
        inner = first([payload], WRAPPINGS)
        if inner is None:
            return [{"id": key, **value} for key, value in payload.items() if isinstance(value, dict)] or None
        payload = inner
    return None


def _preset(entry: Json, known: MotionCatalog, taken: Iterable[str]) -> MotionPreset | None:
    motions_id = first([entry], _IDS)
    if not isinstance(motions_id, str) or not UUID_PATTERN.fullmatch(motions_id):
        return None
    before = known.find(motions_id)
    frames = first([entry], _FRAMES)
    return MotionPreset(
        name=_name(entry, motions_id.lower(), before, taken),
        motions_id=motions_id.lower(),
        start_end_frame=frames if isinstance(frames, bool) else before.start_end_frame if before else None,
        preview_url=_preview(first([entry], _PREVIEWS)),
    )


def _name(entry: Json, motions_id: str, before: MotionPreset | None, taken: Iterable[str]) -> str:
    """A name that is unique in the list: two presets may share theirs, and a manifest must mean one of them."""
    said = first([entry], _NAMES)
    name = one_line(said, NAME_CHARS).lstrip(SPREADSHEET_MARKS).strip() if isinstance(said, str) else ""
    name = name or (before.name if before else "") or motions_id
    # A name that looks like the id of another preset would make a manifest buy that one.
    if UUID_PATTERN.fullmatch(name) and name != motions_id:
        name = motions_id
    return f"{name} ({motions_id[:8]})" if normalize_name(name) in taken else name


def _preview(said: object) -> str | None:
    """The address of a preview for the user to open; the program never follows it."""
    if not isinstance(said, str) or len(said) > URL_CHARS or not said.startswith(("https://", "http://")):
        return None
    return said if all("!" <= character <= "~" for character in said) else None
