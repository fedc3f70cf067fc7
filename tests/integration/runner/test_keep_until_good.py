"""Keep buying until good, in virtual time: the next candidate for each clip that is lost, and for no other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from pipeline.ledger.agreement import NOTHING, Agreement, RequestIds
from pipeline.ledger.budget import Caps
from pipeline.ledger.keepers import Candidate, CandidateStatus
from pipeline.ledger.reviews import Review, latest_verdicts, moment, record
from pipeline.ledger.states import Event
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import KeepIf, Request, State
from pipeline.runner.context import RunContext
from pipeline.runner.keeper_loop import KeeperLoop, KeeperSetup
from pipeline.runner.keeper_results import next_purchase
from pipeline.runner.recorder import EventRecorder
from pipeline.sandbox import Sandbox
from tests.support.factories import LITE_MICROUSD, make_request
from tests.support.ledgers import AT, RUN, change, reserve
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
    async def whole() -> T:
        sandbox = sandbox_at(folder, **settings)
        base_url = await sandbox.start()
        try:
            with ledger_for(folder, base_url, **FAST) as workspace:
                return await story(workspace, sandbox)
        finally:
            await sandbox.close()

    return in_virtual_time(monkeypatch, whole)


def charges(sandbox: Sandbox) -> Counter[tuple[str, int]]:
    """The gateway's own books: (prompt, seed) -> how often it was charged."""
    return Counter((str(job.body["prompt"]), int(str(job.body["seed"]))) for job in sandbox._books.jobs.values())


async def until_good(
    workspace: OpenLedger, sandbox: Sandbox, *, shots: int, candidates: int, share: float, keep: int = 1
) -> None:
    rows = shot_rows(workspace.gateway, shots, candidates, keep=keep)
    is_bad = bad_by_chance(share)
    result = await bought(workspace, rows, is_bad)
    books = charges(sandbox)
    assert max(books.values()) == 1, "bought twice"
    assert len(books) == minimum(rows, is_bad), "the sequential minimum exactly"
    assert result.totals.worst_microusd <= len(rows) * LITE_MICROUSD, "the most is never passed"
    found = workspace.queries.shots(RUN, {}).summary
    assert found.satisfied + len(found.used_up) == shots, "every shot has its keepers or is named"
    assert (result.totals.count(State.PLANNED), result.totals.spare) == (0, len(rows) - len(books))
    again = await bought(workspace, rows, is_bad)
    assert (again.submits, charges(sandbox)) == (0, books), "the same command buys nothing"


def test_every_shot_gets_its_keeper_at_the_sequential_minimum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, partial(until_good, shots=25, candidates=12, share=0.4))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("keep", [1, 3])
def test_two_hundred_shots_with_twelve_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    with_a_gateway(tmp_path, monkeypatch, partial(until_good, shots=200, candidates=12, share=0.4, keep=keep))


# --- what makes the next run buy


def judge(workspace: OpenLedger, request_id: str, verdict: str = "reject") -> None:
    """The user decides on a clip in the review."""
    record(workspace.ledger, [Review(request_id=request_id, at=moment(AT), who="ada", verdict=verdict)])


async def a_rejection(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 4, 5)
    is_bad = bad_by_chance(0.3)
    await bought(workspace, rows, is_bad)
    before = charges(sandbox)
    kept = workspace.queries.shots(RUN, {}).statuses[2].kept[0]
    judge(workspace, kept)
    again = await bought(workspace, rows, lambda request_id: False)
    assert again.submits == 1, "exactly one more"
    new = charges(sandbox) - before
    assert [prompt for prompt, _ in new] == ["shot 2"]
    assert (await bought(workspace, rows, lambda request_id: False)).submits == 0


def test_a_rejection_makes_the_next_run_buy_exactly_one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, a_rejection)


async def larger_and_more(workspace: OpenLedger, sandbox: Sandbox) -> None:
    good = bad_by_chance(0.0)
    await bought(workspace, shot_rows(workspace.gateway, 3, 4), good)
    assert len(charges(sandbox)) == 3
    await bought(workspace, shot_rows(workspace.gateway, 3, 4, keep=3), good)
    assert len(charges(sandbox)) == 9, "a larger keep buys what is missing"
    await bought(workspace, shot_rows(workspace.gateway, 3, 8, keep=3), good)
    assert len(charges(sandbox)) == 9, "more seeds are more candidates, not more purchases"
    await bought(workspace, shot_rows(workspace.gateway, 4, 8, keep=3), good)
    assert len(charges(sandbox)) == 12, "a new shot buys its own"
    assert max(charges(sandbox).values()) == 1


