"""What an answer says in words: the texts that slow, stop or park, and the wait it asks for. Read once per answer.

Pure. Part of `verdict`. Words never say whether something was paid for; that is the status line's and the id's to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pipeline.gateway.answer import Answer
from pipeline.gateway.errortext import error_text, told_wait_s, wait_hint_s
from pipeline.gateway.shapes import one_line

MAX_TEXT_BYTES: Final = 20_000
"""how much of a body is searched for telling words"""

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
"""stands where a text could for: Retry-After, or a time to wait in the text"""

_JOB_CAP: Final = re.compile(r'concurren[^()]{0,60}\(([0-9]{1,5})\)|"limit"\s*:\s*([0-9]{1,5})\b', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer's words and hints.

    Attributes:
        reason: status, the gateway's own words and why the body is not whole, as one line.
        wait_s, told_wait_s: the wait hint within its bounds, and as it was said.
    """

    status: int
    text: str
    reason: str
    wait_s: float | None
    told_wait_s: float | None

    def says(self, what: re.Pattern[str] | str | None) -> bool:
        """Whether the text holds the pattern, or there is a `HINT`; None is always said."""
        if what is None:
            return True
        if isinstance(what, str):
            return self.told_wait_s is not None
        return what.search(self.text.replace("_", " ")) is not None

    def job_cap(self) -> int | None:
        """The number of jobs at once in `requests (4) has been reached` or `"limit": 4`."""
        told = _JOB_CAP.search(self.text)
        return (int(told[1] or told[2]) or None) if told else None


def hear(answer: Answer, now_wall: float) -> Heard:
    """The words of `answer`; `now_wall` (Unix seconds) is for a Retry-After date."""
    text = answer.body[:MAX_TEXT_BYTES].decode("utf-8", "replace")
    cut = "" if answer.complete else f" ({answer.what or 'the answer was cut'})"
    return Heard(
        status=answer.status,
        text=text,
        reason=one_line(f"{answer.status} {error_text(answer.body)}".strip() + cut),
        wait_s=wait_hint_s(answer.headers, text, now_wall=now_wall),
        told_wait_s=told_wait_s(answer.headers, text, now_wall=now_wall),
    )
