"""Results of checks on the disk: one small JSON file beside each clip, as its poster is. Deleting one loses nothing."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

from pipeline.files import whole_text
from pipeline.reports.checks.findings import ClipCheck, Grade, Kind

VERSION = 4
"""Rises with every change of a check that can change a result: older results are made again."""


def check_path(clip: Path) -> Path:
    """Where a clip's result is: beside it, `.check.json` for `.mp4`."""
    return clip.with_suffix(".check.json")


def save_check(clip: Path, check: ClipCheck) -> None:
    """Keep a result beside its clip.

    Raises:
        OSError: the disk does not take it.
    """
    content = {
        "version": VERSION,
        "size_bytes": _size_of(clip),
        "grade": check.grade.value,
        "reasons": list(check.reasons),
        "kinds": [kind.value for kind in check.kinds],
        "metrics": dict(check.metrics),
        "fingerprint": base64.b64encode(zlib.compress(check.fingerprint, 6)).decode() if check.fingerprint else "",
    }
    with whole_text(check_path(clip)) as file:
        json.dump(content, file)


def load_check(clip: Path) -> ClipCheck | None:
    """The result for a clip; None when there is none, or it is of another version or another file."""
    try:
        content = json.loads(check_path(clip).read_text(encoding="utf-8"))
        # The size and no hash: a report over a thousand clips would read all of them.
        if content["version"] != VERSION or content["size_bytes"] not in (_size_of(clip), None):
            return None
        return ClipCheck(
            grade=Grade(content["grade"]),
            reasons=tuple(map(str, content["reasons"])),
            kinds=tuple(map(Kind, content["kinds"])),
            metrics={str(name): float(value) for name, value in content["metrics"].items()},
            fingerprint=zlib.decompress(base64.b64decode(content["fingerprint"])) if content["fingerprint"] else b"",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return None


def _size_of(clip: Path) -> int | None:
    try:
        return clip.stat().st_size
    except OSError:
        return None
