"""The whole pipeline through storms and outages, hours of waiting in seconds, and twice the same."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from pipeline.ledger.budget import Caps
from pipeline.records import State
from pipeline.sandbox import Sandbox, SandboxSettings
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import money
from tests.support.virtual_time import KEY, Story, carried, in_virtual_time, ledger_for, wall, wanted

pytestmark = pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")

HOUR_S = 3600.0
SUBMIT, POLL = "/ai-model-api/v1/generateImageToVideoRequest", "/ai-model-api-polling/getGenerationResults"


def check_books(story: Story, charged: Counter[int]) -> None:
    """Nothing paid twice, nothing paid and forgotten: `charged` counts the gateway's charges by seed."""
    queries = story.queries
    assert max(charged.values(), default=0) <= 1, "paid twice"
    states = {
        attempt.params.seed: attempt.state for attempt in queries.attempts_in(queries.runs()[0].run_id, tuple(State))
    }
    forgotten = {seed for seed in charged if states[seed] in (State.PLANNED, State.REJECTED, State.SUBMITTING)}
    assert forgotten == set()
    assert sum(money(queries).values()) >= sum(charged.values()) * LITE_MICROUSD
    assert queries.ledger.problems() == []


@dataclass(frozen=True, slots=True, kw_only=True)
class StormResult:
    """What is left of a story: every event with its time, counts by state, and how long it took."""

    trace: list[tuple[object, ...]]
    counts: Counter[str]
    elapsed_s: float


async def storm(folder: Path, rows: int, seed: str) -> StormResult:
    """A run of `rows` through the sandbox's storm `seed`."""
    settings = SandboxSettings(
        data_dir=folder / "sandbox", key=KEY, inline=True, one_clip=True, size="180p", generation_s=40.0, chaos=seed
    )
    sandbox = Sandbox(settings, now=wall)
    base_url = await sandbox.start()
    try:
        with ledger_for(folder, base_url, **{"on_unknown.max": "300"}) as workspace:
            story = await carried(workspace, wanted(workspace, rows))
            for _ in range(6):  # the same command again, as a user would
                if not story.result.totals.count(State.PLANNED):
                    break
                await asyncio.sleep(600)
                story = await carried(workspace, [])
            check_books(story, Counter(int(str(job.body["seed"])) for job in sandbox._books.jobs.values()))
            counts = Counter({state.value: count for state, count in story.result.totals.counts.items()})
            return StormResult(trace=story.trace, counts=counts, elapsed_s=asyncio.get_running_loop().time())
    finally:
        await sandbox.close()


def through_a_storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, seed: str) -> None:
    """Twice, and the second time is like the first."""
    results: list[StormResult] = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        results.append(in_virtual_time(monkeypatch, partial(storm, folder, rows, seed)))
        shutil.rmtree(folder)
    counts = results[0].counts
    assert sum(counts.values()) == rows
    assert counts["planned"] == counts["submitting"] == counts["accepted"] == 0
    assert counts["done"] > rows * 0.5
    assert counts["unknown"] > 0
    assert results[0].elapsed_s > 600
    assert results[0].trace == results[1].trace


@pytest.mark.long
def test_thirty_rows_through_a_storm_are_bought_once_each_and_twice_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through_a_storm(tmp_path, monkeypatch, rows=30, seed="7")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", ["1"])
def test_three_hundred_rows_through_a_storm_are_bought_once_each_and_twice_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: str
) -> None:
    through_a_storm(tmp_path, monkeypatch, rows=300, seed=seed)


# --- a gateway that is away for an hour


