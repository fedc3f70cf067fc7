"""The tables of a run: one line per attempt as CSV or JSON Lines.

Takes attempts in manifest order and writes them as they come. Never reads the ledger and never adds money up by a rule
of its own: `cost_usd` is the attempt's own `cost_microusd`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial
from io import TextIOWrapper
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from pipeline.assets import signed_urls
from pipeline.files import whole_path, whole_text
from pipeline.ledger.reviews import ClipReview
from pipeline.records import FAILED_FOR_GOOD, MICROUSD, Attempt, State
from pipeline.reports.checks.findings import ClipCheck

ReportRow = Mapping[str, object]
"""One line of the report: column name to raw value, in the order of REPORT_COLUMNS, then METRICS_COLUMN."""

KINDS = {
    "request_id": "text",
    "row_id": "text",
    "tags": "list",
    "status": "text",
    "model": "text",
    "seed": "int",
    "prompt": "text",
    "image": "text",
    "end_image": "list",
    "motion": "text",
    "motions_id": "text",
    "motions_strength": "float",
    "enhance_prompt": "bool",
    "check_nsfw": "bool",
    "take": "int",
    "attempt": "int",
    "job_set_id": "text",
    "video_url": "text",
    "local_path": "text",
    "size_bytes": "int",
    "sha256": "text",
    "price_usd": "money",
    "cost_usd": "money",
    "cost_state": "text",
    "submit_attempts": "int",
    "throttled": "int",
    "polls": "int",
    "submitted_at": "time",
    "finished_at": "time",
    "duration_s": "float",
    "reason": "text",
    "check": "text",
    "check_reasons": "reasons",
    "verdict": "text",
    "stars": "int",
    "note": "text",
    "gateway": "text",
    "bought_in": "text",
}
"""Kind of each column's values; the keys' order is the order of the columns."""

REPORT_COLUMNS = tuple(KINDS)

METRICS_COLUMN = "check_metrics"
"""What a check measured, an object of numbers; in JSON Lines and Parquet only."""

NOT_NEEDED = "not needed"
"""The reason of a planned candidate whose shot needs no more of them."""

NEEDS_THE_USER = FAILED_FOR_GOOD | {State.UNKNOWN, State.STALLED}
"""States that failures.csv lists."""

FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
"""A text cell that begins so is taken for a formula by a spreadsheet; full-width forms are, in some locales."""

_SPLIT_FORMULA = re.compile(r"([;,|\t\r\n]\s*)(?=[=+\-@＝＋－＠])")
"""A formula's first sign behind a separator: `a;=F(1)` is two cells where the semicolon separates them."""

_SPLITTER = re.compile(r"[;,|\t\r\n]")

_HARMLESS = re.compile(r"[0-9A-Za-z][ !#-+\-./0-:<>?@A-Z\[\\\]^_`a-z{}~]*")
"""Most cells: printable ASCII that begins with a letter or digit and holds no separator and no double quote, so that
nothing can hide, and the cell needs no quotes."""

_NEEDS_QUOTES = re.compile(r'[,"\r\n]')

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

