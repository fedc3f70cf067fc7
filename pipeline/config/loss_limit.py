"""`on_unknown.max` and `--max-unknown`: how much may be lost to unknown outcomes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from pipeline.records import microusd

_ROWS = re.compile(r"[0-9]{1,9}")
_MONEY = re.compile(r"\$?[0-9]{1,9}\.[0-9]{1,6}|\$[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLimit:
    """At most so many rows of unknown outcome, and at most so much money in them (micro-dollars); None is no limit."""

    rows: int | None = None
    microusd: int | None = None


def parse_loss_limit(text: str) -> LossLimit:
    """The limit of "5" (rows), or of "0.50" or "$5" (US dollars).

    Raises:
        ValueError: anything else.
    """
    text = text.strip()
    if _ROWS.fullmatch(text):
        return LossLimit(rows=int(text))
    if _MONEY.fullmatch(text):
        return LossLimit(microusd=microusd(Decimal(text.removeprefix("$"))))
    raise ValueError(f"{text!r} is no limit of unknown outcomes: write a number of rows, e.g. 5, or dollars, e.g. 0.50")
