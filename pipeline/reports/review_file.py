"""Reviews as a file: what the review page saves, `dop review export` writes and `dop review import` reads.

    {"version": 1, "reviews": [{"request_id": "..", "at": "2026-09-21T14:13:00Z", "who": "ana", "verdict": "keep"}]}

A picks file of an earlier version counts as well: each pick is a `keep`.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.ledger.reviews import MAX_WHO_CHARS, Review, moment, plain_review, reviews_in
from pipeline.ledger.run_registry import Run
from pipeline.ledger.text import storable
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt
from pipeline.reports.picks import MAX_PICKS_BYTES, Picks, parse_picks, picked

MAX_FILE_BYTES = 64_000_000
"""Of a file of reviews: about 300,000 changes."""

VERSION = 1
"""Version of a file of reviews; a file of another version is rejected."""
PICKS = "picks.json"
"""In the run's folder: what was picked on the pages of an earlier version. Its picks count under this name."""


def reviewer_name(given: str | None) -> str:
    """Whose reviews they are: `--as NAME`, else the user's name on this machine.

    Raises:
        UsageError: the name is empty or too long.
    """
    try:
        name = given if given is not None else getpass.getuser()  # $LOGNAME, $USER, then the user's account
    except (OSError, KeyError):
        name = "reviewer"
    name = storable(" ".join(name.split()))
    if not name or len(name) > MAX_WHO_CHARS:
        raise UsageError(f"--as {given!r}: give a name of 1 to {MAX_WHO_CHARS} characters")
    return name


def parse_reviews(text: str, *, who: str, now: float) -> list[Review] | Picks:
    """The changes in a file's text, or the picks of a file of an earlier version.

    Args:
        who: whose the changes are that name no reviewer.
        now: Unix seconds, for changes without a time.
    Raises:
        UsageError: it is no such file.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("the file is not JSON; save one on the review page, or with `dop review export`") from None
    if isinstance(content, Mapping) and "picks" in content and "reviews" not in content:
        return parse_picks(text)
    items = content.get("reviews") if isinstance(content, Mapping) else content
    if not isinstance(items, list):
        raise UsageError('the file is no {"reviews": [...]}')
    if isinstance(content, Mapping) and content.get("version", VERSION) != VERSION:
        raise UsageError(f"the reviews are of version {content['version']!r}; this program knows {VERSION}")
    named = [{**item, "who": item.get("who") or who} if isinstance(item, Mapping) else item for item in items]
    return reviews_in(named, who=None, now=now)


def reviews_text(changes: Iterable[Review]) -> str:
    """The changes as a file's text."""
    return (
        json.dumps({"version": VERSION, "reviews": list(map(plain_review, changes))}, indent=1, ensure_ascii=False)
        + "\n"
    )


def picks_as_reviews(picks: Picks, attempts: Iterable[Attempt], *, who: str, at: float) -> list[Review]:
    """Each pick as a `keep` that was made when the picks were saved.

    Raises:
        UsageError: a pick is not in the run.
    """
    return [
        Review(request_id=attempt.request_id, at=moment(at), who=who, verdict="keep")
        for attempt in picked(picks, attempts)
    ]


def read_picks(path: Path) -> Picks:
    """The picks in a file.

    Raises:
        UsageError: it can't be read, or is no such file.
    """
    return parse_picks(bounded_text(path, MAX_PICKS_BYTES))


def bounded_text(path: Path, max_bytes: int) -> str:
    """A text of at most so many bytes in a file, or from stdin where the path is `-`.

    Raises:
        UsageError: it can't be read, is larger, or is not UTF-8.
    """
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise UsageError(f"{path} is larger than {max_bytes} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8") from None


def earlier_picks(workspace: OpenLedger, run: Run) -> list[Review]:
    """What the pages of an earlier version kept in the run's folder: picks, made when the file was written.

    Raises:
        UsageError: the file can't be read.
    """
    path = workspace.outputs / run.run_id / PICKS
    if not path.is_file():
        return []
    attempts = workspace.queries.report_attempts(run.run_id)
    return picks_as_reviews(read_picks(path), attempts, who=PICKS, at=path.stat().st_mtime)