BLOCK = 1 << 20
"""Bytes that are copied at a time."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def report_row(
    attempt: Attempt,
    *,
    outputs: Path,
    run_folder: Path,
    check: ClipCheck | None = None,
    review: ClipReview | None = None,
) -> dict[str, object]:
    """One attempt as raw values under REPORT_COLUMNS, and METRICS_COLUMN.

    Args:
        check: what was found in its clip; None without a video.
        review: what reviewers said of its clip.
        outputs: the folder that `attempt.local_path` is relative to.
        run_folder: the folder that the row's `local_path` is made relative to (may begin with `../`).

    Returns:
        str, int, float, bool, None; `tags` and `end_image` lists of str; money Decimal dollars; times datetime in UTC;
        `duration_s` seconds from accepted to terminal.
    """
    params = attempt.params
    return {
        "request_id": attempt.request_id,
        "row_id": attempt.row_id,
        "tags": list(attempt.tags),
        "status": str(attempt.state),
        "model": params.model,
        "seed": params.seed,
        "prompt": params.prompt,
        "image": signed_urls.shown(params.input_images[0]),
        "end_image": [signed_urls.shown(image) for image in params.input_images_end],
        "motion": attempt.motion,
        "motions_id": params.motions_id,
        "motions_strength": params.strength_hundredths / 100,
        "enhance_prompt": params.enhance_prompt,
        "check_nsfw": params.check_nsfw,
        "take": attempt.take,
        "attempt": attempt.attempt,
        "job_set_id": attempt.job_set_id,
        "video_url": attempt.video_url,
        "local_path": relative_video(attempt.local_path, outputs=outputs, run_folder=run_folder),
        "size_bytes": attempt.size_bytes,
        "sha256": attempt.sha256,
        "price_usd": dollars(attempt.price_microusd),
        "cost_usd": dollars(attempt.cost_microusd),
        "cost_state": str(attempt.cost_state),
        "submit_attempts": attempt.submit_attempts,
        "throttled": attempt.throttled,
        "polls": attempt.polls,
        "submitted_at": moment(attempt.submitted_at),
        "finished_at": moment(attempt.finished_at),
        "duration_s": generation_s(attempt),
        "reason": reason_of(attempt),
        "check": None if check is None else check.grade.value,
        "check_reasons": [] if check is None else list(check.reasons),
        "verdict": None if review is None else review.verdict,
        "stars": None if review is None else review.stars,
        "note": None if review is None else review.note,
        "gateway": attempt.gateway,
        "bought_in": attempt.bought_in,
        METRICS_COLUMN: None if check is None else dict(check.metrics),
    }


def reason_of(attempt: Attempt) -> str | None:
    """Why it is so; an attempt that was sent again after an unknown outcome says that first."""
    if attempt.is_spare:
        return NOT_NEEDED
    if not attempt.resends:
        return attempt.reason
    note = "sent again after an unknown outcome"
    return note if attempt.reason is None or attempt.reason.startswith(note) else f"{note}; {attempt.reason}"


@lru_cache(maxsize=4_096)
def dollars(amount_microusd: int) -> Decimal:
    """Exact dollars with as many decimals as the amount needs, at least three, so that sums of the column are exact."""
    exact = Decimal(amount_microusd) / MICROUSD
    return exact.quantize(Decimal("0.001")) if amount_microusd % 1000 == 0 else exact.normalize()


def moment(at: float | None) -> datetime | None:
    """A Unix time as a UTC datetime."""
    return None if at is None else datetime.fromtimestamp(at, UTC)


def generation_s(attempt: Attempt) -> float | None:
    """Seconds from acceptance to the terminal state; None while either is missing or the clock went back."""
    if attempt.accepted_at is None or attempt.finished_at is None or attempt.finished_at < attempt.accepted_at:
        return None
    return round(attempt.finished_at - attempt.accepted_at, 3)


def relative_video(local_path: str | None, *, outputs: Path, run_folder: Path) -> str | None:
    """A clip's path as seen from the run's folder, with forward slashes."""
    if local_path is None:
        return None
    folder, _, name = local_path.replace(os.sep, "/").rpartition("/")
    return _relative_folder(str(outputs), str(run_folder), folder) + name


@lru_cache(maxsize=1024)
def _relative_folder(outputs: str, run_folder: str, folder: str) -> str:
    seen_from_run = os.path.relpath(os.path.join(outputs, folder), run_folder).replace(os.sep, "/")
    return "" if seen_from_run == "." else f"{seen_from_run}/"


def write_csv(rows: Iterable[ReportRow], path: Path) -> int:
    """Writes the report as CSV and returns the number of lines below the head.

    RFC 4180: comma, CRLF, quotes where needed. Formats: booleans true/false, lists joined with `;`, times ISO 8601 UTC
    in seconds with Z, missing values empty. Text that a spreadsheet would take for a formula gets an apostrophe in
    front; control characters become U+FFFD; the raw values are in the JSON Lines.

    A byte order mark is written only when a cell needs more than ASCII: without it Excel reads such a file in the
    machine's own code page, and with it a plain UTF-8 reader sees a first column named `\\ufeffrequest_id`. LibreOffice
    and pandas read both.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryFile(dir=path.parent) as plain,
        TextIOWrapper(plain, encoding="utf-8", errors="replace", newline="") as lines,
        whole_path(path) as draft,
        draft.open("wb") as stream,
    ):
        count = _write_lines(rows, lines)
        lines.flush()
        plain.seek(0)
        if not all(block.isascii() for block in iter(partial(plain.read, BLOCK), b"")):
            stream.write(BYTE_ORDER_MARK)
        plain.seek(0)
        shutil.copyfileobj(plain, stream, BLOCK)
    return count


