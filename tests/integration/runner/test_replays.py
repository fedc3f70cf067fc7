"""Unclear submits at a gateway that honours keys: sent again as they were, charged once, never where it is unsafe."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.gateway.kinds.higgsfield import Higgsfield
from pipeline.gateway.kinds.interface import Call
from pipeline.records import Attempt, State
from pipeline.runner import replays
from pipeline.runner.canary_budget import MAX_SILENT_PROVED, MAX_SILENT_UNPROVED
from pipeline.runner.held_calls import HeldCalls
from pipeline.runner.kept_calls import KeptCalls
from pipeline.runner.key_trust import KeyTrust, Trust
from pipeline.runner.replay_recorder import MISMATCH
from pipeline.runner.submit_body import SubmitCallBuilder
from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.faults import FaultPlan, SubmitFault
from pipeline.sandbox.higgsfield.books import VendorBooks
from pipeline.sandbox.higgsfield.free_calls import NOT_CHARGED
from pipeline.sandbox.higgsfield.gateway import VendorHandlers
from tests.support.virtual_time import KEY, Story, carried, in_virtual_time, ledger_for, wall, wanted

pytestmark = pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")

SETTINGS = {
    "gateway.kind": "higgsfield",
    "download.enabled": "false",
    "on_unknown.max": "1000",
    "gateway.read_timeout_s": "60",
}
"""Of the runs here: a loss limit and a patience that do not end a storm."""


@dataclass(kw_only=True)
class Found:
    """What is left of a run: charges by the row's prompt, states, how many POSTs the gateway took, and the ledger."""

    charged: Counter[str]
    states: Counter[str]
    posts: int
    problems: list[str]
    keys: Counter[str | None] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    refused: int = 0
    elapsed_s: float = 0.0

    @property
    def paid_twice(self) -> list[str]:
        return [row for row, times in self.charged.items() if times > 1]


def _charges(handlers: VendorHandlers, books: VendorBooks) -> Counter[str]:
    charged = (one for one in books.requests.values() if handlers._states.state(one) not in NOT_CHARGED)
    return Counter(str(one.job.body["seed"]) for one in charged)


async def bought(
    folder: Path,
    rows: int,
    *,
    runs: int = 1,
    at: Callable[[Sandbox], Any] | None = None,
    options: dict[str, str] | None = None,
    collect: bool = True,
    **sandbox_options: Any,
) -> Found:
    """A run of `rows` at the vendor's sandbox, the same command again up to `runs` times; `at` begins with it."""
    given = {"inline": True, "one_clip": True, "size": "180p", "generation_s": 40.0, **sandbox_options}
    sandbox = Sandbox(SandboxSettings(data_dir=folder / "sandbox", kind="higgsfield", key=KEY, **given), now=wall)
    base_url = await sandbox.start()
    aside = asyncio.ensure_future(at(sandbox)) if at is not None else None
    try:
        with ledger_for(folder, base_url, **(SETTINGS | (options or {}))) as workspace:
            story = await carried(workspace, wanted(workspace, rows), collect=collect)
            for _ in range(runs - 1):
                story = await carried(workspace, [], collect=collect)
            return _found_in(story, sandbox)
    finally:
        if aside is not None:
            aside.cancel()
        await sandbox.close()


def _found_in(story: Story, sandbox: Sandbox) -> Found:
    books, handlers = sandbox._books, sandbox._gateway
    assert isinstance(books, VendorBooks)
    assert isinstance(handlers, VendorHandlers)
    counts = story.result.totals.counts
    return Found(
        charged=_charges(handlers, books),
        states=Counter({state.value: count for state, count in counts.items() if count}),
        posts=sum(count for name, count in books._visits.items() if name.startswith("submit ")),
        problems=story.queries.ledger.problems(),
        keys=Counter(one.key for one in books.requests.values()),
        refused=handlers.mismatches,
        elapsed_s=story.elapsed_s,
        notes=[str(detail) for *_, detail in story.trace],
    )


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, rows: int, **options: Any) -> Found:
    return in_virtual_time(monkeypatch, partial(bought, folder, rows, **options))


# --- storms


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted(FaultPlan):
    """Nothing goes wrong but what the test says: `lost` names the fault of a submit by its visit."""

    seed: str = "scripted"
    intensity: float = 0.0
    fault: Callable[[str, int], SubmitFault] = lambda mark, visit: SubmitFault.NONE
    busy: int = 0

    def submit_fault(self, fingerprint: str, visit: int) -> SubmitFault:
        return self.fault(fingerprint, visit)

    def in_flight(self, key: str, visit: int) -> bool:
        return visit - 1 <= self.busy


