"""A pilot: the cheapest of what was agreed is bought first, and the rest only if all of it came."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.errors import STOPPING_CODES, ExitCode
from pipeline.ledger.agreement import Agreement, RequestIds
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import State
from pipeline.runner.finish import RunOutcome
from pipeline.runner.run_job import RunInputs, SpendingSession
from pipeline.runner.session import run_session_async


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotResult:
    """What a pilot came to. `rest` is what remains to be bought, `outcome` None where the pilot had nothing to buy.

    `exit_code` is None where the rest may be bought.
    """

    rest: Agreement
    outcome: RunOutcome | None = None
    states: tuple[State, ...] = ()
    exit_code: int | None = None


async def buy_pilot(session: SpendingSession, inputs: RunInputs, count: int, *, show_end: bool = True) -> PilotResult:
    """Buy the `count` cheapest requests that `inputs` agree to, and collect them. Pays."""
    run_id, queries = inputs.run.run_id, session.workspace.queries
    pilot, rest = _split(session.workspace, run_id, inputs.options.agreement, count)
    if not len(pilot):
        return PilotResult(rest=rest)
    # Read before they are bought: afterwards they are no longer planned.
    planned = (attempt for page in queries.iter_attempts(run_id, (State.PLANNED,)) for attempt in page)
    ids = sorted(attempt.request_id for attempt in planned if attempt.request_id in pilot)
    outcome = await run_session_async(session, inputs.buying(pilot, show_end=show_end))
    states = tuple(queries.states(ids).values())
    # A video that is paid for and missing is no success where videos are fetched.
    missing = queries.without_video(run_id) if session.workspace.settings.download.enabled else 0
    code = None
    if missing or any(state is not State.DONE for state in states):
        # An interrupted pilot, or one that met a budget, keeps its code; one that merely failed must not end with 0.
        code = outcome.exit_code if outcome.exit_code in STOPPING_CODES else ExitCode.UNFINISHED
    return PilotResult(rest=rest, outcome=outcome, states=states, exit_code=code)


def _split(workspace: OpenLedger, run_id: str, agreement: Agreement, count: int) -> tuple[Agreement, Agreement]:
    """The `count` cheapest of what was agreed, and the rest of it."""
    prices = workspace.settings.prices_microusd
    planned = workspace.queries.attempts_in(run_id, (State.PLANNED,))
    waiting = [attempt for attempt in planned if attempt.request_id in agreement.new]
    waiting.sort(key=lambda attempt: prices[attempt.params.model])
    chosen = waiting[:count]
    price = sum(prices[attempt.params.model] for attempt in chosen)
    ids = {attempt.request_id for attempt in chosen}
    # MONEY: the limit holds for both parts together.
    most = agreement.max_purchases
    rest = replace(
        agreement,
        new=agreement.new.without(ids),  # candidates of shots included that are not wanted yet
        price_microusd=agreement.price_microusd - price,
        max_purchases=None if most is None else most - len(ids),
    )
    return Agreement(new=RequestIds(ids), price_microusd=price), rest
