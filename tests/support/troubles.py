"""What the tests of firewalls share: trouble that is set off while POSTs are in flight, and the comparison of books."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.cli_driver import Ended
from tests.support.hostile_gateway import Contained, HostileGateway, Order

EAGER = ("--set", "pace.rate=500/1s", "--set", "pace.burst=50")
"""Sixteen submits are in flight at once from the first moment."""

SOON = ("--max-duration", "3s")
"""Of a run that may look for a bad link again and again."""

HELD_S = 0.4
"""How long POSTs stay open after the hostile answer, in seconds: an error reaches the whole program meanwhile."""

ROWS = 20
FATAL = 7


def not_yet(value: object, why: str) -> Any:
    """A parameter with which the test fails today; strict, so that a repair shows."""
    return pytest.param(value, marks=pytest.mark.xfail(strict=True, reason=why))


def row(order: Order) -> int:
    """The number of the row that an order is for; `shots` writes it into the prompt."""
    return int(order.prompt.split()[1])


class Trouble:
    """Submits of row 1 are answered at once, all others only HELD_S after the trouble was set off."""

    def __init__(self) -> None:
        self.set_off_at: float | None = None

    def set_off(self) -> None:
        """Now the hostile answer is on its way."""
        self.set_off_at = self.set_off_at or time.monotonic()

    def _is_over(self) -> bool:
        return self.set_off_at is not None and time.monotonic() > self.set_off_at + HELD_S

    async def submit(self, gateway: HostileGateway, order: Order) -> web.StreamResponse:
        """The document's answer, late for every row but the first."""
        order.charged = True
        if row(order) > 1:
            await gateway.until(self._is_over)
        return await gateway.accept(order)


def assert_all_recorded(dop: Contained, gateway: HostileGateway, end: Ended) -> None:
    """No submit is in doubt, and the ledger has the id of every job that was charged."""
    assert dop.states().get("unknown", 0) == 0, end.err
    assert dop.states().get("submitting", 0) == 0, end.err
    assert dop.jobs() == gateway.charged_jobs


def assert_continues(dop: Contained, gateway: HostileGateway, manifest: Path, *, rows: int) -> None:
    """Later commands work, buy nothing twice, and the good rows have their videos."""
    for later in (dop.call("collect", *SOON), dop.buy(manifest, *SOON)):
        assert later.code not in (FATAL, Contained.CRASHED, 3), later.err
    assert len({order.prompt for order in gateway.charged}) == len(gateway.charged) == rows
    saved = {line["row_id"] for line in dop.rows() if line["status"] == "done" and line["local_path"]}
    assert {f"row-{number}" for number in range(2, rows + 1)} <= saved
