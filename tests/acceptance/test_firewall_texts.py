"""No text that a gateway sends makes a ledger unusable: half a surrogate pair, a NUL, in any place of any answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.cli_driver import shots
from tests.support.hostile_gateway import Contained, HostileGateway, Order, against
from tests.support.troubles import (
    EAGER,
    FATAL,
    SOON,
    Trouble,
    assert_all_recorded,
    row,
)

# --- text of the gateway

HALF = "half \ud800 a pair"
PLACES: dict[str, Callable[[Order], dict[str, Any]]] = {
    "the reason of a failure": lambda order: {"jobs": [{"id": "j", "status": "failed"}], "error": HALF},
    "an unknown state word": lambda order: {"jobs": [{"id": "j", "status": HALF}]} if order.polls < 3 else {},
    "the address of the video": lambda order: {
        "jobs": [{"id": "j", "status": "completed", "results": {"raw": {"url": f"https://{HALF}/clip.mp4"}}}]
    },
    "the address of the preview": lambda order: {
        "jobs": [
            {
                "id": "j",
                "status": "completed",
                "results": {
                    "raw": {"url": f"{order.base}/clips/{order.job}"},
                    "min": {"url": f"https://example.com/{HALF}"},
                },
            }
        ]
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_half_a_character_in_the_answer_to_a_poll_leaves_the_ledger_usable(tmp_path: Path, place: str) -> None:
    trouble = Trouble()

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is None or row(order) > 1:
            return await gateway.report(order, job)
        trouble.set_off()
        return await gateway.report(order, job, **PLACES[place](order))

    with HostileGateway(submit=trouble.submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(4))
        end = dop.buy(manifest, *EAGER, *SOON)
        assert_all_recorded(dop, gateway, end)
        assert_the_ledger_is_usable(dop, gateway, manifest)


ANSWERS: dict[str, Callable[[Order], tuple[int, dict[str, Any]]]] = {
    "beside the id": lambda order: (200, {"job_set_id": order.job, "type": HALF}),
    "a refusal": lambda order: (422, {"error": HALF}),
    "a server error": lambda order: (500, {"error": HALF}),
    "the polling address": lambda order: (
        202,
        {"request_id": order.job, "status": "QUEUED", "polling_url": f"https://example.com/{HALF}"},
    ),
    "the id": lambda order: (200, {"job_set_id": f"{order.job}-\ud800"}),
}


@pytest.mark.parametrize("place", ANSWERS)
def test_half_a_character_in_the_answer_to_a_submit_leaves_the_ledger_usable(tmp_path: Path, place: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) > 1:
            return await gateway.accept(order)
        status, body = ANSWERS[place](order)
        order.charged = status < 300
        return web.json_response(body, status=status)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(4))
        end = dop.buy(manifest, *EAGER, *SOON)
        assert end.code not in (FATAL, Contained.CRASHED), end.err
        assert len(dop.jobs()) >= 3
        assert_the_ledger_is_usable(dop, gateway, manifest)


def assert_the_ledger_is_usable(dop: Contained, gateway: HostileGateway, manifest: Path) -> None:
    """Every command that reads, replays or continues the ledger works, and nothing is bought again."""
    bought, jobs = len(gateway.orders), dop.jobs()
    for verb in ("check", "rebuild", "check"):
        care = dop.typed("ledger", verb, "--outputs", str(dop.outputs))
        assert care.code == 0, (verb, care.out, care.err)
    for later in (dop.call("collect"), dop.buy(manifest, *SOON), dop.call("report")):
        assert later.code not in (FATAL, Contained.CRASHED), later.err
    assert len(gateway.orders) == bought
    assert dop.jobs() == jobs


TEXTS = {"half a character": HALF, "a NUL": "a NUL \x00 inside"}


@pytest.mark.long
@pytest.mark.parametrize("words", TEXTS)
def test_no_text_of_a_gateway_harms_a_ledger_on_a_server(tmp_path: Path, postgres: str, words: str) -> None:
    text = TEXTS[words]

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) == 1:
            return await gateway.queue(order, f"https://example.com/{text}")
        if row(order) == 2:
            return web.json_response({"error": text}, status=422)
        return await gateway.accept(order, type=text)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is not None and row(order) == 3:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "failed"}], error=text)
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        dop.environ["DOP_LEDGER__URL"] = postgres
        manifest = dop.csv(shots(6))
        end = dop.buy(manifest, *EAGER, *SOON)
        assert_all_recorded(dop, gateway, end)
        assert dop.states() == {"rejected": 1, "failed": 1, "done": 4}, end.err
        for verb in ("check", "rebuild", "check"):
            care = dop.typed("ledger", verb, "--outputs", str(dop.outputs))
            assert care.code == 0, (verb, care.out, care.err)
        later = dop.buy(manifest, *SOON)
        assert (later.code, len(gateway.orders)) == (0, 6), later.err  # what failed was named once, by its own run
        assert "2 failed earlier" in later.err
