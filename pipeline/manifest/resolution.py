"""What one value means HERE: which models there are, which preset a motion's name is, which picture a path leads to.

What cells have in common is resolved once and remembered, because a sheet may have a million lines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.gateway.motions import MotionCatalog, MotionPreset, normalize_name
from pipeline.manifest import field_types, image_refs
from pipeline.manifest.labels import did_you_mean
from pipeline.records import UUID_PATTERN

PLACEHOLDER_MOTION = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
"""The API document's example id, which is no preset. API: it is in every example of the vendor."""

MAX_CACHED = 10_000
"""Values remembered for one column: a million different ones must not fill the memory."""


@dataclass(slots=True, kw_only=True)
class ValidationContext:
    """What values are judged against. `folder` is that of the file being read; `warnings` collects what is allowed.

    `picture_folders` are those that local pictures may come from besides `folder`.
    """

    models: Collection[str]
    catalogue: MotionCatalog
    folder: Path
    picture_folders: tuple[Path, ...] = ()
    own_motions: dict[str, MotionPreset] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)

    def in_folder(self, folder: Path) -> ValidationContext:
        """The same context for a file of another folder: motions and warnings are shared, paths are relative to it."""
        return replace(self, folder=folder)

    def model(self, value: object) -> str:
        """A model of the configuration."""
        name = field_types.word(value)
        if name not in self.models:
            known = ", ".join(sorted(self.models))
            raise ValueError(f"{name!r} is not a model.{did_you_mean(name, self.models) or f' Known: {known}.'}")
        return name

    def motion(self, value: object) -> MotionPreset:
        """The preset of an own name, a catalogue name or a UUID."""
        name = field_types.word(value)
        preset = self.own_motions.get(normalize_name(name)) or self.catalogue.find(name)
        if preset is not None:
            return preset
        if not UUID_PATTERN.fullmatch(name):
            raise ValueError(f"{name!r} is not a motion of the catalogue, of `motions`, or a UUID.{self._near(name)}")
        return self._unknown(name)

    def _near(self, name: str) -> str:
        own = did_you_mean(name, [preset.name for preset in self.own_motions.values()])
        near = self.catalogue.suggest(name)
        return own or (f" Did you mean '{near}'?" if near else " `dop motions` lists them.")

    def _unknown(self, motions_id: str) -> MotionPreset:
        why = (
            "is the API document's placeholder"
            if motions_id.lower() == PLACEHOLDER_MOTION
            else "is not in the catalogue"
        )
        self.warnings[f"motion {motions_id} {why}: sent as it is"] = None
        return MotionPreset(name="", motions_id=motions_id.lower())

    def own_motion(self, name: str, value: object) -> MotionPreset:
        """An own name for a UUID; whether it takes an end frame is the catalogue's knowledge."""
        motions_id = field_types.word(value)
        if not UUID_PATTERN.fullmatch(motions_id):
            raise ValueError(f"{motions_id!r} is not a UUID")
        known = self.catalogue.find(motions_id) or self._unknown(motions_id)
        return MotionPreset(name=name, motions_id=known.motions_id, start_end_frame=known.start_end_frame)

    def image(self, value: object) -> tuple[str, ...]:
        """The one start frame. Source: API document, input_images: exactly 1 element."""
        given = value if isinstance(value, list) else [value]
        if len(given) != 1:
            raise ValueError(f"exactly 1 image is needed, not {len(given)} (several images are an axis in matrix)")
        return (self._frame(given[0]),)

    def end_image(self, value: object) -> tuple[str, ...]:
        """The end frames, at least one. Source: API document, input_images_end: minimum length 1."""
        given = value if isinstance(value, list) else [value]
        if not given:
            raise ValueError("at least 1 end image is needed: leave the field out for none")
        return tuple(self._frame(item) for item in given)

    def _frame(self, value: object) -> str:
        frame = image_refs.image(value, self.folder, self.picture_folders)
        if image_refs.has_credentials(frame):
            host = frame.rsplit("@", 1)[1].split("/", 1)[0]
            self.warnings[f"an image URL on {host} carries a user name: the gateway and the report will show it"] = None
        return frame


VALIDATORS: Mapping[str, Callable[[ValidationContext, object], Any]] = {
    "model": ValidationContext.model,
    "prompt": lambda _, value: field_types.prompt(value),
    "seed": lambda _, value: field_types.seed(value),
    "motion": ValidationContext.motion,
    "strength": lambda _, value: field_types.strength(value),
    "image": ValidationContext.image,
    "end_image": ValidationContext.end_image,
    "enhance_prompt": lambda _, value: field_types.boolean(value),
    "check_nsfw": lambda _, value: field_types.boolean(value),
    "take": lambda _, value: field_types.whole(value, low=1, high=field_types.MAX_TAKES),
    "repeat": lambda _, value: field_types.whole(value, low=1, high=field_types.MAX_TAKES),
    "tags": lambda _, value: field_types.tags(value),
    "skip": lambda _, value: field_types.boolean(value),
    "loop": lambda _, value: field_types.boolean(value),
    "keep": lambda _, value: field_types.whole(value, low=1, high=field_types.MAX_KEPT),
    "keep_if": lambda _, value: field_types.keep_if(value),
    "keep_ahead": lambda _, value: field_types.whole(value, low=0, high=field_types.MAX_KEPT),
    "id": lambda _, value: field_types.word(value),
}
"""How each field of one value is judged, whichever file it is in."""

REQUEST_FIELDS = ("model", "prompt", "seed", "motion", "strength", "image", "end_image", "enhance_prompt", "check_nsfw")
"""The fields that are sent, under the manifest's names."""

KEEP_FIELDS = ("keep", "keep_if", "keep_ahead")
"""How many of a row's candidates are wanted, what makes one a keeper, how many to buy ahead."""

ROW_FIELDS = ("repeat", "tags", "skip", "loop", *KEEP_FIELDS)
"""Fields of a row, and of defaults, that are not sent."""

REQUIRED = ("model", "image", "prompt", "motion", "strength", "seed", "enhance_prompt")
"""Source: API document, parameter table, `Required: Yes`."""

ALIASES = {
    "motions_id": "motion",
    "motions_strength": "strength",
    "input_images": "image",
    "input_images_end": "end_image",
}
"""The API's own spellings, read as the manifest's."""

FORBIDDEN_FIELDS = {
    "webhook_url": "callbacks are the run's business: see `webhook` in the configuration",
    "webhook_secret": "callbacks are the run's business, and a secret has no place in a manifest",
}
"""Fields of the API that a manifest must not set."""


SELDOM_SAME = frozenset({"id", "prompt", "seed"})
"""Columns in which the rows of a large sheet differ."""

_UNCACHED: Mapping[str, Callable[[str], object]] = {
    "id": field_types.word,
    "seed": lambda cell: field_types.seed(field_types.whole_from_text(cell)),
}
"""Columns whose cells seldom repeat: judging is cheaper than remembering."""


def reader_of(field_name: str, surroundings: ValidationContext) -> Callable[[str], object]:
    """What resolves the text of a CSV cell of that field, or raises ValueError; a column repeats itself."""
    if uncached := _UNCACHED.get(field_name):
        return uncached
    judge, from_text = VALIDATORS[field_name], field_types.FROM_TEXT.get(field_name)

    @lru_cache(MAX_CACHED)
    def read(cell: str) -> object:
        return judge(surroundings, from_text(cell) if from_text else cell)

    return read
