"""Downloading: every finished video is fetched as soon as it is ready, verified, under its final name or not at all.

A dead link is renewed by a free poll. The request becomes `expired` only when the gateway answered, and its newest link
stayed dead over several tries: storage may lag behind the gateway by seconds. A later run asks for an expired video
once more, by one free poll, and for one that the gateway called done without naming it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipeline.errors import DopError, ExitCode, LedgerError
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.download_outcomes import DiskFull, LinkExpired, Saved, TransientFailure, Unacceptable
from pipeline.ledger.states import Event
from pipeline.runner.context import ReadyVideo, RunContext
from pipeline.runner.firewall import error_words, is_cancellation
from pipeline.runner.link_renewal import find_link, is_link_hopeless, renew_link
from pipeline.runner.stop import StopScope

STEP = "downloading"
"""Names this step in the firewall."""

GIVEN_UP = "download: "
"""Begins the reason of a finished request whose video could not be fetched in this run."""

STILL_DEAD = "the video's link is dead"
"""Begins the reason of an expired request."""

TRIES = 6
"""Fetches of one video in one run; the next run tries again."""

DEAD_LINK_TRIES = 5
"""Answers such as 403 or 404 before a video counts as expired: 15 s, since a clip's storage may lag behind its link."""

FIRST_PAUSE_S = 1.0
"""Seconds before a failed download is tried again; each further pause is twice as long."""
MAX_PAUSE_S = 60.0
"""Seconds of the longest pause between two tries of one download, also where the server states a wait."""

_NOT_IN_NAMES = re.compile(r"[^a-z0-9@._-]+")
NAME_CHARS = 80
"""Characters of the row's id in a video's file name: file systems take 255 bytes, and the take and a hash follow."""


def file_name(row_id: str, request_id: str, take: int) -> str:
    """A video's name: ASCII slug of the cell id, eight digits of the key, the take. An id never chooses a folder."""
    slug = _NOT_IN_NAMES.sub("-", row_id.lower()).strip("-.")[:NAME_CHARS] or "video"
    return f"{slug}-{request_id[:8]}-{take}.mp4"


class Publisher(Protocol):
    """Where videos go on to from the folder that they are fetched into."""

    async def find_staged(self, target: Path) -> Saved | None:
        """A whole video that is there already."""

    async def publish_video(self, target: Path, saved: Saved) -> str:
        """Publishes it; returns the error, "" when it is where it belongs."""


