"""One thing that `dop doctor` checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One thing that was checked. `ok` None: it could not be checked. `remedy`: what to do about it."""

    name: str
    ok: bool | None
    text: str
    remedy: str = ""
