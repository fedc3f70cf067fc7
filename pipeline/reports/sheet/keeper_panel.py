"""What a good clip of this run costs, as a table of the sheet: by model, motion, strength and tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.ledger.keepers import KEEP, Candidate
from pipeline.ledger.purchase_outcomes import PurchaseOutcome
from pipeline.ledger.reviews import fold
from pipeline.records import COST_STATE, CostState, KeepIf, State
from pipeline.reports.checks.findings import Grade
from pipeline.reports.keeper_costs import KeeperCosts, KeeperTable, exact_usd
from pipeline.reports.sheet.run_view import RunView

HEAD = ("", "bought", "delivered", "passed", "yours", "kept", "cost", "per kept clip", "95 % interval")


def keeper_rows(view: RunView) -> list[tuple[str, ...]]:
    """The total, then each group; empty where nothing has come out yet. Earlier runs' clips of this page count too."""
    table = KeeperTable()
    for one, times in Counter(_outcomes(view)).items():  # of 100,000 purchases most came out the same
        table.add(one, times)
    if not table.total.decided:
        return []
    rows = [("all clips", *_cells(table.total))]
    for name, group in table.groups.items():
        if len(group) > 1:  # a group that is everything says nothing more
            rows += [(f"{name.removeprefix('by_')} {key}", *_cells(costs)) for key, costs in sorted(group.items())]
    return rows


def _outcomes(view: RunView) -> Iterator[PurchaseOutcome]:
    verdicts = {request_id: review.verdict for request_id, review in fold(view.reviews).items()}
    newest: dict[str, int] = {}  # of the requests that were tried again; the others have one attempt, the first
    for attempt in view.attempts():
        if attempt.attempt > 1:
            newest[attempt.request_id] = max(attempt.attempt, newest.get(attempt.request_id, 0))
    counted: set[tuple[str, int]] = set()
    for attempt in view.attempts():
        if COST_STATE[attempt.state] is CostState.NONE:
            continue
        if attempt.bought_in is not None:  # only these may be listed twice: rows of one request share its purchase
            purchase = (attempt.request_id, attempt.attempt)
            if attempt.bought_in == view.run or purchase in counted:
                continue
            counted.add(purchase)
        check = view.checks.of(attempt)
        grade = None if check is None else check.grade.value
        verdict = verdicts.get(attempt.request_id) if attempt.attempt == newest.get(attempt.request_id, 1) else None
        candidate = Candidate(request_id=attempt.request_id, state=attempt.state, grade=grade, verdict=verdict)
        delivered = attempt.state in (State.DONE, State.EXPIRED)
        yield PurchaseOutcome(
            gateway=attempt.gateway,
            model=attempt.params.model,
            motion=attempt.motion,
            strength_hundredths=attempt.params.strength_hundredths,
            tags=attempt.tags,
            price_microusd=attempt.price_microusd,
            status=candidate.status(KeepIf.CHECK),
            delivered=delivered,
            passed=delivered and grade is not None and grade != Grade.BAD,
            picked=attempt.state is State.DONE and verdict == KEEP,
        )


def _cells(costs: KeeperCosts) -> tuple[str, ...]:
    low, high = costs.interval_microusd
    each = exact_usd(costs.per_kept_microusd)
    counts = (costs.bought, costs.delivered, costs.passed, costs.picked, costs.kept)
    return (
        *map(str, counts),
        f"${exact_usd(costs.cost_microusd)}",
        f"${each}" if each is not None else "none kept",
        f"${exact_usd(low)} to ${exact_usd(high)}" if high is not None else f"${exact_usd(low)} or more",
    )
