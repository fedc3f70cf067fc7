"""Downloads over real sockets: whole and durable under the final name, or not there at all."""

# ruff: noqa: ASYNC110, ASYNC240  # what lies on the disk is the thing under test, and has no event to wait for

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import os
import resource
import signal
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.files import UMASK
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.download_outcomes import (
    DiskFull,
    DownloadOutcome,
    LinkExpired,
    Saved,
    TransientFailure,
    Unacceptable,
)
from pipeline.gateway.part_file import PartFile
from tests.support.clip_files import box, clip_bytes, fragmented_clip, open_ended_clip
from tests.support.video_host import Answer, chunked, head, video_host, whole

CLIP = clip_bytes(media_bytes=700_000)
"""More than one block."""


def loopback_fetcher(**options: Any) -> VideoFetcher:
    return VideoFetcher(gateway_is_loopback=True, **options)


async def fetch_from(target: Path, *answers: Answer, fetcher: VideoFetcher | None = None) -> DownloadOutcome:
    async with video_host(*answers) as host, fetcher or loopback_fetcher() as opened:
        return await opened.fetch(host.url, target)


def assert_nothing_left(target: Path) -> None:
    assert list(target.parent.iterdir()) == []


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder / "lake-7-1.mp4"


# --- what is saved ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [whole(CLIP), chunked(CLIP), head() + CLIP], ids=["length", "chunks", "until close"])
async def test_a_whole_clip_is_stored_under_its_name_with_size_and_hash(target: Path, answer: bytes) -> None:
    saved = await fetch_from(target, answer)
    assert isinstance(saved, Saved)
    assert target.read_bytes() == CLIP
    assert (saved.size_bytes, saved.sha256) == (len(CLIP), hashlib.sha256(CLIP).hexdigest())
    assert list(target.parent.iterdir()) == [target]


async def test_the_content_type_is_reported_and_not_believed(target: Path) -> None:
    saved = await fetch_from(target, head(content_type="text/html", content_length=len(CLIP)) + CLIP)
    assert isinstance(saved, Saved)
    assert saved.content_type == "text/html"


async def test_the_file_is_as_the_umask_leaves_it(target: Path) -> None:
    await fetch_from(target, whole(CLIP))
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~UMASK


async def test_a_unrequested_gzip_is_opened(target: Path) -> None:
    saved = await fetch_from(target, whole(gzip.compress(CLIP), content_encoding="gzip"))
    assert isinstance(saved, Saved)
    assert target.read_bytes() == CLIP


async def test_a_clip_that_is_only_called_gzip_is_saved_as_it_is(target: Path) -> None:
    assert isinstance(await fetch_from(target, whole(CLIP, content_encoding="gzip")), Saved)
    assert target.read_bytes() == CLIP


async def test_a_newer_download_replaces_the_file_in_one_step(target: Path) -> None:
    target.write_bytes(b"an older one")
    assert isinstance(await fetch_from(target, whole(CLIP)), Saved)
    assert target.read_bytes() == CLIP


