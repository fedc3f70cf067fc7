"""The life of a job over real HTTP: poll styles, clips, books, what a restart keeps, where images come from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import aiohttp
import av
import pytest
from aiohttp import web

from pipeline.sandbox import Sandbox, SandboxError, SandboxSettings
from pipeline.sandbox.image_store import PHOTOS
from tests.support.http_server import http_server
from tests.support.sandboxes import DOCUMENT_BODY, SUBMIT, Client, open_sandbox


async def bought(client: Client, **changes: Any) -> str:
    reply = await client.submit(**changes)
    assert reply.status == 200
    return str(reply.value["job_set_id"])


async def test_a_job_goes_from_queued_to_a_clip_in_both_poll_styles(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, generation_s=10, generation_spread=(1, 1)) as client:
        job_set_id = await bought(client, model="dop-preview")
        seen = []
        for at_s in (0, 5, 11):
            client.at.now += at_s
            status = (await client.poll(job_set_id)).value["jobs"][0]["status"]
            queue = (await client.call("GET", f"/v2/requests/status/{job_set_id}")).value
            seen.append((status, queue["status"]))
        assert seen == [("queued", "QUEUED"), ("in_progress", "PROCESSING"), ("completed", "COMPLETED")]
        url = (await client.poll(job_set_id)).value["jobs"][0]["results"]["raw"]["url"]
        assert queue == {
            "request_id": job_set_id,
            "status": "COMPLETED",
            "output": {"media_url": [url], "media_type": "video/mp4"},
            "error": None,
        }


async def test_the_result_is_a_playable_clip_that_needs_no_key(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        job_set_id = await bought(client)
        client.at.now += 100
        results = (await client.poll(job_set_id)).value["jobs"][0]["results"]
        async with aiohttp.ClientSession() as stranger, stranger.get(results["raw"]["url"]) as answer:
            assert (answer.status, answer.content_type) == (200, "video/mp4")
            clip = await answer.read()
        assert clip[4:8] == b"ftyp"
        assert clip == (await client.call("GET", results["min"]["url"])).value
        with av.open(io.BytesIO(clip), "r") as container:
            assert container.duration == 5_000_000


async def test_the_result_file_is_not_there_before_its_time(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, generation_s=100) as client:
        job_set_id = await bought(client)
        assert (await client.call("GET", f"/results/{job_set_id}.mp4")).status == 404


async def test_equal_requests_are_two_jobs_with_the_same_clip(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        first, second = await bought(client), await bought(client)
        assert first != second
        client.at.now += 100
        clips = [(await client.call("GET", f"/results/{job}.mp4")).value for job in (first, second)]
        assert clips[0] == clips[1]


@pytest.mark.parametrize(
    ("mark", "status", "queue"),
    [
        ("[sandbox:fail]", "failed", "FAILED"),
        ("[sandbox:nsfw]", "nsfw", "FAILED"),
        ("[sandbox:cancel]", "canceled", "ERROR"),
    ],
)
async def test_a_prompt_can_ask_for_a_bad_end_which_is_charged_all_the_same(
    tmp_path: Path, mark: str, status: str, queue: str
) -> None:
    async with open_sandbox(tmp_path) as client:
        job_set_id = await bought(client, prompt=f"A lake {mark}")
        client.at.now += 100
        job = (await client.poll(job_set_id)).value["jobs"][0]
        assert (job["status"], job["results"]) == (status, None)
        answer = (await client.call("GET", f"/v2/requests/status/{job_set_id}")).value
        assert answer["status"] == queue
        assert answer["error"]
        assert (await client.books())["usd"] == "0.135"


async def test_the_books_list_every_accepted_submit_with_its_fingerprint_and_price(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        ids = [await bought(client), await bought(client, model="dop-turbo"), await bought(client, model="dop-preview")]
        await client.submit(seed=0)
        books = await client.books()
        assert (books["charged"], books["usd"]) == (3, "1.124")
        assert [job["job_set_id"] for job in books["jobs"]] == ids
        assert [job["price_usd"] for job in books["jobs"]] == ["0.135", "0.416", "0.573"]
        text = json.dumps(DOCUMENT_BODY, sort_keys=True, separators=(",", ":"))
        assert books["jobs"][0]["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()
        assert books["jobs"][0]["status"] == "queued"


async def test_the_books_need_no_key(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, key=None) as client:
        assert await client.books() == {"charged": 0, "usd": "0.000", "jobs": []}


@pytest.mark.parametrize(("body", "status"), [({}, 400), ({"job_set_id": 7}, 400), ({"job_set_id": "absent"}, 404)])
async def test_a_poll_for_nothing_is_refused(tmp_path: Path, body: dict[str, Any], status: int) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.call("POST", "/ai-model-api-polling/getGenerationResults", json=body)
        assert reply.status == status
        assert "error" in reply.value


async def test_a_restarted_sandbox_knows_its_jobs_its_port_and_continues(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, generation_s=50) as client:
        url, job_set_id = client.url, await bought(client)
        before = await client.books()
    async with open_sandbox(tmp_path, generation_s=50) as client:
        assert client.url == url
        assert await client.books() == before
        assert (await client.poll(job_set_id)).value["jobs"][0]["status"] == "queued"
        client.at.now += 100
        assert (await client.poll(job_set_id)).value["jobs"][0]["results"]["raw"]["url"].startswith(url)
        assert await bought(client) != job_set_id


def rows_of_a_copy(folder: Path, copy: Path) -> list[tuple[str]]:
    copy.mkdir()
    for name in ("books.db", "books.db-wal"):
        shutil.copy(folder / name, copy / name)
    with contextlib.closing(sqlite3.connect(copy / "books.db")) as books:
        return books.execute("SELECT job_set_id FROM jobs ORDER BY rowid").fetchall()


async def test_an_accepted_job_is_on_disk_before_its_answer(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, inline=False, generation_s=1000) as client:
        ids = [await bought(client, seed=number + 1) for number in range(3)]
        rows = rows_of_a_copy(tmp_path, tmp_path / "copy")
        assert [row[0] for row in rows] == ids


async def test_many_submits_at_once_are_all_booked_once(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, inline=False, generation_s=1000) as client:
        replies = await asyncio.gather(*(client.submit(seed=number % 5 + 1) for number in range(60)))
        assert {reply.status for reply in replies} == {200}
        books = await client.books()
        assert books["charged"] == 60
        assert {reply.value["job_set_id"] for reply in replies} == {job["job_set_id"] for job in books["jobs"]}


async def test_two_sandboxes_cannot_share_a_folder(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path):
        with pytest.raises(SandboxError, match="another sandbox"):
            await Sandbox(SandboxSettings(data_dir=tmp_path)).start()


async def test_a_configured_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path / "a") as client:
        port = int(client.url.rsplit(":", 1)[1])
        with pytest.raises(SandboxError, match=str(port)):
            await Sandbox(SandboxSettings(data_dir=tmp_path / "b", port=port)).start()


async def test_the_render_threads_finish_what_was_accepted(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, inline=False, one_clip=False) as client:
        job_set_id = await bought(client, input_images=["sandbox:cat"])
        client.at.now += 100
        async with asyncio.timeout(60):
            while (await client.poll(job_set_id)).value["jobs"][0]["status"] != "completed":
                await client.sandbox.clip_made()
        assert (await client.call("GET", f"/results/{job_set_id}.mp4")).value[4:8] == b"ftyp"


async def test_photographs_are_served_by_name(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, key=None) as client:
        for name in ("rocket", "rocket.jpg"):
            reply = await client.call("GET", f"/_sandbox/photos/{name}")
            assert (reply.status, reply.value) == (200, (PHOTOS / "rocket.jpg").read_bytes())
        assert (await client.call("GET", "/_sandbox/photos/..%2Fbooks.py")).status == 404


async def test_an_uploaded_image_is_kept_under_its_hash_and_can_be_animated(tmp_path: Path) -> None:
    content = (PHOTOS / "cat.jpg").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    async with open_sandbox(tmp_path) as client:
        assert (await client.call("PUT", f"/_sandbox/images/{digest}", data=content)).status == 201
        assert (await client.call("GET", f"/_sandbox/images/{digest}")).value == content
        uploaded = await bought(client, input_images=[f"sandbox:sha256-{digest}"])
        by_name = await bought(client, input_images=["sandbox:cat"])
        client.at.now += 100
        clips = [(await client.call("GET", f"/results/{job}.mp4")).value for job in (uploaded, by_name)]
        assert clips[0] == clips[1]
    async with open_sandbox(tmp_path) as client:
        assert (await client.call("GET", f"/_sandbox/images/{digest}")).value == content


async def test_an_upload_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        digest = hashlib.sha256(b"other").hexdigest()
        assert (await client.call("PUT", f"/_sandbox/images/{digest}", data=b"this")).status == 400
        assert (await client.call("PUT", "/_sandbox/images/ABC", data=b"this")).status == 400
        assert (await client.call("GET", f"/_sandbox/images/{digest}")).status == 404


async def test_an_upload_beyond_the_cap_is_refused(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        content = bytes(32 * 1024 * 1024 + 1)
        reply = await client.call(
            "PUT", f"/_sandbox/images/{hashlib.sha256(content).hexdigest()}", data=io.BytesIO(content)
        )
        assert reply.status == 413


async def test_an_image_on_a_loopback_server_is_fetched_and_any_other_is_drawn(tmp_path: Path) -> None:
    asked: list[str] = []

    async def give(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(body=(PHOTOS / "cat.jpg").read_bytes(), content_type="image/jpeg")

    async with (
        http_server(web.get("/{name}", give)) as pictures,
        open_sandbox(tmp_path, inline=False, one_clip=False) as client,
    ):
        there = await bought(client, input_images=[f"{pictures}/cat.jpg"])
        here = await bought(client, input_images=[f"{client.url}/_sandbox/photos/cat.jpg"])
        gone = await bought(client, input_images=["http://127.0.0.1:9/cat.jpg"])
        client.at.now += 100
        async with asyncio.timeout(60):
            while any(job["status"] != "completed" for job in (await client.books())["jobs"]):
                await client.sandbox.clip_made()
        clips = [(await client.call("GET", f"/results/{job}.mp4")).value for job in (there, here, gone)]
    assert asked == ["/cat.jpg"]
    assert clips[0] == clips[1] != clips[2]


async def test_an_image_that_is_no_image_fails_its_job(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        content = b"<html>no image</html>"
        digest = hashlib.sha256(content).hexdigest()
        await client.call("PUT", f"/_sandbox/images/{digest}", data=content)
        job_set_id = await bought(client, input_images=[f"sandbox:sha256-{digest}"])
        client.at.now += 100
        answer = (await client.call("GET", f"/v2/requests/status/{job_set_id}")).value
        assert (answer["status"], answer["error"]) == ("FAILED", "the input image cannot be read")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_motion_list_has_the_whole_catalogue(tmp_path: Path, method: str) -> None:
    async with open_sandbox(tmp_path) as client:
        listed = (await client.call(method, "/ai-model-api-polling/motions")).value
        assert len(listed) == 120
        general = next(motion for motion in listed if motion["name"] == "General")
        assert general["id"] == "31177282-bde3-4870-b283-1135ca0a201a"
        assert general["start_end_frame"] is True


async def test_served_alone_it_prints_its_address_first_and_ends_on_a_signal(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline.sandbox.command", "--data", str(tmp_path), "--key", "k", "--generation", "50ms",
        "--size", "180p", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    headers = {"Ocp-Apim-Subscription-Key": "k"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url + SUBMIT, json=DOCUMENT_BODY) as answer:
            assert answer.status == 200
        async with session.get(url + "/_sandbox/books") as answer:
            assert (await answer.json())["charged"] == 1
    process.terminate()
    assert await process.wait() == 0
    assert await process.stdout.read() == b""


async def test_served_alone_with_a_wrong_flag_it_says_so(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline.sandbox.command", "--data", str(tmp_path), "--rate", "soon",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, output = await process.communicate()
    assert process.returncode == 2
    assert b"'soon'" in output


def test_naming_the_sandbox_imports_nothing_heavy() -> None:
    import subprocess

    script = (
        "import sys, pipeline.sandbox.command, pipeline.sandbox;"
        "print([name for name in ('aiohttp', 'av', 'numpy', 'PIL') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"