def test_a_larger_keep_and_more_seeds_buy_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, larger_and_more)


async def used_up(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 2, 3)
    first = {row.request_id for row in rows[:3]}
    await bought(workspace, rows, lambda request_id: request_id in first)
    found = workspace.queries.shots(RUN, {}).summary
    assert found.used_up == ("shot0 (0 of 1 kept)",)
    assert len(charges(sandbox)) == 4
    more = shot_rows(workspace.gateway, 2, 5)
    await bought(workspace, more, lambda request_id: request_id in first)
    assert len(charges(sandbox)) == 5, "more seeds give it candidates again"
    assert workspace.queries.shots(RUN, {}).summary.satisfied == 2


def test_a_shot_without_candidates_left_is_named_and_continues_with_more_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_gateway(tmp_path, monkeypatch, used_up)


# --- unknown outcomes, caps, agreements


def lost(workspace: OpenLedger, row: Request) -> None:
    """An earlier run sent this request and never heard of it."""
    workspace.ledger.apply_now(reserve(row, values={"price_microusd": row.price_microusd}))
    workspace.ledger.apply_now(change(row, Event.LOSE, token="token"))


async def unknown_waits(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 2, 4)
    listed(workspace, rows)
    lost(workspace, rows[0])
    await bought(workspace, rows, lambda request_id: False)
    assert [prompt for prompt, _ in charges(sandbox)] == ["shot 1"], "it may be good: nothing takes its place"
    workspace.ledger.apply_now(change(rows[0], Event.CHARGE))
    await bought(workspace, rows, lambda request_id: False)
    assert charges(sandbox) == {("shot 1", 1): 1, ("shot 0", 2): 1}, "written off: the next one is bought"


def test_a_candidate_of_unknown_outcome_buys_no_other_until_it_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_gateway(tmp_path, monkeypatch, unknown_waits)


def test_the_twin_that_replaces_a_lost_outcome_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = Candidate.status

    def broken(self: Candidate, keep_if: KeepIf) -> CandidateStatus:
        return CandidateStatus.LOST if self.state is State.UNKNOWN else status(self, keep_if)

    monkeypatch.setattr(Candidate, "status", broken)
    with pytest.raises(AssertionError, match="it may be good"):
        with_a_gateway(tmp_path, monkeypatch, unknown_waits)


def test_the_twin_that_does_not_wait_for_clips_in_flight_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = Candidate.status

    def broken(self: Candidate, keep_if: KeepIf) -> CandidateStatus:
        found = status(self, keep_if)
        return CandidateStatus.LOST if found is CandidateStatus.OPEN and self.state is State.ACCEPTED else found

    monkeypatch.setattr(Candidate, "status", broken)
    with pytest.raises(AssertionError, match="sequential minimum"):
        with_a_gateway(tmp_path, monkeypatch, partial(until_good, shots=6, candidates=9, share=0.4, keep=3))


async def capped(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 10, 4)
    cap = Caps(run_microusd=6 * LITE_MICROUSD)
    result = await bought(workspace, rows, lambda request_id: True, caps=cap)
    assert [reason.exit_code for reason in result.reasons] == [8]
    assert sum(charges(sandbox).values()) == 6
    assert result.totals.worst_microusd == 6 * LITE_MICROUSD


def test_a_cap_stops_the_loop_as_always(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, capped)


async def agreed_candidates_only(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 1, 6)
    listed(workspace, rows)
    agreement = Agreement(new=RequestIds(row.request_id for row in rows[:2]), price_microusd=2 * LITE_MICROUSD)
    await bought(workspace, rows, lambda request_id: True, agreement=agreement)
    assert len(charges(sandbox)) == 2, "more than was agreed"


def test_nothing_is_fed_that_was_not_agreed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, agreed_candidates_only)


class _Everything:
    """An agreement to everything."""

    def __contains__(self, request_id: object) -> bool:
        return True


