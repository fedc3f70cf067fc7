"""What a probe of an image found, as plain values: they are kept between runs, and need no HTTP client."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProbeStatus(StrEnum):
    """How a probe ended."""

    GOOD = "good"
    BAD = "bad"
    """no video can be made of it: it is not there, or it is no picture"""
    UNSURE = "unsure"
    """it can't be fetched from here; the gateway may"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a probe found. `head_sha256` is of the first `image_probe.HEAD_BYTES`; sizes are None where unknown."""

    kind: ProbeStatus
    reason: str = ""
    picture: str = ""
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    head_sha256: str = ""
    etag: str = ""
    unchanged: bool = False


def bad(reason: str) -> ProbeResult:
    """The result for something that is no picture."""
    return ProbeResult(kind=ProbeStatus.BAD, reason=reason)


def unsure(reason: str) -> ProbeResult:
    """The result where nothing could be fetched."""
    return ProbeResult(kind=ProbeStatus.UNSURE, reason=reason)
