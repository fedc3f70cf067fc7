"""kill -9 at any moment, then the same command: nothing is charged twice, nothing that was paid is lost.

The gateway lives on and keeps its own books. The moments are named from inside (every fail point) and from outside
(the so-manieth request that the gateway sees).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, Ended, cost, ended, killed, shots, table, wait_for
from tests.support.fake_gateway import GatewayDouble, Json, tiny_clip

Against = Callable[..., Opened]

WORKERS = 4
GOOD = 32
"""Rows of a calm run: the pace opens with one submit at a time and reaches WORKERS after some two dozen."""

AT_MOST = ("--set", f"pace.submit_concurrency={WORKERS}")


ENDS = {"rejected", "failed", "refused", "canceled", "expired"}


def prices(double: GatewayDouble, dop: Dop) -> int:
    """What the ledger must count, in thousandths: each charged job, and each question that is still open."""
    charged = {job.body["prompt"] for job in double.jobs.values()}
    open_questions = {row["prompt"] for row in dop.rows() if row["status"] == "unknown"}
    return 135 * len(charged | open_questions)


def check_books(dop: Dop, double: GatewayDouble) -> None:
    """Gateway, ledger and report agree, and nothing was sent again after it may have been paid."""
    paid: set[str] = set()
    for submit in double.submits:
        prompt = submit["body"]["prompt"]
        assert prompt not in paid, f"sent again after it was charged: {prompt}"
        if submit["job"] is not None:
            paid.add(prompt)
    rows = dop.rows()
    assert len({row["request_id"] for row in rows}) == len(rows)
    by_prompt = {row["prompt"]: row for row in rows}
    lost = [prompt for prompt in paid if by_prompt[prompt]["status"] in ("planned", "rejected", "submitting")]
    assert lost == [], "paid, and the ledger does not know"
    assert dop.ledger_mills() == prices(double, dop)
    assert cost(rows) == Decimal(dop.ledger_mills()) / 1000


def check_videos(dop: Dop) -> None:
    """Every finished request has its whole video, and no half one lies about."""
    for row in dop.rows():
        if row["status"] == "done":
            assert (dop.latest / row["local_path"]).read_bytes() == tiny_clip()
    assert list(dop.outputs.rglob("*.part*")) == []


def check_after_a_kill(dop: Dop, double: GatewayDouble, end: Ended, *, asked: int = 0) -> None:
    """`asked`: questions that are open for another reason than the kill."""
    unknown = [row for row in dop.rows() if row["status"] == "unknown"]
    assert len(unknown) <= WORKERS + asked
    assert end.code == (3 if unknown else 0), end.err
    assert all(row["row_id"] in (dop.latest / "failures.csv").read_text() for row in unknown)
    assert {row["status"] for row in dop.rows()} <= {"done", "unknown", *ENDS}
    check_books(dop, double)
    check_videos(dop)


def check_idle(dop: Dop, double: GatewayDouble, *buy: object) -> None:
    """The same command once more: nothing is sent."""
    sent = len(double.submits)
    end = dop.call("run", *buy, "--yes")
    assert len(double.submits) == sent, end.err
    assert dop.ledger_mills() == prices(double, dop)
    free = {"rejected", "planned"}
    assert all(row["bought_in"] for row in dop.rows() if row["cost_state"] == "none" and row["status"] not in free)


@pytest.mark.parametrize(
    "moment",
    ["after-post:28", *(pytest.param(one, marks=pytest.mark.long) for one in ("after-accept:28", "after-download:9"))],
)
def test_a_run_killed_while_submitting_polling_or_downloading_is_continued(against: Against, moment: str) -> None:
    dop, double = against(generation_s=0.2)
    manifest = dop.csv(shots(GOOD))
    first = dop.buy(manifest, *AT_MOST, fail_point=moment)
    assert killed(first), first.err
    end = dop.buy(manifest, *AT_MOST)
    check_after_a_kill(dop, double, end)
    assert double.charged >= GOOD - WORKERS


STORM: dict[str, Json] = {
    "rejected": {"status": 422, "body": {"detail": "bad image"}},
    "lost": {"status": 500, "body": {"error": "An unexpected error occurred"}, "book": True},
}
THROTTLED: Json = {"status": 429, "body": {"error": "Rate limit exceeded, please retry later"}, "wait_s": 1}
FATES: dict[str, Json] = {
    "fails": {"end": "failed", "reason": "out of memory"},
    "nsfw": {"end": "nsfw"},
    "stops": {"end": "canceled"},
    "expires": {"dead_links": 999},
    "half": {"cut": 1},
}


def stormy(double: GatewayDouble) -> str:
    """A manifest whose rows meet every event of a request's life, most of them twice."""
    names = [f"{name}-{number}" for number in (1, 2) for name in (*STORM, *FATES, "good")]
    double.script.prompts = {f"({name}-": fault for name, fault in STORM.items()}
    double.script.submits = {"2": THROTTLED, "8": THROTTLED}
    double.script.rows = {f"({name}-": script for name, script in FATES.items()}
    return table(
        {"id": name, "image": "https://cdn.example.com/a.jpg", "prompt": f"({name}) a lake", "seed": 7}
        for name in names
    )


