"""An error of one row or one step stays its own: the other rows are bought, recorded and fetched as if it had not been.

Each gateway here answers one row with something that no client expects while the POSTs of other rows are in flight. A
POST that is cancelled may be paid: so every test compares the gateway's books with the ledger, and wants no `unknown`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

from tests.support.cli_driver import ended, shots, table, wait_for
from tests.support.hostile_gateway import Contained, HostileGateway, Order, against
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server
from tests.support.troubles import (
    EAGER,
    FATAL,
    HELD_S,
    ROWS,
    SOON,
    Trouble,
    assert_all_recorded,
    assert_continues,
    row,
)
from tests.support.worker_processes import Machines

# --- addresses that a gateway names

UNREADABLE_HOSTS = [
    "xn--",
    pytest.param("\u2100.example", marks=pytest.mark.long),
    pytest.param("[::1", marks=pytest.mark.long),
]


def _spoils(host: str) -> str:
    return f"https://{host}/clip.mp4"


@pytest.mark.long
@pytest.mark.parametrize("host", UNREADABLE_HOSTS)
def test_a_result_address_that_cannot_be_read_is_the_trouble_of_its_row_alone(tmp_path: Path, host: str) -> None:
    trouble = Trouble()

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is not None and row(order) == 1:
            trouble.set_off()
            results = {"raw": {"url": _spoils(host)}}
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "completed", "results": results}])
        return await gateway.report(order, job)

    with HostileGateway(submit=trouble.submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(ROWS))
        end = dop.buy(manifest, *EAGER, *SOON)
        assert_all_recorded(dop, gateway, end)
        assert end.code not in (FATAL, Contained.CRASHED), end.err
        assert_continues(dop, gateway, manifest, rows=ROWS)


@pytest.mark.parametrize("host", UNREADABLE_HOSTS)
def test_a_polling_address_that_cannot_be_read_makes_no_job_uncollectable(tmp_path: Path, host: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return await gateway.queue(order, f"https://{host}/v2/requests/status/{order.job}")

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(ROWS))
        end = dop.buy(manifest, *EAGER)
        assert_all_recorded(dop, gateway, end)
        assert (end.code, end.counts) == (0, {"done": ROWS}), end.err


# --- prices, pictures, words: a step of the program fails for one row

MODELS = ("--set", "models=dop-lite,dop-next")
PRICED = (*MODELS, "--set", "prices.dop-next=0.2")
"""Of two configurations one knows a price for the new model, the other one does not."""


def two_models(count: int, *, dear: set[int]) -> str:
    """Some rows ask for the model that has no price in one of the configurations."""
    return table(
        {"id": f"row-{n}", "image": f"https://cdn.example.com/{n}.jpg", "prompt": f"scene {n} of all", "seed": n}
        | {"model": "dop-next" if n in dear else "dop-lite"}
        for n in range(1, count + 1)
    )


@pytest.mark.long
def test_a_worker_that_lacks_a_price_parks_those_rows_and_buys_the_others(tmp_path: Path, postgres: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        order.charged = True
        await asyncio.sleep(HELD_S / 2)  # so that POSTs are in flight when a row without a price comes
        return await gateway.accept(order)

    with ExitStack() as stack:
        gateway = stack.enter_context(HostileGateway(submit=submit))
        machines = Machines(folder=tmp_path, base_url=gateway.url, url=postgres)
        stack.callback(machines.end_all)
        machines.hire(1, words=MODELS)
        manifest = machines.csv(two_models(21, dear=set(range(15, 22))))
        running = machines.start("run", manifest, "--yes", "--cluster", *PRICED, "--max-duration", "15s")
        wait_for(lambda: running.poll() is not None or machines.states().get("done", 0) == 14)
        running.terminate()
        said = ended(running).err
        machines.dismiss()
        assert machines.states().get("unknown", 0) == 0, said + machines.all_said()
        assert {order.body["model"] for order in gateway.orders} == {"dop-lite"}, said + machines.all_said()
        assert machines.states().get("done", 0) == len(gateway.charged) == 14, machines.all_said()


def test_a_retry_that_lacks_a_price_of_another_row_loses_nothing_that_it_sends(tmp_path: Path) -> None:
    failing = [True]

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        order.charged = True
        if not failing[0]:
            await asyncio.sleep(HELD_S)
        return await gateway.accept(order)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if failing[0]:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "failed"}])
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(two_models(12, dear={12}))
        first = dop.buy(manifest, "--max-new", 11, *EAGER, *PRICED)
        assert dop.states() == {"failed": 11, "planned": 1}, first.err
        failing[0] = False
        one_by_one = ("--set", "pace.rate=50/1s")  # the last row's turn comes while the others' POSTs are in flight
        end = dop.call("retry", first.run, "--failed", "--yes", *MODELS, *one_by_one)
        assert_all_recorded(dop, gateway, end)
        assert dop.states() == {"done": 11, "planned": 1}, end.err


PROGRAM = """
import asyncio, os, pipeline, sys
{spoil}
result = asyncio.run(pipeline.arun(sys.argv[1], yes=True, progress={progress}, pace__rate="500/1s", pace__burst=50))
print(result.exit_code, result.done)
"""
SPOILS = {
    "closed": "sys.stderr.close()",
    "none": "sys.stderr = sys.__stderr__ = None",
    "reader gone": "reader, writer = os.pipe(); os.close(reader); sys.stderr = os.fdopen(writer, 'w', buffering=1)",
}


@pytest.mark.parametrize(
    ("spoil", "progress"),
    [
        pytest.param(
            spoil,
            progress,
            marks=[
                *([pytest.mark.long] if (spoil, progress) != ("reader gone", True) else []),
            ],
        )
        for spoil in SPOILS
        for progress in (True, False)
    ],
)
def test_a_program_without_a_stderr_buys_and_books_all_the_same(tmp_path: Path, spoil: str, progress: bool) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) == 1:
            return web.json_response({"error": "no such picture"}, status=422)  # which the run tells
        order.charged = True
        await asyncio.sleep(HELD_S)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(ROWS))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(spoil=SPOILS[spoil], progress=progress), str(manifest)],
            cwd=tmp_path,
            env=dop.environment()
            | {"DOP_OUTPUTS__DIR": str(dop.outputs), "DOP_POLL__FIRST_S": "0.05"}
            | {"DOP_POLL__MIN_S": "0.05", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert len(gateway.orders) == ROWS, done.stderr
        assert dop.states() == {"rejected": 1, "done": ROWS - 1}, done.stderr
        assert dop.jobs() == gateway.charged_jobs
        assert done.stdout.splitlines()[-1:] == [f"1 {ROWS - 1}"], done.stderr


def pictures(folder: Path, count: int) -> str:
    """A sheet of rows with a picture of this machine each; the sandbox makes every one fail."""
    for number in range(1, count + 1):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"{number}.png")
    return table(
        {"id": f"row-{n}", "image": f"{n}.png", "prompt": f"scene {n} [sandbox:fail]", "seed": n}
        for n in range(1, count + 1)
    )


SMALL = ("--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p")


def test_a_retry_whose_picture_was_deleted_parks_that_row_and_sends_the_others(tmp_path: Path) -> None:
    dop = Contained(folder=tmp_path)
    manifest = dop.csv(pictures(tmp_path, 3))
    first = dop.buy(manifest, *SMALL)
    assert dop.states() == {"failed": 3}, first.err
    (tmp_path / "1.png").unlink()
    end = dop.call("retry", first.run, "--failed", *SMALL)
    assert end.code not in (FATAL, Contained.CRASHED, 3), end.err
    assert "1.png" in end.err
    newest = {line["row_id"]: int(line["attempt"]) for line in dop.rows(first.run) if line["job_set_id"]}
    assert newest == {"row-1": 1, "row-2": 2, "row-3": 2}


@pytest.mark.long
def test_a_picture_that_is_deleted_while_posts_hang_parks_its_row(tmp_path: Path) -> None:
    gone = 12

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        order.charged = True
        (tmp_path / f"{gone}.png").unlink(missing_ok=True)
        await asyncio.sleep(HELD_S)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway, S3Server() as store:
        dop = against(tmp_path, gateway)
        dop.environ = CREDENTIALS | {"DOP_UPLOADS__URL": f"s3://{BUCKET}/dop", "DOP_UPLOADS__ENDPOINT": store.url}
        manifest = dop.csv(pictures(tmp_path, ROWS))
        end = dop.buy(manifest, "--set", "pace.submit_concurrency=4")
        assert_all_recorded(dop, gateway, end)
        assert dop.states().get("done", 0) == ROWS - 1, end.err
        assert f"{gone}.png" in end.err


ENDS = {"its time is over": ["--max-duration", "1s"], "its key is refused": [], "its budget is reached": []}


@pytest.mark.parametrize("why", ENDS)
def test_a_run_that_stops_buying_waits_for_the_posts_in_flight(tmp_path: Path, why: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) == 1 and why == "its key is refused":
            await gateway.until(lambda: len(gateway.orders) >= 16)
            return web.json_response({"error": "Invalid or missing authentication"}, status=401)
        order.charged = True
        await asyncio.sleep(1.5)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        budget = ["--max-cost", "2.10"] if why == "its budget is reached" else []
        end = dop.buy(dop.csv(shots(ROWS)), *EAGER, *ENDS[why], *budget)
        assert len(gateway.charged) >= 15
        assert_all_recorded(dop, gateway, end)


# --- one row is refused


def sheet_with_a_word() -> str:
    """Ten rows; a web firewall takes the first one's prompt for an attack."""
    first = {"id": "r0", "image": "https://cdn.example.com/0.jpg", "prompt": "the union select committee", "seed": 1}
    others = (
        {"id": f"r{n}", "image": f"https://cdn.example.com/{n}.jpg", "prompt": f"F cat {n}", "seed": 1}
        for n in range(1, 10)
    )
    return table([first, *others])