class Outage:
    """A gateway that answers with 502 (or takes no connection) for a while, and books what it accepted."""

    def __init__(
        self, *, begins_s: float, lasts_s: float, books_while_away: bool = False, generation_s: float = 0.0
    ) -> None:
        self.begins_s, self.ends_s, self.generation_s = begins_s, begins_s + lasts_s, generation_s
        self.ready_at: dict[str, float] = {}
        self.polls: Counter[str] = Counter()
        self.books_while_away = books_while_away
        self.charged: Counter[int] = Counter()
        self.submits: list[float] = []

    def away(self) -> bool:
        return self.begins_s <= asyncio.get_running_loop().time() < self.ends_s

    async def submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.submits.append(asyncio.get_running_loop().time())
        await asyncio.sleep(2.0)
        if not self.away() or self.books_while_away:
            self.charged[int(body["seed"])] += 1
        if self.away():
            return web.Response(status=502, text="<html>502 Bad Gateway</html>", content_type="text/html")
        job = f"job-{body['seed']}"
        self.ready_at[job] = asyncio.get_running_loop().time() + self.generation_s
        return web.json_response({"job_set_id": job, "type": "image2video"})

    async def poll(self, request: web.Request) -> web.Response:
        if self.away():
            return web.Response(status=502, text="<html>502 Bad Gateway</html>", content_type="text/html")
        job = (await request.json())["job_set_id"]
        self.polls[job] += 1
        if asyncio.get_running_loop().time() < self.ready_at[job]:
            return web.json_response({"job_set_id": job, "jobs": [{"status": "in_progress", "results": None}]})
        video = {"raw": {"url": f"https://cdn.example.com/{job}.mp4"}}
        return web.json_response({"job_set_id": job, "jobs": [{"status": "completed", "results": video}]})

    async def listen(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_post(SUBMIT, self.submit)
        app.router.add_post(POLL, self.poll)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 7001).start()
        return runner, "http://127.0.0.1:7001"


async def sit_out(folder: Path, outage: Outage, rows: int, workers: int) -> tuple[Story, Counter[int]]:
    runner, base_url = await outage.listen()
    results = {"pace.submit_concurrency": str(workers), "download.enabled": "false", "pace.rate": "30/1m"}
    try:
        with ledger_for(folder, base_url, **results) as workspace:
            story = await carried(workspace, wanted(workspace, rows))
            check_books(story, outage.charged)
            return story, outage.charged
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("books_while_away", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_gateway_that_is_down_for_an_hour_costs_three_and_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, books_while_away: bool
) -> None:
    workers = 4
    outage = Outage(begins_s=60.0, lasts_s=HOUR_S, books_while_away=books_while_away)
    story, _ = in_virtual_time(monkeypatch, partial(sit_out, tmp_path, outage, 60, workers))
    counts = story.result.totals.counts
    assert 1 <= counts[State.UNKNOWN] <= 3 + workers
    assert counts[State.UNKNOWN] + counts[State.DONE] == 60, "it continued on its own"
    during = [at for at in outage.submits if outage.begins_s + 2 <= at < outage.ends_s]
    assert len(during) <= 3 + workers
    assert story.elapsed_s > HOUR_S


async def vanish(folder: Path, workers: int) -> tuple[Story, Counter[int]]:
    """The gateway's machine is switched off for an hour: nothing takes a connection."""
    outage = Outage(begins_s=10**9, lasts_s=1, books_while_away=False)
    runner, base_url = await outage.listen()

    async def switch_off() -> None:
        nonlocal runner
        await asyncio.sleep(60)
        await runner.cleanup()
        await asyncio.sleep(HOUR_S)
        runner, _ = await outage.listen()

    results = {"pace.submit_concurrency": str(workers), "download.enabled": "false", "pace.rate": "30/1m"}
    switching = asyncio.create_task(switch_off())
    try:
        with ledger_for(folder, base_url, **results) as workspace:
            story = await carried(workspace, wanted(workspace, 60))
            check_books(story, outage.charged)
            return story, outage.charged
    finally:
        await switching
        await runner.cleanup()


def test_a_machine_that_is_off_for_an_hour_costs_only_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = 4
    story, charged = in_virtual_time(monkeypatch, partial(vanish, tmp_path, workers))
    counts = story.result.totals.counts
    assert counts.get(State.UNKNOWN, 0) <= workers
    assert counts.get(State.UNKNOWN, 0) + counts[State.DONE] == 60
    assert sum(charged.values()) >= counts[State.DONE]
    assert story.elapsed_s > HOUR_S


# --- a cap that is full only until an answer comes


class SlowToRefuse(Outage):
    """Takes half a minute to refuse the first seed, free of charge; the others are taken at once."""

    async def submit(self, request: web.Request) -> web.Response:
        if (await request.json())["seed"] == 1:
            await asyncio.sleep(30.0)
            return web.json_response({"detail": "bad image"}, status=422)
        return await super().submit(request)


def test_money_that_comes_back_while_the_cap_is_full_buys_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def capped() -> tuple[Story, Outage]:
        gateway = SlowToRefuse(begins_s=10**9, lasts_s=1)
        runner, base_url = await gateway.listen()
        try:
            results = {"pace.rate": "60/1m", "download.enabled": "false"}
            with ledger_for(tmp_path, base_url, **results) as workspace:
                cap = Caps(run_microusd=2 * LITE_MICROUSD)
                return await carried(workspace, wanted(workspace, 4), caps=cap), gateway
        finally:
            await runner.cleanup()

    story, gateway = in_virtual_time(monkeypatch, capped)
    assert +Counter(story.result.totals.counts) == {State.REJECTED: 1, State.DONE: 2, State.PLANNED: 1}
    assert gateway.charged == {2: 1, 3: 1}
    assert [reason.exit_code for reason in story.result.reasons] == [8]