def _write_lines(rows: Iterable[ReportRow], stream: TextIO) -> int:
    stream.write(",".join(REPORT_COLUMNS) + "\r\n")
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007
        stream.write(",".join(csv_cells(row)) + "\r\n")
    return count


def csv_cells(row: ReportRow) -> list[str]:
    """The row's cells as the CSV prints them, in quotes where needed, in the order of REPORT_COLUMNS."""
    return ["" if value is None else cell(value) for cell, value in zip(_CELLS, _values_of(row), strict=True)]


def escape_formula(text: str) -> str:
    """Text that no spreadsheet takes for a formula, and without control characters.

    Also behind leading blanks, and behind a sign at which a spreadsheet of another country splits the line into cells.
    """
    if _SPLITTER.search(text):
        text = _SPLIT_FORMULA.sub(r"\1'", text)
    if text[:1].isalnum() and text.isprintable():
        return text
    if text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS):
        text = "'" + text
    return text if text.isprintable() else _CONTROLS.sub("�", text)


def _text_cell(text: str) -> str:
    """A text as one cell. The csv module compares each character twice, which would be a fifth of a report's time."""
    if _HARMLESS.fullmatch(text):
        return text
    text = escape_formula(text)
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _list_cell(items: Sequence[str]) -> str:
    return _text_cell(";".join(items)) if items else ""


def _reasons_cell(reasons: Sequence[str]) -> str:
    return _text_cell("; ".join(reasons)) if reasons else ""


def _money_cell(amount: Decimal) -> str:
    return format(amount, "f")


def _bool_cell(value: bool) -> str:
    return "true" if value else "false"


def _time_cell(at: datetime) -> str:
    return f"{at.isoformat()[:19]}Z"


_CELL_OF_KIND: Mapping[str, Callable[[Any], str]] = {
    "text": _text_cell,
    "list": _list_cell,
    "reasons": _reasons_cell,
    "int": str,
    "float": str,
    "money": _money_cell,
    "bool": _bool_cell,
    "time": _time_cell,
}
_REPEATED = frozenset(
    (
        "status",
        "model",
        "prompt",
        "image",
        "motion",
        "motions_id",
        "cost_state",
        "reason",
        "check",
        "gateway",
        "bought_in",
    )
)
"""Columns of text in which most rows say the same: what a cell becomes is remembered."""

_repeated_cell = lru_cache(maxsize=4_096)(_text_cell)
_CELLS = tuple(_repeated_cell if column in _REPEATED else _CELL_OF_KIND[kind] for column, kind in KINDS.items())
"""What writes the value of each column, in their order; a missing value is an empty cell."""

_values_of: Callable[[ReportRow], tuple[Any, ...]] = itemgetter(*REPORT_COLUMNS)


def write_failures_csv(rows: Iterable[ReportRow], path: Path) -> int:
    """Write the requests that need the operator, in the report's columns: unknown outcomes first, then manifest order.

    A failed attempt that a later attempt of the same request replaced is left out. Returns the number of lines.
    """
    return write_csv(failures(rows), path)


def failures(rows: Iterable[ReportRow]) -> list[ReportRow]:
    """The rows that must not be overlooked: failed for good, unknown or stalled, and not tried again since."""
    latest: dict[object, ReportRow] = {}
    for row in rows:
        known = latest.get(row["request_id"])
        if known is None or _attempt_number(known) <= _attempt_number(row):
            latest[row["request_id"]] = row
    open_questions = [row for row in latest.values() if row["status"] in NEEDS_THE_USER]
    return sorted(open_questions, key=lambda row: row["status"] != State.UNKNOWN)


def _attempt_number(row: ReportRow) -> int:
    return int(str(row["attempt"]))


def write_jsonl(rows: Iterable[ReportRow], path: Path) -> int:
    """Writes one JSON object a line with the raw values: nothing made harmless, lists as lists, null where missing.

    Money is a string with its exact decimals, times are ISO 8601 UTC with what fraction there is. Returns the lines.
    """
    count = 0
    with whole_text(path) as stream:
        for count, line in enumerate(map(json_line, rows), start=1):  # noqa: B007
            stream.write(line + "\n")
    return count


def json_line(row: ReportRow) -> str:
    """The row as one line of JSON; half a surrogate pair stays readable as an escape."""
    line = json.dumps(row, ensure_ascii=False, default=_json_value)
    return line if line.isascii() or _has_utf8(line) else json.dumps(row, default=_json_value)


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_value(value: datetime | Decimal) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return _money_cell(value)
