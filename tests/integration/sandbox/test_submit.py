"""Submit over real HTTP: the document's own calls, every row of its parameter table, keys, limits, both dialects."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.sandboxes import DOCUMENT_BODY, QUEUE_SUBMIT, SUBMIT, Client, open_sandbox

CURL_BODY = """{
"model": "dop-lite",
"prompt": "A serene lake with gentle ripples, birds flying overhead, cinematic lighting",
"seed": 123456,
"motions_id": "3c90c3cc-0d44-4b50-8888-8dd25736052a",
"motions_strength": 0.7,
"input_images": ["https://example.com/images/lake-scene.jpg"],
"enhance_prompt": true
}"""


def assert_documented(answer: dict[str, Any]) -> None:
    """The full form of the document's "Response - Image To Video Request", field by field."""
    assert set(answer) == {"job_set_id", "type", "created_at", "jobs", "input_params"}
    assert answer["type"] == "image2video"
    assert answer["created_at"].endswith("Z")
    (job,) = answer["jobs"]
    assert {**job, "id": ""} == {"id": "", "job_set_type": "image2video", "status": "queued", "results": None}
    echo = answer["input_params"]
    assert echo == {
        "prompt": DOCUMENT_BODY["prompt"],
        "model": "dop-lite",
        "seed": 123456,
        "motions": [{"id": DOCUMENT_BODY["motions_id"], "strength": 0.7}],
        "input_images": [{"type": "image_url", "image_url": DOCUMENT_BODY["input_images"][0]}],
        "enhance_prompt": True,
        "check_nsfw": True,
    }


async def test_the_documents_curl_command_gets_the_documented_answer(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        url = f"{client.url}/ai-model-api/v1/generateImageToVideoRequest"
        headers = (
            "Content-Type: application/json",
            "Cache-Control: no-cache",
            "Ocp-Apim-Subscription-Key: sandbox-key",
        )
        flags = [part for header in headers for part in ("-H", header)]
        process = await asyncio.create_subprocess_exec(
            "curl", "-v", "-X", "POST", url, *flags, "--data-raw", CURL_BODY,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, talk = await process.communicate()
    assert process.returncode == 0
    assert b"< HTTP/1.1 200 OK" in talk
    assert_documented(json.loads(out))


async def test_the_documents_python_snippet_gets_the_documented_answer(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        headers = {
            "Content-Type": "application/json",
            "Cache-Control": "no-cache",
            "Ocp-Apim-Subscription-Key": "sandbox-key",
        }
        url = client.url + SUBMIT
        request = urllib.request.Request(url, json.dumps(DOCUMENT_BODY).encode(), headers, method="POST")

        def post() -> Any:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)

        assert_documented(await asyncio.to_thread(post))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ...),
        ("model", "dop-standard"),
        ("model", 1),
        ("prompt", ...),
        ("prompt", ""),
        ("prompt", None),
        ("seed", ...),
        ("seed", 0),
        ("seed", 1_000_001),
        ("seed", -5),
        ("seed", 1.5),
        ("seed", "7"),
        ("seed", True),
        ("motions_id", ...),
        ("motions_id", "Dolly In"),
        ("motions_id", "3c90c3cc0d444b5088888dd25736052a"),
        ("motions_strength", ...),
        ("motions_strength", -0.01),
        ("motions_strength", 1.01),
        ("motions_strength", 0.705),
        ("motions_strength", "0.7"),
        ("motions_strength", True),
        ("input_images", ...),
        ("input_images", []),
        ("input_images", ["https://example.com/a.jpg", "https://example.com/b.jpg"]),
        ("input_images", "https://example.com/a.jpg"),
        ("input_images", ["photos/a.jpg"]),
        ("input_images", ["ftp://example.com/a.jpg"]),
        ("input_images", [7]),
        ("input_images", ["sandbox:unicorn"]),
        ("input_images", ["sandbox:sha256-" + "0" * 64]),
        ("input_images_end", []),
        ("input_images_end", "https://example.com/a.jpg"),
        ("input_images_end", ["nowhere"]),
        ("enhance_prompt", ...),
        ("enhance_prompt", "true"),
        ("enhance_prompt", 1),
        ("check_nsfw", "no"),
        ("check_nsfw", None),
        ("webhook_url", "not a url"),
        ("webhook_secret", 5),
    ],
)
async def test_a_broken_row_of_the_table_is_refused_by_name_and_not_charged(
    tmp_path: Path, field: str, value: object
) -> None:
    async with open_sandbox(tmp_path) as client:
        changes: dict[str, Any] = {field: value}
        if field == "webhook_url":
            changes["webhook_secret"] = "s"
        reply = await client.submit(**changes)
        assert reply.status == 400
        assert set(reply.value) == {"error"}
        assert field in reply.value["error"]
        assert (await client.books())["charged"] == 0


