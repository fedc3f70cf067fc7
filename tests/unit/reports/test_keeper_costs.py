"""What a kept clip costs: the interval covers the truth as often as it says, and the money adds up to the ledger."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.ledger.keepers import CandidateStatus
from pipeline.ledger.purchase_outcomes import PurchaseOutcome
from pipeline.ledger.reviews import Review, latest_verdicts, moment, record
from pipeline.ledger.shots import CheckRecord, save_checks
from pipeline.ledger.states import Event
from pipeline.planning.keeper_offer import at_most, pass_rates
from pipeline.records import CostState, Request, State, Totals
from pipeline.reports import keeper_costs
from pipeline.reports.checks.findings import ClipCheck, Grade, RunChecks
from pipeline.reports.keeper_costs import KeeperCosts, keeper_table, wilson
from pipeline.reports.sheet.keeper_panel import keeper_rows
from pipeline.reports.sheet.run_view import RunView
from tests.support.factories import LITE_MICROUSD, make_attempt, make_request
from tests.support.ledgers import AT, accept, change, money, opened, reserve, start

RUNS = 400


def outcome(status: CandidateStatus, *, price: int = LITE_MICROUSD, **more: object) -> PurchaseOutcome:
    fields: dict[str, object] = {
        "gateway": "sandbox",
        "model": "dop-lite",
        "motion": "Dolly In",
        "strength_hundredths": 50,
        "tags": (),
        "price_microusd": price,
        "status": status,
        "delivered": True,
        "passed": status is CandidateStatus.KEPT,
        "picked": False,
    }
    return PurchaseOutcome(**fields | more)  # type: ignore[arg-type]


def bought_in_lots(chance: random.Random, share: float) -> KeeperCosts:
    """Some clips, each kept with a chance of `share`."""
    bought = chance.randint(20, 300)
    kept = sum(chance.random() < share for _ in range(bought))
    return KeeperCosts(bought=bought, kept=kept, cost_microusd=bought * LITE_MICROUSD)


def bought_until_good(chance: random.Random, share: float) -> KeeperCosts:
    """Shots of one keeper each, bought one after the other with at most twelve candidates."""
    bought = kept = 0
    for _ in range(chance.randint(20, 100)):
        tries = next((n for n in range(1, 13) if chance.random() < share), 0)
        bought += tries or 12
        kept += tries > 0
    return KeeperCosts(bought=bought, kept=kept, cost_microusd=bought * LITE_MICROUSD)


def coverage(made: object, seed: int) -> float:
    """In how many of 400 runs with a defect rate of 2 to 90 % the interval covers the true cost of a kept clip."""
    chance, covered = random.Random(seed), 0
    for _ in range(RUNS):
        share = 1 - chance.uniform(0.02, 0.9)
        low, high = made(chance, share).interval_microusd  # type: ignore[operator]
        covered += low <= LITE_MICROUSD / share and (high is None or LITE_MICROUSD / share <= high)
    return covered / RUNS


@pytest.mark.parametrize("made", [bought_in_lots, bought_until_good])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_interval_covers_the_true_cost_in_93_of_100_runs(made: object, seed: int) -> None:
    assert coverage(made, seed) >= 0.93


def test_an_interval_that_is_too_narrow_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_costs, "wilson", lambda hits, trials: wilson(hits, trials, z=1.2))
    assert coverage(bought_in_lots, 1) < 0.93


def test_wilson_is_the_published_interval() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson(0, 20)  # 0 to 0.1611
    assert (low, round(high, 4)) == (0.0, 0.1611)
    assert wilson(0, 0) == (0.0, 1.0)


def test_what_has_not_come_out_yet_costs_and_is_left_out_of_the_figure() -> None:
    costs = KeeperCosts()
    for status in (CandidateStatus.KEPT, CandidateStatus.LOST, CandidateStatus.OPEN):
        costs.add(outcome(status))
    assert (costs.bought, costs.open, costs.kept) == (3, 1, 1)
    assert (costs.cost_microusd, costs.per_kept_microusd) == (3 * LITE_MICROUSD, 2 * LITE_MICROUSD)


def test_without_a_kept_clip_only_the_least_it_may_cost_is_known() -> None:
    costs = KeeperCosts()
    for _ in range(20):
        costs.add(outcome(CandidateStatus.LOST))
    low, high = costs.interval_microusd
    assert (costs.per_kept_microusd, high) == (None, None)
    assert low == round(LITE_MICROUSD / wilson(0, 20)[1])


def rows() -> list[Request]:
    return [
        make_request(seed=seed, strength_hundredths=strength, tags=tags, price_microusd=price)
        for seed, strength, tags, price in (
            (1, 40, ("hero",), 135_000),
            (2, 40, ("hero", "v2"), 135_000),
            (3, 70, (), 416_007),
            (4, 70, (), 135_000),
            (5, 70, (), 135_000),
        )
    ]


def test_sums_equal_the_ledger_to_the_micro_dollar(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        listed = rows()
        start(queries, listed)
        for row in listed[:4]:
            ledger.apply_now(reserve(row, values={"price_microusd": row.price_microusd}))
            ledger.apply_now(accept(row, f"job-{row.params.seed}"))
        for row in listed[:3]:
            ledger.apply_now(change(row, Event.COMPLETE, values={"video_url": "https://example.com/v.mp4"}))
        grades = [(listed[0], "ok"), (listed[1], "bad"), (listed[2], "bad")]
        checked = [CheckRecord(request_id=row.request_id, attempt=1, grade=grade) for row, grade in grades]
        ledger.transact(lambda connection: save_checks(connection, checked, AT))
        kept = Review(request_id=listed[2].request_id, at=moment(AT), who="ada", verdict="keep")
        record(ledger, [kept])
        found = keeper_table(queries.outcomes(latest_verdicts(ledger)))["sandbox"]
        total = sum(amount for kind, amount in money(queries).items() if kind is not CostState.NONE)
        by_group = {name: sum(one.cost_microusd for one in found.groups[name].values()) for name in found.groups}
    assert found.total.cost_microusd == total == 821_007
    assert by_group == {"by_model": total, "by_motion": total, "by_strength": total, "by_tag": total + 135_000}
    counts = found.total
    assert (counts.bought, counts.open, counts.delivered, counts.passed, counts.picked, counts.kept) == (
        4,
        1,
        3,
        1,
        1,
        2,
    )
    assert counts.per_kept_microusd == 343_004, "686,007 for two, half a micro-dollar rounded up"
    assert found.groups["by_strength"]["0.40"].per_kept_microusd == 270_000
    assert found.groups["by_tag"]["hero"].bought == 2


def test_the_expectation_is_exact_for_a_known_share() -> None:
    rates = pass_rates([outcome(CandidateStatus.KEPT), outcome(CandidateStatus.LOST), outcome(CandidateStatus.OPEN)])
    assert (rates["dop-lite"].decided, rates["dop-lite"].kept) == (2, 1)
    expected = sum(at_most(0, before, 0.5) for before in range(12))
    assert expected == pytest.approx(2 * (1 - 0.5**12))


def test_the_sheet_has_the_same_figures(tmp_path: Path) -> None:
    attempts = tuple(
        make_attempt(seed=seed, state=State.DONE, strength_hundredths=strength, local_path="v.mp4")
        for seed, strength in ((1, 40), (2, 40), (3, 70))
    )
    grades = dict(zip(attempts, (Grade.OK, Grade.BAD, Grade.BAD), strict=True))
    checks = RunChecks(found={(one.request_id, 1): ClipCheck(grade=grade) for one, grade in grades.items()})
    view = RunView(
        run="r", title="t", gateway="sandbox", lines=attempts, totals=Totals(), outputs=tmp_path, checks=checks
    )
    rows = {row[0]: row[1:] for row in keeper_rows(view)}
    assert rows["all clips"][:7] == ("3", "3", "1", "0", "1", "$0.405000", "$0.405000")
    assert rows["strength 0.70"][6] == "none kept"
    assert "model dop-lite" not in rows, "the only model is all clips"
