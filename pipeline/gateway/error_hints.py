"""What an answer says in words: the texts that slow, stop or park, and the wait it asks for. Each is read on demand.

Part of `classification`. Words never say whether something was paid for; that is the status line's and the id's to say.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Final

from pipeline.gateway.error_text import bounded, error_text, retry_after_s
from pipeline.gateway.json_fields import one_line
from pipeline.gateway.responses import Response

MAX_TEXT_BYTES: Final = 20_000
"""Bytes of a body that are searched for words which say what went wrong."""

_GAP: Final = r"[^\w.;!?]+"
"""between two words of one sentence"""
CREDIT: Final = re.compile(
    rf"\b(?:insufficient|not enough|no (?:more|remaining)|exhausted|depleted|exceeded)(?:{_GAP}\w+){{0,3}}?{_GAP}"
    r"(?:credits?|balance|funds)\b"
    rf"|\b(?:credits?|balance|funds)(?:{_GAP}\w+){{0,3}}?{_GAP}"
    r"(?:insufficient|exhausted|depleted|too low|not enough|exceeded|required|empty)\b"
    rf"|\b(?:out of|low on|add|buy|top up)(?:{_GAP}\w+)??{_GAP}(?:credits?|funds)\b"
    r"|\binsufficient(?:credits?|balance|funds)\b|\bpayment required\b|\bbilling (?:hard )?limit\b",
    re.IGNORECASE,
)
"""Text about money that is gone. Both words are asked for, in one sentence: prompts are echoed, and "white balance" or
"out of balance" is no bill."""

CONCURRENCY: Final = re.compile(
    r"concurren|queue (?:is )?full|too many (?:\w+ ){0,2}(?:jobs|generations|tasks)", re.IGNORECASE
)
QUOTA: Final = re.compile(r"quota|call volume|rate limit|too many requests|replenished|try again in", re.IGNORECASE)
KEY: Final = re.compile(r"(?:invalid|missing)[\w ]{0,40}(?:authentication|(?:subscription|api) key)", re.IGNORECASE)

HINT: Final = "a wait hint"
"""found where a wait can be written: Retry-After, or a time to wait in the text"""

_JOB_CAP: Final = re.compile(r'concurren[^()]{0,60}\(([0-9]{1,5})\)|"limit"\s*:\s*([0-9]{1,5})\b', re.IGNORECASE)


class ErrorHints:
    """An answer's words and hints, each read when it is first asked for: a plain 2xx is never asked.

    `now_wall` (Unix seconds) is for a date in Retry-After.
    """

    def __init__(self, answer: Response, now_wall: float) -> None:
        self.status = answer.status
        self._answer = answer
        self._now_wall = now_wall

    @cached_property
    def text(self) -> str:
        """The beginning of the body."""
        return self._answer.body[:MAX_TEXT_BYTES].decode("utf-8", "replace")

    @cached_property
    def reason(self) -> str:
        """Status, the gateway's own words and why the body is not whole, as one line."""
        answer = self._answer
        cut = "" if answer.complete else f" ({answer.what or 'the answer was cut'})"
        return one_line(f"{answer.status} {error_text(answer.body)}".strip() + cut)

    @cached_property
    def stated_wait_s(self) -> float | None:
        """The wait hint as it was said, None without one."""
        return retry_after_s(self._answer.headers, self.text, now_wall=self._now_wall)

    @property
    def wait_s(self) -> float | None:
        """The wait hint within its bounds."""
        return bounded(self.stated_wait_s)

    def says(self, what: re.Pattern[str] | str | None) -> bool:
        """Whether the text holds the pattern, or there is a `HINT`; None is always said."""
        if what is None:
            return True
        if isinstance(what, str):
            return self.stated_wait_s is not None
        # Codes such as `insufficient_balance` are read as words; the patterns ask for word boundaries.
        return what.search(self.text.replace("_", " ")) is not None

    def job_cap(self) -> int | None:
        """The number of jobs at once in `requests (4) has been reached` or `"limit": 4`."""
        match = _JOB_CAP.search(self.text)
        return (int(match[1] or match[2]) or None) if match else None