REFUSALS = {
    "the document's": ({"error": "Access denied for this operation"}, "application/json"),
    "content policy": ({"detail": "The prompt violates our content policy"}, "application/json"),
    "a web firewall": ("<html><h1>403 Forbidden</h1>Request blocked.</html>", "text/html"),
}


@pytest.mark.parametrize("words", REFUSALS)
@pytest.mark.parametrize("concurrency", [1, 16])
def test_one_row_that_is_refused_with_403_is_rejected_and_the_others_are_bought(
    tmp_path: Path, words: str, concurrency: int
) -> None:
    body, kind = REFUSALS[words]

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if "union select" in order.prompt:
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=403, text=text, content_type=kind)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(sheet_with_a_word())
        end = dop.buy(manifest, "--set", f"pace.submit_concurrency={concurrency}")
        assert end.code == 1, end.err
        assert dop.states() == {"rejected": 1, "done": 9}
        assert "r0" in end.err
        (refused,) = [line for line in dop.rows() if line["status"] == "rejected"]
        assert (refused["row_id"], refused["cost_state"]) == ("r0", "none")
        assert "403" in refused["reason"] or any(word in refused["reason"] for word in ("denied", "policy", "blocked"))


@pytest.mark.parametrize("status", [403, *(pytest.param(status, marks=pytest.mark.long) for status in (401, 402))])
def test_a_row_that_was_refused_does_not_go_first_again_the_next_night(tmp_path: Path, status: int) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if "union select" in order.prompt:
            return web.json_response({"error": "Access denied for this operation"}, status=status)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(sheet_with_a_word())
        dop.buy(manifest, "--max-new", 1)
        first_night = len(gateway.orders)
        end = dop.buy(manifest)
        assert len(gateway.charged) == 9, end.err
        assert "union select" not in gateway.orders[first_night].prompt