def lost_at_first(mark: str, visit: int) -> SubmitFault:
    """The answer to each first submit is lost, after it was charged."""
    return SubmitFault.RESET_AFTER if visit == 1 else SubmitFault.NONE


def every_third_lost(mark: str, visit: int) -> SubmitFault:
    return SubmitFault.RESET_AFTER if visit == 1 and int(mark[:4], 16) % 3 == 0 else SubmitFault.NONE


def scripted(plan: FaultPlan) -> Callable[[Sandbox], Awaitable[None]]:
    async def begin(sandbox: Sandbox) -> None:
        gateway = sandbox._gateway
        assert isinstance(gateway, VendorHandlers)
        gateway.script(plan)

    return begin


def test_a_storm_leaves_nothing_unknown_and_pays_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, tmp_path, 10, chaos="5", runs=2, generation_s=2.0)
    assert found.posts > 10
    assert found.paid_twice == []
    assert found.states["unknown"] == found.states["submitting"] == found.states["planned"] == 0
    assert found.problems == []
    assert max(found.keys.values()) == 1


def test_lost_answers_are_found_again_and_charged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, tmp_path, 9, at=scripted(Scripted(fault=every_third_lost)), generation_s=2.0)
    assert found.states == {"done": 9}
    assert sum(found.charged.values()) == 9
    assert found.paid_twice == []


def test_a_single_lost_answer_is_tested_by_its_own_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, tmp_path, 1, at=scripted(Scripted(fault=lost_at_first)), generation_s=30.0)
    assert found.states == {"done": 1}
    assert found.posts == 3
    assert sum(found.charged.values()) == 1


def test_a_call_that_is_still_worked_on_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, tmp_path, 1, at=scripted(Scripted(fault=lost_at_first, busy=4)), generation_s=60.0)
    assert found.states == {"done": 1}
    assert sum(found.charged.values()) == 1


# --- after a crash


def test_what_a_dead_run_left_unclear_is_found_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run dies before it sends anything again."""
    add, finish, dead = replays.Replays.add, replays.Replays.finish, [True]

    def added(self: replays.Replays, request_id: str) -> None:
        if not dead:
            add(self, request_id)

    async def finished(self: replays.Replays) -> None:
        if not dead:
            await finish(self)
        dead.clear()

    monkeypatch.setattr(replays.Replays, "add", added)
    monkeypatch.setattr(replays.Replays, "finish", finished)
    found = run(monkeypatch, tmp_path, 6, at=scripted(Scripted(fault=every_third_lost)), runs=2, generation_s=2.0)
    assert found.states == {"done": 6}
    assert found.paid_twice == []


# --- keys that are not honoured


def every_second_lost(until: int = 1_000) -> Callable[[str, int], SubmitFault]:
    """The answer to every second of the first submits is lost, after it was charged; `until`: of so many."""
    order: dict[str, int] = {}

    def fault(mark: str, visit: int) -> SubmitFault:
        number = order.setdefault(mark, len(order))
        return SubmitFault.RESET_AFTER if visit == 1 and number % 2 and number < until else SubmitFault.NONE

    return fault


def without_keys_after(
    accepted: int, fault: Callable[[str, int], SubmitFault] | None = None
) -> Callable[[Sandbox], Awaitable[None]]:
    """Keys are ignored once so many requests were accepted."""

    async def begin(sandbox: Sandbox) -> None:
        await scripted(Scripted(fault=fault or every_second_lost()))(sandbox)
        gateway, books = sandbox._gateway, sandbox._books
        assert isinstance(gateway, VendorHandlers)
        assert isinstance(books, VendorBooks)
        while len(books.requests) < accepted:  # noqa: ASYNC110 - the books tell no one
            await asyncio.sleep(0.05)
        gateway.honours_keys = False

    return begin


@pytest.mark.parametrize("accepted", [0, 1, 4, 7])
def test_keys_that_are_switched_off_in_the_middle_of_a_run_pay_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int
) -> None:
    found = run(monkeypatch, tmp_path, 14, at=without_keys_after(accepted), generation_s=60.0)
    assert found.paid_twice == []
    assert found.states["unknown"] > 0
    assert set(found.states) <= {"done", "unknown", "planned"}  # the breaker may end the buying
    assert found.problems == []


def lost_once_keys_end(accepted: int, *, is_free: bool = True) -> Callable[[Sandbox], Awaitable[None]]:
    """Keys are ignored once so many requests were accepted, and from then on no repeated call is answered."""

    async def begin(sandbox: Sandbox) -> None:
        gateway = sandbox._gateway
        assert isinstance(gateway, VendorHandlers)
        gateway.checks_body_first = not is_free
        first = every_second_lost()

        def fault(mark: str, visit: int) -> SubmitFault:
            repeated = visit > 1 and not gateway.honours_keys
            return SubmitFault.RESET_AFTER if repeated else first(mark, visit)

        await without_keys_after(accepted, fault)(sandbox)

    return begin


@pytest.mark.parametrize("accepted", [5, 8])
def test_keys_that_end_while_answers_are_lost_pay_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int
) -> None:
    found = run(monkeypatch, tmp_path, 14, at=lost_once_keys_end(accepted), generation_s=60.0)
    assert found.paid_twice == []
    assert found.states["unknown"] > 0
    assert found.problems == []


def test_without_the_free_proof_they_pay_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Higgsfield, "abilities", replace(Higgsfield.abilities, key_probe=False))
    assert run(monkeypatch, tmp_path, 14, at=lost_once_keys_end(5), generation_s=60.0).paid_twice != []


def test_a_gateway_that_checks_bodies_first_is_tested_by_a_few_canaries_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There no proof is free: what the lost answers may have bought is bounded, and named."""
    found = run(monkeypatch, tmp_path, 14, at=lost_once_keys_end(5, is_free=False), generation_s=60.0)
    assert sum(found.charged.values()) - len(found.charged) <= MAX_SILENT_PROVED + 1
    assert found.states["unknown"] > 0


