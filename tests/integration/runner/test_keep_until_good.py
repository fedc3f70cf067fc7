"""Keep buying until good, in virtual time: the next candidate for each clip that is lost, and for no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from pipeline.ledger.budget import Caps
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import KeepIf, State
from pipeline.sandbox import Sandbox
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import RUN
from tests.support.shots import agreed_to, bad_by_chance, bought, listed, minimum, sandbox_at, shot_rows
from tests.support.virtual_time import in_virtual_time, ledger_for

pytestmark = pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")
T = TypeVar("T")
FAST = {"pace.submit_concurrency": "8"}


def with_a_gateway(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    story: Callable[[OpenLedger, Sandbox], Awaitable[T]],
    **settings: object,
) -> T:
    async def told() -> T:
        sandbox = sandbox_at(folder, **settings)
        base_url = await sandbox.start()
        try:
            with ledger_for(folder, base_url, **FAST) as workspace:
                return await story(workspace, sandbox)
        finally:
            await sandbox.close()

    return in_virtual_time(monkeypatch, told)


def charges(sandbox: Sandbox) -> Counter[tuple[str, int]]:
    """The gateway's own books: (prompt, seed) -> how often it was charged."""
    return Counter((str(job.body["prompt"]), int(str(job.body["seed"]))) for job in sandbox._books.jobs.values())


async def until_good(
    workspace: OpenLedger, sandbox: Sandbox, *, shots: int, candidates: int, share: float, keep: int = 1
) -> None:
    rows = shot_rows(workspace.gateway, shots, candidates, keep=keep)
    is_bad = bad_by_chance(share)
    agreement = agreed_to_new(workspace, rows)
    result = await bought(workspace, rows, is_bad)
    books = charges(sandbox)
    assert max(books.values()) == 1, "bought twice"
    assert len(books) == minimum(rows, is_bad), "the sequential minimum exactly"
    assert result.totals.worst_microusd <= agreement, "the most is never passed"
    found = workspace.book.shots(RUN, {}).summary
    assert found.satisfied + len(found.used_up) == shots, "every shot has its keepers or is named"
    assert (result.totals.count(State.PLANNED), result.totals.spare) == (0, len(rows) - len(books))
    again = await bought(workspace, rows, is_bad)
    assert (again.submits, charges(sandbox)) == (0, books), "the same command buys nothing"


def agreed_to_new(workspace: OpenLedger, rows: list[object]) -> int:
    return len(rows) * LITE_MICROUSD


def test_every_shot_gets_its_keeper_at_the_sequential_minimum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, partial(until_good, shots=25, candidates=12, share=0.4))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("keep", [1, 3])
def test_two_hundred_shots_with_twelve_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    with_a_gateway(tmp_path, monkeypatch, partial(until_good, shots=200, candidates=12, share=0.4, keep=keep))
