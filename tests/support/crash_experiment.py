"""The buying protocol against a gateway that lives in memory and keeps its own books, killed wherever one likes.

A kill is a photograph: the ledger's files and the gateway's books are copied at the fail point, what was in flight is
charged as it would have been, and the next run starts from the copy, as after a real `kill -9`. On a server the session
is cut instead, and nothing of the dead run reaches it any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.interface import Call
from pipeline.gateway.kinds.pixazo import Pixazo
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, LearnedLimits, parse_rate
from pipeline.gateway.responses import NoResponse, Response, SendProof
from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.postgres_session import LockMode
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.workspace import recover
from pipeline.ledger.write_queue import QueuedWrite
from pipeline.records import Attempt, State
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.context import RunContext
from pipeline.runner.events import EventSink
from pipeline.runner.firewall import Firewall
from pipeline.runner.job_recovery import JobRecovery
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.reachability import Reachability
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.stop import StopSignal
from pipeline.runner.submit_body import SubmitCallBuilder
from pipeline.runner.submit_decisions import SubmitEndpoint
from pipeline.runner.submit_permits import SubmitPermits
from pipeline.runner.submitter import Submitter
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, RUN, Place, ledger_at, money, requests, start

ANSWER_S = 0.05

FATES = {"accepted": 70, "lost": 8, "error, charged": 4, "error": 4, "not sent": 5, "throttled": 5, "rejected": 4}
"""What becomes of a submit, and how often in a hundred. The first three are charged."""

CHARGED = ("accepted", "lost", "error, charged")
UNCLEAR = ("lost", "error, charged", "error")


Values = Mapping[str, object] | None
"""What an event says of an attempt."""


class SeedAsBody(SubmitCallBuilder):
    """Submits that the gateway in memory understands."""

    def build(self, attempt: Attempt, path: str) -> Call:
        """The seed, in digits."""
        return Call(method="POST", target=path, body=str(attempt.params.seed).encode())


class KilledError(BaseException):
    """The process is gone."""


@dataclass(slots=True)
class MemoryGateway:
    """Decides by seed, request and visit, whatever the order of the calls."""

    seed: str
    fates: dict[str, int] = field(default_factory=lambda: dict(FATES))
    charged: Counter[int] = field(default_factory=Counter)
    visits: Counter[int] = field(default_factory=Counter)
    unclear: set[int] = field(default_factory=set)
    in_flight: list[tuple[int, str]] = field(default_factory=list)

    def fate(self, number: int) -> str:
        share = int(hashlib.sha256(f"{self.seed} {number} {self.visits[number]}".encode()).hexdigest()[:8], 16)
        wanted = share % sum(self.fates.values())
        bounds = itertools.accumulate(self.fates.values())
        return next(name for name, bound in zip(self.fates, bounds, strict=True) if wanted < bound)

    async def submit(self, call: Call, *, proof: SendProof) -> Response | NoResponse:
        number = int(call.body or b"")
        self.visits[number] += 1
        fate = self.fate(number)
        if fate == "not sent":
            return NoResponse(sent=False, what="no connection")
        proof.sent = True
        self.in_flight.append((number, fate))
        await asyncio.sleep(ANSWER_S)
        self.in_flight.remove((number, fate))
        self._charge(number, fate)
        match fate:
            case "accepted":
                job = f"job-{number}-{self.visits[number]}"
                return Response(status=200, body=b'{"job_set_id": "%b"}' % job.encode())
            case "lost":
                return NoResponse(sent=True, what="the connection broke")
            case "throttled":
                return Response(status=429, body=b'{"error": "Rate limit exceeded"}')
            case "rejected":
                return Response(status=422, body=b'{"detail": "bad image"}')
        return Response(status=500, body=b'{"error": "An unexpected error occurred"}')

    def _charge(self, number: int, fate: str) -> None:
        if fate in CHARGED:
            self.charged[number] += 1
        if fate in UNCLEAR:
            self.unclear.add(number)

    def photograph(self) -> MemoryGateway:
        """As it will stand when what is in flight has ended: a killed client does not stop a gateway."""
        copy = MemoryGateway(self.seed, self.fates, Counter(self.charged), Counter(self.visits), set(self.unclear))
        for number, fate in self.in_flight:
            copy._charge(number, fate)
        return copy


@dataclass(slots=True, kw_only=True)
class Protocol:
    """How a run buys. Its parts can be exchanged for broken ones."""

    recorder: type[EventRecorder] = EventRecorder
    submitter: type[Submitter] = Submitter


@dataclass(slots=True, kw_only=True)
class Experiment:
    """Runs until everything is bought, killed once at the visit-th time at `point`; then what is wrong."""

    folder: Path
    gateway: MemoryGateway
    server: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    rows: int = 12
    workers: int = 4
    caps: Caps = NO_CAPS
    point: str | None = None
    visit: int = 1
    kills: int = 0
    kills_in_run: int = 0
    _buying: asyncio.Future[None] | None = None
    say: Callable[[str], None] = lambda text: None
    _runs: int = 0

    async def violations(self) -> list[str]:
        """Every broken promise, in words; empty when the protocol kept them all."""
        path = self.server or self.folder / "0" / "ledger.db"
        for number in range(1, 8):
            try:
                if await self._run(path):
                    break
            except KilledError:
                self.kills += 1
                path = self.server or self.folder / str(number) / "ledger.db"
        sent = sum(self.gateway.visits.values())
        await self._run(path)
        found = self._judged(path)
        if sum(self.gateway.visits.values()) != sent and not self._open(path):
            found.append("an idle run sent something")
        return found

    async def _run(self, path: Place) -> bool:
        """One run; whether nothing is left to buy."""
        ledger = _in_its_place(path)
        ledger.ready_to_spend()
        queries = LedgerQueries(ledger)
        recover(ledger, queries, AT)
        if queries.run(RUN) is None:
            start(queries, requests(self.rows))
        kills, buying = self.kills_in_run, asyncio.ensure_future(self._buy(ledger, queries))
        self._buying = buying
        try:
            await buying
        except BaseException:
            if self.kills_in_run == kills:
                raise
        finally:
            left = queries.totals(RUN).count(State.PLANNED)
            ledger.close()
        if self.kills_in_run > kills:
            raise KilledError
        return left == 0

    async def _buy(self, ledger: SqliteLedger | PostgresLedger, queries: LedgerQueries) -> None:
        halt, visits = StopSignal(), Counter[str]()
        self._runs += 1

        def reach(name: str) -> None:
            visits[name] += 1
            if self.kills == 0 and name == self.point and visits[name] == self.visit:
                # What happens after the photograph belongs to a dead process: no check reads it.
                self._photograph(ledger)
                self.kills_in_run += 1
                assert self._buying is not None
                self._buying.cancel()
                raise KilledError

        events = EventSink()
        recorder = self.protocol.recorder(
            ledger, run_id=RUN, caps=self.caps, totals=queries.totals(RUN), wall=lambda: AT, reach=reach, events=events
        )
        pace = AdaptiveRateLimiter(
            rate=parse_rate("100/1s"), burst=16, learned=LearnedLimits(), submit_concurrency=self.workers
        )
        tokens = itertools.count()
        kind = Pixazo()
        context = RunContext(
            recorder=recorder,
            client=cast("GatewayClient", self.gateway),
            gate=RateGate(pace, halt),
            stop=halt,
            prices_microusd={"dop-lite": LITE_MICROUSD},
            unix_time=lambda: AT,
            new_token=lambda: f"{self._runs}-{next(tokens)}",
            kind=kind,
            calls=SeedAsBody(kind),
            events=events,
            firewall=Firewall(recorder, halt, self.say),
            fail_point=reach,
            notify=self.say,
            reachability=Reachability("gateway", halt, self.say),
        )
        submitter = self.protocol.submitter(
            context,
            _planned(queries),
            permits=SubmitPermits(
                context,
                CircuitBreaker(in_a_row=10**6, in_window=10**6),
                can_poll=lambda: False,
                known_job=lambda: None,
            ),
            endpoint=SubmitEndpoint("/submit", proven=True),
            recovery=JobRecovery(context),
            workers=self.workers,
        )
        await submitter.run()
        if hasattr(recorder, "flush"):
            await recorder.flush()

    def _photograph(self, ledger: SqliteLedger | PostgresLedger) -> None:
        self.gateway = self.gateway.photograph()
        if isinstance(ledger, PostgresLedger):
            _cut(ledger)
            return
        path = ledger.path
        there = self.folder / str(int(path.parent.name) + 1)
        there.mkdir()
        for name in ("ledger.db", "ledger.db-wal", "ledger.journal"):
            if path.with_name(name).exists():
                shutil.copyfile(path.with_name(name), there / name)

    def _open(self, path: Place) -> bool:
        ledger = ledger_at(path)
        try:
            return LedgerQueries(ledger).totals(RUN).count(State.PLANNED) > 0
        finally:
            ledger.close(clean=False)

    def _judged(self, path: Place) -> list[str]:
        ledger = ledger_at(path)
        try:
            queries = LedgerQueries(ledger)
            states = {one.params.seed: one.state for one in queries.attempts_in(RUN, tuple(State))}
            spent = sum(money(queries).values())
            found = [f"paid twice: {number}" for number, times in self.gateway.charged.items() if times > 1]
            innocent = (State.PLANNED, State.REJECTED)
            found += [f"paid and lost: {number}" for number in self.gateway.charged if states[number] in innocent]
            charged = sum(self.gateway.charged.values()) * LITE_MICROUSD
            if spent < charged:
                found.append("the gateway charged more than the ledger says")
            if self.caps.run_microusd is not None and max(spent, charged) > self.caps.run_microusd:
                found.append("the cap was passed")
            unknown = {number for number, state in states.items() if state is State.UNKNOWN}
            if len(unknown - self.gateway.unclear) > self.workers * self.kills:
                found.append("more unknown than submits were in flight")
            if State.SUBMITTING in states.values():
                found.append("a request is stuck")
            return found + ledger.problems()
        finally:
            ledger.close(clean=False)


def _cut(ledger: PostgresLedger) -> None:
    """The process is gone, and its session with it: nothing that it still tries reaches the server."""
    ledger.engine.dispose()

    def gone(batch: Sequence[QueuedWrite]) -> None:
        ledger._deliver(batch, [(None, KilledError())] * len(batch))

    ledger._commit = gone  # type: ignore[method-assign]
    ledger._alone = lambda job: gone([job])  # type: ignore[method-assign]
    ledger.facts["clean"] = "yes"


def _in_its_place(path: Place) -> SqliteLedger | PostgresLedger:
    """The photographed ledger, taken for the original."""
    if not isinstance(path, Path):
        return ledger_at(path, hold=LockMode.EXCLUSIVE)
    ledger = SqliteLedger(path, inline=True)
    ledger.facts["inode"] = str(path.stat().st_ino)
    return ledger


async def _planned(queries: LedgerQueries) -> AsyncIterator[Attempt]:
    for page in queries.iter_attempts(RUN, (State.PLANNED,)):
        for attempt in page:
            yield attempt