def test_a_gateway_that_checks_bodies_first_leaves_nothing_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin(sandbox: Sandbox) -> None:
        await scripted(Scripted(fault=every_third_lost))(sandbox)
        assert isinstance(sandbox._gateway, VendorHandlers)
        sandbox._gateway.checks_body_first = True

    found = run(monkeypatch, tmp_path, 9, at=begin, generation_s=2.0)
    assert found.states == {"done": 9}
    assert sum(found.charged.values()) == 9


def lost_by_chance(fault: SubmitFault, times: int) -> Callable[[Sandbox], Any]:
    """A gateway that checks bodies first loses every third answer, and those of the first repeated calls."""
    repeated = itertools.count()

    def found(mark: str, visit: int) -> SubmitFault:
        if visit == 1:
            return every_third_lost(mark, visit)
        return fault if next(repeated) < times else SubmitFault.NONE

    async def begin(sandbox: Sandbox) -> None:
        await scripted(Scripted(fault=found))(sandbox)
        assert isinstance(sandbox._gateway, VendorHandlers)
        sandbox._gateway.checks_body_first = True

    return begin


def test_canaries_that_are_lost_by_chance_stop_the_search_for_seconds_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = MAX_SILENT_UNPROVED + 2
    found = run(monkeypatch, tmp_path, 9, at=lost_by_chance(SubmitFault.RESET_AFTER, lost), generation_s=2.0)
    assert found.states == {"done": 9}
    assert found.paid_twice == []
    assert found.elapsed_s < 90.0


def test_a_repeated_call_without_an_answer_is_not_waited_for_as_long_as_a_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(
        monkeypatch,
        tmp_path,
        9,
        at=lost_by_chance(SubmitFault.SILENCE, 2),
        generation_s=20.0,
        options={"gateway.read_timeout_s": "330"},
    )
    assert found.states == {"done": 9}
    assert found.paid_twice == []
    assert found.elapsed_s < 120.0


def test_a_gateway_that_takes_an_invalid_call_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It honours no keys and checks no bodies: what the invalid call bought is canceled."""

    async def begin(sandbox: Sandbox) -> None:
        await scripted(Scripted(fault=every_second_lost(until=9)))(sandbox)
        assert isinstance(sandbox._gateway, VendorHandlers)
        sandbox._gateway.honours_keys = False

    valid = b'{"prompt": "a probe", "image_url": "https://example.com/probe.jpg", "seed": 999}'
    monkeypatch.setattr("pipeline.gateway.kinds.higgsfield.INVALID_BODY", valid)
    found = run(monkeypatch, tmp_path, 9, at=begin, generation_s=60.0)
    assert found.paid_twice == []
    assert found.charged["999"] == 0
    assert found.states["unknown"] > 0


def test_keys_that_were_never_honoured_buy_little_again_where_no_answer_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job is known that could show anything, and nothing proves that keys are honoured: the tries are few."""

    async def begin(sandbox: Sandbox) -> None:
        await scripted(Scripted(fault=lambda mark, visit: SubmitFault.RESET_AFTER))(sandbox)
        assert isinstance(sandbox._gateway, VendorHandlers)
        sandbox._gateway.honours_keys = False

    found = run(monkeypatch, tmp_path, 3, at=begin, generation_s=60.0)
    assert sum(found.charged.values()) - len(found.charged) <= MAX_SILENT_UNPROVED
    assert set(found.states) <= {"unknown", "planned"}


