"""A batch far too large to wait for: the program's own buying and looking in virtual time, against an exact limiter.

    python -m benchmarks.million --jobs 1000000 --rate 600/1m --outage 1800
    python -m benchmarks.million --jobs 100000 --rate none --generation 7200-14400 --ledger file

Real: Submitter, Poller, PollSchedule, AdaptiveRateLimiter, RateGate, CircuitBreaker, EventRecorder, the classification
of responses, the changes of rows, the JSON of both sides, and the event loop's scheduling. Not real: the clock, the
sockets, and the disk (`--ledger file` takes the real ledger as well, in a file). Everything random comes from one
seeded generator.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import random
import resource
import selectors
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from benchmarks.simulation import Bucket, Limiter, Open
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.job_status import JobStatusReport
from pipeline.gateway.kinds.interface import Call
from pipeline.gateway.kinds.pixazo import SUBMIT_PATH, Pixazo
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, parse_rate
from pipeline.gateway.responses import Response, SendProof
from pipeline.ledger.budget import NO_CAPS
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.run_registry import Run
from pipeline.ledger.schema import MUTABLE
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.transitions import ChangeResult, LedgerChange, Row, SpendAccumulator, apply_change
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Attempt, Params, Request, State, Totals
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.context import ReadyVideo, RunContext
from pipeline.runner.events import EventSink, JobAccepted, OutcomeUnknown
from pipeline.runner.firewall import Firewall
from pipeline.runner.job_recovery import JobRecovery
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.poller import Poller
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.reachability import Reachability
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.stop import StopSignal
from pipeline.runner.submit_body import SubmitCallBuilder
from pipeline.runner.submit_decisions import SubmitEndpoint
from pipeline.runner.submit_permits import SubmitPermits
from pipeline.runner.submitter import Submitter

GATEWAY, RUN = "https://gateway.example", "million"
BEGIN = 1_790_000_000.0
"""Unix seconds of virtual time 0."""
MODEL, PRICE_MICROUSD, MOTION = "dop-lite", 135_000, "31177282-bde3-4870-b283-1135ca0a201a"
OVER = frozenset({State.DONE, State.FAILED, State.REFUSED, State.CANCELED, State.REJECTED, State.UNKNOWN})
DEADLINE_S = 21_600.0
TICK_S = 1e-5
HTML = b"<html>502 Bad Gateway</html>"


class _Clockwork(selectors.DefaultSelector):
    """Waits for nothing: time jumps to the next event."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Lets `timeout` pass at once; nothing to wait for is a mistake of the scenario."""
        if timeout is None:
            raise RuntimeError("everybody waits and nothing will happen")
        if timeout > 0:
            self.now += max(timeout, 1e-6)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop without sockets whose clock jumps from timer to timer."""

    def __init__(self) -> None:
        self._clockwork = _Clockwork()
        super().__init__(self._clockwork)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._clockwork.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Never sooner than a tick from now: this clock does not advance between two equal times."""
        return super().call_at(max(when, self.time() + TICK_S), callback, *args, context=context)


@dataclass(kw_only=True)
class Scenario:
    """What is asked for."""

    jobs: int
    rate: str = "600/1m"
    generation_s: tuple[float, float] = (40.0, 600.0)
    outage_s: float = 0.0
    latency_s: float = 0.2
    shared: bool = False
    configured: bool = False
    lag_s: float | None = None
    ledger: str = "memory"
    seed: int = 1

    def limiter(self) -> Limiter:
        """The submits' limiter: a bucket that holds one span's calls."""
        rate = parse_rate(self.rate) if self.rate != "none" else None
        return Open() if rate is None else Bucket(rate.count / rate.per_s, rate.count)

    @property
    def outage(self) -> tuple[float, float]:
        """From when to when nothing is answered but 502: in the middle of the ideal run."""
        rate = parse_rate(self.rate) if self.rate != "none" else None
        middle_s = 0.0 if rate is None else self.jobs * (1 + self.shared) * rate.per_s / rate.count / 2
        return (middle_s, middle_s + self.outage_s) if self.outage_s else (math.inf, math.inf)

    def durations(self) -> list[float]:
        """Generation times, even on a logarithmic scale."""
        rng, (least, most) = random.Random(self.seed), self.generation_s
        return [least * (most / least) ** rng.random() for _ in range(self.jobs)]


