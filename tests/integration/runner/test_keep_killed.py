"""Keep buying until good, killed at every fail point: nothing is bought twice, and the next run decides the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from pipeline.ledger.keepers import Candidate, CandidateStatus
from pipeline.ledger.states import Event
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import KeepIf, State
from pipeline.runner import engine
from pipeline.runner.stop import StopReason
from pipeline.sandbox import Sandbox
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, RUN, change
from tests.support.scale import scaled
from tests.support.shots import (
    IsBad,
    KilledError,
    KillSwitch,
    bad_by_chance,
    bought,
    minimum,
    sandbox_at,
    shot_rows,
)
from tests.support.virtual_time import in_virtual_time, ledger_for

pytestmark = pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")
SETTINGS = {"pace.submit_concurrency": "8", "on_unknown.max": "1000"}
POINTS = [
    *(f"{when}-{event}" for event in ("reserve", "accept", "complete", "save") for when in ("before", "after")),
    *("before-post", "after-post", "before-download", "after-download", "after-landing"),
    *("after-check", "before-mark", "after-mark"),
]
UNCLEAR = ("after-post", "before-accept", "after-post")
"""A kill there leaves paid jobs of unknown outcome."""


def charges(sandbox: Sandbox) -> Counter[tuple[str, int]]:
    return Counter((str(job.body["prompt"]), int(str(job.body["seed"]))) for job in sandbox._books.jobs.values())


class Storm:
    """One sheet of shots, bought by runs that are killed one after the other."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, shots: int, candidates: int, share: float
    ) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.shots, self.candidates, self.is_bad = shots, candidates, bad_by_chance(share)
        self.kills = 0

    async def run(self, base_url: str, point: str = "", visit: int = 1) -> tuple[StopReason, ...] | None:
        """One command; None when it was killed."""
        with ledger_for(self.folder, base_url, **SETTINGS) as workspace:
            path = workspace.settings.ledger_path
            switch = KillSwitch(path, point, visit)
            self.monkeypatch.setattr(engine, "fail_point", lambda environ: switch.reach)
            rows = shot_rows(workspace.gateway, self.shots, self.candidates)
            task = asyncio.create_task(self._command(workspace, rows, self.is_bad))
            switch.main = task
            result: tuple[StopReason, ...] | None
            try:
                result = await task
            except (KilledError, BaseExceptionGroup, asyncio.CancelledError):
                assert switch.is_dead
                result = None
        if switch.is_dead:
            self.kills += 1
            switch.restore()
            return None
        return result

    async def _command(self, workspace: OpenLedger, rows: list, is_bad: IsBad) -> tuple[StopReason, ...]:  # type: ignore[type-arg]
        return (await bought(workspace, rows, is_bad)).reasons

    async def judged(self, sandbox: Sandbox, base_url: str) -> None:
        """Settle what is unknown by the gateway's books, buy the rest, and compare."""
        jobs = {
            (str(job.body["prompt"]), int(str(job.body["seed"]))): job.job_set_id
            for job in sandbox._books.jobs.values()
        }
        with ledger_for(self.folder, base_url, **SETTINGS) as workspace:
            for attempt in workspace.queries.attempts_in(RUN, (State.UNKNOWN,)):
                job = jobs.get((attempt.params.prompt, attempt.params.seed))
                request = next(
                    row
                    for row in shot_rows(workspace.gateway, self.shots, self.candidates)
                    if row.request_id == attempt.request_id
                )
                values = {"job_set_id": job, "accepted_at": AT}
                event = change(request, Event.RESEND) if job is None else change(request, Event.ADOPT, values=values)
                workspace.ledger.apply_now(event)
        assert await self.run(base_url) == ()
        books = charges(sandbox)
        assert max(books.values()) == 1, "bought twice"
        with ledger_for(self.folder, base_url, **SETTINGS) as workspace:
            rows = shot_rows(workspace.gateway, self.shots, self.candidates)
            assert len(books) == minimum(rows, self.is_bad), "the sequential minimum exactly"
            summary = workspace.queries.shots(RUN, {}).summary
            assert summary.satisfied + len(summary.used_up) == self.shots
            assert workspace.queries.totals(RUN).worst_microusd == len(books) * LITE_MICROUSD
            assert workspace.ledger.problems() == []
        assert await self.run(base_url) == ()
        assert charges(sandbox) == books, "the same command buys nothing"


async def every_point(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    shots: int,
    kills: int,
    share: float,
    points: Sequence[str] = POINTS,
) -> None:
    chance, sandbox = random.Random(1), sandbox_at(folder)
    base_url = await sandbox.start()
    storm = Storm(folder, monkeypatch, shots, 12, share)
    try:
        for number in range(kills):
            point = points[number % len(points)]
            # Mostly the first visit, so that a run comes no further than a few clips.
            await storm.run(base_url, point, chance.choice((1, 1, 2)))
        assert storm.kills >= 0.75 * kills, "most moments must be reached"
        await storm.judged(sandbox, base_url)
    finally:
        await sandbox.close()


def test_killed_at_every_fail_point_it_buys_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_virtual_time(monkeypatch, partial(every_point, tmp_path, monkeypatch, shots=12, kills=len(POINTS), share=0.4))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_shots_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_virtual_time(
        monkeypatch,
        partial(every_point, tmp_path, monkeypatch, shots=scaled(200, 50), kills=scaled(134, 32), share=0.4),
    )


def test_the_twin_that_takes_an_unknown_outcome_for_lost_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = Candidate.status

    def broken(self: Candidate, keep_if: KeepIf) -> CandidateStatus:
        return CandidateStatus.LOST if self.state is State.UNKNOWN else status(self, keep_if)

    monkeypatch.setattr(Candidate, "status", broken)
    with pytest.raises(AssertionError, match="sequential minimum"):
        in_virtual_time(
            monkeypatch, partial(every_point, tmp_path, monkeypatch, shots=12, kills=6, share=0.4, points=UNCLEAR)
        )