# --- a clock that jumps: set by hand or by NTP, or a machine that slept


async def jolted(folder: Path, jump_s: float, at_s: float) -> tuple[Story, Outage]:
    """Thirty rows in a minute; the machine's clock jumps while some are being made and some are not yet sent."""
    gateway = Outage(begins_s=10**9, lasts_s=1, generation_s=45.0)

    def clock() -> float:
        return wall() + (jump_s if asyncio.get_running_loop().time() >= at_s else 0.0)

    runner, base_url = await gateway.listen()
    try:
        with ledger_for(folder, base_url, **{"download.enabled": "false", "pace.rate": "30/1m"}) as workspace:
            story = await carried(workspace, wanted(workspace, 30), clock=clock)
            check_books(story, gateway.charged)
            return story, gateway
    finally:
        await runner.cleanup()


def test_a_clock_that_jumps_in_a_run_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for jump_s in (0.0, -86_400.0, 400 * 86_400.0):
        folder = tmp_path / str(jump_s)
        folder.mkdir()
        results.append(in_virtual_time(monkeypatch, partial(jolted, folder, jump_s, 30.0)))
    (calm, undisturbed), *jumped = results
    assert +Counter(calm.result.totals.counts) == {State.DONE: 30}
    for story, gateway in jumped:
        assert (story.result.totals.counts, gateway.polls) == (calm.result.totals.counts, undisturbed.polls)
        assert story.elapsed_s == calm.elapsed_s


def test_jobs_found_long_past_their_deadline_are_asked_once_more_before_they_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slept() -> tuple[Story, Story]:
        gateway = Outage(begins_s=10**9, lasts_s=1, generation_s=45.0)
        runner, base_url = await gateway.listen()
        try:
            with ledger_for(tmp_path, base_url, **{"download.enabled": "false"}) as workspace:
                before = await carried(workspace, wanted(workspace, 5), max_duration_s=20.0)
                await asyncio.sleep(HOUR_S)
                return before, await carried(workspace, [], clock=lambda: wall() + 30 * HOUR_S)
        finally:
            await runner.cleanup()

    before, after = in_virtual_time(monkeypatch, slept)
    assert +Counter(before.result.totals.counts) == {State.ACCEPTED: 5}
    assert +Counter(after.result.totals.counts) == {State.DONE: 5}


class OnlyTheQueuesAddress:
    """A gateway that names no polling address and answers at the unified queue's only."""

    def __init__(self) -> None:
        self.polls: list[str] = []

    async def submit(self, request: web.Request) -> web.Response:
        return web.json_response({"request_id": f"job-{(await request.json())['seed']}", "status": "queued"})

    async def poll(self, request: web.Request) -> web.Response:
        self.polls.append(request.path)
        job = request.match_info.get("job")
        if job is None:
            return web.json_response({"error": "Resource not found"}, status=404)
        video = {"url": f"https://cdn.example.com/{job}.mp4"}
        return web.json_response({"request_id": job, "status": "completed", "video": video})

    async def listen(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post(SUBMIT, self.submit)
        app.router.add_post(POLL, self.poll)
        app.router.add_get("/v2/requests/status/{job}", self.poll)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 7002).start()
        return runner


async def two_runs(folder: Path, gateway: OnlyTheQueuesAddress) -> list[int]:
    """Polls that went to the wrong address, in a first run and in a second one."""
    runner = await gateway.listen()
    wrong = []
    try:
        with ledger_for(folder, "http://127.0.0.1:7002", **{"download.enabled": "false"}) as workspace:
            rows = wanted(workspace, 6)
            for limit in (3, None):
                gateway.polls.clear()
                await carried(workspace, rows, max_new=limit)
                wrong.append(gateway.polls.count(POLL))
            counts = workspace.queries.totals(workspace.queries.runs()[0].run_id).counts
            assert counts[State.DONE] == 6
    finally:
        await runner.cleanup()
    return wrong


def test_the_way_to_poll_that_answered_is_remembered_from_run_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = in_virtual_time(monkeypatch, partial(two_runs, tmp_path, OnlyTheQueuesAddress()))
    assert first > 0
    assert second == 0
