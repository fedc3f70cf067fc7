"""What every kind of gateway must do, whatever its API looks like: pure functions first, then whole runs in a storm."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pipeline.config.loader import load
from pipeline.errors import InvariantError, UsageError
from pipeline.gateway.classification import PollOutcomeKind, SubmitOutcomeKind
from pipeline.gateway.kinds import KINDS, kind_of
from pipeline.gateway.kinds.interface import Call, Callback, GatewayKind, Recovery, ReplayKind
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import State
from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.higgsfield.books import VendorBooks
from pipeline.sandbox.higgsfield.free_calls import NOT_CHARGED
from pipeline.sandbox.higgsfield.gateway import VendorHandlers
from tests.contract.fal_kind import Fal, FalServer
from tests.support.factories import make_params
from tests.support.virtual_time import carried, in_virtual_time, ledger_for, wall, wanted

pytestmark = pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")

NOW = 1_790_000_000.0
KEY = "contract-id-0123456789:contract-secret-0123456789"
NAMES = ("pixazo", "higgsfield", "fal")
FAL_CONFIGURATION = {"model_ids.dop-lite": "fal-ai/dop/lite"}
"""The third kind's entry in the configuration, besides its name."""

CALLBACK = Callback(url="https://hooks.example.com/dop/token", secret="whsec_c2VjcmV0LW9mLW9uZS1hdHRlbXB0")