class Gateway:
    """The other side: a limiter, jobs that take their time, and an outage. Takes the place of `GatewayClient`."""

    def __init__(self, scenario: Scenario) -> None:
        self._limiter = scenario.limiter()
        self._polls_limiter = self._limiter if scenario.shared else Open()
        self._outage = scenario.outage
        self._rng, self._latency_s = random.Random(scenario.seed + 1), scenario.latency_s
        self._durations = iter(scenario.durations())
        self._ends_at: dict[str, float] = {}
        self.submits = self.refused = self.polls = self.polls_refused = self.while_away = 0
        self.lag_s = 0.0

    async def submit(self, call: Call, *, proof: SendProof | None = None) -> Response:
        """Accepts a job where the limiter lets it in; nothing is charged while the gateway is away."""
        if proof is not None:
            proof.sent = True
        now = await self._arrived()
        self.submits += 1
        if self._is_away(now):
            return Response(status=502, body=HTML)
        if self._limiter.admit(now) > 0:
            self.refused += 1
            return Response(status=429, body=b'{"detail": "Too Many Requests"}')
        job = f"job-{self.submits:09d}"
        self._ends_at[job] = now + next(self._durations)
        return Response(status=200, body=b'{"job_set_id": "%s", "type": "image2video"}' % job.encode())

    async def poll(self, job_set_id: str, *_: object) -> Response:
        """The job's state; a finished one is forgotten."""
        now = await self._arrived()
        self.polls += 1
        if self._is_away(now):
            return Response(status=502, body=HTML)
        if self._polls_limiter.admit(now) > 0:
            self.polls_refused += 1
            return Response(status=429, body=b'{"detail": "Too Many Requests"}')
        job = job_set_id.encode()
        if now < self._ends_at[job_set_id]:
            return Response(status=200, body=b'{"job_set_id": "%s", "jobs": [{"status": "in_progress"}]}' % job)
        self.lag_s += now - self._ends_at.pop(job_set_id)
        video = b'{"raw": {"url": "https://cdn.example/%s.mp4"}}' % job
        return Response(status=200, body=b'{"jobs": [{"status": "completed", "results": %s}]}' % video)

    def video_address(self, report: JobStatusReport) -> str | None:
        """The address of a finished job's clip; this gateway writes it whole."""
        return report.video_url

    async def _arrived(self) -> float:
        await asyncio.sleep(self._latency_s * self._rng.lognormvariate(0, 0.2))
        return asyncio.get_running_loop().time()

    def _is_away(self, now: float) -> bool:
        away = self._outage[0] <= now < self._outage[1]
        self.while_away += away
        return away


def params_of(number: int) -> Params:
    """What the `number`-th row buys."""
    return Params(
        model=MODEL,
        prompt="A serene lake with gentle ripples",
        seed=number % 1_000_000 + 1,
        motions_id=MOTION,
        strength_hundredths=70,
        input_images=("https://example.com/images/lake-scene.jpg",),
        enhance_prompt=False,
    )


def attempt_of(number: int) -> Attempt:
    """The `number`-th row, planned."""
    return Attempt(
        request_id=f"{number:032x}",
        attempt=1,
        gateway=GATEWAY,
        run_id=RUN,
        row_id=f"row-{number}",
        tags=(),
        axes=(),
        params=params_of(number),
        motion="General",
        take=1,
        price_microusd=PRICE_MICROUSD,
        state=State.PLANNED,
    )


