"""Runs with shots in virtual time: a sandbox makes the clips, a checker says by request which of them are bad."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from pipeline.ledger.agreement import Agreement, RequestIds
from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.run_registry import Run
from pipeline.ledger.shots import Shots, mark_wanted
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, Candidacy, Request, State
from pipeline.reports.checks.findings import ClipCheck, Grade, Key
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.clip_checker import ClipChecker
from pipeline.runner.engine import execute
from pipeline.runner.run_job import RunJob, RunOptions, StepsResult
from pipeline.sandbox import Sandbox, SandboxSettings
from tests.support.factories import make_request
from tests.support.ledgers import RUN, make_run
from tests.support.virtual_time import KEY, wall

IsBad = Callable[[str], bool]
"""request id -> whether its clip is bad"""


def bad_by_chance(share: float, seed: int = 1) -> IsBad:
    """So many of all clips are bad; which ones follows from the request and the seed."""

    def is_bad(request_id: str) -> bool:
        digest = hashlib.sha256(f"{seed}:{request_id}".encode()).digest()
        return int.from_bytes(digest[:6], "big") / (1 << 48) < share

    return is_bad


@dataclass(slots=True)
class FakeChecker:
    """Says what `is_bad` says; `repeats` are clips that only a look at all clips finds bad."""

    queries: Any
    run_id: str
    is_bad: IsBad
    repeats: frozenset[str] = frozenset()
    asked: Counter[str] = field(default_factory=Counter)

    async def check(self, attempt: Attempt) -> ClipCheck:
        self.asked[attempt.request_id] += 1
        return ClipCheck(grade=Grade.BAD if self.is_bad(attempt.request_id) else Grade.OK)

    async def review(self) -> Mapping[Key, ClipCheck]:
        found = {}
        for attempt in self.queries.attempts_in(self.run_id, (State.DONE,)):
            bad = self.is_bad(attempt.request_id) or attempt.request_id in self.repeats
            found[attempt.request_id, attempt.attempt] = ClipCheck(grade=Grade.BAD if bad else Grade.OK)
        return found

    async def close(self) -> None:
        pass


def checker_of(is_bad: IsBad, repeats: frozenset[str] = frozenset()) -> Callable[[OpenLedger, Run], ClipChecker]:
    """A factory as a run wants it."""
    return lambda workspace, run: FakeChecker(workspace.queries, run.run_id, is_bad, repeats)


def shot_rows(gateway: str, shots: int, candidates: int, **rule: Any) -> list[Request]:
    """`shots` rows with `keep` (1 unless said), each with so many seeds."""
    return [
        make_request(
            gateway=gateway,
            seed=seed,
            prompt=f"shot {shot}",
            row_id=f"shot{shot}@{seed}",
            candidacy=Candidacy(shot=f"shot{shot}", **{"keep": 1, **rule}),
        )
        for shot in range(shots)
        for seed in range(1, candidates + 1)
    ]


def minimum(rows: Sequence[Request], is_bad: IsBad) -> int:
    """Purchases of a buyer who waits for each clip before the next: up to the K-th good one of each shot."""
    members: dict[str, list[Request]] = {}
    for row in rows:
        assert row.candidacy is not None
        members.setdefault(row.candidacy.shot, []).append(row)
    total = 0
    for candidates in members.values():
        assert candidates[0].candidacy is not None
        good = [n for n, row in enumerate(candidates) if not is_bad(row.request_id)]
        keep = candidates[0].candidacy.keep
        total += good[keep - 1] + 1 if len(good) >= keep else len(candidates)
    return total


def listed(workspace: OpenLedger, rows: Sequence[Request]) -> Run:
    """The run of these rows: the one that is there, or a new one."""
    queries = workspace.queries
    known = queries.run(RUN)
    run = known if known is not None else make_run(gateway=workspace.gateway)
    queries.sync_rows(run.run_id, rows, rows_digest="digest", new=run if known is None else None)
    verdicts = latest_verdicts(workspace.ledger)
    workspace.ledger.transact(partial(_settled, run_id=run.run_id, verdicts=verdicts))
    return run


def _settled(connection: Connection, *, run_id: str, verdicts: Mapping[str, str]) -> Shots:
    return mark_wanted(connection, run_id, verdicts)


def agreed_to(workspace: OpenLedger, rows: Sequence[Request], max_purchases: int | None = None) -> Agreement:
    """Every candidate of shots that lack keepers, and every plain row that is planned."""
    statuses = workspace.queries.shots(RUN, latest_verdicts(workspace.ledger)).statuses
    done = {one for shot in statuses if not shot.missing for one in shot.spare}
    states = workspace.queries.states([row.request_id for row in rows])
    new = [row for row in rows if states[row.request_id] is State.PLANNED and row.request_id not in done]
    return Agreement(
        new=RequestIds(row.request_id for row in new),
        price_microusd=sum(row.price_microusd for row in new[:max_purchases]),
        max_purchases=max_purchases,
    )


async def bought(
    workspace: OpenLedger,
    rows: Sequence[Request],
    is_bad: IsBad,
    *,
    caps: Caps = NO_CAPS,
    repeats: frozenset[str] = frozenset(),
    agreement: Agreement | None = None,
    **chosen: Any,
) -> StepsResult:
    """One command: list the rows, agree, buy, keep the results."""
    run = listed(workspace, rows)
    folder = RunFolder(workspace.outputs, run.run_id)
    folder.make(None)
    agreed = agreed_to(workspace, rows) if agreement is None else agreement
    options = RunOptions(**{"agreement": agreed, "quiet": True, "show_bar": False, **chosen})
    job = RunJob(
        workspace=workspace,
        run=run,
        folder=folder,
        caps=caps,
        key=KEY,
        options=options,
        wall=wall,
        checker=checker_of(is_bad, repeats),
    )
    return await execute(job)


def sandbox_at(folder: Path, **settings: Any) -> Sandbox:
    """A gateway in virtual time."""
    chosen = {"inline": True, "one_clip": True, "size": "180p", "generation_s": 40.0, **settings}
    return Sandbox(SandboxSettings(data_dir=folder / "sandbox", key=KEY, **chosen), now=wall)


class KilledError(BaseException):
    """The process is gone."""


@dataclass(slots=True)
class KillSwitch:
    """Kills a run at the visit-th time at a fail point. A kill is a photograph of the ledger's files.

    Whatever the dying run still writes is undone by `restore`, and every fail point that it still reaches kills it too.
    """

    ledger: Path
    point: str = ""
    visit: int = 1
    visits: Counter[str] = field(default_factory=Counter)
    photograph: dict[str, bytes] = field(default_factory=dict)
    main: asyncio.Task[Any] | None = None

    @property
    def is_dead(self) -> bool:
        """Whether the moment came."""
        return bool(self.photograph)

    def reach(self, name: str) -> None:
        """What every fail point calls."""
        self.visits[name] += 1
        if not self.is_dead and name == self.point and self.visits[name] == self.visit:
            self.photograph = {path.name: path.read_bytes() for path in self.ledger.parent.glob("ledger.*")}
            if self.main is not None:
                self.main.cancel()
        if self.is_dead:
            raise KilledError

    def restore(self) -> None:
        """Put the photographed bytes back into the same files, so that the ledger is in its place."""
        for path in self.ledger.parent.glob("ledger.*"):
            if path.name not in self.photograph:
                path.unlink()
        for name, content in self.photograph.items():
            with (self.ledger.parent / name).open("r+b" if (self.ledger.parent / name).exists() else "wb") as file:
                file.truncate()
                file.write(content)
