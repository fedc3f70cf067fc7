"""The storm's decisions: what goes wrong with which call. Pure: they depend on seed, request and visit alone.

`decide(seed, fingerprint, visit, hook)` is a hash, never a shared random generator, so the same seed gives the same
storm whatever the order of the calls. Whether a submit is charged follows from its fault alone (`BEFORE` or not).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from pipeline.sandbox.jobs import Job, JobOutcome, share


class SubmitFault(StrEnum):
    """What goes wrong with a submit that the rules allow."""

    NONE = "none"
    RESET_BEFORE = "connection reset before acceptance"
    ERROR_BEFORE = "500 before acceptance"
    BAD_GATEWAY_BEFORE = "502 HTML page before acceptance"
    PROXY_BEFORE = "520 HTML page before acceptance"
    THROTTLE = "429 out of the blue, for two visits"
    REDIRECT = "307 to another path, before acceptance"
    RESET_AFTER = "connection reset after acceptance"
    ERROR_AFTER = "500 after acceptance"
    BAD_GATEWAY_AFTER = "502 HTML page after acceptance"
    HTML_AFTER = "200 HTML page after acceptance"
    TRUNCATED = "the answer breaks off within its Content-Length"
    NOT_JSON = "the answer is half a JSON text"
    GARBAGE = "the answer is not HTTP"
    NO_ID = "200 without any id"
    ERROR_TEXT = "200 with an error text"
    WRONG_ANSWER = "the answer to another request"
    SECOND_ANSWER = "a second, unsolicited answer on the same connection"
    DUPLICATE = "the same answer twice"
    STALL = "the answer comes after a long wait"
    SILENCE = "no answer, and a reset after a very long wait"


BEFORE = frozenset(
    {
        SubmitFault.RESET_BEFORE,
        SubmitFault.ERROR_BEFORE,
        SubmitFault.BAD_GATEWAY_BEFORE,
        SubmitFault.PROXY_BEFORE,
        SubmitFault.THROTTLE,
        SubmitFault.REDIRECT,
    }
)
"""Faults that come instead of acceptance: nothing is charged. Under every other the job is charged."""


class PollFault(StrEnum):
    """What goes wrong with a poll of a job that exists."""

    NONE = "none"
    LAG = "404 on the first visits"
    RESET = "connection reset"
    ERROR = "500"
    BAD_GATEWAY = "502 HTML page"
    THROTTLE = "429"
    HTML = "200 HTML page"
    TRUNCATED = "the answer breaks off within its Content-Length"
    NOT_JSON = "the answer is half a JSON text"
    WRONG_ANSWER = "the answer to another poll"
    DUPLICATE = "the same answer twice"
    STALL = "the answer comes after a long wait"


class ResultFault(StrEnum):
    """What goes wrong with the download of a clip."""

    NONE = "none"
    RESET = "connection reset"
    ERROR = "500"
    CUT = "half of the announced bytes"
    CUT_UNANNOUNCED = "half of the bytes, without Content-Length"
    HTML = "200 HTML page"
    WRONG_CONTENT = "bytes that are no MP4 under the name of one"
    REDIRECT = "302 to the file"
    STALL = "the file comes after a long wait"


class ResultDefect(StrEnum):
    """What is wrong with a completed job's result for good or for a while."""

    NONE = "none"
    NO_URL_YET = "completed, the URL comes with a later poll"
    NO_URL = "completed, never a URL"
    EXPIRED_ONCE = "the first URL is expired, a fresh poll helps"
    EXPIRED = "every URL is expired"


class CallbackFault(StrEnum):
    """What goes wrong with a callback."""

    NONE = "none"
    TWICE = "delivered twice"
    FORGED = "a forged one, with a wrong secret, comes first"
    UNKNOWN_JOB = "one for a job that does not exist comes first"
    EARLY = "one comes while the job is queued"
    HASTY = "one comes before the answer to the submit"
    UNPROVEN = "one without any proof comes first"
    REPLAYED = "an hour-old one with its signature comes again"
    LOST = "never delivered"


