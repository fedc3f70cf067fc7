"""A paid video whose link is dead for a while is fetched; only a link that stays dead makes it `expired`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.gateway.download_outcomes import DownloadOutcome, LinkExpired, Saved, Unacceptable
from pipeline.gateway.job_status import JobStatusReport
from pipeline.gateway.kinds.pixazo import Pixazo
from pipeline.gateway.responses import Response
from pipeline.ledger.states import Event
from pipeline.runner.context import ReadyVideo, RunContext
from pipeline.runner.downloader import Downloader
from tests.support.virtual_time import in_virtual_time

SAVED = Saved(size_bytes=9, sha256="ab", content_type="video/mp4")
GONE, PAGE = LinkExpired(status=404), Unacceptable(reason="not a video")
DONE = (200, b'{"job_set_id": "job", "status": "completed", "video_url": "https://cdn.example.com/2.mp4"}')
ERROR, LOST = (502, b"<html>"), (404, b'{"error": "Endpoint not found"}')


@dataclass(slots=True, kw_only=True)
class World:
    """A gateway and a store that give these answers in turn, the last one for ever; what was recorded and asked."""

    files: list[DownloadOutcome]
    polls: list[tuple[int, bytes]]
    events: list[Event] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    asked: int = 0

    async def record(self, _request_id: str, event: Event, _values: object) -> None:
        self.events.append(event)

    async def fetch(self, url: str, _target: Path) -> DownloadOutcome:
        self.urls.append(url)
        return self.files.pop(0) if len(self.files) > 1 else self.files[0]

    async def poll(self, _job: str, _polling_url: str | None, style: str) -> Response:
        self.styles.append(style)
        status, body = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
        return Response(status=status, headers={}, body=body)

    def video_address(self, report: JobStatusReport) -> str | None:
        return report.video_url

    async def slot(self, _kind: object) -> object:
        return object()

    def context(self) -> RunContext:
        nothing: Any = lambda *_, **__: None  # noqa: E731
        return cast(
            RunContext,
            SimpleNamespace(
                recorder=self,
                client=self,
                kind=Pixazo(),
                gate=SimpleNamespace(slot=self.slot, sent=nothing, answered=nothing),
                stop=SimpleNamespace(all=False, subscribe=nothing),
                firewall=SimpleNamespace(passed=nothing, failed=nothing),
                ready=asyncio.Queue(),
                fail_point=nothing,
                notify=nothing,
                unix_time=lambda: 0.0,
            ),
        )


def fetched(
    monkeypatch: pytest.MonkeyPatch,
    files: Sequence[DownloadOutcome],
    polls: Sequence[Any],
    *,
    was_expired: bool = False,
) -> World:
    """What becomes of one video whose link is https://cdn.example.com/1.mp4."""

    async def story() -> World:
        world = World(files=list(files), polls=list(polls))
        context = world.context()
        downloader = Downloader(context, cast(Any, world), folder=Path("videos"), outputs=Path(), concurrency=1)
        video = ReadyVideo(
            request_id="a" * 32,
            row_id="cat",
            take=1,
            job_set_id="job",
            polling_url=None,
            video_url="https://cdn.example.com/1.mp4",
            was_expired=was_expired,
        )
        context.ready.put_nowait(video)
        downloader.close_input()
        await downloader.run()
        return world

    return in_virtual_time(monkeypatch, story)


def test_a_new_link_is_tried_at_once_and_a_dead_one_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = fetched(monkeypatch, [GONE, GONE, GONE, SAVED], [DONE])
    assert world.events == [Event.SAVE]
    assert len(world.styles) == 3
    assert world.urls == ["https://cdn.example.com/1.mp4", *["https://cdn.example.com/2.mp4"] * 3]


@pytest.mark.parametrize("polls", [[DONE], [LOST], [ERROR, ERROR, ERROR, DONE]])
def test_a_link_that_stays_dead_although_the_gateway_answers_expires(
    monkeypatch: pytest.MonkeyPatch, polls: list[tuple[int, bytes]]
) -> None:
    assert fetched(monkeypatch, [GONE], polls).events == [Event.EXPIRE]


@pytest.mark.parametrize("polls", [[ERROR], [DONE, DONE, DONE, ERROR], [(429, b"{}")], [(401, b"{}")]])
def test_without_a_clear_answer_of_the_gateway_nothing_expires(
    monkeypatch: pytest.MonkeyPatch, polls: list[tuple[int, bytes]]
) -> None:
    """`expired` says that the gateway was asked, and the row is not tried again in this run."""
    assert fetched(monkeypatch, [GONE], polls).events == [Event.NOTE]


def test_a_web_page_before_it_uses_up_no_chance_of_a_new_link(monkeypatch: pytest.MonkeyPatch) -> None:
    world = fetched(monkeypatch, [PAGE, GONE, SAVED], [DONE])
    assert world.events == [Event.SAVE]
    assert len(world.styles) == 2


def test_a_404_is_asked_again_in_the_other_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    world = fetched(monkeypatch, [GONE, SAVED], [LOST, DONE])
    assert world.events == [Event.SAVE]
    assert world.styles == ["auto", "queue"]
    assert world.urls[-1] == "https://cdn.example.com/2.mp4"


def test_an_expired_video_is_fetched_where_one_poll_names_a_living_link(monkeypatch: pytest.MonkeyPatch) -> None:
    world = fetched(monkeypatch, [GONE, SAVED], [DONE], was_expired=True)
    assert world.events == [Event.SAVE]
    assert len(world.styles) == 1


def test_a_link_that_lives_again_needs_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    world = fetched(monkeypatch, [SAVED], [DONE], was_expired=True)
    assert (world.events, world.styles) == ([Event.SAVE], [])


@pytest.mark.parametrize(("polls", "events"), [([DONE], [Event.NOTE]), ([LOST], [Event.NOTE]), ([ERROR], [])])
def test_an_expired_video_is_asked_for_once_and_stays_expired(
    monkeypatch: pytest.MonkeyPatch, polls: list[tuple[int, bytes]], events: list[Event]
) -> None:
    """A note says that the gateway was asked: without one `dop retry` does not buy it again."""
    world = fetched(monkeypatch, [GONE], polls, was_expired=True)
    assert world.events == events
    assert len(world.urls) <= 2
