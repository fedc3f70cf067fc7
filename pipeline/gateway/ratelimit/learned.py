"""What a run found out about a gateway's limits, for the next run. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pipeline.gateway.ratelimit.bucket_follower import BucketFollower
from pipeline.gateway.ratelimit.controller import RateController
from pipeline.gateway.ratelimit.window_follower import WindowFollower


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedLimits:
    """What a run found out about a gateway, for the next run: a rate, or a window of `count` calls in `span_s`.

    `as_json` and `from_json` are each other's inverse.
    """

    submit_per_s: float | None = None
    burst: float | None = None
    count: int | None = None
    span_s: float | None = None
    in_flight_cap: int | None = None
    shared: bool = False

    def as_json(self) -> dict[str, float | int | None]:
        """A flat object of numbers and booleans."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> LearnedLimits:
        """Reads `as_json`; anything unreadable counts as not learned."""
        return cls(
            submit_per_s=_positive(raw.get("submit_per_s")),
            burst=_positive(raw.get("burst")),
            count=_count(raw.get("count")),
            span_s=_positive(raw.get("span_s")),
            in_flight_cap=_count(raw.get("in_flight_cap")),
            shared=raw.get("shared") is True,
        )


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def learned_limits(law: RateController, *, in_flight_cap: int | None, shared: bool) -> LearnedLimits:
    """What `law` follows at the moment."""
    follower = law.follower
    bucket = follower if isinstance(follower, BucketFollower) else None
    window = follower if isinstance(follower, WindowFollower) else None
    return LearnedLimits(
        submit_per_s=bucket.rate if bucket is not None else None,
        burst=bucket.burst if bucket is not None else None,
        count=window.count if window is not None else None,
        span_s=window.span_s if window is not None else None,
        in_flight_cap=in_flight_cap,
        shared=shared,
    )


def begin_with(law: RateController, learned: LearnedLimits, now: float) -> None:
    """Follow the learned limit, and doubt it until it is tested; explore where none was learned."""
    if learned.count is not None and learned.span_s is not None:
        law.begin_window(now, count=learned.count, span_s=learned.span_s)
    elif learned.submit_per_s is not None:
        law.begin_bucket(now, rate=learned.submit_per_s, burst=learned.burst or 1.0)
    if law.follower is not None:
        law.doubt()
