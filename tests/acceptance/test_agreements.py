"""What was agreed is what is bought: the same rows with the same content, for at most the sum that was shown.

Each test lets a paid verb announce something, changes the surroundings between the words and the purchase, and compares
what the gateway charged with what was announced.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

import pipeline
from tests.support.cli_driver import KEY, Dop, shots, table
from tests.support.hostile_gateway import Contained, HostileGateway, Order, against
from tests.support.terminal import Terminal

ONE = ("--set", "pace.submit_concurrency=1")
RESEND = ("--set", "on_unknown.policy=resend", "--set", "on_unknown.max_cost=100")
SMALL = ("--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p")
BUDGET = 8


@dataclass
class Ends:
    """How rows end at the gateway: the numbers of rows whose job fails, and of those whose submit gets a 502."""

    failed: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)

    @staticmethod
    def _row(order: Order) -> int:
        return int(order.prompt.split()[1])

    async def submit(self, gateway: HostileGateway, order: Order) -> web.StreamResponse:
        """Accepted, or lost."""
        return await (gateway.lose(order) if self._row(order) in self.lost else gateway.accept(order))

    async def poll(self, gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        """Done, or failed."""
        if order is not None and self._row(order) in self.failed:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "failed"}])
        return await gateway.report(order, job)


@contextmanager
def selling(folder: Path, ends: Ends) -> Iterator[tuple[Contained, HostileGateway]]:
    """The command in a folder, and a gateway where rows end as `ends` says."""
    with HostileGateway(submit=ends.submit, poll=ends.poll) as gateway:
        yield against(folder, gateway), gateway


def picture(path: Path, shade: int) -> None:
    """A picture of one colour."""
    Image.new("RGB", (64, 48), (shade, shade, shade)).save(path)


def mills(dop: Dop) -> int:
    """Everything that the ledger counts as spent, in thousandths of a dollar."""
    return dop.ledger_mills()


# --- retry


def test_a_retry_buys_what_it_announced_and_leaves_planned_rows_alone(tmp_path: Path) -> None:
    ends = Ends(failed={1})
    with selling(tmp_path, ends) as (dop, gateway):
        first = dop.buy(dop.csv(shots(7)), "--max-new", 1, *ONE)
        assert dop.states() == {"failed": 1, "planned": 6}, first.err
        ends.failed.clear()
        end = dop.call("retry", first.run, "--failed", "--yes")
        assert "Buying 1 video again" in end.err
        assert "$0.135" in end.err
        assert len(gateway.charged) == 2, end.err
        assert dop.states() == {"done": 1, "planned": 6}
        assert mills(dop) == gateway.charged_mills == 2 * 135


def test_a_retry_of_failures_sends_no_unknown_outcome_again(tmp_path: Path) -> None:
    ends = Ends(failed={1}, lost={2})
    with selling(tmp_path, ends) as (dop, gateway):
        first = dop.buy(dop.csv(shots(2)), *ONE)
        assert dop.states() == {"failed": 1, "unknown": 1}, first.err
        ends.failed.clear()
        ends.lost.clear()
        end = dop.call("retry", first.run, "--failed", "--yes", *RESEND)
        assert [order.prompt for order in gateway.orders[2:]] == ["scene 1 of all"], end.err
        assert dop.states() == {"done": 1, "unknown": 1}


def test_a_retry_sends_no_changed_picture_under_the_old_identity(tmp_path: Path) -> None:
    dop = Contained(folder=tmp_path)
    for name in ("1.png", "2.png"):
        picture(tmp_path / name, 10)
    picture(tmp_path / "2.png", 20)
    rows = ({"id": f"r{n}", "image": f"{n}.png", "prompt": f"scene {n} [sandbox:fail]", "seed": n} for n in (1, 2))
    first = dop.buy(dop.csv(table(rows)), *SMALL)
    assert dop.states() == {"failed": 2}, first.err
    picture(tmp_path / "1.png", 200)
    end = dop.call("retry", first.run, "--failed", *SMALL)
    attempts = {line["row_id"]: int(line["attempt"]) for line in dop.rows(first.run) if line["job_set_id"]}
    assert attempts["r1"] == 1, end.err
    assert "1.png" in end.err
    assert end.code != 0


# --- plan, pilot, max-new


@pytest.mark.long
def test_a_plan_that_is_continued_buys_no_picture_that_was_not_in_it(tmp_path: Path) -> None:
    dop = Dop(folder=tmp_path)
    names = [f"{number}.png" for number in range(1, 4)]
    for number, name in enumerate(names, start=1):
        picture(tmp_path / name, 10 * number)
    rows = ({"id": f"r{n}", "image": name, "prompt": f"scene {n}", "seed": n} for n, name in enumerate(names, start=1))
    plan = tmp_path / "plan.json"
    assert dop.call("plan", dop.csv(table(rows)), "--out", plan).code == 0
    killed = dop.call("run", "--plan", plan, *ONE, *SMALL, fail_point="after-accept:1")
    assert killed.code == -signal.SIGKILL
    picture(tmp_path / "3.png", 250)
    end = dop.call("run", "--plan", plan, *ONE, *SMALL)
    bought = {str(key) for (key,) in dop.ledger("select request_id from attempts where job_set_id is not null")}
    assert len(bought) < 3, f"a picture that was not in the plan was bought: {end.err}"
    assert end.code != 0, end.err
    assert "3.png" in end.err or "plan" in end.err


def test_a_pilot_counts_into_max_new(tmp_path: Path) -> None:
    with selling(tmp_path, Ends()) as (dop, gateway):
        end = dop.buy(dop.csv(shots(10)), "--max-new", 4, "--pilot", 3)
        assert len(gateway.orders) == 4, end.err
        assert dop.states() == {"done": 4, "planned": 6}


def test_a_plan_sends_no_unknown_outcome_again_that_it_did_not_announce(tmp_path: Path) -> None:
    ends = Ends(lost={1})
    with selling(tmp_path, ends) as (dop, gateway):
        manifest = dop.csv(shots(3))
        first = dop.buy(manifest, "--max-new", 1)
        assert dop.states() == {"unknown": 1, "planned": 2}, first.err
        ends.lost.clear()
        plan = tmp_path / "plan.json"
        made = dop.call("plan", manifest, "--out", plan, "--json")
        assert json.loads(made.out)["new"] == 2
        end = dop.call("run", "--plan", plan, "--yes", *RESEND)
        assert len(gateway.orders) <= 3, end.err
        assert "scene 1 of all" not in [order.prompt for order in gateway.orders[1:]]


# --- the question at the terminal


def test_the_question_is_asked_when_the_only_thing_to_send_is_an_unknown_outcome(tmp_path: Path) -> None:
    ends = Ends(lost={1})
    with selling(tmp_path, ends) as (dop, gateway):
        manifest = dop.csv(shots(1))
        dop.buy(manifest)
        assert dop.states() == {"unknown": 1}
        with Terminal(dop, "run", manifest, *RESEND) as terminal:
            asked = terminal.asks()
            if asked:
                terminal.type("n")
            terminal.ended()
        assert len(gateway.orders) == 1, terminal.said
        assert asked, terminal.said
        assert "0.135" in terminal.said


def test_a_row_that_is_settled_between_question_and_purchase_is_not_bought_with_it(tmp_path: Path) -> None:
    ends = Ends(lost={1})
    with selling(tmp_path, ends) as (dop, gateway):
        manifest = dop.csv(shots(2))
        dop.buy(manifest, "--max-new", 1)
        assert dop.states() == {"unknown": 1, "planned": 1}
        ends.lost.clear()
        with Terminal(dop, "run", manifest) as terminal:
            assert terminal.asks(), terminal.said
            question = terminal.said.splitlines()[-1]
            settled = dop.call("resolve", "row-1", "--resend")  # may be refused: the question may hold the lock
            assert settled.code in (0, 11), settled.err
            terminal.type("y")
            while terminal.asks():  # another sum may be asked again
                terminal.type("n")
        assert "$0.135" in question
        assert "$0.270" not in question
        assert len(gateway.orders) <= 2, terminal.said


# --- caps


def test_the_cap_of_the_first_command_holds_for_its_continuation(tmp_path: Path) -> None:
    with selling(tmp_path, Ends()) as (dop, gateway):
        manifest = dop.csv(shots(4))
        first = dop.buy(manifest, "--max-cost", "0.30")
        assert (first.code, len(gateway.orders)) == (BUDGET, 2)
        again = dop.buy(manifest)
        assert (again.code, len(gateway.orders)) == (BUDGET, 2), again.err
        assert again.run == first.run
        more = dop.buy(manifest, "--max-cost", "0.54")
        assert (more.code, len(gateway.orders)) == (0, 4), more.err


def test_the_cap_of_the_first_command_holds_for_a_retry(tmp_path: Path) -> None:
    ends = Ends(failed={1})
    with selling(tmp_path, ends) as (dop, gateway):
        first = dop.buy(dop.csv(shots(2)), "--max-cost", "0.30", *ONE)
        assert dop.states() == {"failed": 1, "done": 1}, first.err
        ends.failed.clear()
        end = dop.call("retry", first.run, "--failed", "--yes")
        assert (end.code, len(gateway.orders)) == (BUDGET, 2), end.err


def test_the_cap_of_the_first_command_holds_for_what_is_sent_again(tmp_path: Path) -> None:
    ends = Ends(lost={1, 2})
    with selling(tmp_path, ends) as (dop, gateway):
        manifest = dop.csv(shots(2))
        dop.call("run", manifest, "--max-cost", "0.30", *ONE)
        sent = len(gateway.orders)
        ends.lost.clear()
        end = dop.buy(manifest, *RESEND, *ONE)
        assert gateway.charged_mills <= 300 + 135 * sent, end.err
        assert mills(dop) <= 300, end.err


def test_the_cap_of_a_command_holds_for_a_notebook_that_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with selling(tmp_path, Ends()) as (dop, gateway):
        manifest = dop.csv(shots(4))
        first = dop.buy(manifest, "--max-cost", "0.30")
        assert (first.code, len(gateway.orders)) == (BUDGET, 2)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PIXAZO_API_KEY", KEY)
        monkeypatch.setenv("DOP_GATEWAY__BASE_URL", gateway.url)
        result = pipeline.run(manifest, yes=True, progress=False, outputs__dir=dop.outputs)
        assert (result.exit_code, len(gateway.orders)) == (BUDGET, 2)
        assert result.confirmed_usd == Decimal("0.27")


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_what_a_command_does_not_name_is_not_bought_with_it(tmp_path: Path, verb: str) -> None:
    with selling(tmp_path, Ends()) as (dop, gateway):
        manifest = dop.csv(shots(4))
        first = dop.buy(manifest, "--max-new", 1)
        assert dop.states() == {"done": 1, "planned": 3}, first.err
        dop.call(verb, manifest, "--yes", "--first", 2)
        assert {order.prompt for order in gateway.orders} == {"scene 1 of all", "scene 2 of all"}


# --- any order of paid verbs

CAP_MILLS = 1_500
STEPS = 8
SHEET_ROWS = 12


@dataclass
class Walk:
    """Paid verbs in a random order on one manifest. Each step returns how many submits its command announced."""

    dop: Contained
    manifest: Path
    dice: random.Random
    name: str = ""

    def begin(self) -> int:
        """The first command of the run; its cap holds for all that follow."""
        begun = self.dop.buy(self.manifest, "--max-new", 6, "--max-cost", f"{CAP_MILLS / 1000:.3f}")
        self.name = begun.run
        return 6

    def go_on(self) -> int:
        """The same manifest again, with or without what is unknown."""
        new, more = self.dice.randint(1, 3), self._again()
        allowed = min(new, self._count("planned")) + (self._count("unknown") if more else 0)
        self.dop.buy(self.manifest, "--max-new", new, *more)
        return allowed

    def pilot(self) -> int:
        """A pilot within a number of new ones."""
        self.dop.buy(self.manifest, "--max-new", 2, "--pilot", 1)
        return 2

    def plan(self) -> int:
        """A saved plan, carried out."""
        path = self.dop.folder / "plan.json"
        made = self.dop.call(
            "plan", self.manifest, "--first", self.dice.randint(1, SHEET_ROWS), "--out", path, "--json"
        )
        self.dop.call("run", "--plan", path, "--yes", *self._again())
        return int(json.loads(made.out)["new"])

    def retry(self) -> int:
        """What failed, and nothing else."""
        allowed = self._count("failed")
        self.dop.call("retry", self.name, "--failed", "--yes", *self._again())
        return allowed

    def resolve(self) -> int:
        """One unknown outcome is to be sent again: by the next command that announces it, not by this one."""
        for line in self.dop.rows(self.name):
            if line["status"] == "unknown":
                self.dop.call("resolve", line["request_id"], "--resend")
                break
        return 0

    def spent_by_the_run(self) -> int:
        """What the first command's run has spent; a part of the sheet is a run of its own."""
        ((total,),) = self.dop.ledger(
            f"select coalesce(sum(confirmed + disputed + reserved), 0) from spend where run_id = '{self.name}'"
        )
        return int(str(total)) // 1000

    def _again(self) -> tuple[str, ...]:
        return RESEND if self.dice.random() < 0.5 else ()

    def _count(self, state: str) -> int:
        return self.dop.states().get(state, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_no_order_of_paid_verbs_buys_more_than_each_announced(tmp_path: Path, seed: int) -> None:
    ends, dice = Ends(), random.Random(seed)
    with selling(tmp_path, ends) as (dop, gateway):
        walk = Walk(dop, dop.csv(shots(SHEET_ROWS)), dice)
        steps = [walk.begin, *dice.choices([walk.go_on, walk.pilot, walk.plan, walk.retry, walk.resolve], k=STEPS)]
        trace = []
        for step in steps:
            ends.failed = set(dice.sample(range(1, SHEET_ROWS + 1), 4))
            ends.lost = set(dice.sample(range(1, SHEET_ROWS + 1), 2))
            before = len(gateway.orders)
            allowed = step()
            sent = len(gateway.orders) - before
            trace.append(f"{step.__name__}: announced {allowed}, sent {sent}, then {dop.states()}")
            assert sent <= allowed, trace
            assert walk.spent_by_the_run() <= CAP_MILLS, trace