SUBMIT_ODDS: Mapping[SubmitFault, float] = {
    SubmitFault.RESET_BEFORE: 0.030,
    SubmitFault.ERROR_BEFORE: 0.025,
    SubmitFault.BAD_GATEWAY_BEFORE: 0.020,
    SubmitFault.PROXY_BEFORE: 0.015,
    SubmitFault.THROTTLE: 0.050,
    SubmitFault.REDIRECT: 0.010,
    SubmitFault.RESET_AFTER: 0.030,
    SubmitFault.ERROR_AFTER: 0.020,
    SubmitFault.BAD_GATEWAY_AFTER: 0.020,
    SubmitFault.HTML_AFTER: 0.015,
    SubmitFault.TRUNCATED: 0.020,
    SubmitFault.NOT_JSON: 0.015,
    SubmitFault.GARBAGE: 0.010,
    SubmitFault.NO_ID: 0.010,
    SubmitFault.ERROR_TEXT: 0.010,
    SubmitFault.WRONG_ANSWER: 0.020,
    SubmitFault.SECOND_ANSWER: 0.020,
    SubmitFault.DUPLICATE: 0.020,
    SubmitFault.STALL: 0.030,
    SubmitFault.SILENCE: 0.010,
}
POLL_ODDS: Mapping[PollFault, float] = {
    PollFault.LAG: 0.05,
    PollFault.RESET: 0.04,
    PollFault.ERROR: 0.04,
    PollFault.BAD_GATEWAY: 0.03,
    PollFault.THROTTLE: 0.03,
    PollFault.HTML: 0.02,
    PollFault.TRUNCATED: 0.02,
    PollFault.NOT_JSON: 0.02,
    PollFault.WRONG_ANSWER: 0.02,
    PollFault.DUPLICATE: 0.02,
    PollFault.STALL: 0.02,
}
RESULT_ODDS: Mapping[ResultFault, float] = {
    ResultFault.RESET: 0.05,
    ResultFault.ERROR: 0.05,
    ResultFault.CUT: 0.06,
    ResultFault.CUT_UNANNOUNCED: 0.06,
    ResultFault.HTML: 0.04,
    ResultFault.WRONG_CONTENT: 0.04,
    ResultFault.REDIRECT: 0.08,
    ResultFault.STALL: 0.03,
}
AILMENT_ODDS: Mapping[ResultDefect, float] = {
    ResultDefect.NO_URL_YET: 0.05,
    ResultDefect.NO_URL: 0.02,
    ResultDefect.EXPIRED_ONCE: 0.06,
    ResultDefect.EXPIRED: 0.02,
}
FATE_ODDS: Mapping[JobOutcome, float] = {
    JobOutcome.FAILED: 0.05,
    JobOutcome.NSFW: 0.04,
    JobOutcome.CANCELED: 0.02,
    JobOutcome.ENDLESS: 0.02,
}
CALLBACK_ODDS: Mapping[CallbackFault, float] = {
    CallbackFault.TWICE: 0.10,
    CallbackFault.FORGED: 0.10,
    CallbackFault.UNKNOWN_JOB: 0.05,
    CallbackFault.EARLY: 0.10,
    CallbackFault.HASTY: 0.10,
    CallbackFault.UNPROVEN: 0.05,
    CallbackFault.REPLAYED: 0.05,
    CallbackFault.LOST: 0.05,
}

SLOW_SHARE, SLOW_FACTOR = 0.06, 5.0
"""Share of slow jobs, and how many times longer they take."""

IN_FLIGHT_SHARE = 0.05
"""Share of repeated calls that a gateway with idempotency keys answers with 409."""

LAG_VISITS = 2
BURST_VISITS = 2
SHAPED_SHARE = 0.5
"""Share of jobs whose polls answer in another shape than the document's."""

