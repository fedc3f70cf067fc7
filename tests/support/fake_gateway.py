"""A scripted gateway, written from the API document and what is published of the wire; it shares no code with the rest.

It says what its script says, counts every request, and keeps books of what it charged. It listens on 127.0.0.1 only.

`python -m tests.support.fake_gateway --script FILE` prints its address; `GET /books` are the books. The script is
one JSON object, see `Script`; a fault is one of `Fault`'s.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import re
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from tests.support.response_shapes import SHAPES, Shape

SUBMIT_PATHS = ("/ai-model-api/v1/generateImageToVideoRequest", "/ai-model-api/v1/image-to-video")
POLL_PATH = "/ai-model-api-polling/getGenerationResults"
STATUS_PATH = "/v2/requests/status/"
PRICE_MILLS = {"dop-lite": 135, "dop-preview": 573, "dop-turbo": 416}
UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
KNOWN_FIELDS = {
    "webhook_url",
    "webhook_secret",
    "model",
    "prompt",
    "seed",
    "motions_id",
    "motions_strength",
    "input_images",
    "input_images_end",
    "enhance_prompt",
    "check_nsfw",
}
Json = dict[str, Any]


@cache
def tiny_clip() -> bytes:
    """Five seconds of grey noise, 32 x 32, two frames a second: a playable MP4 of a few kilobytes."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as box:
        stream = box.add_stream("libx264", rate=2)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(10):
            picture = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode())
    return file.getvalue()


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to one request instead of the right answer. `book` says whether a submit is charged all the same.

    `status` with `headers` and `body` (an object or text) is an answer. `reset` ("before" or "after" the body is read)
    cuts the connection; `stall_s` waits before anything is said; `cut` says only that many bytes of the answer;
    `wait_s` adds a Retry-After of so many seconds, `wait_date_s` one as a date.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Json | str | None = None
    reset: str | None = None
    stall_s: float = 0.0
    cut: int | None = None
    wait_s: int | None = None
    wait_date_s: int | None = None
    book: bool = False


@dataclass(slots=True, kw_only=True)
class JobScript:
    """What becomes of one job. `end` is another last word than done; the links' ways to fail apply to its video.

    `dead_links` links answer 403, each poll gives a fresh one; `cut` downloads end half way; `redirects` hops come
    before the video; `not_a_video` downloads hold a web page; `polls_in_trouble` polls get `trouble` first.
    """

    shape: str | None = None
    end: str | None = None
    reason: object = None
    no_link: bool = False
    dead_links: int = 0
    cut: int = 0
    redirects: int = 0
    not_a_video: int = 0
    slow_s: float = 0.0
    polls_in_trouble: int = 0
    trouble: list[Json] = field(default_factory=lambda: [{"status": 502, "body": "<html>Bad Gateway</html>"}])


@dataclass(slots=True, kw_only=True)
class Script:
    """What the double does. Numbers of requests count from 1, in the order in which they arrive.

    `submits` maps the number of a submit to its fault, `"5-8"` and `"3-"` are ranges, `"*"` is every one; `jobs` maps
    the number of an accepted job to its `JobScript`; `prompts` maps a word of the prompt to a fault for every such
    submit, `rows` to a job's script. `shut` is `{"after": accepted, "for_s": seconds, "says": seconds|date|text}`:
    from the so-maniest accepted submit on nothing is taken for a while. `most` jobs may be unfinished at once.
    """

    key: str | None = None
    shape: str = "document"
    paths: list[str] = field(default_factory=lambda: list(SUBMIT_PATHS))
    generation_s: float = 0.0
    submits: dict[str, Json] = field(default_factory=dict)
    prompts: dict[str, Json] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)
    rows: dict[str, Json] = field(default_factory=dict)
    shut: Json | None = None
    most: int | None = None


@dataclass(slots=True, kw_only=True)
class Job:
    """One job that was charged."""

    job: str
    body: Json
    script: JobScript
    shape: Shape
    at: float
    polls: int = 0
    links: int = 0
    downloads: int = 0


