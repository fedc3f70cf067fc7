"""Proof, not plausibility: a job is a request's own when the gateway says so, without a contradiction, for one id.

Each gateway here leaves a submit unclear, or calls back, in a way that looks like proof and is none; or the other way
round: it proves something in a way that the client must not miss.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.cli_driver import Dop, ended, shots, wait_for
from tests.support.hostile_gateway import HostileGateway, Order, against
from tests.support.webhook_catcher import serving

UNKNOWN = 3
ALONE = ("--no-download", "--webhook")


# --- unclear submits


def _words(word: str) -> Callable[[HostileGateway, Order | None, str], dict[str, Any]]:
    return lambda gateway, order, job: {"status": word}


def _of_another_request(gateway: HostileGateway, order: Order | None, job: str) -> dict[str, Any]:
    echo = {"prompt": "a castle in the fog, seen from the sea", "seed": 999_999, "model": "dop-lite"}
    return {"job_set_id": job, "jobs": [{"id": "j", "status": "queued"}], "input_params": echo}


def _another_seed(gateway: HostileGateway, order: Order | None, job: str) -> dict[str, Any]:
    prompt = order.prompt if order is not None else ""
    return {
        "job_set_id": job,
        "jobs": [{"id": "j", "status": "queued"}],
        "input_params": {"prompt": prompt, "seed": 77},
    }


NO_PROOF: dict[str, Callable[[HostileGateway, Order | None, str], dict[str, Any]]] = {
    "not_found": _words("not_found"),
    "NOT FOUND": _words("NOT FOUND"),
    "unknown": _words("unknown"),
    "another request's job": _of_another_request,
    "another seed": _another_seed,
}


def _reports(words: str) -> Callable[[HostileGateway, Order | None, str], Any]:
    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        return web.json_response(NO_PROOF[words](gateway, order, job))

    return poll


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        words if words in ("not_found", "another request's job") else pytest.param(words, marks=pytest.mark.long)
        for words in NO_PROOF
    ],
)
def test_an_id_in_an_unclear_answer_is_adopted_only_with_proof(tmp_path: Path, words: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return await gateway.lose(order, {"error": "Bad Gateway", "request_id": order.job})

    with HostileGateway(submit=submit, poll=_reports(words)) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)), "--max-duration", "6s", "--set", "poll.deadline_s=2")
        assert gateway.polls, "the id was not even asked for"
        assert end.code == UNKNOWN, end.err
        assert dop.recorded() == [("unknown", "")], end.err


def test_an_id_in_an_unclear_answer_whose_job_answers_to_the_request_is_adopted(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return await gateway.lose(order, {"error": "Bad Gateway", "request_id": order.job})

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)))
        assert (end.code, end.counts) == (0, {"done": 1}), end.err


def test_two_ids_in_an_unclear_answer_prove_neither(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        other = str(uuid.uuid4())
        return await gateway.lose(order, f'{{"job_set_id": "{other}"}}{{"job_set_id": "{order.job}"}}')

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        return await gateway.report(gateway.orders[0], job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)))
        assert end.code == UNKNOWN, end.err
        assert dop.recorded() == [("unknown", "")]


# --- callbacks about unclear submits


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        words if words in ("not_found", "another seed") else pytest.param(words, marks=pytest.mark.long)
        for words in NO_PROOF
    ],
)
def test_a_callback_about_an_unclear_submit_alone_proves_nothing(tmp_path: Path, words: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        gateway.aside(_call(gateway, order, {"job_set_id": order.job}))
        return await gateway.lose(order)

    with HostileGateway(submit=submit, poll=_reports(words)) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)), *ALONE, "--max-duration", "6s", "--set", "poll.deadline_s=2")
        assert gateway.calls == [204]
        assert end.code == UNKNOWN, end.err
        assert dop.recorded() == [("unknown", "")], end.err


async def _call(gateway: HostileGateway, order: Order, body: dict[str, Any], headers: Any = None) -> None:
    await gateway.call_back(order, body, headers)


def test_a_callback_that_names_two_jobs_proves_neither(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        gateway.aside(_call(gateway, order, {"job_set_id": order.job, "request_id": str(uuid.uuid4())}))
        return await gateway.lose(order)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        return await gateway.report(gateway.orders[0], job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)), *ALONE)
        assert gateway.calls == [204]
        assert end.code == UNKNOWN, end.err
        assert dop.recorded() == [("unknown", "")]


# --- paid twice


@pytest.mark.parametrize("moment", ["while the second job runs", pytest.param("after the run", marks=pytest.mark.long)])
def test_a_callback_that_names_a_second_paid_job_is_recorded_and_reported(tmp_path: Path, moment: str) -> None:
    """The first submit was charged and lost, and the request was sent again as configured: now two jobs are paid."""
    called = asyncio.Event()

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if len(gateway.orders) == 1:
            return await gateway.lose(order)
        answer = await gateway.accept(order)
        if moment == "while the second job runs":
            gateway.aside(late(gateway))
        return answer

    async def late(gateway: HostileGateway) -> None:
        await gateway.until(lambda: gateway.orders[1].polls > 0)
        # One address for both submits: the token is the attempt's, and a resend is the same attempt.
        await gateway.call_back(gateway.orders[1], {"job_set_id": gateway.orders[0].job})
        called.set()

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if moment == "while the second job runs" and not called.is_set():
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "queued"}])
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(1))
        lost = dop.buy(manifest, *ALONE)
        assert (lost.code, dop.states()) == (UNKNOWN, {"unknown": 1}), lost.err
        again = ("--set", "on_unknown.policy=resend", "--set", "on_unknown.max_cost=100")
        said = ""
        if moment == "after the run":
            said = _called_after(dop, gateway, manifest, again)
        else:
            said = dop.buy(manifest, *ALONE, *again).err
        first, second = (order.job for order in gateway.orders)
        assert gateway.calls == [204], said
        assert dop.recorded()[0][1] == second
        shown = dop.call("show", "row-1")
        assert first in shown.out, shown.out
        assert second in shown.out
        assert "paid twice" in said + shown.out
        (row,) = dop.rows()
        assert row["reason"] == f"sent again after an unknown outcome; paid twice: also as job {first}"


@pytest.mark.long
def test_a_submit_that_a_callback_proves_is_not_sent_again_although_it_was_settled_so(tmp_path: Path) -> None:
    """The user says that it was not charged; before the next run a callback says that it was."""

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return await gateway.lose(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(1))
        receiver = serving(dop)
        assert receiver.stdout is not None
        address = receiver.stdout.readline().strip()
        listen = _listening(address)
        assert dop.buy(manifest, *ALONE, *listen).code == UNKNOWN
        assert dop.call("resolve", "row-1", "--resend").code == 0
        gateway.do(gateway.call_back(gateway.orders[0], {"job_set_id": gateway.orders[0].job}))
        end = dop.buy(manifest, *ALONE, *listen)
        receiver.terminate()
        ended(receiver)
        assert (end.code, end.counts) == (0, {"done": 1}), end.err
        assert len(gateway.orders) == 1, "bought twice"
        assert not list((dop.outputs / "callbacks").rglob("*.json")), "what is recorded is not kept"


@pytest.mark.long
def test_an_answer_that_names_a_known_job_in_capitals_is_not_another_purchase(tmp_path: Path) -> None:
    """A desynchronised connection hands the second submit the first one's answer, in capitals."""

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if order.number == 1:
            return await gateway.accept(order)
        order.charged = True
        return web.json_response({"job_set_id": gateway.orders[0].job.upper()})

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(2)), "--no-download", "--set", "pace.submit_concurrency=1")
        assert end.code == UNKNOWN, end.err
        assert dop.states() == {"done": 1, "unknown": 1}


