"""What the replay of unclear submits must hold in bulk: fuzzed POSTs, keys that end in the middle, and kills.

DOP_TEST_SIZE=full python -m pytest -n 0 -s -m long tests/integration/runner/test_replay_storms.py    # five minutes
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from pipeline.sandbox import Sandbox
from pipeline.sandbox.higgsfield.books import VendorBooks
from pipeline.sandbox.higgsfield.gateway import VendorHandlers
from tests.integration.runner.test_replays import run
from tests.support.scale import scaled

pytestmark = [pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning"), pytest.mark.long]

POSTS, ROWS = scaled(5_000, 500), scaled(3_400, 340)
BODY_ROWS = scaled(600, 60)
KEYS_ROWS, ENDS_AFTER = scaled(500, 120), (scaled(50, 20), scaled(150, 50), scaled(300, 80))


@pytest.mark.timeout(3_000)
def test_fuzzed_posts_pay_nothing_twice_and_leave_nothing_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(monkeypatch, tmp_path, ROWS, chaos="11", generation_s=2.0, runs=4, collect=False)
    sys.stdout.write(f"{found.posts} POSTs, {sum(found.charged.values())} charged, states {dict(found.states)}\n")
    assert found.posts >= POSTS
    assert found.paid_twice == []
    assert found.states["unknown"] == found.states["submitting"] == found.states["planned"] == 0
    assert found.problems == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chaos", ["body 0", "body 1"])
def test_a_gateway_that_checks_bodies_first_leaves_nothing_unknown_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chaos: str
) -> None:
    """There no proof is free, and a call whose job is known is repeated instead."""

    async def bodies_first(sandbox: Sandbox) -> None:
        assert isinstance(sandbox._gateway, VendorHandlers)
        sandbox._gateway.checks_body_first = True

    found = run(monkeypatch, tmp_path, BODY_ROWS, chaos=chaos, generation_s=2.0, at=bodies_first, collect=False)
    sys.stdout.write(f"{found.posts} POSTs, {sum(found.charged.values())} charged, states {dict(found.states)}\n")
    assert found.paid_twice == []
    assert found.states["unknown"] == found.states["submitting"] == 0
    assert found.problems == []


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("accepted", ENDS_AFTER)
def test_keys_that_end_in_the_middle_of_a_storm_buy_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int
) -> None:
    async def ended(sandbox: Sandbox) -> None:
        gateway, books = sandbox._gateway, sandbox._books
        assert isinstance(gateway, VendorHandlers)
        assert isinstance(books, VendorBooks)
        while len(books.requests) < accepted:  # noqa: ASYNC110 - the books tell no one
            await asyncio.sleep(0.01)
        gateway.honours_keys = False

    found = run(
        monkeypatch, tmp_path, KEYS_ROWS, chaos=f"keys {accepted}", generation_s=60.0, runs=3, at=ended, collect=False
    )
    sys.stdout.write(f"{found.posts} POSTs, {sum(found.charged.values())} charged, states {dict(found.states)}\n")
    assert found.paid_twice == []
    assert found.states["unknown"] > 0
    assert found.states["submitting"] == 0
    assert found.problems == []
