"""Runs in virtual time: the real client, server and ledger in one event loop whose clock jumps from event to event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp.connector
import async_solipsism
import pytest

from pipeline.config.loader import gateway_id, load
from pipeline.ledger.agreement import Agreement, RequestIds
from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.workspace import OpenLedger, recover
from pipeline.records import Request, State
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.engine import execute
from pipeline.runner.run_job import RunJob, RunOptions, StepsResult
from tests.support.factories import make_request
from tests.support.ledgers import AT, RUN, make_run

T = TypeVar("T")
KEY = "virtual-key-0123456789"


TICK_S = 1e-5


class Loop(async_solipsism.EventLoop):  # type: ignore[misc] # the library has no types
    """The loop of virtual time. A real clock advances on its own; this one must be made to, or a wait for the rest of a
    rounding would never end."""

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Never sooner than a tick from now."""
        handle: asyncio.TimerHandle = super().call_later(max(delay, TICK_S), callback, *args, context=context)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Never sooner than a tick from now."""
        no_sooner = max(when, self.time() + TICK_S)
        handle: asyncio.TimerHandle = super().call_at(no_sooner, callback, *args, context=context)
        return handle


def in_virtual_time(monkeypatch: pytest.MonkeyPatch, story: Callable[[], Awaitable[T]]) -> T:
    """What `story` returns, run in a loop without real waiting."""
    monkeypatch.setattr(
        aiohttp.connector.aiohappyeyeballs,  # type: ignore[attr-defined]
        "start_connection",
        async_solipsism.aiohappyeyeballs_start_connection,
    )
    loop = Loop()
    try:
        options: T = loop.run_until_complete(story())
        return options
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def wall() -> float:
    """Unix seconds of the virtual clock."""
    return AT + asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One run in virtual time, how it ended, and what the ledger holds."""

    result: StepsResult
    queries: LedgerQueries
    elapsed_s: float

    @property
    def trace(self) -> list[tuple[object, ...]]:
        """Every event of every request, in order, with its virtual time."""
        with self.queries.ledger.reader.connect() as connection:
            found = connection.exec_driver_sql("select request_id, at, event, state, detail from history order by seq")
            return [tuple(row) for row in found]


@contextmanager
def ledger_for(folder: Path, base_url: str, **options: str) -> Iterator[OpenLedger]:
    """A ledger that works in the loop itself, with the settings of a live gateway at `base_url`."""
    overrides = {"gateway.base_url": base_url, "outputs.dir": str(folder / "outputs"), **options}
    settings = load(Path("configs/live.yaml"), overrides=overrides, environ={})
    ledger = SqliteLedger(settings.ledger_path, inline=True)
    try:
        ledger.ready_to_spend()
        recover(ledger, LedgerQueries(ledger), AT)
        yield OpenLedger(settings=settings, gateway=gateway_id(settings), ledger=ledger, queries=LedgerQueries(ledger))
    finally:
        ledger.close()


def wanted(workspace: OpenLedger, count: int, **same: Any) -> list[Request]:
    """So many different requests for that gateway."""
    return [make_request(seed=seed, gateway=workspace.gateway, **same) for seed in range(1, count + 1)]


def everything(queries: LedgerQueries, run_id: str, max_new: int | None = None) -> Agreement:
    """The agreement to buy what a run has planned (the first `max_new`), and to send its unknown outcomes again."""
    planned, unknown = (queries.attempts_in(run_id, (state,)) for state in (State.PLANNED, State.UNKNOWN))
    planned = planned[:max_new]
    return Agreement(
        new=RequestIds(attempt.request_id for attempt in planned),
        resends=frozenset(attempt.request_id for attempt in unknown),
        price_microusd=sum(attempt.price_microusd for attempt in (*planned, *unknown)),
    )


async def carried(
    workspace: OpenLedger,
    rows: Sequence[Request],
    *,
    caps: Caps = NO_CAPS,
    clock: Callable[[], float] = wall,
    max_new: int | None = None,
    key: str = KEY,
    **chosen: Any,
) -> Story:
    """Carries a run of `rows` out, the same one again when it is there already; `clock` is the machine's clock."""
    queries = workspace.queries
    run = queries.run(RUN)
    if run is None:
        run = make_run(gateway=workspace.gateway)
        queries.sync_rows(run.run_id, rows, rows_digest="digest", new=run)
    folder = RunFolder(workspace.outputs, run.run_id)
    folder.make(None)
    options = RunOptions(
        **{"agreement": everything(queries, run.run_id, max_new), "quiet": True, "show_bar": False, **chosen}
    )
    began = asyncio.get_running_loop().time()
    job = RunJob(workspace=workspace, run=run, folder=folder, caps=caps, key=key, options=options, wall=clock)
    result = await execute(job)
    return Story(result=result, queries=queries, elapsed_s=asyncio.get_running_loop().time() - began)
