"""What the sheet says about each cell, as plain values for the page. Pure: the files' places are handed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlsplit

from pipeline.assets import signed_urls
from pipeline.manifest.labels import strength_text
from pipeline.record_class import record
from pipeline.records import Attempt, CostState, State, usd
from pipeline.reports.checks.findings import ClipCheck, Grade
from pipeline.reports.sheet.layout import Place
from pipeline.reports.sheet.run_view import Line, SkippedLine
from pipeline.reports.tables import NOT_NEEDED, generation_s

STATE_WORDS = {
    State.PLANNED: "not sent yet",
    State.SUBMITTING: "being sent",
    State.ACCEPTED: "rendering",
    State.STALLED: "stalled: past its deadline, still collectable",
    State.DONE: "made, but the video is not here",
    State.EXPIRED: "expired: paid, but the video is gone",
    State.FAILED: "failed",
    State.REFUSED: "refused by moderation",
    State.CANCELED: "canceled",
    State.REJECTED: "rejected: never created, nothing paid",
    State.UNKNOWN: "unknown: perhaps paid, `dop resolve` settles it",
    State.WRITTEN_OFF: "written off",
    State.SKIPPED: "left out by the manifest",
}


_REMEMBERED = 4_096
"""Prices, strengths and minutes whose text is remembered: thousands of cells have the same."""

_DUE = {CostState.DISPUTED: "disputed", CostState.RESERVED: "reserved"}


@record
class CellMedia:
    """Where one cell's files lie, as links relative to the page; "" where there is none."""

    clip: str = ""
    poster: str = ""
    start: str = ""


@record
class SheetCell:
    """One cell of the sheet. `place` is its value on each axis; `facts` what the enlarged view lists, in order.

    `check` is the grade of its clip, `defects` what was found in it, words first.
    `due` is the word after the price where that is not simply the price of a video that was made.
    """

    number: int
    row_id: str
    state: str
    words: str
    reason: str
    price: str
    due: str
    cost: str
    model: str
    tags: tuple[str, ...]
    place: Place
    stills: CellMedia
    facts: tuple[tuple[str, str], ...]
    history: tuple[str, ...]
    request_id: str
    attempt: int
    check: str = ""
    defects: tuple[str, ...] = ()


def sheet_cell(
    number: int,
    line: Line,
    earlier: Sequence[Attempt],
    place: Place,
    stills: CellMedia,
    *,
    check: ClipCheck | None = None,
) -> SheetCell:
    """The cell of one request's latest attempt, or of a placeholder."""
    if isinstance(line, SkippedLine):
        return _placeholder(number, line, place)
    price, cost = _price(line), _cost(line)
    facts = [*_check_facts(check), *_facts(line, price, cost)]
    return SheetCell(
        number=number,
        row_id=line.row_id,
        state=str(line.state),
        words=NOT_NEEDED if line.is_spare else STATE_WORDS[line.state],
        reason=_reason(line),
        price=price,
        due=_due(line),
        cost=cost,
        model=line.params.model,
        tags=line.tags,
        place=place,
        stills=stills,
        facts=tuple([fact for fact in facts if fact[1]]),
        history=tuple(_describe(attempt) for attempt in earlier),
        request_id=line.request_id,
        attempt=line.attempt,
        check="" if check is None else check.grade.value,
        defects=() if check is None else check.reasons,
    )


def _placeholder(number: int, line: SkippedLine, place: Place) -> SheetCell:
    return SheetCell(
        number=number,
        row_id=line.row_id,
        state=State.SKIPPED.value,
        words=STATE_WORDS[State.SKIPPED],
        reason="",
        price="",
        due="",
        cost="",
        model="",
        tags=line.tags,
        place=place,
        stills=CellMedia(),
        facts=(),
        history=(),
        request_id="",
        attempt=0,
    )


def _reason(attempt: Attempt) -> str:
    """Why it is so; some answers give no more than the state's own name."""
    return "no reason was given" if attempt.reason == attempt.state else attempt.reason or ""


def _due(attempt: Attempt) -> str:
    if attempt.state is State.REJECTED:
        return "not paid"
    return _DUE.get(attempt.cost_state, "") if attempt.bought_in is None else ""


_dollars = lru_cache(_REMEMBERED)(usd)
_strength = lru_cache(_REMEMBERED)(strength_text)


def _price(attempt: Attempt) -> str:
    return f"${_dollars(attempt.price_microusd)}"


def _cost(attempt: Attempt) -> str:
    """What the attempt adds to the run's sums, in words."""
    if attempt.bought_in is not None:
        return f"$0.000 here; bought in {attempt.bought_in}"
    if attempt.cost_state is CostState.NONE:
        return "$0.000"
    return f"{_price(attempt)} {attempt.cost_state}"


def _describe(attempt: Attempt) -> str:
    reason = f": {attempt.reason}" if attempt.reason else ""
    return f"attempt {attempt.attempt} {attempt.state.value}{reason} ({_cost(attempt)})"


def _check_facts(check: ClipCheck | None) -> list[tuple[str, str]]:
    if check is None or check.grade is Grade.OK:
        return []
    return [("check", "; ".join((check.grade.value, *check.reasons)))]


def _facts(attempt: Attempt, price: str, cost: str) -> list[tuple[str, str]]:
    params = attempt.params
    seconds = generation_s(attempt)
    return [
        ("prompt", params.prompt),
        ("model", params.model),
        ("motion", attempt.motion),
        ("motions_id", params.motions_id),
        ("motions_strength", _strength(params.strength_hundredths)),
        ("seed", str(params.seed)),
        ("image", signed_urls.shown(params.input_images[0])),
        ("end image", "\n".join(signed_urls.shown(image) for image in params.input_images_end)),
        ("enhance_prompt", str(params.enhance_prompt).lower()),
        ("check_nsfw", "" if params.check_nsfw is None else str(params.check_nsfw).lower()),
        ("take", str(attempt.take)),
        ("attempt", str(attempt.attempt)),
        ("tags", ", ".join(attempt.tags)),
        ("price", price),
        ("cost", cost),
        ("submitted", _time(attempt.submitted_at)),
        ("finished", _time(attempt.finished_at)),
        ("generated in", "" if seconds is None else f"{seconds:.1f} s"),
        ("size", "" if attempt.size_bytes is None else f"{attempt.size_bytes:,} bytes"),
        ("sha256", attempt.sha256 or ""),
        ("job_set_id", attempt.job_set_id or ""),
        ("request_id", attempt.request_id),
        ("video_url", attempt.video_url or ""),
    ]


def _time(at: float | None) -> str:
    if at is None:
        return ""
    minute, second = divmod(math.floor(round(at, 6)), 60)  # a datetime rounds to a micro-second as well
    return f"{_minute(minute)}:{second:02d} UTC"


@lru_cache(_REMEMBERED)
def _minute(number: int) -> str:
    """The minute of that number since 1970, to which many clips of a run belong."""
    return datetime.fromtimestamp(60 * number, UTC).strftime("%Y-%m-%d %H:%M")


def is_web_link(text: str) -> bool:
    """Only http and https are made into links; anything else is shown as text."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