@dataclass(slots=True, kw_only=True)
class Heard:
    """One HTTP request. `at` are seconds of the monotonic clock, which all processes of this machine share."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


def in_range(spec: str, number: int) -> bool:
    """Whether a script's `"3"`, `"5-8"`, `"3-"` or `"*"` means this number."""
    first, dash, last = spec.partition("-")
    if spec == "*" or not dash:
        return spec == "*" or int(first) == number
    return int(first) <= number <= (int(last) if last else sys.maxsize)


class HangupError(Exception):
    """The connection is to be reset."""


class GatewayDouble:
    """The double, as a context: `with GatewayDouble(script) as double`, in a thread with a loop of its own."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.base_url = ""
        self.jobs: dict[str, Job] = {}
        self.submits: list[Json] = []
        self.polls: list[Heard] = []
        self.downloads: list[Heard] = []
        self.complaints: list[str] = []
        self.watch: Callable[[str, int], None] = lambda what, number: None
        """Called with submit | submitted (charged, not yet answered) | poll | download and its number."""
        self.shut_until = 0.0
        self.shut_at: float | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        tiny_clip()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def start(self) -> str:
        """Listens; returns the base URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.base_url

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        ours = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not ours]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the books

    @property
    def charged(self) -> int:
        """How many jobs it charged for."""
        return len(self.jobs)

    @property
    def charged_mills(self) -> int:
        """What it charged, in thousandths of a dollar."""
        return sum(PRICE_MILLS[job.body["model"]] for job in self.jobs.values())

    def bodies(self) -> list[str]:
        """What each charged job was asked for, in one canonical line each."""
        return sorted(json.dumps(job.body, sort_keys=True) for job in self.jobs.values())

    def books(self) -> Json:
        """Everything that was asked and charged."""
        return {
            "charged": self.charged,
            "usd": f"{self.charged_mills // 1000}.{self.charged_mills % 1000:03d}",
            "submits": self.submits,
            "polls": len(self.polls),
            "downloads": len(self.downloads),
            "complaints": self.complaints,
        }

    # -- HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard = await _read(reader, self._resets_unread)
            await self._answer(heard, writer)
            await writer.drain()
        except HangupError:
            _reset(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the double ends
        finally:
            writer.close()

    def _resets_unread(self, path: str) -> None:
        """A connection that is cut before the submit's body was read; it counts as a submit."""
        fault = self._fault_of(len(self.submits) + 1, b"") if path in SUBMIT_PATHS else None
        if fault is not None and fault.reset == "before":
            self.submits.append({"at": time.monotonic(), "path": path, "reset": "before"})
            raise HangupError

    async def _answer(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        path = heard.path.partition("?")[0]
        if path == "/books":
            await _say(writer, 200, self.books())
        elif path in SUBMIT_PATHS:
            await self._submit(heard, path, writer)
        elif path == POLL_PATH or path.startswith(STATUS_PATH):
            await self._poll(heard, path, writer)
        elif path.startswith("/clips/"):
            await self._download(heard, path, writer)
        else:
            await _say(writer, 404, {"error": "Endpoint not found"})

    # -- buying

    async def _submit(self, heard: Heard, path: str, writer: asyncio.StreamWriter) -> None:
        number = len(self.submits) + 1
        line: Json = {"number": number, "at": heard.at, "path": path, "headers": heard.headers, "job": None}
        line["body"] = json.loads(heard.body or b"null")
        self.submits.append(line)
        self.watch("submit", number)
        if path not in self.script.paths:
            await _say(writer, 404, {"error": "Endpoint not found"})
            return
        if (refusal := self._refusal(heard)) is not None:
            await _play(writer, refusal)
            return
        fault = self._fault_of(number, heard.body)
        if fault is not None and not fault.book:
            await _play(writer, fault)
            return
        job = self._charge(line["body"], heard.at)
        line["job"] = job.job
        self.watch("submitted", len(self.jobs))
        status, body = job.shape.submit(job.job, self.base_url)
        if fault is None:
            await _say(writer, status, body)
            return
        fault.status, fault.body = fault.status or status, body if fault.body is None else fault.body
        await _play(writer, fault)

    def _charge(self, body: Json, at: float) -> Job:
        number = len(self.jobs) + 1
        keys = next((one for spec, one in self.script.jobs.items() if in_range(spec, number)), {})
        for word, one in self.script.rows.items():
            if word in body["prompt"]:
                keys = one
        script = JobScript(**keys)
        shape = SHAPES[script.shape or self.script.shape]
        job = Job(job=str(uuid.uuid4()), body=body, script=script, shape=shape, at=at)
        self.jobs[job.job] = job
        if self.script.shut and number == self.script.shut["after"]:
            self.shut_at = time.monotonic()
            self.shut_until = self.shut_at + self.script.shut["for_s"]
        return job

    def _fault_of(self, number: int, body: bytes) -> Fault | None:
        for spec, script in self.script.submits.items():
            if in_range(spec, number):
                return Fault(**script)
        for word, script in self.script.prompts.items():
            if word in body.decode("utf-8", "replace"):
                return Fault(**script)
        return None

    def _refusal(self, heard: Heard) -> Fault | None:
        """What the gateway refuses without a script: key, body, an outage, too many at once."""
        key = heard.headers.get("ocp-apim-subscription-key")
        if self.script.key is not None and key != self.script.key:
            text = "Access denied due to invalid subscription key. Make sure to provide a valid key for an active one."
            return Fault(status=401, body={"statusCode": 401, "message": text})
        wrong = complaints(heard)
        if wrong:
            self.complaints += wrong
            return Fault(status=400, body={"error": "Invalid request parameters"})
        if (left_s := self.shut_until - time.monotonic()) > 0:
            return _closed(left_s, str((self.script.shut or {}).get("says", "seconds")))
        if self.script.most is not None and self._unfinished() >= self.script.most:
            text = f"Maximum number of concurrent requests ({self.script.most}) has been reached"
            return Fault(status=400, body={"detail": text})
        return None

    def _unfinished(self) -> int:
        now = time.monotonic()
        return sum(now - job.at < self.script.generation_s for job in self.jobs.values())

    # -- looking

    async def _poll(self, heard: Heard, path: str, writer: asyncio.StreamWriter) -> None:
        self.polls.append(heard)
        self.watch("poll", len(self.polls))
        asked = path.removeprefix(STATUS_PATH) if heard.method == "GET" else json.loads(heard.body).get("job_set_id")
        job = self.jobs.get(asked)
        if job is None:
            await _say(writer, 404, {"error": "Endpoint not found"})
            return
        job.polls += 1
        if job.polls <= job.script.polls_in_trouble:
            script = job.script.trouble
            await _play(writer, Fault(**script[(job.polls - 1) % len(script)]))
            return
        await _say(writer, 200, self._state(job))

    def _state(self, job: Job) -> Json:
        if time.monotonic() - job.at < self.script.generation_s:
            return job.shape.poll(job.job, job.shape.waiting[min(job.polls, len(job.shape.waiting)) - 1], None)
        if job.script.end is not None:
            return {**job.shape.poll(job.job, job.script.end, None), "error": job.script.reason}
        if job.script.no_link:
            return job.shape.poll(job.job, job.shape.done, None)
        job.links += 1
        return job.shape.poll(job.job, job.shape.done, f"{self.base_url}/clips/{job.job}/{job.links}")

    # -- fetching

    async def _download(self, heard: Heard, path: str, writer: asyncio.StreamWriter) -> None:
        self.downloads.append(heard)
        self.watch("download", len(self.downloads))
        _, _, name, link, *hops = path.split("/")
        job = self.jobs[name]
        if int(link) <= job.script.dead_links:
            await _say(writer, 403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
            return
        if len(hops) < job.script.redirects:
            await _say(writer, 302, "", {"Location": f"{path}/on"})
            return
        job.downloads += 1
        await asyncio.sleep(job.script.slow_s)
        if job.downloads <= job.script.not_a_video:
            await _say(writer, 200, "<html>Please sign in</html>", {"Content-Type": "video/mp4"})
            return
        cut = len(tiny_clip()) // 2 if job.downloads <= job.script.cut else None
        await _send(writer, 200, tiny_clip(), {"Content-Type": "application/octet-stream"}, cut=cut)


def complaints(heard: Heard) -> list[str]:
    """Everything about a submit that the API document does not allow, in words."""
    found = [
        f"header {name}: {heard.headers.get(name)!r}"
        for name, value in (("content-type", "application/json"), ("cache-control", "no-cache"))
        if not str(heard.headers.get(name)).startswith(value)
    ]
    if heard.method != "POST" or "ocp-apim-subscription-key" not in heard.headers:
        found.append("no POST with a key")
    body = json.loads(heard.body)
    checks = {
        "an unknown field": set(body) <= KNOWN_FIELDS,
        "model": body.get("model") in PRICE_MILLS,
        "prompt": isinstance(body.get("prompt"), str) and bool(body["prompt"].strip()),
        "seed": type(body.get("seed")) is int and 1 <= body["seed"] <= 1_000_000,
        "motions_id": isinstance(body.get("motions_id"), str) and UUID.fullmatch(body["motions_id"]) is not None,
        "motions_strength": _is_strength(body.get("motions_strength")),
        "input_images": _are_links(body.get("input_images"), least=1, most=1),
        "input_images_end": "input_images_end" not in body or _are_links(body["input_images_end"], least=1, most=99),
        "enhance_prompt": isinstance(body.get("enhance_prompt"), bool),
        "check_nsfw": isinstance(body.get("check_nsfw", True), bool),
        "webhook pair": ("webhook_url" in body) == ("webhook_secret" in body),
    }
    return found + [f"{name}: {heard.body!r}" for name, right in checks.items() if not right]


def _is_strength(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1 and round(value, 2) == value  # type: ignore[operator,call-overload]


def _are_links(value: object, *, least: int, most: int) -> bool:
    return (
        isinstance(value, list)
        and least <= len(value) <= most
        and all(isinstance(link, str) and link.startswith(("http://", "https://")) for link in value)
    )


def _closed(left_s: float, says: str) -> Fault:
    wait_s = math.ceil(left_s)
    if says == "date":
        return Fault(status=429, body={"error": "Rate limit exceeded, please retry later"}, wait_date_s=wait_s + 1)
    if says == "text":
        text = f"Rate limit is exceeded. Try again in {wait_s} seconds."
        return Fault(status=429, body={"statusCode": 429, "message": text})
    return Fault(status=429, body={"error": "Rate limit exceeded, please retry later"}, wait_s=wait_s)


async def _read(reader: asyncio.StreamReader, before_body: Any) -> Heard:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    at = time.monotonic()
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    before_body(path)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Heard(method=method, path=path, headers=headers, body=body, at=at)


async def _play(writer: asyncio.StreamWriter, fault: Fault) -> None:
    if fault.stall_s:
        await asyncio.sleep(fault.stall_s)
    if fault.reset is not None:
        raise HangupError
    headers = dict(fault.headers)
    if fault.wait_s is not None:
        headers["Retry-After"] = str(fault.wait_s)
    if fault.wait_date_s is not None:
        headers["Retry-After"] = formatdate(time.time() + fault.wait_date_s, usegmt=True)
    await _say(writer, fault.status or 200, {} if fault.body is None else fault.body, headers, cut=fault.cut)


async def _say(
    writer: asyncio.StreamWriter,
    status: int,
    body: Json | str,
    headers: dict[str, str] | None = None,
    *,
    cut: int | None = None,
) -> None:
    is_text = isinstance(body, str)
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = {"Content-Type": "text/html" if is_text else "application/json"}
    await _send(writer, status, content, kind | (headers or {}), cut=cut)


async def _send(
    writer: asyncio.StreamWriter, status: int, content: bytes, headers: dict[str, str], *, cut: int | None = None
) -> None:
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content[:cut])
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST instead of FIN."""
    plug = writer.get_extra_info("socket")
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def main(argv: list[str] | None = None) -> int:
    """Prints the address and serves until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.fake_gateway")
    parser.add_argument("--script", type=Path)
    script = parser.parse_args(argv).script
    script = Script(**json.loads(script.read_text())) if script else Script()
    with GatewayDouble(script) as double:
        sys.stdout.write(f"{double.base_url}\n")
        sys.stdout.flush()
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
