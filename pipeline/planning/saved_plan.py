"""A plan kept in a file: what was agreed to, so that `run --plan` buys exactly that or refuses."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import whole_text
from pipeline.planning.selection import Selection
from pipeline.records import SEED_MAX, SEED_MIN

VERSION = 2
"""Version of the file of a saved plan; a plan of another version is rejected, never guessed at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """What a plan file holds. `seeds` are the random seeds by their place in the manifest.

    `requests_digest` covers the identity of every request, so a picture that changed since shows. `resends` are the
    requests of unknown outcome that the plan announced to send again.
    """

    manifest: Path
    gateway: str
    rows_digest: str
    state_digest: str
    requests_digest: str
    resends: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    selection: Selection
    max_rows: int
    counts: Mapping[str, object]


def draw_seeds(_place: str, count: int) -> tuple[int, ...]:
    """`count` distinct random seeds, for a plan that is being made."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[SEED_MIN + secrets.randbelow(SEED_MAX)] = None
    return tuple(found)


def save(plan: SavedPlan, path: Path) -> None:
    """Writes the plan whole.

    Raises:
        UsageError: the file can't be written.
    """
    content = {
        "version": VERSION,
        "manifest": str(plan.manifest.resolve()),
        "gateway": plan.gateway,
        "rows_digest": plan.rows_digest,
        "state_digest": plan.state_digest,
        "requests_digest": plan.requests_digest,
        "resends": list(plan.resends),
        "seeds": {place: list(seeds) for place, seeds in plan.seeds.items()},
        "selection": {
            "tags": list(plan.selection.tags),
            "shard": plan.selection.shard,
            "sample": plan.selection.sample,
            "first": plan.selection.first,
        },
        "max_rows": plan.max_rows,
        "plan": dict(plan.counts),
    }
    try:
        with whole_text(path) as stream:
            stream.write(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"{path} can't be written ({error.strerror})") from None


def load(path: Path) -> SavedPlan:
    """Reads a plan file.

    Raises:
        UsageError: there is none, or it is not one of this program's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise UsageError(f"{path}: a plan of version {content['version']}; make a new one with `dop plan --out`")
        chosen = content["selection"]
        return SavedPlan(
            manifest=Path(content["manifest"]),
            gateway=content["gateway"],
            rows_digest=content["rows_digest"],
            state_digest=content["state_digest"],
            requests_digest=content["requests_digest"],
            resends=tuple(content["resends"]),
            seeds={place: tuple(seeds) for place, seeds in content["seeds"].items()},
            selection=Selection(
                tags=tuple(chosen["tags"]),
                shard=tuple(chosen["shard"]) if chosen["shard"] else None,
                sample=chosen["sample"],
                first=chosen["first"],
            ),
            max_rows=content["max_rows"],
            counts=content["plan"],
        )
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{path} is no plan; make one with `dop plan MANIFEST --out {path}`") from None