def test_a_second_row_that_is_refused_means_the_key(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return web.json_response({"error": "Access denied for this operation"}, status=403)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(10)), "--set", "pace.submit_concurrency=1")
        assert end.code == FATAL, end.err
        assert len({order.prompt for order in gateway.orders}) == 2


# --- downloads


def test_bad_links_leave_the_download_workers_to_the_good_ones(tmp_path: Path) -> None:
    bad = 8

    async def fetch(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) <= bad and not all_good(gateway):
            return web.Response(status=503, text="busy")
        return await gateway.clip(order)

    def all_good(gateway: HostileGateway) -> bool:
        return all(order.fetches for order in gateway.charged if row(order) > bad) and len(gateway.charged) == ROWS

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        tried = {row(one) for one in gateway.charged if one.fetches}
        if order is not None and row(order) > bad and len(tried & set(range(1, bad + 1))) < 4:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "queued"}])
        return await gateway.report(order, job)

    with HostileGateway(poll=poll, fetch=fetch) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(ROWS)), *EAGER, "--max-duration", "8s")
        assert {row(order) for order in gateway.charged if order.fetches} == set(range(1, ROWS + 1)), end.err
        assert len(dop.videos()) == ROWS, end.err
        assert (end.code, end.counts) == (0, {"done": ROWS}), end.err