def test_a_trust_that_is_blind_pays_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(self: KeyTrust, attempt: Attempt) -> Trust:
        return Trust.HONOURED

    async def sure(self: KeyTrust, held: object) -> bool:
        return True

    monkeypatch.setattr(KeyTrust, "trust", blind)
    monkeypatch.setattr(KeyTrust, "is_still_honoured", sure)
    assert run(monkeypatch, tmp_path, 14, at=without_keys_after(4), generation_s=60.0).paid_twice != []


# --- the very bytes and the very key


class FreshAddresses(SubmitCallBuilder):
    """Each call that is built names its image by an address of its own, as a store that signs would."""

    built = 0

    def build(self, attempt: Attempt, path: str) -> Call:
        type(self).built += 1
        call = super().build(attempt, path)
        image = b"lake-scene.jpg"
        return replace(call, body=(call.body or b"").replace(image, image + b"?signed=%d" % type(self).built))


@pytest.fixture
def fresh_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runner.engine.SubmitCallBuilder", FreshAddresses)


@pytest.mark.usefixtures("fresh_addresses")
def test_addresses_that_change_between_try_and_replay_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(monkeypatch, tmp_path, 2, at=scripted(Scripted(fault=lost_at_first)), generation_s=2.0)
    assert found.states == {"done": 2}
    assert found.paid_twice == []


@pytest.mark.usefixtures("fresh_addresses")
def test_a_resend_that_makes_its_call_again_is_refused_and_stays_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = HeldCalls.kept

    def made_again(self: HeldCalls, attempt: Attempt) -> Call | None:
        is_unclear = attempt.state is State.UNKNOWN
        return self._context.calls.build(attempt, "") if is_unclear else kept(self, attempt)

    monkeypatch.setattr(HeldCalls, "kept", made_again)
    found = run(monkeypatch, tmp_path, 2, at=scripted(Scripted(fault=lost_at_first)), generation_s=2.0)
    assert found.states["unknown"] > 0
    assert found.paid_twice == []


def test_a_resend_under_a_new_key_pays_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, made = HeldCalls.kept, itertools.count()

    def new_key(self: HeldCalls, attempt: Attempt) -> Call | None:
        call = kept(self, attempt)
        if call is None or attempt.state is not State.UNKNOWN:
            return call
        return replace(call, headers={**call.headers, "Idempotency-Key": f"another-{next(made)}"})

    monkeypatch.setattr(HeldCalls, "kept", new_key)
    found = run(monkeypatch, tmp_path, 6, at=scripted(Scripted(fault=every_third_lost)), generation_s=2.0)
    assert found.paid_twice != []


def test_an_intent_without_its_call_stays_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptCalls, "detail", lambda self, call: "")
    found = run(monkeypatch, tmp_path, 6, at=scripted(Scripted(fault=every_third_lost)), generation_s=2.0)
    assert found.states["unknown"] > 0
    assert found.paid_twice == []


def test_a_mismatch_is_never_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin(sandbox: Sandbox) -> None:
        await scripted(Scripted(fault=lost_at_first))(sandbox)
        books = sandbox._books
        assert isinstance(books, VendorBooks)
        while not books.keys:  # noqa: ASYNC110 - the books tell no one
            await asyncio.sleep(0.1)
        books.keys = {key: ("other bytes", request_id) for key, (_, request_id) in books.keys.items()}

    found = run(monkeypatch, tmp_path, 1, at=begin, runs=3, generation_s=2.0)
    assert found.states == {"unknown": 1}
    assert found.refused == 1
    assert sum(found.charged.values()) == 1
    assert any(note.startswith(MISMATCH) for note in found.notes)


def test_an_old_intent_without_an_equally_old_job_stays_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "YOUNG_S", 0.5)
    found = run(monkeypatch, tmp_path, 1, at=scripted(Scripted(fault=lost_at_first)), generation_s=2.0)
    assert found.states == {"unknown": 1}
    assert found.posts == 1


def test_a_gateway_that_answers_otherwise_than_it_promises_leaves_it_unknown_after_bounded_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = Scripted(fault=lambda mark, visit: SubmitFault.HTML_AFTER)
    found = run(monkeypatch, tmp_path, 2, at=scripted(plan), generation_s=2.0)
    assert found.states == {"unknown": 2}
    assert found.posts <= 2 + 2 * (replays.MAX_TRIES + replays.LAST_TRIES)
    assert found.paid_twice == []
    assert "they stay unknown" in capfd.readouterr().err
