"""What the checks of a run work on, as plain values: one clip to check, and one to compare with the others.

Neither numpy nor the decoder is needed for them, so that `dop status` does not import those.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """One clip to check. `start` and `end` are local picture files, or "".

    Args:
        has_end: an end picture was given, on this machine or not.
        note: a word that the result ends with.
        wants_start: also keep the clip's first frame as a small picture.
    """

    clip: str
    preset: str
    start: str = ""
    end: str = ""
    has_end: bool = False
    loop: bool = False
    small: bool = False
    max_cpu_s: float = 5.0
    wants_start: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A clip among those that are compared.

    Args:
        name: how others name it.
        sha256: of its bytes, empty when unknown.
        params: what was asked for; clips with equal ones may be equal.
    """

    name: str
    sha256: str
    params: str
    fingerprint: bytes
