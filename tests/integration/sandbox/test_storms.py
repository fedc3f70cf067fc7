"""Storms over real HTTP: what each fault looks like and costs, and that the same seed tells the same story."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.sandbox import faults
from pipeline.sandbox.faults import BEFORE, FaultPlan, PollFault, ResultDefect, ResultFault, SubmitFault
from pipeline.sandbox.jobs import JobOutcome
from pipeline.sandbox.request_validation import fingerprint
from pipeline.sandbox.response_variants import SHAPES
from tests.support.sandboxes import DOCUMENT_BODY, POLL, SUBMIT, Client, open_sandbox

BROKEN = (aiohttp.ClientError, ConnectionError)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the storm says, as the test decides; calm where the test says nothing."""
    options: dict[str, Any] = {}
    calm = {
        "submit_fault": SubmitFault.NONE,
        "poll_fault": PollFault.NONE,
        "result_fault": ResultFault.NONE,
        "callback_fault": faults.CallbackFault.NONE,
        "ailment": ResultDefect.NONE,
        "fate": JobOutcome.COMPLETED,
        "slowness": 1.0,
        "shape": None,
    }
    for name, value in calm.items():
        monkeypatch.setattr(FaultPlan, name, lambda *_args, name=name, value=value: options.get(name, value))
    return options


@asynccontextmanager
async def stormy(folder: Path, **options: Any) -> AsyncIterator[Client]:
    async with open_sandbox(folder, chaos="7", generation_s=0.05, **options) as client:
        yield client


async def exchange(client: Client, method: str, path: str, **more: Any) -> tuple[int, bytes]:
    async with client.session.request(method, client.url + path, allow_redirects=False, **more) as answer:
        return answer.status, await answer.read()


async def submitted(client: Client) -> tuple[int, bytes] | None:
    try:
        return await exchange(client, "POST", SUBMIT, json=DOCUMENT_BODY)
    except BROKEN:
        return None


@pytest.mark.parametrize("fault", [fault for fault in SubmitFault if fault is not SubmitFault.NONE])
async def test_a_submit_is_charged_exactly_when_its_fault_comes_after_acceptance(
    tmp_path: Path, chosen: dict[str, Any], fault: SubmitFault
) -> None:
    async with stormy(tmp_path) as client:
        chosen["submit_fault"] = fault
        await submitted(client)
        books = await client.books()
        assert books["charged"] == (0 if fault in BEFORE else 1)
        assert books["usd"] == ("0.000" if fault in BEFORE else "0.135")


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (SubmitFault.RESET_BEFORE, None),
        (SubmitFault.ERROR_BEFORE, 500),
        (SubmitFault.BAD_GATEWAY_BEFORE, 502),
        (SubmitFault.PROXY_BEFORE, 520),
        (SubmitFault.THROTTLE, 429),
        (SubmitFault.REDIRECT, 307),
        (SubmitFault.RESET_AFTER, None),
        (SubmitFault.ERROR_AFTER, 500),
        (SubmitFault.BAD_GATEWAY_AFTER, 502),
        (SubmitFault.HTML_AFTER, 200),
        (SubmitFault.TRUNCATED, None),
        (SubmitFault.NOT_JSON, 200),
        (SubmitFault.GARBAGE, None),
        (SubmitFault.NO_ID, 200),
        (SubmitFault.ERROR_TEXT, 200),
        (SubmitFault.DUPLICATE, 200),
        (SubmitFault.STALL, 200),
        (SubmitFault.SILENCE, None),
    ],
)
async def test_a_fault_of_a_submit_looks_like_its_name(
    tmp_path: Path, chosen: dict[str, Any], fault: SubmitFault, status: int | None
) -> None:
    async with stormy(tmp_path) as client:
        chosen["submit_fault"] = fault
        answer = await submitted(client)
        assert (answer and answer[0]) == status
        if fault in (SubmitFault.HTML_AFTER, SubmitFault.BAD_GATEWAY_BEFORE, SubmitFault.PROXY_BEFORE):
            assert answer is not None
            assert answer[1].startswith(b"<html>")
        if fault is SubmitFault.NOT_JSON:
            assert answer is not None
            with pytest.raises(ValueError, match=r"JSON|Expecting|Unterminated"):
                json.loads(answer[1])
        if fault in (SubmitFault.NO_ID, SubmitFault.ERROR_TEXT):
            assert answer is not None
            assert b"_id" not in answer[1]