class MemoryLedger:
    """The judge of the real ledger on rows in memory; what is over is forgotten, so that the run itself is measured."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._owners: dict[str, str] = {}
        self.recorded = 0

    async def apply(self, change: LedgerChange) -> ChangeResult:
        """Books one change, as the ledger does."""
        row = self._rows.get(change.request_id) or _planned_row(change.request_id)
        outcome = apply_change(
            row, change, money=SpendAccumulator(lambda *_: 0), job_owner=lambda _, job: self._owners.get(job)
        )
        self.recorded += 1
        self._rows[change.request_id] = row
        job = cast("str | None", row["job_set_id"])
        if job is not None:
            self._owners[job] = change.request_id
        if row["state"] in OVER:
            del self._rows[change.request_id]
            self._owners.pop(job or "", None)
        return outcome


def _planned_row(request_id: str) -> Row:
    known = {"request_id": request_id, "attempt": 1, "gateway": GATEWAY, "run_id": RUN, "model": MODEL}
    numbers = {"price_microusd": PRICE_MICROUSD, "submit_attempts": 0, "throttled": 0, "polls": 0, "resends": 0}
    return dict.fromkeys(MUTABLE) | known | numbers | {"state": State.PLANNED, "superseded": 0}


@dataclass(kw_only=True)
class Outcomes:
    """What came of it."""

    ended_s: float = 0.0
    first_s: float = math.inf
    done: int = 0
    lost: int = 0
    most_in_flight: int = 0
    said: list[str] = field(default_factory=list)


class BatchRun:
    """One run: the steps as `pipeline.run` puts them together, with the gateway above at the other end."""

    def __init__(self, scenario: Scenario, ledger: LedgerWriter) -> None:
        self.scenario, self.outcomes = scenario, Outcomes()
        self.gateway = Gateway(scenario)
        rate = parse_rate(scenario.rate) if scenario.configured else None
        self.pace = AdaptiveRateLimiter(rate=rate, shared=True if scenario.shared and scenario.configured else None)
        self.plan = PollSchedule(first_s=15, min_s=3, max_s=60, deadline_s=DEADLINE_S, max_lag_s=scenario.lag_s)
        self.halt = StopSignal()
        events = EventSink()
        events.subscribe(JobAccepted, self._accepted)
        events.subscribe(OutcomeUnknown, self._unknown)
        self._tokens = 0
        recorder = EventRecorder(
            ledger, run_id=RUN, caps=NO_CAPS, totals=Totals(), wall=wall, reach=lambda name: None, events=events
        )
        kind = Pixazo()
        context = RunContext(
            recorder=recorder,
            client=cast(GatewayClient, self.gateway),
            gate=RateGate(self.pace, self.halt),
            stop=self.halt,
            prices_microusd={MODEL: PRICE_MICROUSD},
            unix_time=wall,
            new_token=self._token,
            kind=kind,
            calls=SubmitCallBuilder(kind),
            events=events,
            firewall=Firewall(recorder, self.halt, self.outcomes.said.append),
            fail_point=lambda name: None,
            notify=self.outcomes.said.append,
            reachability=Reachability("gateway", self.halt, self.outcomes.said.append),
            log=_silent(),
        )
        breaker = CircuitBreaker()
        self._ready = context.ready
        self.poller = Poller(context, self.plan, breaker)
        permits = SubmitPermits(context, breaker, can_poll=lambda: len(self.poller) > 0, known_job=lambda: None)
        self.submitter = Submitter(
            context,
            planned(scenario.jobs),
            permits=permits,
            endpoint=SubmitEndpoint(SUBMIT_PATH, kind.submit_paths),
            recovery=JobRecovery(context),
            workers=16,
        )

    async def carry_out(self) -> Outcomes:
        """From the first submit to the last finished video."""
        downloads = asyncio.create_task(self._download())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._buy())
            group.create_task(self.poller.run())
        while not self._ready.empty():
            self._finished(self._ready.get_nowait())
        downloads.cancel()
        return self.outcomes

    async def _download(self) -> None:
        while True:
            self._finished(await self._ready.get())

    async def _buy(self) -> None:
        await self.submitter.run()
        self.poller.close_input()

    def _token(self) -> str:
        self._tokens += 1
        return f"{self._tokens:032x}"

    def _accepted(self, _: JobAccepted) -> None:
        self.outcomes.most_in_flight = max(self.outcomes.most_in_flight, len(self.poller))

    def _finished(self, video: ReadyVideo) -> None:
        now = asyncio.get_running_loop().time()
        self.outcomes.first_s, self.outcomes.ended_s = min(self.outcomes.first_s, now), now
        self.outcomes.done += 1
        if self.outcomes.done % 50_000 == 0:
            print(f"  {self.outcomes.done:>9,} done at {now / 3600:7.2f} h", file=sys.stderr, flush=True)

    def _unknown(self, _: OutcomeUnknown) -> None:
        self.outcomes.lost += 1


async def planned(count: int) -> AsyncIterator[Attempt]:
    """All rows, one after another."""
    for number in range(count):
        yield attempt_of(number)


def wall() -> float:
    """Unix seconds of the virtual clock."""
    return BEGIN + asyncio.get_running_loop().time()


def _silent() -> logging.Logger:
    log = logging.getLogger("benchmarks.million")
    log.setLevel(logging.CRITICAL)
    return log


def bound_s(scenario: Scenario) -> float:
    """When the last job can be over at best: each submitted as soon as the limiter allows."""
    limiter, (away_from, away_to) = scenario.limiter(), scenario.outage
    now = longest_s = 0.0
    for duration_s in scenario.durations():
        now = away_to if away_from <= now < away_to else now
        while (wait_s := limiter.admit(now)) > 0:
            now += max(wait_s, 1e-9)
        ends_s = now + duration_s
        longest_s = max(longest_s, away_to if away_from <= ends_s < away_to else ends_s)
    for _ in range(scenario.jobs if scenario.shared else 0):
        while (wait_s := limiter.admit(now)) > 0:
            now += max(wait_s, 1e-9)
    return max(longest_s, now)


def memory_mb() -> float:
    """The most memory this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def open_ledger(scenario: Scenario, folder: Path) -> LedgerWriter:
    """The real ledger with all rows listed, or the one in memory."""
    if scenario.ledger == "memory":
        return cast(LedgerWriter, MemoryLedger())
    ledger = SqliteLedger(folder / "ledger.sqlite", inline=True)
    ledger.ready_to_spend()
    queries = LedgerQueries(ledger)
    run = Run(
        run_id=RUN,
        name=RUN,
        gateway=GATEWAY,
        manifest_path="/nowhere/million.csv",
        rows_digest=None,
        started_at=BEGIN,
        ended_at=None,
        sheet=None,
    )
    rows = (_request(number) for number in range(scenario.jobs))
    queries.sync_rows(RUN, rows, rows_digest="digest", new=run)
    return ledger


