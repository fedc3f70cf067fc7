"""Judges what an answer, or the lack of one, means for the operation that asked. Above all: may it have been paid?

Pure: values in, a verdict out. It never sends, waits, logs or changes a state; `runner` acts on the verdict. A submit
may be sent again after `not_sent`, `throttled`, `concurrency`, `wrong_path`, `forbidden` and `fatal` only: there a real
status line or the send proof says that nothing was created.
Source: API document, "Common Status Codes and Responses"; official for 402, 403 with quota text, 423 and 52x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pipeline.gateway.error_hints import CREDIT, HINT, KEY, QUOTA, ErrorHints
from pipeline.gateway.error_text import MAX_WAIT_S
from pipeline.gateway.job_status import JobStatusReport, parse_poll
from pipeline.gateway.json_fields import as_object, doubled_ids, read_json
from pipeline.gateway.responses import NoResponse, Response
from pipeline.gateway.wire import (
    SubmittedJob,
    echo_differs,
    job_sets_named,
    names_job_set,
    parse_submit,
    recoverable_ids,
    without_id,
)
from pipeline.records import Params, canonical_job_id

MAX_NAMED: Final = 3
"""Ids that a message repeats where an answer names several jobs."""

# --- what a submit's end means ---------------------------------------------------------------------------------------


class SubmitOutcomeKind(StrEnum):
    """What is known about the money after one submit."""

    ACCEPTED = "accepted"
    """paid for: the ticket holds the id. Never sent again"""
    NOT_SENT = "not_sent"
    """proved: no byte of it left. May be sent again"""
    THROTTLED = "throttled"
    """too fast, nothing created: back to planned, everybody waits"""
    CONCURRENCY = "concurrency"
    """too many jobs at once, nothing created: back to planned until one ends"""
    REJECTED = "rejected"
    """this request is refused for good, nothing created"""
    WRONG_PATH = "wrong_path"
    """nothing lives at this path, nothing created: the other submit path may serve"""
    MODEL_GONE = "model_gone"
    """nothing created: the gateway does not sell this model (any more)"""
    FORBIDDEN = "forbidden"
    """refused, nothing created, and its words do not say whether the key or this one request is meant"""
    FATAL = "fatal"
    """key or credit: nothing created, back to planned, and no submit until the operator acts"""
    UNKNOWN = "unknown"
    """perhaps paid: park it, never send it again automatically"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOutcome:
    """What one submit's end means.

    Attributes:
        reason: one line for the ledger and the report; the gateway's own words where it gave any.
        status: of the real status line, None without one.
        ticket: only with `accepted`.
        wait_s: hint within 1 s .. 15 min that holds for all submits, None when none was given.
        stated_wait_s: the same hint as stated, without the bounds.
        stop_submitting: buy nothing more in this run; what is paid is still collected.
        salvaged: ids found in an answer that was not understood; one free poll each may settle it.
        job_cap: how many jobs at once the gateway says it allows.
        is_permanent: not sent, and waiting does not help (an unknown host, a certificate that is not valid).
    """

    kind: SubmitOutcomeKind
    reason: str = ""
    status: int | None = None
    ticket: SubmittedJob | None = None
    wait_s: float | None = None
    stated_wait_s: float | None = None
    stop_submitting: bool = False
    salvaged: tuple[str, ...] = ()
    job_cap: int | None = None
    is_permanent: bool = False


@dataclass(frozen=True, slots=True)
class ClassificationRule:
    """One row: these statuses, if the text (or a hint) says so, mean this."""

    statuses: frozenset[int]
    says: re.Pattern[str] | str | None
    kind: SubmitOutcomeKind
    stop: bool = False


def statuses(*numbers: int) -> frozenset[int]:
    """The HTTP statuses of a rule."""
    return frozenset(numbers)