async def test_a_wrong_answer_is_the_one_of_an_earlier_request(tmp_path: Path, chosen: dict[str, Any]) -> None:
    async with stormy(tmp_path) as client:
        first = (await client.submit(seed=1)).value["job_set_id"]
        chosen["submit_fault"] = SubmitFault.WRONG_ANSWER
        assert (await client.submit(seed=2)).value["job_set_id"] == first
        assert (await client.books())["charged"] == 2


async def test_a_second_answer_waits_on_the_kept_alive_connection(tmp_path: Path, chosen: dict[str, Any]) -> None:
    async with stormy(tmp_path) as client:
        port = int(client.url.rsplit(":", 1)[1])
        first = (await client.submit(seed=1)).value["job_set_id"]
        chosen["submit_fault"] = SubmitFault.SECOND_ANSWER
        body = json.dumps(DOCUMENT_BODY).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nOcp-Apim-Subscription-Key: sandbox-key\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        ids = []
        for _ in range(2):
            options = await reader.readuntil(b"\r\n\r\n")
            length = int(options.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            ids.append(json.loads(await reader.readexactly(length))["job_set_id"])
        writer.close()
        await writer.wait_closed()
        assert ids[0] != first
        assert ids[1] == first
        assert [job["job_set_id"] for job in (await client.books())["jobs"]] == [first, ids[0]]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (PollFault.LAG, 404),
        (PollFault.RESET, None),
        (PollFault.ERROR, 500),
        (PollFault.BAD_GATEWAY, 502),
        (PollFault.THROTTLE, 429),
        (PollFault.HTML, 200),
        (PollFault.TRUNCATED, None),
        (PollFault.NOT_JSON, 200),
        (PollFault.DUPLICATE, 200),
        (PollFault.STALL, 200),
    ],
)
async def test_a_fault_of_a_poll_looks_like_its_name_and_the_next_poll_is_well(
    tmp_path: Path, chosen: dict[str, Any], fault: PollFault, status: int | None
) -> None:
    async with stormy(tmp_path) as client:
        job_set_id = (await client.submit()).value["job_set_id"]
        chosen["poll_fault"] = fault
        try:
            answer = await exchange(client, "POST", POLL, json={"job_set_id": job_set_id})
        except BROKEN:
            assert status is None
        else:
            assert answer[0] == status
        chosen["poll_fault"] = PollFault.NONE
        fresh = aiohttp.ClientSession(headers={"Ocp-Apim-Subscription-Key": "sandbox-key"})
        async with fresh, fresh.post(client.url + POLL, json={"job_set_id": job_set_id}) as well:
            assert (await well.json())["job_set_id"] == job_set_id


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (ResultFault.RESET, None),
        (ResultFault.ERROR, 502),
        (ResultFault.CUT, None),
        (ResultFault.CUT_UNANNOUNCED, 200),
        (ResultFault.HTML, 200),
        (ResultFault.WRONG_CONTENT, 200),
        (ResultFault.REDIRECT, 302),
    ],
)
async def test_a_fault_of_a_download_never_gives_the_clip(
    tmp_path: Path, chosen: dict[str, Any], fault: ResultFault, status: int | None
) -> None:
    async with stormy(tmp_path) as client:
        job_set_id = (await client.submit()).value["job_set_id"]
        client.at.now += 100
        clip = await exchange(client, "GET", f"/results/{job_set_id}.mp4")
        chosen["result_fault"] = fault
        try:
            spoiled = await exchange(client, "GET", f"/results/{job_set_id}.mp4")
        except BROKEN:
            assert status is None
        else:
            assert spoiled[0] == status
            assert spoiled[1] != clip[1]
        if fault is ResultFault.REDIRECT:
            assert (await client.call("GET", f"/results/{job_set_id}.mp4")).value == clip[1]