async def test_the_request_carries_no_key_no_cookie_no_referrer(target: Path) -> None:
    moved = head("302 Found", location="/b", set_cookie="a=1")
    async with video_host(moved, whole(CLIP)) as host, loopback_fetcher() as fetcher:
        assert isinstance(await fetcher.fetch(host.url, target), Saved)
    names = {line.partition(":")[0].lower() for text in host.heads for line in text.splitlines()[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "connection"}
    assert "Accept-Encoding: identity" in host.heads[0]


async def test_each_video_has_a_connection_of_its_own(target: Path) -> None:
    """An unasked answer on an idle connection would become the next request's video."""
    async with video_host(whole(CLIP) + whole(clip_bytes()), whole(CLIP)) as host, loopback_fetcher() as fetcher:
        first = await fetcher.fetch(host.url, target)
        second = await fetcher.fetch(host.url, target.with_name("other.mp4"))
    assert isinstance(first, Saved)
    assert first == second
    assert host.connections == 2


async def test_many_downloads_run_side_by_side(target: Path) -> None:
    async with video_host(whole(CLIP)) as host, loopback_fetcher() as fetcher:
        targets = [target.with_name(f"{number}.mp4") for number in range(20)]
        outcomes = await asyncio.gather(*(fetcher.fetch(host.url, each) for each in targets))
    assert all(isinstance(outcome, Saved) for outcome in outcomes)
    assert sorted(target.parent.iterdir()) == sorted(targets)


# --- what is cut -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        whole(CLIP)[:-1],
        whole(CLIP)[:-400_000],
        chunked(CLIP, ended=False),
        (head() + CLIP)[:-1],
        head() + box(b"ftyp", b"isom") + box(b"mdat", b"x" * 99),
        head() + fragmented_clip(fragments=2),
        head() + open_ended_clip()[:-50],
        whole(CLIP[:-1]),
        whole(b""),
        whole(gzip.compress(CLIP)[:-9]),
        head() + gzip.compress(CLIP)[:-1],
        head(content_length=100),
        head()[:-2],
        b"",
        b"not http at all\r\n\r\n",
    ],
    ids=[
        "length, last byte",
        "length, half",
        "chunks without an end",
        "until close, last byte",
        "until close, before moov",
        "until close, between fragments",
        "until close, open-ended box",
        "right length of a cut file",
        "empty",
        "gzip with a length",
        "gzip until close",
        "no body",
        "half a head",
        "no answer",
        "no http",
    ],
)
async def test_a_cut_download_is_trouble_and_leaves_no_file(target: Path, answer: bytes) -> None:
    assert isinstance(await fetch_from(target, answer), TransientFailure)
    assert_nothing_left(target)


async def test_a_cut_download_leaves_the_older_file_untouched(target: Path) -> None:
    target.write_bytes(b"an older one")
    assert isinstance(await fetch_from(target, whole(CLIP)[:-1]), TransientFailure)
    assert target.read_bytes() == b"an older one"
    assert list(target.parent.iterdir()) == [target]


async def test_a_reset_in_the_middle_is_trouble(target: Path) -> None:
    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.write(whole(CLIP)[:-1000])
        await writer.drain()
        writer.transport.abort()

    assert isinstance(await fetch_from(target, reset), TransientFailure)
    assert_nothing_left(target)


class StraightToTheName(VideoFetcher):
    """Broken twin: writes under the final name from the first byte on."""

    def _part(self, target: Path) -> PartFile:
        return _NamedAsItsTarget(target)


class _NamedAsItsTarget(PartFile):
    def _path(self) -> Path:
        return self.target

    def discard(self) -> None:
        self._close()


class BelievesTheTransfer(VideoFetcher):
    """Broken twin: takes the end of a body without a length for the end of the file."""

    def _length_proven(self, response: object) -> bool:
        return True


async def test_the_broken_twin_that_writes_to_the_name_is_caught(target: Path) -> None:
    twin = StraightToTheName(gateway_is_loopback=True)
    assert isinstance(await fetch_from(target, whole(CLIP)[:-1], fetcher=twin), TransientFailure)
    assert target.exists(), "the twin no longer does what the test above forbids"


async def test_the_broken_twin_that_believes_every_end_is_caught(target: Path) -> None:
    twin = BelievesTheTransfer(gateway_is_loopback=True)
    assert isinstance(await fetch_from(target, head() + fragmented_clip(fragments=2), fetcher=twin), Saved)


# --- time ------------------------------------------------------------------------------------------------------------


