"""JUnit XML: a run as a CI server shows it. Never says that a request passed unless its video was made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from pipeline.files import whole_text
from pipeline.records import State
from pipeline.reports.checks.findings import counts_as_failure
from pipeline.reports.tables import ReportRow

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot carry, not even escaped. Source: XML 1.0, production 2 (Char)."""

_OUTCOME = {
    State.PLANNED: "skipped",
    State.SUBMITTING: "skipped",
    State.ACCEPTED: "skipped",
    State.STALLED: "error",
    State.DONE: "passed",
    State.EXPIRED: "failure",
    State.FAILED: "failure",
    State.REFUSED: "failure",
    State.CANCELED: "failure",
    State.REJECTED: "failure",
    State.UNKNOWN: "error",
    State.WRITTEN_OFF: "error",
    State.SKIPPED: "skipped",
}


def write_junit(rows: Iterable[ReportRow], path: Path, *, run: str, fail_on: Sequence[str] = ()) -> int:
    """Writes one test suite for the run with one test case per attempt; returns the number of cases.

    done passes; failed, refused, canceled, rejected and expired are failures; unknown, stalled and written_off are
    errors; what is not finished is skipped, and so is an attempt that a later attempt of the same request replaced.
    A video whose check came out bad is a failure where `fail_on` names the kind, or `all`.
    """
    every = list(rows)
    latest = {row["request_id"]: row["attempt"] for row in sorted(every, key=lambda row: int(str(row["attempt"])))}
    outcomes = [_outcome(row, latest[row["request_id"]], fail_on) for row in every]
    with whole_text(path) as stream:
        stream.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        stream.write(f"<testsuites>\n{_suite_head(run, every, outcomes)}\n")
        stream.writelines(_case(row, outcome) for row, outcome in zip(every, outcomes, strict=True))
        stream.write("</testsuite>\n</testsuites>\n")
    return len(every)


def xml_attribute(value: object) -> str:
    """A quoted attribute value; what XML cannot carry becomes U+FFFD, and newlines survive as references."""
    text = _NOT_XML.sub("�", str(value))
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _outcome(row: ReportRow, latest: object, fail_on: Sequence[str]) -> tuple[str, str]:
    """What the CI server counts the attempt as, and why."""
    status, reason = str(row["status"]), str(row["reason"] or "")
    why = f"{status}: {reason}" if reason else status
    if row["attempt"] != latest:
        return "skipped", f"replaced by attempt {latest}; was {why}"
    reasons = _reasons(row)
    if counts_as_failure(str(row.get("check")), [reason.split(" ")[0] for reason in reasons], fail_on):
        return "failure", f"check bad: {'; '.join(reasons)}"
    return _OUTCOME[State(status)], why


def _reasons(row: ReportRow) -> list[str]:
    """What the check found; each begins with its kind."""
    reasons = row.get("check_reasons")
    return [str(reason) for reason in reasons] if isinstance(reasons, (list, tuple)) else []


def _suite_head(run: str, rows: Sequence[ReportRow], outcomes: Sequence[tuple[str, str]]) -> str:
    count = Counter(kind for kind, _ in outcomes)
    seconds = sum(_seconds(row) for row in rows)
    return (
        f'<testsuite name={xml_attribute(run)} tests="{len(rows)}" failures="{count["failure"]}" '
        f'errors="{count["error"]}" skipped="{count["skipped"]}" time="{seconds:.3f}">'
    )


def _seconds(row: ReportRow) -> float:
    return float(str(row["duration_s"] or 0))


def _case(row: ReportRow, outcome: tuple[str, str]) -> str:
    kind, why = outcome
    head = (
        f"<testcase classname={xml_attribute(row['model'])} name={xml_attribute(_case_name(row))} "
        f'time="{_seconds(row):.3f}"'
    )
    if kind == "passed":
        return f"{head}/>\n"
    tried = "" if kind == "skipped" else f" type={xml_attribute(row['status'])}"
    return f"{head}><{kind}{tried} message={xml_attribute(why)}>{_details(row, kind)}</{kind}></testcase>\n"


def _case_name(row: ReportRow) -> str:
    name = str(row["row_id"])
    name += f" take {row['take']}" if row["take"] != 1 else ""
    return name + (f" attempt {row['attempt']}" if row["attempt"] != 1 else "")


def _details(row: ReportRow, kind: str) -> str:
    if kind == "skipped":
        return ""
    lines = [f"{column}: {row[column]}" for column in ("request_id", "job_set_id", "seed", "prompt", "cost_usd")]
    return escape(_NOT_XML.sub("�", "\n".join(lines)))
