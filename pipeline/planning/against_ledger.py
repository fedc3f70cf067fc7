"""A bound manifest compared with the ledger: what is new, done, in flight, unknown or failed."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.assets import object_checks
from pipeline.config.loader import gateway_id
from pipeline.config.settings import Settings
from pipeline.ledger.agreement import Agreement, RequestIds
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.resend_policy import ResendPolicy
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.workspace import ledger_exists, open_for_reading
from pipeline.manifest.reader import TooManyRowsError
from pipeline.planning.keeper_offer import PassRate, ShotCollector, ShotOffer, pass_rates
from pipeline.planning.manifest_pass import BindingSummary
from pipeline.planning.plan import Plan, split
from pipeline.planning.requests import BoundManifest, with_price
from pipeline.planning.saved_plan import SavedPlan
from pipeline.records import Request, State


def check_bound_objects(bound: BoundManifest, settings: Settings) -> list[str]:
    """Check the images that are in an object store; return warnings. Asks the store, for free.

    Raises:
        ManifestError: some are not there, or no pictures.
        UsageError: the store does not answer.
    """
    return object_checks.check_objects(settings, bound.objects(), manifest=bound.manifest.path, now=time.time())


class _NewRequest(NamedTuple):
    """What is kept of a request that is new: of a million the requests themselves take 700 MB."""

    request_id: str
    price_microusd: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a command would buy: the plan to show, and the agreement that holds once the user says yes.

    Attributes:
        summary: what the pass over the manifest met.
        prices_microusd: of each new purchase, in the manifest's order.
        models: of everything that may be bought.
        stay_unknown: how many unknown outcomes `on_unknown.max_cost` leaves as they are.
    """

    plan: Plan
    agreement: Agreement
    summary: BindingSummary
    prices_microusd: Sequence[int] = ()
    models: frozenset[str] = frozenset()
    stay_unknown: int = 0


def saved_plan(bound: BoundManifest, offer: Offer, settings: Settings, *, max_rows: int) -> SavedPlan:
    """What `--out` keeps: the seeds that were drawn, the requests, and what everything depended on."""
    seeds = dict(bound.manifest.drawn)
    return SavedPlan(
        manifest=bound.manifest.path,
        gateway=gateway_id(settings),
        rows_digest=replace(bound, frozen_seeds=seeds).digest(),
        state_digest=offer.plan.state_digest,
        requests_digest=offer.plan.requests_digest,
        resends=tuple(sorted(offer.agreement.resends)),
        seeds=seeds,
        selection=bound.selection,
        max_rows=max_rows,
        counts=offer.plan.as_json(),
    )


def plan_against_ledger(bound: BoundManifest, settings: Settings, *, must_be_checked: bool = False) -> Offer:
    """Read the ledger as it is now, without its lock; one that does not exist yet has no requests.

    Raises:
        ManifestError: mistakes, all of them.
    """
    if not ledger_exists(settings):
        return make_offer(bound, settings, None, must_be_checked=must_be_checked)
    with open_for_reading(settings) as workspace:
        return make_offer(bound, settings, workspace.queries, must_be_checked=must_be_checked)


def make_offer(
    bound: BoundManifest,
    settings: Settings,
    queries: LedgerQueries | None,
    *,
    max_new: int | None = None,
    announced: SavedPlan | None = None,
    must_be_checked: bool = False,
) -> Offer:
    """Compare the manifest with the ledger in one pass: what is new, what may be sent again, and what it costs.

    Args:
        queries: the ledger; under its lock where something is bought afterwards. None for no ledger.
        max_new: at most so many purchases, unknown outcomes that are sent again first.
        announced: the saved plan that is carried out: nothing is sent again that it did not announce.
        must_be_checked: refuse objects of a store that were not checked yet.

    Raises:
        ManifestError: mistakes, all of them.
    """
    new: list[_NewRequest] = []
    unknown: list[Request] = []
    shots = ShotCollector()

    def visit(request: Request, state: State) -> None:
        # The rest of a bounded purchase is needed only where a candidate may take another one's place.
        if state is State.PLANNED and (max_new is None or len(new) < max_new or request.candidacy is not None):
            new.append(_NewRequest(request.request_id, request.price_microusd, request.params.model))
        elif state is State.UNKNOWN:
            unknown.append(request)

    try:
        plan, summary = bound.read(
            lambda rows: split(shots.collect(rows), queries.states if queries is not None else lambda _: {}, visit),
            known=queries,
            must_be_checked=must_be_checked,
        )
    except TooManyRowsError as error:
        raise with_price(error, settings) from None
    again, stay = _to_send_again(unknown, bound, settings, queries)
    if announced is not None:
        again = [request for request in again if request.request_id in announced.resends]
    again = again[:max_new]
    resend_price = sum(request.price_microusd for request in again)
    plan = replace(plan, duplicates=summary.duplicates, resend=len(again), resend_price_microusd=resend_price)
    offered = _offered_shots(shots, settings, queries)
    if offered is not None:
        plan = _with_keepers(plan, offered, new)
        summary = replace(summary, warnings=(*summary.warnings, *shots.too_few()))
    agreement = _agreement(new, again, offered, max_new)
    # Eight bytes for each price: a plan may hold a million.
    prices = array("q", (request.price_microusd for request in _without_spare(new, offered)))
    models = frozenset(request.model for request in new) | {request.params.model for request in again}
    return Offer(
        plan=plan,
        agreement=agreement,
        summary=summary,
        prices_microusd=prices,
        models=models,
        stay_unknown=stay,
    )