def around(*names: str) -> list[str]:
    """The fail points before and after each of these."""
    return [f"{when}-{name}" for name in names for when in ("before", "after")]


CALM_POINTS = [
    *(f"{point}:{visit}" for point in around("reserve", "post", "accept") for visit in (1, 3, 28)),
    *(f"{point}:{visit}" for point in around("complete", "download", "save") for visit in (1, 3)),
]
STORMY_POINTS = [
    *(
        f"{point}:{visit}"
        for point in around("release", "reject", "fail", "refuse", "cancel", "expire")
        for visit in (1, 2)
    ),
    *around("lose"),
]


@pytest.mark.long
@pytest.mark.parametrize("moment", CALM_POINTS)
def test_a_kill_at_every_fail_point_loses_nothing(against: Against, moment: str) -> None:
    dop, double = against(generation_s=0.2)
    manifest = dop.csv(shots(GOOD))
    first = dop.buy(manifest, *AT_MOST, fail_point=moment)
    assert killed(first), f"{moment} was not reached\n{first.err}"
    end = dop.buy(manifest, *AT_MOST)
    check_after_a_kill(dop, double, end)
    check_idle(dop, double, manifest)


@pytest.mark.long
@pytest.mark.parametrize("moment", STORMY_POINTS)
def test_a_kill_at_every_fail_point_of_a_storm_loses_nothing(against: Against, moment: str) -> None:
    dop, double = against(generation_s=0.2)
    manifest = dop.csv(stormy(double))
    first = dop.buy(manifest, *AT_MOST, fail_point=moment)
    assert killed(first), f"{moment} was not reached\n{first.err}"
    end = dop.buy(manifest, *AT_MOST, timeout_s=100)
    check_after_a_kill(dop, double, end, asked=2)
    assert end.code == 3, end.err
    check_idle(dop, double, manifest)


AFFORDED, AFFORDED_IN_A_STORM = 14, 8
"""Videos that a tight budget pays for: fewer than either matrix has rows that cost something."""

TIGHT_POINTS = [f"{point}:{visit}" for point in around("reserve", "post", "accept") for visit in (1, 3)]
TIGHT_STORMY_POINTS = [*around("release", "reject", "fail", "refuse", "cancel"), "before-lose"]


def check_cap(dop: Dop, double: GatewayDouble, end: Ended, afforded: int) -> None:
    """The cap holds in both books, whatever the kill left open; what it refused is still to buy."""
    assert dop.ledger_mills() <= 135 * afforded
    assert len(double.jobs) <= afforded
    rows = dop.rows()
    assert end.code == (3 if any(row["status"] == "unknown" for row in rows) else 8), end.err
    assert {row["status"] for row in rows} <= {"done", "unknown", "planned", *ENDS}
    assert sum(row["status"] == "planned" for row in rows) > 0


@pytest.mark.long
@pytest.mark.parametrize("moment", TIGHT_POINTS)
def test_a_kill_under_a_tight_budget_passes_no_cap(against: Against, moment: str) -> None:
    dop, double = against(generation_s=0.2)
    buy = (dop.csv(shots(GOOD)), *AT_MOST, "--max-cost", f"{135 * AFFORDED / 1000}")
    assert killed(dop.buy(*buy, fail_point=moment)), f"{moment} was not reached"
    check_cap(dop, double, dop.buy(*buy), AFFORDED)
    check_books(dop, double)
    check_videos(dop)
    check_idle(dop, double, *buy)


@pytest.mark.long
@pytest.mark.parametrize("moment", TIGHT_STORMY_POINTS)
def test_a_kill_in_a_storm_under_a_tight_budget_passes_no_cap(against: Against, moment: str) -> None:
    dop, double = against(generation_s=0.2)
    buy = (dop.csv(stormy(double)), *AT_MOST, "--max-cost", f"{135 * AFFORDED_IN_A_STORM / 1000}")
    assert killed(dop.buy(*buy, fail_point=moment)), f"{moment} was not reached"
    check_cap(dop, double, dop.buy(*buy, timeout_s=100), AFFORDED_IN_A_STORM)
    check_books(dop, double)
    check_idle(dop, double, *buy)


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "number"),
    [(what, number) for what in ("submit", "submitted", "poll", "download") for number in (1, 28)],
)
def test_a_kill_at_a_request_that_the_gateway_sees_loses_nothing(against: Against, what: str, number: int) -> None:
    dop, double = against(generation_s=0.2, jobs={"*": {"slow_s": 0.1}})
    manifest = dop.csv(shots(GOOD))
    process = dop.start("run", manifest, "--yes", *AT_MOST)
    double.watch = lambda seen, count: os.kill(process.pid, signal.SIGKILL) if (seen, count) == (what, number) else None
    assert killed(ended(process))
    double.watch = lambda seen, count: None
    end = dop.buy(manifest, *AT_MOST)
    check_after_a_kill(dop, double, end)
    if what in ("poll", "download"):
        assert end.counts["done"] >= GOOD - WORKERS
    check_idle(dop, double, manifest)