_Fault = TypeVar("_Fault", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """One storm: its seed, and its intensity as a factor on all odds, 0..1."""

    seed: str
    intensity: float = 1.0

    def submit_fault(self, fingerprint: str, visit: int) -> SubmitFault:
        """The fault of the visit-th valid submit of this request; a burst of 429 holds on for BURST_VISITS."""
        # Looked up again instead of remembered: a plan has no state, so a restarted sandbox continues the same burst.
        for first in range(max(1, visit - BURST_VISITS + 1), visit):
            if self._pick("submit", fingerprint, first, SUBMIT_ODDS, SubmitFault.NONE) is SubmitFault.THROTTLE:
                return SubmitFault.THROTTLE
        return self._pick("submit", fingerprint, visit, SUBMIT_ODDS, SubmitFault.NONE)

    def poll_fault(self, job_set_id: str, visit: int) -> PollFault:
        """The fault of the visit-th poll of this job."""
        fault = self._pick("poll", job_set_id, visit, POLL_ODDS, PollFault.NONE)
        return PollFault.NONE if fault is PollFault.LAG and visit > LAG_VISITS else fault

    def result_fault(self, job_set_id: str, visit: int) -> ResultFault:
        """The fault of the visit-th download of this job's clip."""
        return self._pick("result", job_set_id, visit, RESULT_ODDS, ResultFault.NONE)

    def callback_fault(self, job_set_id: str) -> CallbackFault:
        """The fault of this job's callback."""
        return self._pick("callback", job_set_id, 1, CALLBACK_ODDS, CallbackFault.NONE)

    def ailment(self, fingerprint: str, visit: int) -> ResultDefect:
        """What is wrong with the result of the visit-th job of this request."""
        return self._pick("ailment", fingerprint, visit, AILMENT_ODDS, ResultDefect.NONE)

    def fate(self, fingerprint: str, visit: int) -> JobOutcome:
        """How the visit-th job of this request ends."""
        return self._pick("fate", fingerprint, visit, FATE_ODDS, JobOutcome.COMPLETED)

    def slowness(self, fingerprint: str, visit: int) -> float:
        """Factor on the generation time of the visit-th job of this request."""
        slow = share(self.seed, "slow", fingerprint, visit) < SLOW_SHARE * self.intensity
        return SLOW_FACTOR if slow else 1.0

    def struck(self, job: Job) -> Job:
        """The job as the storm lets it go: how it ends, and how long it takes."""
        # A fate that the prompt asks for is kept, so that tests can rely on it in a storm.
        fate = job.fate if job.fate is not JobOutcome.COMPLETED else self.fate(job.fingerprint, job.visit)
        slowness = self.slowness(job.fingerprint, job.visit)
        return replace(job, fate=fate, generation_s=job.generation_s * slowness)

    def shape(self, fingerprint: str, visit: int, shapes: int) -> int | None:
        """Which of `shapes` result shapes this job's polls answer in; None = the documented one."""
        if share(self.seed, "shaped", fingerprint, visit) >= SHAPED_SHARE * self.intensity:
            return None
        return int(share(self.seed, "shape", fingerprint, visit) * shapes)

    def in_flight(self, key: str, visit: int) -> bool:
        """Whether the visit-th call under a key is answered as if the first were still being worked on."""
        return share(self.seed, "in flight", key, visit) < IN_FLIGHT_SHARE * self.intensity

    def wait_share(self, hook: str, name: str, visit: int) -> float:
        """0..1: how long a stall is, and which of two ways a connection is cut."""
        return share(self.seed, "wait", hook, name, visit)

    def _pick(self, hook: str, name: str, visit: int, odds: Mapping[_Fault, float], calm: _Fault) -> _Fault:
        # Drawn from what the call is about, never from a sequence: in whatever order calls come, each meets the same.
        mark = share(self.seed, hook, name, visit)
        for fault, chance in odds.items():
            mark -= chance * self.intensity
            if mark < 0:
                return fault
        return calm