@pytest.fixture(autouse=True)
def third_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The throw-away kind: one module, entered in one place."""
    monkeypatch.setitem(KINDS, "fal", lambda settings: Fal(settings.model_ids))


def configuration(name: str) -> dict[str, str]:
    return {"gateway.kind": name} | (FAL_CONFIGURATION if name == "fal" else {})


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> GatewayKind:
    overrides = {"gateway.base_url": "https://gateway.example", **configuration(request.param)}
    return kind_of(load(Path("configs/live.yaml"), overrides=overrides, environ={}))


def call_of(kind: GatewayKind, seed: int = 7) -> Call:
    return kind.submit_call(make_params(seed=seed), idempotency_key="key-1", images={}, callback=CALLBACK)


def test_a_kind_that_is_not_known_is_named() -> None:
    settings = load(Path("configs/live.yaml"), overrides={"gateway.kind": "nowhere"}, environ={})
    with pytest.raises(UsageError, match="'nowhere' is not known; known: fal, higgsfield, pixazo"):
        kind_of(settings)


# --- calls


def test_the_same_request_is_the_same_call_to_the_byte(kind: GatewayKind) -> None:
    assert call_of(kind) == call_of(kind)
    assert call_of(kind).body != call_of(kind, seed=8).body
    assert Call.unsealed(call_of(kind).sealed()) == call_of(kind)


def test_the_key_is_in_its_header_only(kind: GatewayKind) -> None:
    assert KEY in "".join(kind.auth_headers(KEY).values())
    poll = kind.poll_call("job-1", None, kind.poll_styles[0])
    assert KEY not in call_of(kind).sealed() + poll.sealed() + repr(kind.headers)
    assert all(part and part in KEY for part in kind.secrets_of(KEY))


def test_every_ability_has_its_call_and_nothing_else_has(kind: GatewayKind) -> None:
    assert (kind.abilities.recovery is Recovery.LOOKUP) is _has(lambda: kind.lookup_call("own-id"))
    calls: dict[str, Callable[[], Call]] = {
        "motions": lambda: kind.motions_call("GET"),
        "cancel": lambda: kind.cancel_call("job-1"),
        "upload": lambda: kind.upload_call("image/png"),
        "estimate": lambda: kind.estimate_call(make_params(), {}),
        "usage": lambda: kind.usage_call("2026-01-01", "2026-02-01"),
        "models": kind.models_call,
    }
    for ability, make in calls.items():
        if getattr(kind.abilities, ability):
            assert make().target.startswith("/")
        else:
            with pytest.raises(InvariantError):
                make()


def _has(make: Callable[[], Call]) -> bool:
    try:
        return make().target.startswith("/")
    except InvariantError:
        return False


# --- what responses mean

BODIES = (
    b"",
    b"null",
    b"[]",
    b"<html><title>502 Bad Gateway</title></html>",
    b'{"error": "An unexpected error occurred"}',
    b'{"detail": [{"loc": ["body", "seed"], "msg": "bad"}]}',
    b'{"detail": "Not enough credits"}',
    b'{"status": "queued"}',
    b'{"request_id": "job-1", "status": "que',
    b"\xff\xfe\x00",
)
NEVER_A_REFUSAL = (*range(100, 104), *range(300, 309), 408, 409, 425, 499, *range(500, 600))
"""Statuses that may follow a request that was taken."""


@pytest.mark.parametrize("body", BODIES)
def test_no_answer_to_a_submit_makes_a_kind_fail(kind: GatewayKind, body: bytes) -> None:
    for status in range(100, 600):
        for complete in (True, False):
            found = kind.classify_submit(Response(status=status, body=body, complete=complete), now_unix=NOW)
            if 200 <= status <= 299:
                assert found.kind is SubmitOutcomeKind.UNKNOWN
            assert found.kind is not SubmitOutcomeKind.ACCEPTED


@pytest.mark.parametrize("body", BODIES)
def test_what_may_follow_a_request_that_was_taken_is_unknown(kind: GatewayKind, body: bytes) -> None:
    for status in NEVER_A_REFUSAL:
        found = kind.classify_submit(Response(status=status, body=body), now_unix=NOW)
        assert found.kind is SubmitOutcomeKind.UNKNOWN, (status, found)


def test_only_proof_frees_a_submit_without_an_answer(kind: GatewayKind) -> None:
    lost = NoResponse(sent=True, what="silence")
    unsent = NoResponse(sent=False, what="no connection")
    assert kind.classify_submit(lost, now_unix=NOW).kind is SubmitOutcomeKind.UNKNOWN
    assert kind.classify_submit(unsent, now_unix=NOW).kind is SubmitOutcomeKind.NOT_SENT


def test_an_accepted_submit_names_its_job(kind: GatewayKind) -> None:
    for value in ({"request_id": "job-1", "status": "queued"}, {"request_id": "job-1", "status": "IN_QUEUE"}):
        found = kind.classify_submit(Response(status=200, body=json.dumps(value).encode()), now_unix=NOW)
        assert found.ticket is not None
        assert found.ticket.job_set_id == "job-1"


@pytest.mark.parametrize("body", BODIES)
def test_no_error_of_a_poll_decides_a_jobs_fate(kind: GatewayKind, body: bytes) -> None:
    for status in (*range(100, 200), *range(300, 600)):
        found = kind.classify_poll(Response(status=status, body=body), now_unix=NOW, job_set_id="job-1")
        assert found.kind is not PollOutcomeKind.REPORT


def test_a_poll_about_another_job_says_nothing(kind: GatewayKind) -> None:
    other = Response(status=200, body=b'{"request_id": "job-2", "status": "failed"}')
    assert kind.classify_poll(other, now_unix=NOW, job_set_id="job-1").kind is PollOutcomeKind.UNCLEAR


def test_only_an_id_settles_a_repeated_submit(kind: GatewayKind) -> None:
    if kind.abilities.recovery is not Recovery.REPLAY:
        with pytest.raises(InvariantError):
            kind.classify_replay(Response(status=200), now_unix=NOW)
        return
    for status in range(100, 600):
        for body in BODIES:
            assert kind.classify_replay(Response(status=status, body=body), now_unix=NOW).kind is not ReplayKind.JOB


# --- whole runs, driven by the fault fuzzer


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A gateway of a kind: where it is, and what it charged by seed."""

    base_url: str
    charged: Callable[[], Counter[int]]


