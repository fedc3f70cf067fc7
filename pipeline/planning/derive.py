"""A new manifest from clips that were bought: the same seeds, prompts and pictures, and what the user changes of them.

Makes text, and compares what was read back with what was meant. Writes no file and reads none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import yaml

from pipeline.assets.addresses import is_local
from pipeline.errors import UsageError
from pipeline.gateway.motions import MotionCatalog
from pipeline.manifest.labels import did_you_mean, short_hash, shortened, slug, strength_text
from pipeline.manifest.reader import DEFAULT_MAX_ROWS
from pipeline.manifest.template import has_placeholders
from pipeline.records import Attempt, Cell, counted

FIELDS = (
    "model",
    "prompt",
    "seed",
    "motion",
    "strength",
    "image",
    "end_image",
    "enhance_prompt",
    "check_nsfw",
    "take",
)
"""What `--set` may change of a row, under the manifest's names."""

ALIASES = {
    "motions_id": "motion",
    "motions_strength": "strength",
    "input_images": "image",
    "input_images_end": "end_image",
}

MAX_ID_CHARS = 200
"""Characters of a row's id, as the manifest allows them; a longer one ends in a hash."""
MAX_SUFFIX_CHARS = 40
"""Characters that a derived row adds to the id of its origin."""
_PARAM_OF = {
    "model": "model",
    "prompt": "prompt",
    "seed": "seed",
    "motion": "motions_id",
    "strength": "strength_hundredths",
    "image": "input_images",
    "end_image": "input_images_end",
    "enhance_prompt": "enhance_prompt",
    "check_nsfw": "check_nsfw",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedManifest:
    """A manifest as text, its name, and the id under which each chosen attempt appears in it, in order."""

    name: str
    text: str
    row_ids: tuple[str, ...]


def field_of(key: str) -> str:
    """The field that a `--set` means.

    Raises:
        UsageError: rows have no such field.
    """
    name = ALIASES.get(key, key)
    if name not in FIELDS:
        raise UsageError(
            f"--set {key}: rows have no such field.{did_you_mean(key, FIELDS) or ' Known: ' + ', '.join(FIELDS)}"
        )
    return name


def suffix_of(changes: Mapping[str, str]) -> str:
    """What tells the new rows from the old ones: the changed values as one word; empty without changes."""
    words = "-".join(slug(shortened(value)) or field for field, value in changes.items())
    return words if len(words) <= MAX_SUFFIX_CHARS else f"{words[: MAX_SUFFIX_CHARS - 5]}-{short_hash(words, 4)}"


def derive_manifest(
    chosen: Sequence[Attempt],
    changes: Mapping[str, str],
    *,
    run: str,
    name: str,
    folder: Path,
    catalogue: MotionCatalog,
) -> DerivedManifest:
    """The new manifest.

    Args:
        changes: field -> value as written after `--set`.
        run: the run that the clips are of, for the first line. `name`: that run's own name.
        folder: absolute, where the manifest will lie; pictures below it are named relative to it.
    """
    suffix = suffix_of(changes)
    rows = [_row(attempt, changes, suffix=suffix, folder=folder, catalogue=catalogue) for attempt in chosen]
    shared = _shared(rows)
    row_ids = tuple(str(row["id"]) for row in rows)
    document: dict[str, object] = {"version": 1, "name": f"{name}-{suffix or 'picks'}"}
    if len(rows) > DEFAULT_MAX_ROWS:
        document["max_rows"] = len(rows)
    if shared:
        document["defaults"] = shared
    document["rows"] = [{field: value for field, value in row.items() if field not in shared} for row in rows]
    changed = ", ".join(f"{field}={json.dumps(value)}" for field, value in changes.items()) or "nothing changed"
    head = f"# {counted(len(rows), 'clip')} of run {run}: {changed}.\n"
    return DerivedManifest(name=str(document["name"]), text=head + _yaml(document), row_ids=row_ids)


def _row(
    attempt: Attempt, changes: Mapping[str, str], *, suffix: str, folder: Path, catalogue: MotionCatalog
) -> dict[str, object]:
    params = attempt.params
    row: dict[str, object] = {
        "id": _row_id(attempt.row_id, suffix),
        "model": params.model,
        "image": _image(params.input_images[0], folder),
        "end_image": [_image(image, folder) for image in params.input_images_end],
        "prompt": params.prompt,
        "motion": _motion(attempt, catalogue),
        "strength": float(strength_text(params.strength_hundredths)),
        "seed": params.seed,
        "enhance_prompt": params.enhance_prompt,
        "check_nsfw": params.check_nsfw,
        "take": attempt.take if attempt.take != 1 else None,
        "tags": list(attempt.tags),
    }
    row |= {field: _typed(field, value) for field, value in changes.items()}
    # The prompt that was bought has double braces of its own. As the value of a variable they are text.
    if "prompt" not in changes and has_placeholders(params.prompt):
        row |= {"prompt": "{{ prompt }}", "vars": {"prompt": params.prompt}}
    return {field: value for field, value in row.items() if value not in (None, [])}


def _row_id(row_id: str, suffix: str) -> str:
    name = f"{row_id}+{suffix}" if suffix else row_id
    return name if len(name) <= MAX_ID_CHARS else f"{name[: MAX_ID_CHARS - 9]}~{short_hash(name, 8)}"


def _image(image: str, folder: Path) -> str:
    """A picture's URL as it was, or its path: relative where it is below the new manifest."""
    if not is_local(image):
        return image
    below = os.path.relpath(image, folder)
    return image if below.startswith(os.pardir) or os.path.isabs(below) else below.replace(os.sep, "/")


def _motion(attempt: Attempt, catalogue: MotionCatalog) -> str:
    """The preset's name where every manifest knows it, else its id: own names stay in the manifest that gave them."""
    preset = catalogue.find(attempt.motion) if attempt.motion else None
    known = preset is not None and preset.motions_id == attempt.params.motions_id.lower()
    return attempt.motion if known else attempt.params.motions_id


def _typed(field: str, value: str) -> object:
    """A value as YAML would read it; what does not fit is left to the manifest's own judgement."""
    if field in ("enhance_prompt", "check_nsfw") and value in ("true", "false"):
        return value == "true"
    if field in ("seed", "take") and value.isascii() and value.isdigit():
        return int(value)
    if field == "strength":
        try:
            return float(Decimal(value))
        except InvalidOperation:
            return value
    return value


def _shared(rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """What all rows say alike is said once."""
    if len(rows) < 2:
        return {}
    alike = (field for field in rows[0] if field not in ("id", "vars", "take"))
    return {field: rows[0][field] for field in alike if all(row.get(field) == rows[0][field] for row in rows)}


class _Dumper(yaml.SafeDumper):
    """Texts always in quotes: readers differ in which bare words they take for numbers and booleans."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Dumper.add_representer(str, _quoted)


class _Key(str):
    """A name of the manifest language, which needs no quotes."""

    __slots__ = ()


_Dumper.add_representer(_Key, lambda dumper, key: dumper.represent_scalar("tag:yaml.org,2002:str", str(key)))


def _yaml(value: object) -> str:
    return yaml.dump(_keyed(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20)


def _keyed(value: object) -> object:
    if isinstance(value, Mapping):
        return {_Key(name): _keyed(inner) for name, inner in value.items()}
    return [_keyed(inner) for inner in value] if isinstance(value, list) else value


def differences(
    made: DerivedManifest, chosen: Sequence[Attempt], cells: Sequence[Cell], changes: Mapping[str, str]
) -> list[str]:
    """Where the cells that were read back are not the chosen clips with the changes; empty when all is as meant."""
    if tuple(cell.row_id for cell in cells) != made.row_ids:
        return [f"{counted(len(cells), 'row')} instead of {len(chosen)}, or under other ids"]
    kept = [param for field, param in _PARAM_OF.items() if field not in changes]
    return [
        f"{cell.row_id}: {param} would not be the same"
        for attempt, cell in zip(chosen, cells, strict=True)
        for param in kept
        if getattr(attempt.params, param) != getattr(cell.params, param)
    ]