def _without_spare(new: Sequence[_NewRequest], offered: _Offered | None) -> list[_NewRequest]:
    spare: set[str] = set() if offered is None else offered.shots.spare
    return [request for request in new if request.request_id not in spare]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offered:
    """The shots of a manifest against the ledger, and what models did before."""

    shots: ShotOffer
    rates: Mapping[str, PassRate]


def _offered_shots(shots: ShotCollector, settings: Settings, queries: LedgerQueries | None) -> _Offered | None:
    """Where the shots stand; None where no row says `keep`."""
    if not shots.request_ids:
        return None
    if queries is None:
        return _Offered(shots=shots.offer({}), rates={})
    verdicts = latest_verdicts(queries.ledger)
    known = queries.candidates(shots.request_ids, verdicts)
    return _Offered(shots=shots.offer(known), rates=pass_rates(queries.outcomes(verdicts, gateway_id(settings))))


def _with_keepers(plan: Plan, offered: _Offered, new: Sequence[_NewRequest]) -> Plan:
    """The plan without candidates that no shot needs, and with what the shots may cost."""
    spare = [request for request in new if request.request_id in offered.shots.spare]
    # A verdict or a check that came since the plan was made changes what may be bought.
    lines = [f"{shot.rule} {shot.kept} {shot.needed} {shot.spare}" for shot in offered.shots.statuses]
    return replace(
        plan,
        new=plan.new - len(spare),
        new_price_microusd=plan.new_price_microusd - sum(request.price_microusd for request in spare),
        keepers=offered.shots.plan(offered.rates),
        state_digest=hashlib.sha256("\n".join([plan.state_digest, *lines]).encode()).hexdigest(),
    )


def _agreement(
    new: Sequence[_NewRequest], again: Sequence[Request], offered: _Offered | None, max_new: int | None
) -> Agreement:
    """What may be bought: what is new, every candidate of shots that lack keepers, and what is sent again.

    With `max_new` the first so many of what is to be bought now. Where that is less, candidates may follow up to it.
    """
    spare: set[str] = set() if offered is None else offered.shots.spare
    open_ones: set[str] = set() if offered is None else offered.shots.open - offered.shots.needed
    not_first = spare | open_ones
    first = [request for request in new if request.request_id not in not_first]
    later = [request for request in new if request.request_id in open_ones]
    resent = sum(request.price_microusd for request in again)
    if max_new is not None:
        first = first[: max_new - len(again)]
        left = max_new - len(again) - len(first)
        # With the bound used up by what is to be bought now, no candidate may follow.
        later = later if left else []
        # MONEY: which of them will be bought is not known yet. The agreement names the most: that of the dearest ones.
        dearest = sorted((request.price_microusd for request in (*first, *later)), reverse=True)
        price = resent + sum(dearest[: max_new - len(again)])
    else:
        price = resent + sum(request.price_microusd for request in (*first, *later))
    return Agreement(
        new=RequestIds(request.request_id for request in (*first, *later)),
        resends=frozenset(request.request_id for request in again),
        price_microusd=price,
        max_purchases=max_new,
    )


def _to_send_again(
    unknown: list[Request], bound: BoundManifest, settings: Settings, queries: LedgerQueries | None
) -> tuple[list[Request], int]:
    """What `on_unknown.policy: resend` sends once more within its `max_cost`, and how many that sum leaves out."""
    rule = settings.on_unknown
    if rule.policy != "resend" or rule.max_cost_microusd is None or queries is None:
        return [], 0
    run = queries.unfinished_run(str(bound.manifest.origin.resolve()), gateway_id(settings), bound.selection.part)
    policy = ResendPolicy(
        max_cost_microusd=rule.max_cost_microusd,
        used_microusd=queries.resent(run.run_id)[0] if run is not None else 0,
        resent=frozenset(queries.resent_among([request.request_id for request in unknown])),
    )
    return policy.chosen(unknown, lambda request: request.price_microusd)