@asynccontextmanager
async def served(name: str, folder: Path, chaos: str, generation_s: float) -> AsyncIterator[Served]:
    if name == "fal":
        server = FalServer(KEY, chaos, wall, generation_s)
        async with server.listening(7005) as base_url:
            yield Served(base_url=base_url, charged=lambda: server.charged)
        return
    settings = SandboxSettings(
        data_dir=folder / "sandbox",
        kind="higgsfield" if name == "higgsfield" else "pixazo",
        key=KEY,
        inline=True,
        one_clip=True,
        size="180p",
        generation_s=generation_s,
        chaos=chaos,
    )
    sandbox = Sandbox(settings, now=wall)
    base_url = await sandbox.start()
    try:
        yield Served(base_url=base_url, charged=lambda: _charged(sandbox))
    finally:
        await sandbox.close()


def _charged(sandbox: Sandbox) -> Counter[int]:
    books, handlers = sandbox._books, sandbox._gateway
    if isinstance(books, VendorBooks) and isinstance(handlers, VendorHandlers):
        jobs = [one.job for one in books.requests.values() if handlers._states.state(one) not in NOT_CHARGED]
    else:
        jobs = list(books.jobs.values())
    return Counter(int(str(job.body["seed"])) for job in jobs)


@dataclass(kw_only=True)
class Outcome:
    """What a run left: charges and states by seed, what is wrong with the ledger, and all its texts."""

    charged: Counter[int]
    states: dict[int, State]
    problems: list[str]
    texts: str
    recovery: Recovery


MAX_CONTINUED = 6


async def stormy_run(name: str, folder: Path, *, rows: int, chaos: str, webhook: bool) -> Outcome:
    options = {"download.enabled": "false", "on_unknown.max": "1000", "gateway.read_timeout_s": "60"}
    async with served(name, folder, chaos, 2.0) as gateway:
        with ledger_for(folder, gateway.base_url, **options, **configuration(name)) as workspace:
            await carried(workspace, wanted(workspace, rows), webhook=webhook, key=KEY)
            queries = workspace.queries
            # All that one run sends again may get no answer in such a storm: the same command continues it.
            for _ in range(MAX_CONTINUED):
                story = await carried(workspace, [], webhook=webhook, key=KEY)
                attempts = queries.attempts_in(queries.runs()[0].run_id, tuple(State))
                if all(attempt.state is not State.UNKNOWN for attempt in attempts):
                    break
            histories = [str(queries.history(attempt.request_id)) for attempt in attempts]
            logs = [path.read_text() for path in (folder / "outputs").rglob("run.log")]
            return Outcome(
                charged=gateway.charged(),
                states={attempt.params.seed: attempt.state for attempt in attempts},
                problems=story.queries.ledger.problems(),
                texts="\n".join(logs + histories),
                recovery=kind_of(workspace.settings).abilities.recovery,
            )


@pytest.mark.parametrize(
    ("name", "webhook"), [*((name, False) for name in NAMES), ("pixazo", True), ("higgsfield", True)]
)
def test_a_storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, webhook: bool) -> None:
    """Nothing is paid twice, nothing that was paid is forgotten, and no secret is in a log or a history."""
    story = partial(stormy_run, name, tmp_path, rows=8, chaos="9", webhook=webhook)
    found = in_virtual_time(monkeypatch, story)
    assert [seed for seed, times in found.charged.items() if times > 1] == []
    free = (State.PLANNED, State.REJECTED, State.SUBMITTING)
    assert [seed for seed in found.charged if found.states[seed] in free] == []
    assert found.problems == []
    assert State.DONE in found.states.values()
    if found.recovery is Recovery.LOOKUP:  # nothing is found where nothing was charged: that stays unknown
        assert [seed for seed in found.charged if found.states[seed] is State.UNKNOWN] == []
    if found.recovery is Recovery.REPLAY:
        assert State.UNKNOWN not in found.states.values()
    for secret in (KEY, *KEY.split(":")):
        assert secret not in found.texts