@pytest.mark.long
def test_twelve_kills_in_a_row_lose_nothing(against: Against) -> None:
    dop, double = against(generation_s=0.2)
    manifest = dop.csv(shots(60))
    moments = [
        "after-reserve:2",
        "before-accept:2",
        "after-complete:1",
        "before-save:1",
        "after-save:2",
        "after-post:1",
    ]
    buy = (manifest, *AT_MOST, "--max-unknown", 60)  # the default limit ends the buying after some of these kills
    for moment in moments * 2:
        assert killed(dop.buy(*buy, fail_point=moment)), moment
    end = dop.buy(*buy, timeout_s=100)
    unknown = end.counts.get("unknown", 0)
    assert end.counts.get("done", 0) + unknown == 60
    assert unknown <= 12 * WORKERS
    check_books(dop, double)
    check_videos(dop)


@pytest.mark.long
@pytest.mark.parametrize(
    "moment", ["before-post:2", "after-post:2", "before-accept:2", "before-complete:1", "before-save:1"]
)
def test_the_embedded_sandbox_remembers_what_a_killed_run_bought(rehearsal: Dop, moment: str) -> None:
    manifest = rehearsal.csv(shots(4, image="sandbox:coffee"))
    quick = ("--set", "sandbox.generation_s=0.2s", "--set", "pace.submit_concurrency=2")
    assert killed(rehearsal.buy(manifest, *quick, fail_point=moment))
    end = rehearsal.buy(manifest, *quick)
    unknown = end.counts.get("unknown", 0)
    assert end.code == (3 if unknown else 0), end.err
    assert end.counts.get("done", 0) == 4 - unknown
    assert unknown <= 2


def interrupt(process: subprocess.Popen[str], number: signal.Signals, *, at: str) -> Callable[..., None]:
    """A watcher that sends the signal when the gateway sees the event `at`, e.g. "submit 3"."""

    def watch(what: str, count: int) -> None:
        if f"{what} {count}" == at:
            process.send_signal(number)

    return watch


SIGNALS = [
    (signal.SIGINT, 130),
    pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
    pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_books_the_posts_in_flight_and_the_next_run_continues(
    against: Against, number: signal.Signals, code: int
) -> None:
    dop, double = against(generation_s=0.2, submits={"*": {"stall_s": 0.4, "book": True}})
    manifest = dop.csv(shots(12))
    process = dop.start("run", manifest, "--yes", *AT_MOST)
    double.watch = interrupt(process, number, at="submit 6")
    end = ended(process)
    assert end.code == code, end.err
    assert double.charged == len(double.submits) < 12
    assert "unknown" not in end.counts
    assert end.counts["planned"] == 12 - double.charged
    check_books(dop, double)
    last = dop.buy(manifest, *AT_MOST)
    assert last.code == 0, last.err
    assert last.run == end.run
    assert double.charged == 12
    check_books(dop, double)
    check_videos(dop)


@pytest.mark.long
def test_a_second_signal_leaves_at_once_and_loses_nothing(against: Against) -> None:
    dop, double = against(submits={"27-": {"stall_s": 60.0, "book": True}})
    manifest = dop.csv(shots(GOOD))
    process = dop.start("run", manifest, "--yes", *AT_MOST)
    double.watch = interrupt(process, signal.SIGINT, at="submit 27")
    wait_for(lambda: any('"stop"' in log.read_text() for log in dop.outputs.glob("2*/run.log")))
    process.send_signal(signal.SIGINT)
    end = ended(process, timeout_s=15)
    assert end.code == 3, end.err
    in_flight = len(double.submits) - 26
    assert 1 <= in_flight <= WORKERS
    assert end.counts["unknown"] == in_flight, "each POST without its answer is perhaps paid"
    reserved = len(dop.ledger("select request_id from attempts where state = 'submitting'"))  # no POST had left for it
    assert in_flight + reserved <= WORKERS
    double.script.submits = {}
    double.watch = lambda what, count: None
    last = dop.buy(manifest, *AT_MOST)
    assert last.code == 3, last.err
    doubtful = in_flight + reserved
    assert last.counts == {"done": GOOD - doubtful, "unknown": doubtful}, "an intent is not proof that nothing was sent"
    check_books(dop, double)


def test_two_runs_at_once_are_one_and_the_other_learns_who_works(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(2))
    process = dop.start("run", manifest, "--yes")
    others: list[Ended] = []

    def watch(what: str, count: int) -> None:
        if (what, count) == ("submit", 1):  # the gateway says nothing until the second command has ended
            others.append(ended(dop.start("run", manifest, "--yes")))

    double.watch = watch
    first = ended(process)
    (other,) = others
    assert first.code == 0, first.err
    assert other.code == 11, other.err
    assert str(process.pid) in other.err
    assert double.charged == 2
