"""The poller's end when the run stops while submits are still in flight."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from pipeline.gateway.kinds.pixazo import Pixazo
from pipeline.ledger.states import Event
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.context import PendingJob, RunContext
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.poller import Poller
from pipeline.runner.stop import StopScope, StopSignal


def in_flight(request_id: str, *, polls: int = 0) -> PendingJob:
    return PendingJob(
        request_id=request_id,
        row_id=request_id,
        take=1,
        model="dop-lite",
        job_set_id=f"job-{request_id}",
        polling_url=None,
        accepted_at=asyncio.get_running_loop().time(),
        polls=polls,
    )


async def test_a_submit_that_is_accepted_while_the_looks_are_booked_does_not_break_the_stop() -> None:
    recorded: dict[str, object] = {}

    queue: asyncio.Queue[PendingJob] = asyncio.Queue()

    class Recorder:
        async def record(self, request_id: str, event: Event, values: dict[str, object]) -> None:
            recorded[request_id] = values["polls"]
            queue.put_nowait(in_flight(f"late-{request_id}"))

    halt = StopSignal()
    halt.request("stopped by SIGTERM", exit_code=143, reach=StopScope.ALL)
    plan = PollSchedule(first_s=15, min_s=3, max_s=60, deadline_s=1200)
    context = SimpleNamespace(recorder=Recorder(), stop=halt, accepted=queue, kind=Pixazo())
    poller = Poller(cast(RunContext, context), plan, CircuitBreaker())
    queue.put_nowait(in_flight("a", polls=2))
    queue.put_nowait(in_flight("b", polls=3))
    queue.put_nowait(in_flight("never polled"))
    await poller.run()
    assert recorded == {"a": 2, "b": 3}
