"""Answers that are valid and odd: ids and addresses as other programs write them, and answers that speak of other jobs.

One run meets many of them at once: each row's prompt names the one that it meets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.cli_driver import Ended, table
from tests.support.hostile_gateway import Contained, HostileGateway, Order, against

pytestmark = pytest.mark.long

Change = Callable[[HostileGateway, Order], dict[str, Any]]
UUID = "3f2504e0-4f89-11d3-9a0c-0305e82c33{:02x}"

IDS: dict[str, Callable[[int], str]] = {
    "spaces": lambda number: f" job-{number}\n",
    "braces": lambda number: "{" + UUID.format(number).upper() + "}",
    "urn": lambda number: f"urn:uuid:{UUID.format(number)}",
    "base64": lambda number: f"a/b+{number}==",
    "long": lambda number: f"{number}-{'x' * 300}",
}
"""Ids of jobs as gateways write them."""

POLLED: dict[str, Callable[[str], object]] = {
    "in capitals": str.upper,
    "in braces": lambda job: "{" + job + "}",
    "bare": lambda job: job.replace("-", ""),
    "as a urn": lambda job: f"urn:uuid:{job}",
    "with spaces": lambda job: f" {job} ",
}
"""Another spelling of the same id in the answer to a poll."""

UNCLEAR: dict[str, dict[str, Any]] = {
    "nothing": {},
    "list": {"job_set_id": ["a", "b"]},
    "words": {"job_set_id": "an id with blanks"},
    "several": {"job_set_id": "job-a", "data": {"job_set_id": "job-b"}},
}
"""Accepted, and no job is named that could be polled: perhaps paid."""


def sheet(names: dict[str, Any]) -> str:
    """A row for each name, and three that meet nothing odd."""
    rows = [*names, "fine-1", "fine-2", "fine-3"]
    return table(
        {"id": name, "image": "https://cdn.example.com/a.jpg", "prompt": f"({name}) a lake", "seed": number}
        for number, name in enumerate(rows, start=1)
    )


def name_of(order: Order) -> str:
    return order.prompt[1:].partition(")")[0]


def bought(tmp_path: Path, gateway: HostileGateway, names: dict[str, Any], *words: str) -> tuple[Contained, Ended]:
    dop = against(tmp_path, gateway)
    end = dop.buy(dop.csv(sheet(names)), *words)
    assert len(gateway.orders) == len(gateway.charged) == len(names) + 3, "each row is paid once"
    return dop, end


def status_of(dop: Contained) -> dict[str, str]:
    return {row["row_id"]: row["status"] for row in dop.rows()}


def test_an_id_of_any_usual_spelling_is_booked_and_its_video_fetched(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if (spell := IDS.get(name_of(order))) is None:
            return await gateway.accept(order)
        written = spell(order.number)
        order.job = written.strip()
        return await gateway.accept(order, job_set_id=written)

    with HostileGateway(submit=submit) as gateway:
        dop, end = bought(tmp_path, gateway, IDS)
        assert end.code == 0, end.err
        assert dop.jobs() == gateway.charged_jobs


def test_an_answer_that_spells_its_id_otherwise_is_about_the_same_job(tmp_path: Path) -> None:
    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        spell = POLLED.get(name_of(order)) if order is not None else None
        return await gateway.report(order, job, **({"job_set_id": spell(job)} if spell else {}))

    with HostileGateway(poll=poll) as gateway:
        _, end = bought(tmp_path, gateway, POLLED, "--max-duration", "20s")
        assert end.code == 0, end.err


def test_an_answer_without_an_id_that_can_be_polled_is_parked_with_what_it_says(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if (body := UNCLEAR.get(name_of(order))) is None:
            return await gateway.accept(order)
        order.charged = True
        return web.json_response(body)

    with HostileGateway(submit=submit) as gateway:
        dop, end = bought(tmp_path, gateway, UNCLEAR)
        assert end.code == 3, end.err
        assert status_of(dop) == dict.fromkeys(UNCLEAR, "unknown") | {f"fine-{number}": "done" for number in (1, 2, 3)}
        reasons = {row["row_id"]: row["reason"] for row in dop.rows()}
        assert "names no job" in reasons["nothing"]
        assert "an id with blanks" in reasons["words"]
        assert "job-a, job-b" in reasons["several"]
        assert dop.buy(tmp_path / "shots.csv").code == 3
        assert len(gateway.orders) == len(UNCLEAR) + 3, "nothing is sent again"


def test_a_clip_of_another_job_is_not_saved_as_this_rows(tmp_path: Path) -> None:
    """On a kept-alive connection an answer may be another poll's; without an id only its echo tells."""

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is None or name_of(order) != "crossed" or order.polls > 2:
            return await gateway.report(order, job)
        other = next(one for one in gateway.orders if one is not order)
        return await gateway.report(other, job, job_set_id=None)

    with HostileGateway(poll=poll) as gateway:
        dop, end = bought(tmp_path, gateway, {"crossed": None})
        assert end.code == 0, end.err
        (own,) = [order for order in gateway.orders if name_of(order) == "crossed"]
        (row,) = [row for row in dop.rows() if row["row_id"] == "crossed"]
        assert row["video_url"].endswith(own.job)


ADDRESSES = {
    "spaces": " {url}/clips/{job}\n",
    "path": "/clips/{job}",
    "no scheme": "//{host}/clips/{job}",
}
BAD_ADDRESSES = {"ftp": "ftp://cdn.example/{job}", "data": "data:video/mp4;base64,AAAA", "file": "file:///etc/passwd"}


def test_addresses_of_videos_are_read_as_a_browser_would_and_a_bad_one_is_named(tmp_path: Path) -> None:
    every = ADDRESSES | BAD_ADDRESSES

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        written = every.get(name_of(order)) if order is not None else None
        if order is None or written is None:
            return await gateway.report(order, job)
        address = written.format(url=gateway.url, job=order.job, host=gateway.url.partition("//")[2])
        return await gateway.report(order, job, jobs=[{"status": "completed", "results": {"raw": {"url": address}}}])

    with HostileGateway(poll=poll) as gateway:
        dop, end = bought(tmp_path, gateway, every)
        assert end.code == 1, end.err
        rows = {row["row_id"]: row for row in dop.rows()}
        assert {name: row["status"] for name, row in rows.items() if name in BAD_ADDRESSES} == dict.fromkeys(
            BAD_ADDRESSES, "failed"
        )
        assert all(rows[name]["status"] == "done" for name in rows if name not in BAD_ADDRESSES)
        assert all(BAD_ADDRESSES[name][:12] in rows[name]["reason"] for name in BAD_ADDRESSES)
