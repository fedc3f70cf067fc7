"""Fetching: every finished video comes down as soon as it is ready, verified, under its final name or not at all.

A link that died is renewed by one fresh poll; when that does not help, the request is `expired`. Nothing is paid here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pipeline.errors import DopError
from pipeline.gateway.classification import classify_poll
from pipeline.gateway.download import DiskFull, LinkExpired, Saved, TransientFailure, Unacceptable, VideoFetcher
from pipeline.ledger.states import Event
from pipeline.runner.context import ReadyVideo, RunContext
from pipeline.runner.stop import StopScope

TRIES = 6
"""Fetches of one video in one run; the next run tries again."""

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 60.0

_NOT_IN_NAMES = re.compile(r"[^a-z0-9@._-]+")
NAME_CHARS = 80


def file_name(row_id: str, request_id: str, take: int) -> str:
    """A video's name: ASCII slug of the cell id, eight digits of the key, the take. An id never chooses a folder."""
    slug = _NOT_IN_NAMES.sub("-", row_id.lower()).strip("-.")[:NAME_CHARS] or "video"
    return f"{slug}-{request_id[:8]}-{take}.mp4"


class Publisher(Protocol):
    """Where videos go on to from the folder that they are fetched into."""

    async def find_staged(self, target: Path) -> Saved | None:
        """A whole video that stands there already."""

    async def publish_video(self, target: Path, saved: Saved) -> str:
        """Takes it on; returns what was wrong, "" when it stands where it belongs."""


class Downloader:
    """A few fetches at a time. `folder` takes the videos, `outputs` is what the ledger's paths are relative to.

    With a `landing`, a video counts as saved once that has it.
    """

    def __init__(
        self,
        doors: RunContext,
        fetcher: VideoFetcher,
        *,
        folder: Path,
        outputs: Path,
        concurrency: int,
        landing: Publisher | None = None,
        name_of: Callable[[ReadyVideo], str] | None = None,
    ) -> None:
        self._doors = doors
        self._fetcher = fetcher
        self._folder = folder
        self._outputs = outputs
        self._concurrency = concurrency
        self._landing = landing
        self._name_of = name_of or (lambda video: file_name(video.row_id, video.request_id, video.take))
        self._waiting: asyncio.Queue[ReadyVideo | None] = asyncio.Queue()
        self.left = 0
        """videos that could not be fetched in this run"""

    def add(self, video: ReadyVideo) -> None:
        """One more video is ready."""
        self._waiting.put_nowait(video)

    def close_input(self) -> None:
        """No more videos will come."""
        for _ in range(self._concurrency):
            self._waiting.put_nowait(None)

    async def run(self) -> None:
        """Fetches until told that no more will come, or until the run stops."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]
        stop = self._doors.stop

        def cut() -> None:
            if stop.all:  # a download is not paid for: the next run fetches it again
                for worker in workers:
                    worker.cancel()

        stop.subscribe(cut)
        cut()
        try:
            for ended in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        finally:
            stop.unsubscribe(cut)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while (video := await self._waiting.get()) is not None:
            if self._doors.stop.all:
                return
            try:
                await self._save(video)
            except DopError as error:
                self._doors.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)

    async def _save(self, video: ReadyVideo) -> None:
        pause_s = FIRST_PAUSE_S
        target = self._folder / self._name_of(video)
        staged = await self._landing.find_staged(target) if self._landing is not None else None
        if staged is not None:
            await self._saved(video, target, staged)
            return
        while True:
            video.tries += 1
            self._doors.fail_point("before-download")
            outcome = await self._fetcher.fetch(video.video_url, target)
            self._doors.fail_point("after-download")
            match outcome:
                case Saved():
                    await self._saved(video, target, outcome)
                    return
                case LinkExpired() if not await self._refresh(video):
                    await self._expired(video, outcome)
                    return
                case DiskFull():
                    self._disk_full(outcome)
                    await self._give_up(video, outcome.reason)
                    return
                case Unacceptable() | TransientFailure():
                    if video.tries >= TRIES:
                        await self._give_up(video, outcome.reason)
                        return
                    asked_s = outcome.wait_s if isinstance(outcome, TransientFailure) else None
                    await asyncio.sleep(min(asked_s or pause_s, MAX_PAUSE_S))
                    pause_s *= 2
                    if isinstance(outcome, Unacceptable):
                        await self._refresh(video)

    async def _saved(self, video: ReadyVideo, target: Path, saved: Saved) -> None:
        problem = await self._landing.publish_video(target, saved) if self._landing is not None else ""
        if problem:
            text = f"videos can't be put into the store ({problem}); they are kept here: run again when it is back"
            self._doors.stop.request(text, exit_code=5, reach=StopScope.SUBMITS)
            await self._give_up(video, problem)
            return
        self._doors.fail_point("after-landing")
        await self._doors.recorder.record(
            video.request_id,
            Event.SAVE,
            {
                "local_path": target.relative_to(self._outputs).as_posix(),
                "size_bytes": saved.size_bytes,
                "sha256": saved.sha256,
                "video_url": video.video_url,
                "reason": None,
            },
        )

    async def _refresh(self, video: ReadyVideo) -> bool:
        """One fresh poll for a fresh link; whether it is worth another fetch."""
        if video.refreshed:
            return False
        video.refreshed = True
        doors = self._doors
        answer = await doors.client.poll(video.job_set_id, video.polling_url)
        report = classify_poll(answer, now_unix=doors.unix_time(), job_set_id=video.job_set_id).report
        if report is not None and report.video_url is not None:
            video.video_url = report.video_url
        return True

    async def _expired(self, video: ReadyVideo, gone: LinkExpired) -> None:
        reason = f"the video's link is dead ({gone.status}) and a fresh poll gave no living one"
        await self._doors.recorder.record(video.request_id, Event.EXPIRE, {"reason": reason})
        self._doors.notify(f"{video.row_id}: paid, but {reason}")

    async def _give_up(self, video: ReadyVideo, reason: str) -> None:
        self.left += 1
        with suppress(DopError):
            await self._doors.recorder.record(video.request_id, Event.NOTE, {"reason": f"download: {reason}"})
        self._doors.notify(f"{video.row_id}: the video could not be fetched ({reason}); run again to fetch it")

    def _disk_full(self, outcome: DiskFull) -> None:
        self._doors.stop.request(
            f"videos can't be written ({outcome.reason}); free some space and run again",
            exit_code=5,
            reach=StopScope.SUBMITS,
        )
