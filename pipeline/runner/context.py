"""What every step works with: the doors it may touch and the words it leaves behind. Built once a run by `run`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.gateway.client import GatewayClient
from pipeline.records import Attempt
from pipeline.runner.rate_gate import Gate
from pipeline.runner.recorder import Scribe
from pipeline.runner.stop import Halt


@dataclass(slots=True, kw_only=True)
class InFlight:
    """The little that a waiting job needs, so that 100,000 of them fit in memory. Times are the loop's seconds."""

    request_id: str
    row_id: str
    take: int
    model: str
    job_set_id: str
    polling_url: str | None
    accepted_at: float
    polls: int = 0
    without_url: int = 0
    refused: int = 0
    hinted_at: float = float("-inf")


@dataclass(slots=True, kw_only=True)
class Finished:
    """A video that is ready to be fetched."""

    request_id: str
    row_id: str
    take: int
    job_set_id: str
    polling_url: str | None
    video_url: str
    tries: int = 0
    refreshed: bool = False


@dataclass(slots=True, kw_only=True)
class Doors:
    """The surroundings of one run's requests.

    `wall` gives Unix seconds, `new_token` a fresh compare-and-swap token, `body` the submit's bytes of an attempt,
    `callback_url` where the gateway may call about it; `hidden` takes that out of what is kept of an answer.
    `accepted` and `finished` hand a request on to the next step, `lost` hears of unclear submits. `reach` is called
    with the name of each fail point.
    """

    scribe: Scribe
    client: GatewayClient
    gate: Gate
    halt: Halt
    prices_microusd: dict[str, int]
    wall: Callable[[], float]
    new_token: Callable[[], str]
    body: Callable[[Attempt], bytes]
    accepted: Callable[[InFlight], None]
    finished: Callable[[Finished], None]
    reach: Callable[[str], None]
    say: Callable[[str], None]
    callback_url: Callable[[Attempt], str | None] = lambda attempt: None
    hidden: Callable[[Attempt, str], str] = lambda attempt, text: text
    lost: Callable[[Attempt], None] = lambda attempt: None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("pipeline.run"))


def in_flight_of(attempt: Attempt, *, loop_now: float, wall_now: float) -> InFlight:
    """A job that an earlier run left in flight, its acceptance translated to the loop's clock."""
    age_s = max(0.0, wall_now - (attempt.accepted_at or wall_now))
    return InFlight(
        request_id=attempt.request_id,
        row_id=attempt.row_id,
        take=attempt.take,
        model=attempt.params.model,
        job_set_id=attempt.job_set_id or "",
        polling_url=attempt.polling_url,
        accepted_at=loop_now - age_s,
        polls=attempt.polls,
    )


def finished_of(attempt: Attempt) -> Finished:
    """A finished job whose video an earlier run did not save."""
    return Finished(
        request_id=attempt.request_id,
        row_id=attempt.row_id,
        take=attempt.take,
        job_set_id=attempt.job_set_id or "",
        polling_url=attempt.polling_url,
        video_url=attempt.video_url or "",
    )