def hold(answer: bytes, reached: asyncio.Event, release: asyncio.Event) -> Callable[[asyncio.StreamWriter], Any]:
    """Send `answer`, say so, and keep the connection open until `gates` open."""

    async def held(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        reached.set()
        await release.wait()

    return held


@pytest.fixture
async def gates() -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
    reached, release = asyncio.Event(), asyncio.Event()
    yield reached, release
    release.set()


@pytest.mark.parametrize("sent", [b"", head(), whole(CLIP)[:-1]], ids=["silent", "after the head", "before the end"])
async def test_a_server_that_stalls_is_trouble(target: Path, gates: Any, sent: bytes) -> None:
    async with video_host(hold(sent, *gates)) as host, loopback_fetcher(read_timeout_s=0.05) as fetcher:
        assert await fetcher.fetch(host.url, target) == TransientFailure(reason="127.0.0.1: timed out")
        gates[1].set()
    assert_nothing_left(target)


async def test_a_slow_drip_ends_at_the_total_time(target: Path) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        for number in range(10_000):
            writer.write(whole(CLIP)[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0.01)

    fetcher = loopback_fetcher(read_timeout_s=5, total_timeout_s=0.2)
    assert await fetch_from(target, drip, fetcher=fetcher) == TransientFailure(reason="not through after 0.2 s")
    assert_nothing_left(target)


async def test_a_cancelled_download_leaves_no_file(target: Path, gates: Any) -> None:
    async with video_host(hold(whole(CLIP)[:-1], *gates)) as host, loopback_fetcher() as fetcher:
        task = asyncio.create_task(fetcher.fetch(host.url, target))
        await gates[0].wait()
        while not list(target.parent.iterdir()):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_nothing_left(target)
        gates[1].set()


# --- answers that are no video ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
async def test_a_url_that_no_longer_serves_is_gone(target: Path, status: int) -> None:
    assert await fetch_from(target, head(f"{status} No", content_length=0)) == LinkExpired(status=status)
    assert_nothing_left(target)


@pytest.mark.parametrize("status", [202, 204, 206, 304, 408, 429, 500, 502, 503, 522])
async def test_other_answers_are_trouble(target: Path, status: int) -> None:
    assert await fetch_from(target, head(f"{status} Odd", content_length=0)) == TransientFailure(
        reason=f"answered {status}"
    )
    assert_nothing_left(target)


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [("7", 7.0), ("99999", 900.0), ("0", 1.0), ("Thu, 01 Jan 1970 00:01:00 GMT", 20.0), ("soon", None)],
)
async def test_a_wait_hint_is_handed_on_within_bounds(target: Path, said: str, wait_s: float | None) -> None:
    answer = head("429 Slow Down", retry_after=said, content_length=0)
    outcome = await fetch_from(target, answer, fetcher=loopback_fetcher(wall=lambda: 40.0))
    assert outcome == TransientFailure(reason="answered 429", wait_s=wait_s)


@pytest.mark.parametrize(
    "body", [b"<html>sign in</html>", b'{"error": "no"}', gzip.compress(b"<html>" * 9, mtime=0), box(b"ftyp", b"") * 2]
)
async def test_what_is_no_mp4_is_unfit_and_not_kept(target: Path, body: bytes) -> None:
    assert isinstance(await fetch_from(target, whole(body)), Unacceptable)
    assert_nothing_left(target)


async def test_a_page_instead_of_a_video_is_unfit_before_it_has_ended(target: Path, gates: Any) -> None:
    page = head(content_length=10**6) + b"<html>" + b" " * 600_000
    async with video_host(hold(page, *gates)) as host, loopback_fetcher() as fetcher:
        assert isinstance(await fetcher.fetch(host.url, target), Unacceptable)
        gates[1].set()
    assert_nothing_left(target)


async def test_a_video_that_is_announced_too_large_is_not_begun(target: Path) -> None:
    outcome = await fetch_from(target, whole(CLIP), fetcher=loopback_fetcher(max_bytes=len(CLIP) - 1))
    assert isinstance(outcome, Unacceptable)
    assert "announced" in outcome.reason


@pytest.mark.parametrize("answer", [chunked(CLIP), head() + CLIP, whole(gzip.compress(CLIP))])
async def test_a_video_that_grows_too_large_is_stopped(target: Path, answer: bytes) -> None:
    outcome = await fetch_from(target, answer, fetcher=loopback_fetcher(max_bytes=len(CLIP) - 1))
    assert isinstance(outcome, Unacceptable)
    assert "more than" in outcome.reason
    assert_nothing_left(target)


async def test_a_video_of_exactly_the_cap_is_saved(target: Path) -> None:
    assert isinstance(await fetch_from(target, whole(CLIP), fetcher=loopback_fetcher(max_bytes=len(CLIP))), Saved)


async def test_no_reason_repeats_the_signature_of_a_url(target: Path) -> None:
    async with loopback_fetcher() as fetcher:
        for url in ("http://127.0.0.1:1/a?sig=hush", "http://nowhere.invalid/a?sig=hush", "ftp://h/a?sig=hush"):
            assert "hush" not in str(await fetcher.fetch(url, target))


# --- the disk --------------------------------------------------------------------------------------------------------


async def test_a_stale_part_is_taken_over_from_its_start(target: Path) -> None:
    target.with_name(target.name + ".part").write_bytes(b"stale" * 10**6)
    assert isinstance(await fetch_from(target, whole(CLIP)), Saved)
    assert target.read_bytes() == CLIP
    assert list(target.parent.iterdir()) == [target]


async def test_two_downloads_never_write_the_same_part(target: Path, gates: Any) -> None:
    async with video_host(hold(whole(CLIP)[:-1], *gates), whole(CLIP)) as host, loopback_fetcher() as fetcher:
        first = asyncio.create_task(fetcher.fetch(host.url, target))
        # The file is there a moment before it is locked; what is written in it was written under the lock.
        while not any(path.stat().st_size for path in target.parent.iterdir()):
            await asyncio.sleep(0)
        assert await fetcher.fetch(host.url, target) == TransientFailure(
            reason="another run is downloading the same video"
        )
        assert [path.name for path in target.parent.iterdir()] == ["lake-7-1.mp4.part"]
        gates[1].set()
        assert isinstance(await first, TransientFailure)


async def test_a_missing_folder_is_no_room(tmp_path: Path) -> None:
    outcome = await fetch_from(tmp_path / "gone" / "a.mp4", whole(CLIP))
    assert outcome == DiskFull(reason=os.strerror(errno.ENOENT), remedy="run again when that is put right")


async def test_a_link_in_place_of_the_part_is_not_followed(target: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    target.with_name(target.name + ".part").symlink_to(precious)
    assert isinstance(await fetch_from(target, whole(CLIP)), DiskFull)
    assert precious.read_bytes() == b"keep me"


async def test_a_full_disk_is_no_room_and_leaves_no_file(target: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        outcome = await fetch_from(target, whole(CLIP))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert outcome == DiskFull(reason=os.strerror(errno.EFBIG), remedy="free some disk space and run again")
    assert_nothing_left(target)


# --- real encoders ---------------------------------------------------------------------------------------------------


def encoded(path: Path, **muxer: str) -> bytes:
    """A real clip of 64x36 pixels and 5 frames."""
    with av.open(str(path), "w", format="mp4", options=muxer) as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(64, 36, "yuv420p")))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.mark.parametrize(
    "muxer",
    [{}, {"movflags": "+faststart"}, {"movflags": "+frag_keyframe+empty_moov"}],
    ids=["moov last", "moov first", "fragments"],
)
async def test_a_clip_of_a_real_encoder_is_saved_and_plays(target: Path, tmp_path: Path, muxer: dict[str, str]) -> None:
    clip = encoded(tmp_path / "source.mp4", **muxer)
    assert isinstance(await fetch_from(target, whole(clip)), Saved)
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
    assert isinstance(await fetch_from(target, whole(clip[:-1])), TransientFailure)
