"""Words made from values: suggestions, slugs, and the labels that name an axis value in ids and on the sheet."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

from pipeline.gateway.motions import MotionPreset
from pipeline.records import STRENGTH_STEPS

LABEL_CHARS = 40
"""Characters of a label, which has to fit the head of a column on the sheet."""

_NOT_IN_SLUG = re.compile(r"[^\w.]+")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'strength'?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word.casefold(), {name.casefold(): None for name in known}, n=1, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean '{next(name for name in known if name.casefold() == near[0])}'?"


def short_hash(text: str, digits: int) -> str:
    """The first hex digits of a text's sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def slug(text: str) -> str:
    """A text as a part of an id: lower case, words joined by hyphens. May be empty."""
    return _NOT_IN_SLUG.sub("-", text.lower()).strip("-._")


def shortened(text: str) -> str:
    """A text of at most 40 characters; a cut one ends in a hash of the whole, so that it stays distinct."""
    return text if len(text) <= LABEL_CHARS else f"{text[: LABEL_CHARS - 5].rstrip()}~{short_hash(text, 4)}"


def strength_text(hundredths: int) -> str:
    """A strength as people write it: 0.3, 0.75, 1."""
    whole, rest = divmod(hundredths, STRENGTH_STEPS)
    return f"{whole}.{rest:02d}".rstrip("0") if rest else str(whole)


def image_text(image: str) -> str:
    """What names a picture: the file's name without its extension."""
    if image.startswith("sandbox:"):
        return image.removeprefix("sandbox:")
    name = unquote(urlsplit(image).path) if "://" in image else image
    stem = re.split(r"[/\\]", name.rstrip("/"))[-1].rsplit(".", 1)[0]
    return stem or shortened(image)


def label(field: str, value: object) -> str:
    """The label of one resolved value of a field, e.g. '0.3', 'Dolly In', 'lamp-front'."""
    if isinstance(value, MotionPreset):
        return value.name or value.motions_id[:8]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return shortened("+".join(image_text(image) for image in value))
    if field == "strength" and isinstance(value, int):
        return strength_text(value)
    return shortened(" ".join(str(value).split()))


def distinct(labels: Sequence[str], values: Sequence[object]) -> list[str]:
    """The labels; equal ones are distinguished by a hash of their value."""
    slugs = [slug(text) for text in labels]
    return [
        f"{text}~{short_hash(repr(value), 4)}" if slugs.count(part) > 1 else text
        for text, part, value in zip(labels, slugs, values, strict=True)
    ]
