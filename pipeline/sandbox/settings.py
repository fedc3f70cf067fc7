"""The settings of a sandbox, as one frozen record, and how its values are written on a command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT_KEY = "sandbox-key"
"""Subscription key of an embedded sandbox. It opens nothing but the sandbox, so it is no secret."""

SandboxKind = Literal["pixazo", "higgsfield"]
Dialect = Literal["job-set", "queue"]
LimiterKind = Literal["bucket", "fixed", "sliding"]
RetryAfter = Literal["yes", "no", "misleading"]
ConcurrentStyle = Literal["400", "429"]

LONG_SIDES_PX = {"180p": 320, "240p": 426, "360p": 640, "480p": 854, "540p": 960, "720p": 1280, "1080p": 1920}
"""Longer side of a clip for each size; the shorter one follows the input image's aspect."""

DEFAULT_SIZE = "240p"

_RATE = re.compile(r"(\d+)/(\d*)([smh])")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class SandboxError(Exception):
    """The sandbox cannot use its settings: a setting is wrong, or its port or folder cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `limit` admissions in `period_s` seconds."""

    limit: int
    period_s: float


def parse_rate(text: str) -> Rate:
    """The rate written as `60/1m`, `10/s` or `5/30s`.

    Raises:
        SandboxError: not of that form, or zero.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None or int(match[1]) < 1 or match[2] == "0":
        raise SandboxError(f"rate {text!r}: write it as N/1s, N/1m or N/1h")
    return Rate(limit=int(match[1]), period_s=int(match[2] or "1") * _SECONDS[match[3]])


def parse_duration(text: str) -> float:
    """Seconds of `2s`, `500ms`, `1.5m` or a bare number.

    Raises:
        SandboxError: not of that form.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise SandboxError(f"duration {text!r}: write it as 2s, 500ms or 1m")
    return float(match[1]) * _SECONDS[match[2] or "s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """All settings of a sandbox. The host is not among it: a sandbox listens on 127.0.0.1 only.

    Args:
        data_dir: folder of books, clips, uploaded images and the last port; made when missing.
        kind: whose API it imitates: the API document's gateway, or the vendor's own.
        port: 0 = the folder's last port when it is free, else any; another number = that port or an error.
        key: the subscription key; None accepts any that is not empty.
        dialect: the shape of the submit answer. Both submit paths and both poll styles answer either way.
        rate: limit on submits, as `60/1m`; None = no limit. `limiter` says what the limit means exactly.
        burst: capacity of the token bucket; None = the rate's own number.
        shared_limit: polls draw on the same limit.
        max_concurrent: cap on jobs that are not finished; refused with 400 text or 429 (`concurrent_style`).
        retry_after: whether a 429 says when to come back (`misleading` always says 3600 s).
        generation_s: typical seconds from acceptance to completion, before spread and model factor.
        generation_spread: bounds of the factor drawn per job.
        size: a key of LONG_SIDES_PX.
        one_clip: every job of one input image shares one clip; for benchmarks of thousands of jobs.
        render_threads: encoder threads (each job is encoded by one); None = the number of cores, at most 2.
        inline: write books and render clips on the event loop itself; for event loops in virtual time.
        chaos: seed of the storm; None = no faults.
        chaos_intensity: 0..1, share of the storm's full strength.
        defects: 0..1, share of the clips that come out broken; from 2 on a seed that chooses them.
        defect_seeds: seeds of requests whose clips come out broken in any case.
        shape: number of the result shape polls answer with; None = the documented one (or by hash in a storm).
        honours_keys: kind higgsfield: a repeated Idempotency-Key gives the first request; False: it is ignored.
        webhook_window_s: how long a callback that is not answered with 2xx is sent again.
    """

    data_dir: Path
    kind: SandboxKind = "pixazo"
    port: int = 0
    key: str | None = DEFAULT_KEY
    dialect: Dialect = "job-set"
    rate: str | None = None
    limiter: LimiterKind = "bucket"
    burst: int | None = None
    shared_limit: bool = False
    max_concurrent: int | None = None
    concurrent_style: ConcurrentStyle = "400"
    retry_after: RetryAfter = "yes"
    generation_s: float = 2.0
    generation_spread: tuple[float, float] = (0.7, 1.6)
    size: str = DEFAULT_SIZE
    one_clip: bool = False
    render_threads: int | None = None
    inline: bool = False
    chaos: str | None = None
    chaos_intensity: float = 1.0
    defects: float = 0.0
    defect_seeds: tuple[int, ...] = ()
    shape: int | None = None
    webhook_window_s: float = 30.0
    honours_keys: bool = True

    def __post_init__(self) -> None:
        if self.size not in LONG_SIDES_PX:
            raise SandboxError(f"size {self.size!r}: one of {', '.join(LONG_SIDES_PX)}")
        if self.rate is not None:
            parse_rate(self.rate)
        if not 0 <= self.port <= 65535:
            raise SandboxError(f"port {self.port} is outside 0..65535")
        if self.generation_s < 0 or not 0 <= self.generation_spread[0] <= self.generation_spread[1]:
            raise SandboxError("generation time and its spread must not be negative")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise SandboxError(f"max_concurrent {self.max_concurrent} is below 1")
        if not 0 <= self.chaos_intensity <= 1:
            raise SandboxError(f"chaos_intensity {self.chaos_intensity} is outside 0..1")
        if self.defects < 0 or (self.defects > 1 and self.defects != int(self.defects)):
            raise SandboxError(f"defects {self.defects}: a share from 0 to 1, or a whole number from 2 on as a seed")