def _request(number: int) -> Request:
    row = attempt_of(number)
    return Request(
        request_id=row.request_id,
        gateway=GATEWAY,
        row_id=row.row_id,
        params=row.params,
        motion=row.motion,
        take=1,
        price_microusd=PRICE_MICROUSD,
    )


def measure(scenario: Scenario) -> str:
    """Carries the scenario out and tells what happened, a line each."""
    before_mb, began_s = memory_mb(), time.process_time()
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(scenario, Path(folder))

        async def story() -> BatchRun:
            run = BatchRun(scenario, ledger)
            await run.carry_out()
            return run

        run = loop.run_until_complete(story())
        loop.close()
    return result_lines(scenario, run, began_mb=before_mb, cpu_s=time.process_time() - began_s)


def result_lines(scenario: Scenario, run: BatchRun, *, began_mb: float, cpu_s: float) -> str:
    """The lines."""
    peak_mb = memory_mb()
    got, side, bound = run.outcomes, run.gateway, bound_s(scenario)
    jobs = scenario.jobs
    return "\n".join(
        (
            f"jobs {jobs:,}, limit {scenario.rate}, generation {scenario.generation_s[0]:.0f} to "
            f"{scenario.generation_s[1]:.0f} s, outage {scenario.outage_s:.0f} s, ledger {scenario.ledger}",
            f"done {got.done:,}, outcome unknown {got.lost}, stopped: {[r.text for r in run.halt.reasons] or 'no'}",
            f"makespan {got.ended_s / 3600:.3f} h, lower bound {bound / 3600:.3f} h, ratio {got.ended_s / bound:.4f}",
            f"first video after {got.first_s:.0f} s; noticed {side.lag_s / max(got.done, 1):.0f} s late on average",
            f"submits {side.submits:,}, of them refused {side.refused:,}",
            f"polls {side.polls:,} ({side.polls / jobs:.3f} a job), of them refused {side.polls_refused:,}; "
            f"calls while away {side.while_away:,}",
            f"most in flight {got.most_in_flight:,}",
            f"memory at the start {began_mb:.0f} MB, at most {peak_mb:.0f} MB; processor {cpu_s:.0f} s, "
            f"{cpu_s / jobs * 1e6:.0f} microseconds a job",
        )
    )


def _scenario(argv: list[str] | None) -> Scenario:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rate", default="600/1m", help="the gateway's limit, or none")
    parser.add_argument("--generation", default="40-600", help="seconds, from-to")
    parser.add_argument("--outage", type=float, default=0.0, help="seconds without the gateway, in the middle")
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--shared", action="store_true", help="polls use the submits' limit")
    parser.add_argument("--configured", action="store_true", help="configure the limit instead of finding it")
    parser.add_argument("--lag", type=float, default=None, help="poll.max_lag_s")
    parser.add_argument("--ledger", choices=("memory", "file"), default="memory")
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args(argv)
    least, most = said.generation.split("-")
    return Scenario(
        jobs=said.jobs,
        rate=said.rate,
        generation_s=(float(least), float(most)),
        outage_s=said.outage,
        latency_s=said.latency,
        shared=said.shared,
        configured=said.configured,
        lag_s=said.lag,
        ledger=said.ledger,
        seed=said.seed,
    )


if __name__ == "__main__":
    print(measure(_scenario(None)))
