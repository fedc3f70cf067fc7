"""Whether a job is a request's own: the one proof by which an unclear submit may be adopted.

An id alone proves nothing: it may be a trace's, another client's, or forged by a sender of callbacks. Proof
is one id and the gateway's own answer to a free poll of it: a state word this program knows, and nothing in the answer
that contradicts the request. Unclear answers to submits and callbacks are judged by the same function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.gateway.classification import PollOutcome, PollOutcomeKind
from pipeline.gateway.json_fields import read_json, single
from pipeline.gateway.responses import NoResponse, Response
from pipeline.gateway.wire import Echo, echo_contradicts, parse_echo
from pipeline.records import Params, canonical_job_id

MODEL_WORDS: Final = {"lite": "lite", "turbo": "turbo", "preview": "preview", "standard": "preview"}
"""Last word of a model's name -> the model it means. Source: API document; `standard` is official upstream for preview.
A name that ends otherwise is one this program does not know, and contradicts nothing."""

_NO_JOB: Final = re.compile(
    r"not[\s_-]*found|no[\s_-]such|does(?:n.t| not) exist|(?:unknown|invalid)[\s_-](?:job|request|task|id)\b",
    re.IGNORECASE,
)
"""Words of a `failed` answer that speak of the poll: there is no such job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProof:
    """What a poll says about the question whose job it is.

    Attributes:
        proved: the job is the request's own.
        final: the answer is about another request; asking again is pointless.
        reason: why it is not proved, for the log.
    """

    proved: bool
    final: bool = False
    reason: str = ""


def only_id(named: Iterable[str]) -> str | None:
    """The one job that `named` ids mean, spellings of one UUID counted as one; None for no job or several."""
    spellings = {canonical_job_id(job_set_id): job_set_id for job_set_id in named}
    return next(iter(spellings.values())) if len(spellings) == 1 else None


def prove_job(answer: Response | NoResponse, poll: PollOutcome, params: Params) -> JobProof:
    """Whether the job that was polled is the one that `params` were submitted for.

    Args:
        answer: to a poll of the only id that is in question.
        poll: `classify_poll` of `answer`, which has compared the id that the answer names.

    Pays: an adopted job's request is never sent again, and a job that is not adopted stays an unknown outcome.
    """
    report = poll.report
    if poll.kind is not PollOutcomeKind.REPORT or report is None or not isinstance(answer, Response):
        return JobProof(proved=False, reason=poll.reason or poll.kind.value)
    # MONEY: an answer without a state may be a page that every id gets. It would prove any id to be ours.
    if not report.known_word or not report.word:
        return JobProof(proved=False, reason=f"the answer gives no known state ({report.word or 'none'})")
    if report.reason and _NO_JOB.search(report.reason):
        return JobProof(proved=False, reason=report.reason)
    for top in single(read_json(answer.body)):
        echo = parse_echo(top)
        # An answer that repeats nothing contradicts nothing: the id came from the answer to this very request, or from
        # a callback with its token, which is what the state word confirms.
        contradiction = echo_contradicts(echo, params) or _other_model(echo, params)
        if contradiction:
            return JobProof(proved=False, final=True, reason=contradiction)
    return JobProof(proved=True)


def repeats_a_request(answer: Response | NoResponse) -> bool:
    """Whether an answer says what was asked for, so that `prove_job` has something to compare."""
    return isinstance(answer, Response) and any(parse_echo(top) != Echo() for top in single(read_json(answer.body)))


def _other_model(echo: Echo, params: Params) -> str | None:
    ours, theirs = (_model_word(name) for name in (params.model, echo.model or ""))
    return f"it repeats model {echo.model}" if ours and theirs and ours != theirs else None


def _model_word(name: str) -> str | None:
    words = re.findall(r"[a-z]+", name.lower())
    return MODEL_WORDS.get(words[-1]) if words else None