class Downloader:
    """A few downloads at a time. `folder` takes the videos, `outputs` is what the ledger's paths are relative to.

    Videos come by the queue `context.ready`. One that fails goes back into the queue with the time of its next try, so
    that a storm of bad links holds up no good one. With a `publisher`, a video counts as saved once that has it.
    """

    def __init__(
        self,
        context: RunContext,
        fetcher: VideoFetcher,
        *,
        folder: Path,
        outputs: Path,
        concurrency: int,
        publisher: Publisher | None = None,
        name_of: Callable[[ReadyVideo], str] | None = None,
    ) -> None:
        self._context = context
        self._fetcher = fetcher
        self._folder = folder
        self._outputs = outputs
        self._concurrency = concurrency
        self._publisher = publisher
        self._name_of = name_of or (lambda video: file_name(video.row_id, video.request_id, video.take))
        self._due: deque[ReadyVideo] = deque()
        self._delayed: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._input_closed = False
        context.stop.subscribe(self._news.set)

    def close_input(self) -> None:
        """No more videos will come: the downloader ends when the last one does."""
        self._input_closed = True
        self._news.set()

    async def run(self) -> None:
        """Download until nothing is left and nothing more can come, or until the run stops.

        A download in progress is cut then: it costs nothing, and the next run fetches it again.
        """
        intake = asyncio.create_task(self._take_in_later())
        try:
            while not self._context.stop.all and (self._has_work or not self._input_closed):
                self._news.clear()
                self._take_in()
                while self._due and len(self._tasks) < self._concurrency:
                    self._start(self._due.popleft())
                await self._news.wait()
        finally:
            for alarm in self._delayed:
                alarm.cancel()
            for task in (intake, *self._tasks):
                task.cancel()
            await asyncio.gather(intake, *self._tasks, return_exceptions=True)

    @property
    def _has_work(self) -> bool:
        return bool(self._due or self._delayed or self._tasks or self._context.ready.qsize())

    def _take_in(self) -> None:
        while not self._context.ready.empty():
            self._due.append(self._context.ready.get_nowait())

    async def _take_in_later(self) -> None:
        while True:
            self._due.append(await self._context.ready.get())
            self._news.set()

    def _start(self, video: ReadyVideo) -> None:
        task = asyncio.create_task(self._work(video))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._news.set()

    async def _work(self, video: ReadyVideo) -> None:
        try:
            await self._try(video)
        except LedgerError as error:
            self._context.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)
        except BaseException as error:
            if is_cancellation(error):
                raise
            self._context.firewall.failed(STEP, video.request_id, error)
            with suppress(DopError):
                await self._failed(video, TransientFailure(reason=error_words(error)))

    def _try_later(self, video: ReadyVideo, wait_s: float) -> None:
        def due() -> None:
            self._delayed.discard(alarm)
            self._due.append(video)
            self._news.set()

        alarm = asyncio.get_running_loop().call_later(wait_s, due)
        self._delayed.add(alarm)

    async def _try(self, video: ReadyVideo) -> None:
        """One download of one video."""
        context, target = self._context, self._target(video)
        # What an earlier run fetched and could not publish is still in the folder: it is not fetched a second time.
        if self._publisher is not None and video.tries == 0:
            staged = await self._publisher.find_staged(target)
            if staged is not None:
                await self._saved(video, target, staged)
                return
        # A failed request, whose job was called done without a video.
        if not video.video_url and not await find_link(context, video):
            return
        video.tries += 1
        context.fail_point("before-download")
        outcome = await self._fetcher.fetch(video.video_url, target)
        context.fail_point("after-download")
        match outcome:
            case Saved():
                self._context.firewall.passed(STEP)
                await self._saved(video, target, outcome)
            case DiskFull():
                self._disk_full(outcome)
                await self._give_up(video, outcome.reason)
            case LinkExpired():
                await self._dead(video, outcome)
            case Unacceptable() | TransientFailure():
                await self._failed(video, outcome)

    def _target(self, video: ReadyVideo) -> Path:
        """Where the video goes: where it was before, if it was saved once."""
        # A path that leads out of the outputs folder is not followed, whatever the ledger holds.
        if video.local_path is None or ".." in PurePosixPath(video.local_path).parts:
            return self._folder / self._name_of(video)
        target = self._outputs / video.local_path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    async def _dead(self, video: ReadyVideo, gone: LinkExpired) -> None:
        """The link gives no video: it is renewed and tried again; without success the video is expired or given up."""
        video.dead += 1
        if video.was_expired:
            await self._ask_again(video, gone)
        elif video.dead >= DEAD_LINK_TRIES and video.link_is_newest:
            await self._expire(video, f"{STILL_DEAD} ({gone.status}) and a fresh poll gave no living one")
        elif video.dead >= DEAD_LINK_TRIES:
            await self._give_up(video, f"its link is dead ({gone.status}), and no poll gave another one")
        else:
            old = video.video_url
            video.link_is_newest = await renew_link(self._context, video)
            # A signed link that ended is replaced by a living one; a second new link that is dead is given time.
            at_once = video.dead == 1 and video.video_url != old
            self._try_later(video, 0.0 if at_once else FIRST_PAUSE_S * 2 ** (video.dead - 1))

    async def _ask_again(self, video: ReadyVideo, gone: LinkExpired) -> None:
        """An expired video: it is tried again where one free poll names another link."""
        old = video.video_url
        if video.dead == 1:
            video.link_is_newest = await renew_link(self._context, video)
            if video.video_url != old:
                self._try_later(video, 0.0)
                return
        if video.link_is_newest:
            values = {"reason": f"{STILL_DEAD} ({gone.status}): asked again, and no poll gave a living one"}
            await self._context.recorder.record(video.request_id, Event.NOTE, values)
        else:
            self._context.notify(f"{video.row_id}: paid, its link is dead, and no poll was answered; run again to ask")

    async def _failed(self, video: ReadyVideo, outcome: Unacceptable | TransientFailure) -> None:
        """Not this time: the video waits for its next try without holding a place, or is given up in this run."""
        if video.tries >= TRIES:
            if isinstance(outcome, Unacceptable) and is_link_hopeless(self._context, video):
                await self._expire(video, f"{STILL_DEAD} (it gives no video: {outcome.reason})")
            else:
                await self._give_up(video, outcome.reason)
            return
        given_s = outcome.wait_s if isinstance(outcome, TransientFailure) else None
        backoff_s = FIRST_PAUSE_S * 2 ** (video.tries - 1)
        # These bytes would come again from this link; a newer one may name the video.
        if isinstance(outcome, Unacceptable):
            video.link_is_newest = await renew_link(self._context, video)
        self._try_later(video, min(given_s or backoff_s, MAX_PAUSE_S))

    async def _expire(self, video: ReadyVideo, reason: str) -> None:
        event = Event.NOTE if video.was_expired else Event.EXPIRE
        await self._context.recorder.record(video.request_id, event, {"reason": reason})
        self._context.notify(f"{video.row_id}: paid, but {reason}; `dop collect RUN` asks again, free of charge")

    async def _saved(self, video: ReadyVideo, target: Path, saved: Saved) -> None:
        # Published before it is recorded: after a crash in between the same bytes are published again, which does no
        # harm. The other order could leave a row `done` whose video is nowhere.
        problem = await self._publisher.publish_video(target, saved) if self._publisher is not None else ""
        if problem:
            text = f"videos can't be put into the store ({problem}); they are kept here: run again when it is back"
            self._context.stop.request(text, exit_code=ExitCode.UNFINISHED, reach=StopScope.SUBMITS)
            await self._give_up(video, problem)
            return
        self._context.fail_point("after-landing")
        await self._context.recorder.record(
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

    async def _give_up(self, video: ReadyVideo, reason: str) -> None:
        with suppress(DopError):
            await self._context.recorder.record(video.request_id, Event.NOTE, {"reason": f"{GIVEN_UP}{reason}"})
        self._context.notify(f"{video.row_id}: the video could not be fetched ({reason}); run again to fetch it")

    def _disk_full(self, outcome: DiskFull) -> None:
        self._context.stop.request(
            f"videos can't be written ({outcome.reason}); {outcome.remedy}",
            exit_code=ExitCode.UNFINISHED,
            reach=StopScope.SUBMITS,
        )