def judge_submit(
    outcome: Response | NoResponse,
    *,
    refusals: frozenset[int],
    rules: Sequence[ClassificationRule],
    now_unix: float,
    params: Params | None = None,
    tells_state: Callable[[object], bool] = lambda _: False,
) -> SubmitOutcome:
    """What the end of one submit means for its request.

    Args:
        refusals: the statuses by which the gateway says that it created nothing; every other one is UNKNOWN.
        rules: what a refusal means; the first that applies.
        now_unix: Unix seconds, for a Retry-After date.
        params: what was sent; an answer that repeats another seed or prompt is not the answer to it.
        tells_state: whether the JSON of a 2xx tells the state of a job, so that an error in it is the job's.

    Pays: decides what may be sent again; see the module's first lines.
    """
    if isinstance(outcome, NoResponse):
        kind = SubmitOutcomeKind.UNKNOWN if outcome.sent else SubmitOutcomeKind.NOT_SENT
        return SubmitOutcome(kind=kind, reason=outcome.what, is_permanent=outcome.is_permanent)
    if 200 <= outcome.status <= 299:
        return _judge_success(outcome, params, now_unix, tells_state)
    hints = ErrorHints(outcome, now_unix)
    # MONEY: a refusal that names a job set contradicts itself; only a look at that job can tell.
    if outcome.status not in refusals or names_job_set(outcome.body):
        return _unknown(hints, recoverable_ids(outcome.body))
    # Each refusal is in some rule without a text (a test walks all of them), so `next` always finds one.
    rule = next(rule for rule in rules if outcome.status in rule.statuses and hints.says(rule.says))
    return _refused(hints, rule)


def _judge_success(
    answer: Response, params: Params | None, now_wall: float, tells_state: Callable[[object], bool]
) -> SubmitOutcome:
    """2xx: accepted with an id to poll; else unknown, whatever its text says."""
    hints = ErrorHints(answer, now_wall)
    payload = read_json(answer.body) if answer.complete else None
    ticket = parse_submit(payload)
    # MONEY: a job set's id beats every word of failure beside it; a weaker id beside such words may be a trace's.
    is_clear = ticket is not None and (
        ticket.id_key == "job_set_id" or not _says_error(payload) or tells_state(payload)
    )
    if ticket is None or not is_clear:
        return _unknown(hints, recoverable_ids(answer.body), reason=_why_unclear(answer, hints))
    # MONEY: with two ids it is not known which one was paid for; picking one could lose the other.
    if len(several := job_sets_named(answer.body) | doubled_ids(answer.body)) > 1:
        reason = f"{answer.status}, and the answer names several jobs: {', '.join(sorted(several)[:MAX_NAMED])}"
        return _unknown(hints, recoverable_ids(answer.body), reason=reason)
    differs = echo_differs(ticket, params) if params is not None else None
    if differs:
        # MONEY: nothing is salvaged here: that job is real, but it may be another request's.
        reason = f"the answer is not to this request: {differs} (it names job {ticket.job_set_id})"
        return SubmitOutcome(kind=SubmitOutcomeKind.UNKNOWN, reason=reason, status=answer.status)
    return SubmitOutcome(kind=SubmitOutcomeKind.ACCEPTED, status=answer.status, ticket=ticket)


def _why_unclear(answer: Response, hints: ErrorHints) -> str:
    """The gateway's own words; what is wrong with the answer where it has none."""
    is_bare = answer.complete and hints.reason == str(answer.status)
    return f"{answer.status}, and {without_id(answer.body)}" if is_bare else hints.reason


def _says_error(payload: object) -> bool:
    """A 2xx body that calls itself a failure: its `id` or `request_id` may be a trace's, not a job's."""
    top = as_object(payload)
    code = top.get("statusCode")
    return bool(top.get("error")) or top.get("success") is False or (isinstance(code, int) and code >= 400)


def _refused(hints: ErrorHints, rule: ClassificationRule) -> SubmitOutcome:
    """Nothing was created; the rule says what it means for the request and the hint for everybody."""
    slow = rule.kind in (SubmitOutcomeKind.THROTTLED, SubmitOutcomeKind.CONCURRENCY)
    # A 429's hint may mislead and is the pace's to weigh; a quota that is gone for longer ends the buying.
    too_long = hints.status == 403 and (hints.stated_wait_s or 0.0) > MAX_WAIT_S
    return SubmitOutcome(
        kind=rule.kind,
        reason=hints.reason,
        status=hints.status,
        wait_s=hints.wait_s if slow else None,
        stated_wait_s=hints.stated_wait_s if slow else None,
        stop_submitting=rule.stop or (slow and too_long),
        job_cap=hints.job_cap() if rule.kind is SubmitOutcomeKind.CONCURRENCY else None,
    )


