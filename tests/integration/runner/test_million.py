"""The benchmark in virtual time in small: real buying and looking, an exact limiter, and an outage in the middle."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from benchmarks.million import BatchRun, MemoryLedger, Scenario, VirtualLoop, bound_s
from pipeline.ledger.writer import LedgerWriter


def carried(scenario: Scenario) -> BatchRun:
    loop = VirtualLoop()

    async def story() -> BatchRun:
        run = BatchRun(scenario, cast(LedgerWriter, MemoryLedger()))
        await run.carry_out()
        return run

    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(story())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("known", [True, False])
def test_of_one_bucket_polls_and_submits_both_get_their_part(known: bool) -> None:
    scenario = Scenario(jobs=300, rate="10/1s", generation_s=(20, 30), shared=True, configured=known)
    run = carried(scenario)
    assert run.outcomes.done == 300
    assert run.outcomes.ended_s <= 1.15 * bound_s(scenario)
    assert run.gateway.polls <= 1.3 * 300
    assert run.outcomes.first_s <= 2 * 25


def test_an_outage_loses_few_jobs_and_gets_few_calls() -> None:
    scenario = Scenario(jobs=150, rate="30/1m", generation_s=(40, 80), outage_s=1800)
    run = carried(scenario)
    assert run.outcomes.lost <= 3 + 16
    assert run.outcomes.done + run.outcomes.lost == 150
    assert run.gateway.while_away <= 120
    assert run.outcomes.ended_s <= bound_s(scenario) + 600
