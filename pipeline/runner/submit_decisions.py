"""What is done about the outcome of a submit: one pure table. The submitter acts on it, and nothing is decided there.

MONEY: only RELEASE lets a request be sent again, and it needs an outcome that proves that nothing was created.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.errors import ExitCode
from pipeline.gateway.classification import SubmitOutcome, SubmitOutcomeKind
from pipeline.gateway.error_hints import CREDIT
from pipeline.gateway.ratelimit.limiter import LimitFeedback
from pipeline.runner.circuit_breaker import Outcome
from pipeline.runner.stop import StopReason, StopScope

LIMIT_FEEDBACK: Final[Mapping[SubmitOutcomeKind, LimitFeedback]] = {
    SubmitOutcomeKind.ACCEPTED: LimitFeedback.ACCEPTED,
    SubmitOutcomeKind.THROTTLED: LimitFeedback.THROTTLED,
    SubmitOutcomeKind.CONCURRENCY: LimitFeedback.CONCURRENCY,
    SubmitOutcomeKind.UNKNOWN: LimitFeedback.UNKNOWN,
}
"""What an outcome says about the rate limit; every other one says nothing (LimitFeedback.OTHER)."""


NO_CREDIT: Final = "the gateway account has no credit"
"""Begins the reason to stop after a refusal for lack of money."""

NOT_SOLD: Final = "the gateway no longer takes submits at the address that worked"
"""Begins the reason to stop when the submit path vanished: DoP may be withdrawn, or the gateway is being changed."""


class SubmitAction(StrEnum):
    """What becomes of the request."""

    ACCEPT = "accept"
    """paid: record the id and poll it"""
    MARK_UNKNOWN = "mark_unknown"
    """perhaps paid: park it; a free poll of an id in the response may prove it"""
    REJECT = "reject"
    """refused for good, nothing was created"""
    RELEASE = "release"
    """nothing was created: planned again"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitDecision:
    """What to do about one outcome.

    Attributes:
        health: what the circuit breaker records.
        stop: a reason to buy nothing more.
        endpoint_works: the submit path exists; `endpoint_missing`: try the other one from now on.
        was_throttled: count it in the row's `throttled`.
        is_model_gone: the gateway does not sell the row's model; its other rows are not tried.
        is_refused: this row, or the key or address of all rows, is refused; other rows show which (refused_rows).
    """

    action: SubmitAction
    health: Outcome = "answered"
    stop: StopReason | None = None
    endpoint_works: bool = False
    endpoint_missing: bool = False
    was_throttled: bool = False
    is_refused: bool = False
    is_model_gone: bool = False


def decide(outcome: SubmitOutcome, *, has_other_path: bool, any_accepted: bool) -> SubmitDecision:
    """What to do about the outcome of one submit.

    Args:
        has_other_path: whether another submit path may serve, if this one is wrong.
        any_accepted: whether the gateway ever accepted a submit at this path.

    Pays: decides what may be sent again.
    """
    kind, stop = outcome.kind, _stop_reason(outcome)
    if kind is SubmitOutcomeKind.ACCEPTED:
        return SubmitDecision(action=SubmitAction.ACCEPT, stop=stop, endpoint_works=True)
    if kind is SubmitOutcomeKind.UNKNOWN:
        return SubmitDecision(action=SubmitAction.MARK_UNKNOWN, health="unknown", stop=stop)
    # A refusal of the content shows as well as an acceptance does that this is the path for submits.
    if kind is SubmitOutcomeKind.REJECTED:
        return SubmitDecision(action=SubmitAction.REJECT, stop=stop, endpoint_works=True)
    if kind is SubmitOutcomeKind.NOT_SENT:
        return SubmitDecision(action=SubmitAction.RELEASE, health="unreachable", stop=stop)
    if kind is SubmitOutcomeKind.WRONG_PATH:
        return _wrong_path(outcome, has_other_path=has_other_path, any_accepted=any_accepted)
    if kind is SubmitOutcomeKind.MODEL_GONE:
        return SubmitDecision(action=SubmitAction.RELEASE, stop=stop, is_model_gone=True)
    # Not REJECT, which is final: the words leave open whether this row or the key is meant. What the other rows come to
    # decides that (refused_rows).
    if kind is SubmitOutcomeKind.FORBIDDEN:
        return SubmitDecision(action=SubmitAction.RELEASE, stop=stop, endpoint_works=True, is_refused=True)
    throttled = kind in (SubmitOutcomeKind.THROTTLED, SubmitOutcomeKind.CONCURRENCY)
    return SubmitDecision(action=SubmitAction.RELEASE, stop=stop, was_throttled=throttled)


def _stop_reason(outcome: SubmitOutcome) -> StopReason | None:
    if not outcome.stop_submitting:
        return None
    # A quota renews automatically, a key does not.
    code = ExitCode.UNFINISHED if outcome.kind is SubmitOutcomeKind.THROTTLED else ExitCode.FATAL
    return StopReason(text=refusal_text(outcome), exit_code=code, reach=StopScope.SUBMITS)


def refusal_text(outcome: SubmitOutcome) -> str:
    """Why nothing more is bought after a refusal, with what it usually means."""
    if outcome.status == 402 or CREDIT.search(outcome.reason):
        return f"{NO_CREDIT}: {outcome.reason}"
    if outcome.kind is SubmitOutcomeKind.WRONG_PATH:
        return f"{NOT_SOLD}: {outcome.reason}"
    return f"the gateway refuses further submits: {outcome.reason}"


def _wrong_path(outcome: SubmitOutcome, *, has_other_path: bool, any_accepted: bool) -> SubmitDecision:
    # No submit has ever worked, so the path itself is the likely mistake: the same row goes again to the other one.
    if has_other_path:
        return SubmitDecision(action=SubmitAction.RELEASE, endpoint_missing=True)
    if any_accepted:
        # API: the path was right, so this request is meant, or the gateway sells no more; other rows show which.
        return SubmitDecision(action=SubmitAction.RELEASE, is_refused=True)
    text = f"no submit path of the gateway answers ({outcome.reason}); check gateway.base_url and gateway.submit_path"
    stop = StopReason(text=text, exit_code=ExitCode.FATAL, reach=StopScope.SUBMITS)
    return SubmitDecision(action=SubmitAction.RELEASE, stop=stop)


class SubmitEndpoint:
    """The submit path of the gateway: the current one, another one once when that gives 404."""

    def __init__(self, current: str, others: Iterable[str] = (), *, proven: bool = False) -> None:
        self.current = current
        self.proven = proven
        self._untried = [path for path in others if path != current]

    def works(self, path: str) -> None:
        """A submit was accepted (or rejected for its content) at `path`."""
        self.current, self.proven = path, True

    def has_alternative(self, path: str) -> bool:
        """Whether a request that got 404 at `path` may be sent to another path."""
        # A 404 from a path that another worker has left already says nothing about the current one.
        return path != self.current or (not self.proven and bool(self._untried))

    def move_on(self, path: str) -> None:
        """No submit path is at `path`: use the other one, unless another worker moved on already."""
        # A path that took a submit once is kept: a 404 there speaks of this row, or of a gateway that sells no more.
        if path == self.current and not self.proven and self._untried:
            self.current = self._untried.pop(0)