async def test_an_expired_url_is_helped_by_a_fresh_poll(tmp_path: Path, chosen: dict[str, Any]) -> None:
    async with stormy(tmp_path) as client:
        chosen["ailment"] = ResultDefect.EXPIRED_ONCE
        job_set_id = (await client.submit()).value["job_set_id"]
        client.at.now += 100
        statuses = []
        for _ in range(2):
            url = (await client.poll(job_set_id)).value["jobs"][0]["results"]["raw"]["url"]
            statuses.append((await client.call("GET", url)).status)
        assert statuses == [403, 200]
        chosen["ailment"] = ResultDefect.EXPIRED
        assert (await client.call("GET", url)).status == 403


@pytest.mark.parametrize(("ailment", "urls"), [(ResultDefect.NO_URL_YET, 1), (ResultDefect.NO_URL, 0)])
async def test_a_completed_job_may_have_no_url_for_a_while_or_for_ever(
    tmp_path: Path, chosen: dict[str, Any], ailment: ResultDefect, urls: int
) -> None:
    async with stormy(tmp_path) as client:
        chosen["ailment"] = ailment
        job_set_id = (await client.submit()).value["job_set_id"]
        client.at.now += 100
        jobs = [(await client.poll(job_set_id)).value["jobs"][0] for _ in range(3)]
        assert [job["status"] for job in jobs] == ["completed"] * 3
        assert sum(job["results"] is not None for job in jobs) == urls


@pytest.mark.parametrize("number", range(len(SHAPES)))
async def test_every_shape_is_reported_by_both_poll_styles(tmp_path: Path, number: int) -> None:
    async with open_sandbox(tmp_path, shape=number) as client:
        job_set_id = (await client.submit()).value["job_set_id"]
        client.at.now += 100
        posted = (await client.poll(job_set_id)).value
        got = (await client.call("GET", f"/v2/requests/status/{job_set_id}")).value
        assert posted == got
        assert f"{client.url}/results/{job_set_id}" in json.dumps(posted)


async def storm_story(folder: Path, seed: str) -> tuple[list[Any], Any]:
    """What a client that asks once for each of 40 requests sees, and the books afterwards."""
    seen: list[Any] = []
    async with open_sandbox(folder, chaos=seed, generation_s=0.002) as client:
        for number in range(40):
            body = {**DOCUMENT_BODY, "seed": number + 1}
            async with aiohttp.ClientSession(headers={"Ocp-Apim-Subscription-Key": "sandbox-key"}) as session:
                try:
                    async with session.post(client.url + SUBMIT, json=body, allow_redirects=False) as answer:
                        seen.append((answer.status, (await answer.read()).replace(client.url.encode(), b"")))
                except BROKEN as error:
                    seen.append(type(error).__name__)
        return seen, await client.books()


async def test_the_same_seed_gives_the_same_storm_and_books_that_match_its_faults(tmp_path: Path) -> None:
    (first, books), (again, same_books), (other, _) = [
        await storm_story(tmp_path / name, seed) for name, seed in (("a", "8"), ("b", "8"), ("c", "9"))
    ]
    assert first == again
    assert books == same_books
    assert first != other
    prints = {job["fingerprint"] for job in books["jobs"]}
    storm, charged = FaultPlan(seed="8"), 0
    for number in range(40):
        raw = json.dumps({**DOCUMENT_BODY, "seed": number + 1}).encode()
        mark = fingerprint(raw)
        accepted = storm.submit_fault(mark, 1) not in BEFORE
        assert (mark in prints) is accepted
        charged += accepted
    assert books["charged"] == charged
    assert 0 < charged < 40


async def test_a_restarted_storm_continues_where_it_was(tmp_path: Path, chosen: dict[str, Any]) -> None:
    visits: list[int] = []

    def watch(_storm: FaultPlan, _mark: str, visit: int) -> SubmitFault:
        visits.append(visit)
        return SubmitFault.ERROR_BEFORE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaultPlan, "submit_fault", watch)
        for _ in range(2):
            async with stormy(tmp_path) as client:
                await submitted(client)
    assert chosen == {}
    assert visits == [1, 2]