def _listening(address: str) -> tuple[str, ...]:
    """The settings of a run whose callbacks go to a receiver of its own."""
    return ("--set", f"webhook.listen={address.removeprefix('http://')}", "--set", f"webhook.public_url={address}")


def _called_after(dop: Dop, gateway: HostileGateway, manifest: Path, again: tuple[str, ...]) -> str:
    """Everything is done when the call comes; the receiver keeps it, and the next command reads it."""
    receiver = serving(dop)
    assert receiver.stdout is not None
    address = receiver.stdout.readline().strip()
    listen = _listening(address)
    bought = dop.buy(manifest, *ALONE, *again, *listen)
    assert bought.code == 0, bought.err
    token = gateway.orders[0].body["webhook_url"].rpartition("/")[2]
    gateway.orders[0].body["webhook_url"] = f"{address}/dop/{token}"
    gateway.do(gateway.call_back(gateway.orders[0], {"job_set_id": gateway.orders[0].job}))
    later = dop.buy(manifest, *ALONE, *listen)
    receiver.terminate()
    return later.err + ended(receiver).err


# --- the pace of recovery


async def _later(gateway: HostileGateway, order: Order) -> None:
    """A call about a job that the caller made up, once the 502 has been recorded."""
    await asyncio.sleep(0.3)
    await gateway.call_back(order, {"job_set_id": str(uuid.uuid4())})


@pytest.mark.long
def test_one_token_makes_no_more_polls_than_the_pace_allows(tmp_path: Path) -> None:
    calls, pace = 60, 4

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        for _ in range(calls):
            gateway.aside(_later(gateway, order))
        return await gateway.lose(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)), *ALONE, "--set", f"poll.rate={pace}/1s", "--max-duration", "5s")
        assert end.code == UNKNOWN, end.err
        moments = [poll.at for poll in gateway.polls]
        busiest = max((sum(begun <= at < begun + 1 for at in moments) for begun in moments), default=0)
        assert busiest <= 2 * pace, f"{len(moments)} polls, {busiest} of them in one second"


@pytest.mark.long
def test_one_request_is_recovered_by_one_poll_at_a_time(tmp_path: Path) -> None:
    in_flight, most = [0], [0]

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        for _ in range(20):
            gateway.aside(_later(gateway, order))
        return await gateway.lose(order)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        in_flight[0] += 1
        most[0] = max(most[0], in_flight[0])
        await asyncio.sleep(0.1)
        in_flight[0] -= 1
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        dop.buy(dop.csv(shots(1)), *ALONE, "--max-duration", "5s")
        assert most[0] == 1


def test_a_signal_cuts_a_recovery_that_hangs_and_books_what_is_in_flight(tmp_path: Path) -> None:
    """Polls are free: the one that a recovery waits for is cut; the POSTs end and are recorded."""

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if order.number == 1:
            return await gateway.lose(order, {"error": "internal error", "job_set_id": order.job})
        order.charged = True
        await gateway.until(lambda: bool(gateway.polls))
        await asyncio.sleep(0.5)
        return await gateway.accept(order)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        await asyncio.sleep(30)
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = Dop(folder=tmp_path, base_url=gateway.url)
        process = dop.start("run", dop.csv(shots(4)), "--yes", "--set", "pace.rate=500/1s", "--set", "pace.burst=50")
        wait_for(lambda: len(gateway.polls) > 0 and len(gateway.orders) > 1)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        end = ended(process)
        assert time.monotonic() - began < 15, end.err
        recorded = {str(job) for (job,) in dop.ledger("select job_set_id from attempts where job_set_id is not null")}
        assert recorded == {order.job for order in gateway.charged if order.number > 1}, end.err
