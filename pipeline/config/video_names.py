"""File names of videos as the user wants them: `{id}-{seed}.mp4`."""

from __future__ import annotations

import re
from collections.abc import Mapping

FIELDS = ("id", "cell", "seed", "model", "motion", "strength", "take")
"""What may stand in braces. `id` is the row's id, `cell` that of the one video: `lamp` and `lamp@calm-11`."""
SUFFIX = ".mp4"
MAX_CHARS = 120
"""Of a name without its suffix: file systems take 255 bytes, and a character may be three of them."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"[^\w@.+-]+")


def checked(template: str) -> str:
    """A template that makes the name of a file in the run's own folder.

    Raises:
        ValueError: it does not; the message says what to write.
    """
    example = "write e.g. {id}-{seed}.mp4"
    if not template.endswith(SUFFIX) or len(template) == len(SUFFIX):
        raise ValueError(f"{template!r} does not end in {SUFFIX}: {example}")
    for name in _FIELD.findall(template):
        if name not in FIELDS:
            raise ValueError(f"{{{name}}} is not known: {', '.join(FIELDS)} are")
    plain = _FIELD.sub("", template)
    if "{" in plain or "}" in plain:
        raise ValueError(f"{template!r} has a brace without its other half: {example}")
    if "/" in plain or "\\" in plain or plain.startswith(".."):
        raise ValueError(f"{template!r} names a folder, and videos go into the run's own: {example}")
    return template


def rendered(template: str, values: Mapping[str, object]) -> str:
    """The name that a template makes of the values of `FIELDS`; a value never chooses a folder."""
    stem = _FIELD.sub(lambda match: str(values[match[1]]), template.removesuffix(SUFFIX))
    safe = _UNSAFE.sub("-", stem).strip("-.")[:MAX_CHARS]
    return f"{safe or 'video'}{SUFFIX}"