def test_the_twin_that_feeds_what_was_not_agreed_to_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = KeeperLoop.__init__

    def broken(self: KeeperLoop, setup: KeeperSetup, context: RunContext) -> None:
        build(self, replace(setup, agreement=_Everything()), context)  # type: ignore[arg-type]

    monkeypatch.setattr(KeeperLoop, "__init__", broken)
    monkeypatch.setattr(Agreement, "__contains__", lambda self, request_id: True)
    monkeypatch.setattr(EventRecorder, "_check_agreed", lambda *_: None)
    with pytest.raises(AssertionError, match="more than was agreed"):
        with_a_gateway(tmp_path, monkeypatch, agreed_candidates_only)


async def at_most_five(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 3, 6)
    listed(workspace, rows)
    result = await bought(
        workspace, rows, lambda request_id: True, agreement=agreed_to(workspace, rows, max_purchases=5)
    )
    assert sum(charges(sandbox).values()) == 5
    assert result.totals.count(State.PLANNED) == 3, "the next candidate of each shot waits for the next command"


def test_a_bounded_purchase_counts_candidates_that_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, at_most_five)


# --- the rest of the rule


async def picks(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 2, 3, keep_if=KeepIf.PICK)
    good = bad_by_chance(0.0)
    await bought(workspace, rows, good)
    assert len(charges(sandbox)) == 2
    assert workspace.queries.shots(RUN, {}).summary.waiting == ("shot0 (0 of 1 kept)", "shot1 (0 of 1 kept)")
    judge(workspace, rows[0].request_id)
    judge(workspace, rows[3].request_id, "keep")
    await bought(workspace, rows, good)
    assert charges(sandbox) == {("shot 0", 1): 1, ("shot 0", 2): 1, ("shot 1", 1): 1}
    verdicts = latest_verdicts(workspace.ledger)
    assert workspace.queries.shots(RUN, verdicts).summary.waiting == ("shot0 (0 of 1 kept)",)


def test_with_pick_the_user_decides_and_a_rejection_buys_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_gateway(tmp_path, monkeypatch, picks)


async def ahead(workspace: OpenLedger, sandbox: Sandbox) -> None:
    await bought(workspace, shot_rows(workspace.gateway, 3, 6, ahead=2), bad_by_chance(0.0))
    assert len(charges(sandbox)) == 9


def test_keep_ahead_buys_beyond_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, ahead)


async def repeated(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 2, 4, keep=2)
    await bought(workspace, rows, bad_by_chance(0.0), repeats=frozenset({rows[1].request_id}))
    assert charges(sandbox) == {
        ("shot 0", 1): 1,
        ("shot 0", 2): 1,
        ("shot 0", 3): 1,
        ("shot 1", 1): 1,
        ("shot 1", 2): 1,
    }


def test_a_clip_that_repeats_another_is_lost_like_any_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, repeated)


async def sent_and_collected(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 3, 4)
    bad = {rows[0].request_id, rows[4].request_id}
    await bought(workspace, rows, lambda one: one in bad, collect=False)
    assert len(charges(sandbox)) == 3
    result = await bought(workspace, rows, lambda one: one in bad, buy=False, agreement=NOTHING)
    assert (result.submits, len(charges(sandbox))) == (0, 3), "collect never buys"
    assert result.totals.count(State.PLANNED) == 2
    run = listed(workspace, rows)
    text = next_purchase(workspace, run, workspace.queries.shots(RUN, {}))
    assert text == "`dop run` buys 2 candidates for $0.270: shot0@2, shot1@2"


def test_submit_buys_the_first_ones_and_collect_says_what_would_be_bought_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_gateway(tmp_path, monkeypatch, sent_and_collected)


async def in_parallel(workspace: OpenLedger, sandbox: Sandbox) -> None:
    rows = shot_rows(workspace.gateway, 20, 6)
    bad = {row.request_id for row in rows[:4]}  # shot 0 needs five clips, one after the other
    loop = asyncio.get_running_loop()
    began = loop.time()
    await bought(workspace, rows[:6], lambda one: one in bad)
    alone = loop.time() - began
    others = [replace(row, params=replace(row.params, prompt=f"other {row.row_id}")) for row in rows]
    others = [
        replace(row, request_id=make_request(params=row.params, gateway=row.gateway).request_id) for row in others
    ]
    began, bad = loop.time(), {row.request_id for row in others[:4]}
    await bought(workspace, others, lambda one: one in bad)
    assert len(charges(sandbox)) == 5 + 24
    assert loop.time() - began < 1.2 * alone, "as long as its longest shot takes, and little more"


def test_no_row_waits_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gateway(tmp_path, monkeypatch, in_parallel)
