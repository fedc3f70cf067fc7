"""Picks: the clips that the user chose on the contact sheet, as the page saves them and `derive` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.records import Attempt

MAX_PICKS_BYTES = 8_000_000
"""Of a picks file: about 60,000 clips."""

VERSION = 1
"""Version of a file of picks; a file of another version is rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Which clips of which run. Each of `names` is a tuple of names of one clip, the surest first."""

    run: str | None
    names: tuple[tuple[str, ...], ...]


def parse_picks(text: str) -> Picks:
    """The picks in a file's text: `{"run": ..., "picks": [...]}` with ids, or with `request_id` and `row_id` each.

    Raises:
        UsageError: it is no such file, or one of a newer version.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("the picks are not JSON; save them on the run's page") from None
    if not isinstance(content, dict) or not isinstance(content.get("picks"), list):
        raise UsageError('the picks are no {"run": ..., "picks": [...]}; save them on the run\'s page')
    if content.get("version", VERSION) != VERSION:
        raise UsageError(f"the picks are of version {content['version']!r}; this program knows {VERSION}")
    run = content.get("run")
    if run is not None and not isinstance(run, str):
        raise UsageError("the picks' run is not a name")
    return Picks(run=run, names=tuple(_names(number, item) for number, item in enumerate(content["picks"], start=1)))


def _names(number: int, item: object) -> tuple[str, ...]:
    given = [item] if isinstance(item, str) else []
    if isinstance(item, Mapping):
        given = [item[key] for key in ("request_id", "row_id") if item.get(key) is not None]
    if not given or not all(isinstance(name, str) for name in given):
        raise UsageError(f"pick {number} is neither an id nor {{request_id, row_id}}")
    return tuple(str(name) for name in given)


def picked(picks: Picks, attempts: Iterable[Attempt]) -> list[Attempt]:
    """The latest attempt of each picked request, in the run's order, each once.

    Raises:
        UsageError: a pick is not in the run; all such are named.
    """
    latest = {attempt.request_id: attempt for attempt in attempts}
    by_row: dict[str, str] = {attempt.row_id: request_id for request_id, attempt in latest.items()}
    wanted: set[str] = set()
    missing: list[str] = []
    for names in picks.names:
        found = next(
            (name if name in latest else by_row[name] for name in names if name in latest or name in by_row), None
        )
        if found is None:
            missing.append(names[-1])
        else:
            wanted.add(found)
    if missing:
        raise UsageError(f"not in the run: {', '.join(missing[:10])}{' and more' if len(missing) > 10 else ''}")
    return [attempt for request_id, attempt in latest.items() if request_id in wanted]