def _unknown(hints: ErrorHints, salvaged: tuple[str, ...], *, reason: str | None = None) -> SubmitOutcome:
    """Perhaps paid. The text decides nothing about that; it may slow or stop further submits."""
    return SubmitOutcome(
        kind=SubmitOutcomeKind.UNKNOWN,
        reason=hints.reason if reason is None else reason,
        status=hints.status,
        wait_s=hints.wait_s,
        stated_wait_s=hints.stated_wait_s,
        stop_submitting=hints.says(CREDIT) or hints.says(KEY),
        salvaged=salvaged,
    )


# --- what a poll's end means -----------------------------------------------------------------------------------------


class PollOutcomeKind(StrEnum):
    """What one look at a job gave. None but `report` says anything about the job."""

    REPORT = "report"
    UNCLEAR = "unclear"
    """no word about the job: wait and look again"""
    THROTTLED = "throttled"
    """looking too often: everybody waits"""
    NOT_FOUND = "not_found"
    """404: soon after a submit it may be replication lag (60 s of grace)"""
    KEY_REFUSED = "key_refused"
    """401, 402, 403: the run stops buying, the job may well be running"""


POLL_KINDS: Final[Mapping[int, PollOutcomeKind]] = MappingProxyType(
    {
        **dict.fromkeys((401, 402, 403), PollOutcomeKind.KEY_REFUSED),
        404: PollOutcomeKind.NOT_FOUND,
        **dict.fromkeys((423, 429), PollOutcomeKind.THROTTLED),
    }
)
"""What a status of a poll means. 2xx is read; every other status is unclear: an error never decides a job's fate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollOutcome:
    """What one poll's end means. `wait_s` is a hint for all polls; `report` comes with kind `report` only.

    `is_permanent`: no connection, and waiting does not help.
    """

    kind: PollOutcomeKind
    report: JobStatusReport | None = None
    wait_s: float | None = None
    reason: str = ""
    status: int | None = None
    stop_submitting: bool = False
    is_permanent: bool = False


def judge_poll(
    outcome: Response | NoResponse,
    *,
    kinds: Mapping[int, PollOutcomeKind] = POLL_KINDS,
    now_unix: float,
    job_set_id: str | None = None,
) -> PollOutcome:
    """What the end of one poll means.

    Args:
        kinds: status -> what it means; 2xx is read, every other status is unclear.
        job_set_id: the id asked for. On a kept-alive connection an answer can be another job's; one that names
            another id is unclear.
    """
    if isinstance(outcome, NoResponse):
        unsent = outcome.is_permanent
        return PollOutcome(kind=PollOutcomeKind.UNCLEAR, reason=outcome.what, is_permanent=unsent)
    hints = ErrorHints(outcome, now_unix)
    if 200 <= outcome.status <= 299:
        return _judge_report(outcome, hints, job_set_id)
    # A status that is not in the table decides nothing: an error of a poll is no news about the job.
    kind = kinds.get(outcome.status, PollOutcomeKind.UNCLEAR)
    # API: an exhausted quota comes as 403 here. Taken for a refused key it would end the run for what a wait cures.
    if outcome.status == 403 and not hints.says(CREDIT) and (hints.says(HINT) or hints.says(QUOTA)):
        kind = PollOutcomeKind.THROTTLED
    return PollOutcome(
        kind=kind,
        wait_s=hints.wait_s,
        reason=hints.reason,
        status=outcome.status,
        stop_submitting=kind is PollOutcomeKind.KEY_REFUSED,
    )


def _judge_report(answer: Response, hints: ErrorHints, job_set_id: str | None) -> PollOutcome:
    report = parse_poll(read_json(answer.body)) if answer.complete else None
    if report is None:
        return PollOutcome(kind=PollOutcomeKind.UNCLEAR, wait_s=hints.wait_s, reason=hints.reason, status=answer.status)
    asked, named = job_set_id, report.job_set_id
    if asked is not None and named is not None and canonical_job_id(named) != canonical_job_id(asked):
        reason = f"the answer is about another job: {report.job_set_id}"
        return PollOutcome(kind=PollOutcomeKind.UNCLEAR, reason=reason, status=answer.status)
    return PollOutcome(kind=PollOutcomeKind.REPORT, report=report, status=answer.status)
