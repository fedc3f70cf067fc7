"""A video that is cut is continued where it ended, if the server proves that it is the same one."""

# ruff: noqa: ASYNC240  # what lies on the disk is the thing under test

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.download_outcomes import Saved, TransientFailure
from pipeline.gateway.partial_body import MAX_PIECES, PartialBody
from tests.support.clip_files import clip_bytes
from tests.support.video_host import Answer, VideoHost, head, video_host, whole

CLIP = clip_bytes(media_bytes=700_000)
CHANGED = (200_000, 500_000)
"""Where another clip of the same size differs: before the cut and behind it."""
OTHER = bytes(byte ^ 1 if place in CHANGED else byte for place, byte in enumerate(CLIP))
SIZE, CUT = len(CLIP), 300_000
ETAG = '"v1"'
PATIENCE_S = 0.15
"""Seconds of silence after which a connection counts as cut here."""


def first(upto: int = CUT, body: bytes = CLIP, headers: Mapping[str, object] | None = None) -> bytes:
    """The whole head, and the body up to a cut."""
    return head(content_length=len(body), **{"etag": ETAG, **(headers or {})}) + body[:upto]


def rest(
    start: int = CUT, *, body: bytes = CLIP, upto: int = SIZE, etag: str = ETAG, said: str = "", total: int = SIZE
) -> bytes:
    """A part, with its place in the whole."""
    place = said or f"bytes {start}-{total - 1}/{total}"
    named = {"content_range": place, "content_length": len(body) - start, "etag": etag}
    return head("206 Partial Content", **named) + body[start:upto]


def silent_after(answer: bytes) -> Answer:
    """The answer, and then nothing: the other side gives up, and has read all that came before."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        await asyncio.Event().wait()

    return say


async def fetched(target: Path, *answers: bytes, ends: int = 1) -> tuple[object, VideoHost]:
    """What a download came to; all answers but the last so many fall silent in the middle."""
    said = [silent_after(answer) for answer in answers[: len(answers) - ends]]
    said += [*answers[len(answers) - ends :]] if ends else []
    async with (
        video_host(*said) as host,
        VideoFetcher(gateway_is_loopback=True, read_timeout_s=PATIENCE_S) as fetcher,
    ):
        return await fetcher.fetch(host.url, target), host


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos" / "lake.mp4"


async def test_a_cut_video_is_continued_where_it_ended(target: Path) -> None:
    saved, host = await fetched(target, first(), rest())
    assert isinstance(saved, Saved)
    assert target.read_bytes() == CLIP
    assert (saved.size_bytes, saved.sha256) == (SIZE, hashlib.sha256(CLIP).hexdigest())
    assert "range" not in host.heads[0].lower()
    assert f"Range: bytes={CUT}-\r\n" in host.heads[1]
    assert f"If-Range: {ETAG}\r\n" in host.heads[1]
    assert list(target.parent.iterdir()) == [target]


async def test_it_may_be_cut_several_times(target: Path) -> None:
    saved, host = await fetched(target, first(), rest(upto=500_000), rest(500_000, upto=600_000), rest(600_000))
    assert isinstance(saved, Saved)
    assert target.read_bytes() == CLIP
    assert host.connections == 4


async def test_a_compressed_video_is_continued_as_well(target: Path) -> None:
    packed = gzip.compress(CLIP, 0)
    saved, _ = await fetched(target, first(CUT, packed), rest(CUT, body=packed, upto=len(packed), total=len(packed)))
    assert isinstance(saved, Saved)
    assert target.read_bytes() == CLIP


@pytest.mark.parametrize(
    "second",
    [
        whole(OTHER, etag='"v2"'),
        whole(CLIP, etag=ETAG),
        rest(etag='"v2"', body=OTHER),
        rest(etag=""),
        rest(said=f"bytes {CUT - 1}-{SIZE - 1}/{SIZE}"),
        rest(said=f"bytes {CUT}-{SIZE - 1}/{SIZE + 1}"),
        rest(said=f"bytes {CUT}-{SIZE - 1}/*"),
        head("206 Partial Content", content_length=SIZE - CUT, etag=ETAG) + CLIP[CUT:],
        head("416 Range Not Satisfiable", content_length=0),
        head("503 Service Unavailable", content_length=0),
    ],
)
async def test_what_does_not_prove_to_be_the_rest_is_not_added(target: Path, second: bytes) -> None:
    """Two halves of two videos would make one that plays."""
    failed, host = await fetched(target, first(), second)
    assert isinstance(failed, TransientFailure)
    assert host.connections == 2
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("named", [{"etag": 'W/"v1"'}, {"etag": ""}, {"content_encoding": "gzip"}])
async def test_without_a_strong_name_of_the_content_nothing_is_asked_for(
    target: Path, named: dict[str, object]
) -> None:
    failed, host = await fetched(target, first(headers=named), rest())
    assert isinstance(failed, TransientFailure)
    assert host.connections == 1


async def test_a_server_that_gives_little_by_little_is_left(target: Path) -> None:
    pieces = [rest(CUT + number, upto=CUT + number + 1) for number in range(2 * MAX_PIECES)]
    failed, host = await fetched(target, first(), *pieces, ends=0)
    assert isinstance(failed, TransientFailure)
    assert host.connections == MAX_PIECES
    assert list(target.parent.iterdir()) == []


async def test_a_twin_that_believes_every_part_saves_a_video_of_two_halves(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartialBody, "is_continued_by", lambda self, status, headers: status == 206)
    saved, _ = await fetched(target, first(), rest(etag='"v2"', body=OTHER))
    assert isinstance(saved, Saved)
    assert target.read_bytes() == CLIP[:CUT] + OTHER[CUT:]
    assert target.read_bytes() not in (CLIP, OTHER)


async def test_what_came_is_kept_when_the_server_closes_right_after_it(target: Path) -> None:
    """The connection ends while this side waits for its disk, and not after a silence."""
    cuts = [first(50_000), rest(50_000, upto=120_000), rest(120_000)]
    saved, host = await fetched(target, *cuts, ends=len(cuts))
    assert isinstance(saved, Saved)
    assert target.read_bytes() == CLIP
    assert host.connections == 3