async def test_a_webhook_url_without_its_secret_is_refused(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.submit(webhook_url="http://127.0.0.1:9/hook")
        assert reply.status == 400
        assert "webhook_secret" in reply.value["error"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"seed": 1_000_000},
        {"motions_strength": 0},
        {"motions_strength": 1},
        {"motions_strength": 1.0},
        {"motions_strength": 0.01},
        {"motions_strength": 0.29},
        {"model": "dop-preview"},
        {"model": "dop-turbo"},
        {"input_images_end": ["https://example.com/a.jpg", "https://example.com/b.jpg"]},
        {"input_images": ["sandbox:raccoon"]},
        {"check_nsfw": False},
        {"webhook_secret": "alone"},
        {"surprise": {"unknown": "fields are ignored"}},
    ],
)
async def test_the_edges_of_the_table_are_allowed(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with open_sandbox(tmp_path, generation_s=1000) as client:
        assert (await client.submit(**changes)).status == 200


async def test_an_unknown_photograph_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.submit(input_images=["sandbox:unicorn"])
        assert "astronaut, cat, coffee, galaxies, raccoon, rocket" in reply.value["error"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"seed": NaN}', b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_refused(tmp_path: Path, raw: bytes) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.call("POST", SUBMIT, data=raw, headers={"Content-Type": "application/json"})
        assert reply.status == 400
        assert "error" in reply.value


async def test_a_body_of_another_type_is_refused(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.call("POST", SUBMIT, data=CURL_BODY.encode(), headers={"Content-Type": "text/plain"})
        assert reply.status == 400
        assert "Content-Type" in reply.value["error"]


@pytest.mark.parametrize(("key", "words"), [(None, "missing subscription key"), ("wrong", "invalid subscription key")])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", SUBMIT),
        ("POST", "/ai-model-api-polling/getGenerationResults"),
        ("GET", "/v2/requests/status/x"),
        ("GET", "/ai-model-api-polling/motions"),
    ],
)
async def test_without_the_key_nothing_is_answered(
    tmp_path: Path, key: str | None, words: str, method: str, path: str
) -> None:
    async with open_sandbox(tmp_path, key=key) as client:
        reply = await client.call(method, path, json=DOCUMENT_BODY if method == "POST" else None)
        assert reply.status == 401
        assert reply.value["statusCode"] == 401
        assert words in reply.value["message"]


async def test_a_sandbox_without_a_key_takes_any_that_is_not_empty(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        object.__setattr__(client.sandbox.settings, "key", None)
        assert (await client.submit()).status == 200
        empty = await client.call("POST", SUBMIT, json=DOCUMENT_BODY, headers={"Ocp-Apim-Subscription-Key": ""})
        assert empty.status == 401


@pytest.mark.parametrize("path", [SUBMIT, QUEUE_SUBMIT])
async def test_the_queue_dialect_answers_202_on_both_paths(tmp_path: Path, path: str) -> None:
    async with open_sandbox(tmp_path, dialect="queue") as client:
        reply = await client.submit(path)
        assert reply.status == 202
        assert set(reply.value) == {"request_id", "status", "polling_url"}
        assert reply.value["status"] == "QUEUED"
        assert (await client.call("GET", reply.value["polling_url"])).value["status"] == "QUEUED"


async def test_the_job_set_dialect_answers_200_on_the_other_path_too(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.submit(QUEUE_SUBMIT)
        assert reply.status == 200
        assert_documented(reply.value)


async def throttled(client: Client, count: int) -> list[Any]:
    return [await client.submit(seed=number + 1) for number in range(count)]


async def test_over_the_limit_both_kinds_of_429_come_in_turn_with_retry_after(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, rate="2/1m", limiter="sliding", generation_s=1000) as client:
        replies = await throttled(client, 4)
        assert [reply.status for reply in replies] == [200, 200, 429, 429]
        assert replies[2].value == {"error": "Rate limit exceeded, please retry later"}
        assert replies[3].value == {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 60 seconds."}
        assert replies[2].headers["Retry-After"] == replies[3].headers["Retry-After"] == "60"
        client.at.now += 60
        assert (await client.submit()).status == 200
        assert (await client.books())["charged"] == 3


@pytest.mark.parametrize(("mode", "hint"), [("no", None), ("misleading", "3600")])
async def test_a_429_may_keep_silent_or_mislead(tmp_path: Path, mode: str, hint: str | None) -> None:
    async with open_sandbox(tmp_path, rate="1/1m", retry_after=mode, generation_s=1000) as client:
        replies = await throttled(client, 3)
        assert [reply.headers.get("Retry-After") for reply in replies[1:]] == [hint, hint]
        assert ("again" in replies[2].value["message"]) is (hint is not None)


async def test_a_shared_limit_counts_polls_too(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, rate="2/1m", shared_limit=True, generation_s=1000) as client:
        job_set_id = (await client.submit()).value["job_set_id"]
        assert (await client.poll(job_set_id)).status == 200
        assert (await client.poll(job_set_id)).status == 429
        assert (await client.submit()).status == 429


async def test_the_rate_of_a_running_sandbox_can_be_changed(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, rate="1/1h", generation_s=1000) as client:
        await client.submit()
        assert (await client.submit()).status == 429
        client.sandbox.set_rate("5/1h")
        assert (await client.submit()).status == 200


@pytest.mark.parametrize(("style", "status"), [("400", 400), ("429", 429)])
async def test_a_cap_on_unfinished_jobs_refuses_until_one_is_finished(tmp_path: Path, style: str, status: int) -> None:
    options: dict[str, Any] = {"max_concurrent": 2, "concurrent_style": style, "generation_s": 10}
    async with open_sandbox(tmp_path, **options) as client:
        replies = await throttled(client, 3)
        assert [reply.status for reply in replies] == [200, 200, status]
        if style == "400":
            assert replies[2].value["error"] == "Maximum number of concurrent requests (2) has been reached"
        client.at.now += 100
        assert (await client.submit(seed=9)).status == 200


async def test_an_address_that_is_not_there_is_answered_as_documented(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.call("POST", "/ai-model-api/v1/nothing")
        assert (reply.status, reply.value) == (404, {"error": "Endpoint not found"})
