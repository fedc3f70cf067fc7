"""What a manifest would buy: counts and prices, split by what the ledger already knows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from pipeline.planning.binding import _CHUNK
from pipeline.planning.keeper_offer import KeeperPlan
from pipeline.records import (
    FAILED_FOR_GOOD,
    IN_FLIGHT,
    Cell,
    FoldedRow,
    Request,
    State,
    usd,
)


@dataclass(slots=True, kw_only=True)
class ModelShare:
    """How many requests of one model, at what price in all."""

    requests: int = 0
    price_microusd: int = 0


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a manifest asks for, split by what the ledger knows.

    `resend` counts the requests of unknown outcome that `on_unknown.policy: resend` would send again.
    `requests_digest` changes when a request does (a changed picture is another request); `state_digest` also when the
    ledger's state of one changes. `new` leaves out candidates that no shot needs (`keepers.spare`); it counts every
    candidate of the other shots, which is the most that may be bought.
    """

    requests: int = 0
    price_microusd: int = 0
    new: int = 0
    new_price_microusd: int = 0
    done: int = 0
    in_flight: int = 0
    unknown: int = 0
    failed: int = 0
    skipped: int = 0
    duplicates: int = 0
    resend: int = 0
    resend_price_microusd: int = 0
    keepers: KeeperPlan | None = None
    by_model: dict[str, ModelShare] = field(default_factory=dict)
    state_digest: str = ""
    requests_digest: str = ""

    def as_json(self) -> dict[str, object]:
        """The object of `dop plan --json`: money as strings with three decimals."""
        return {
            "requests": self.requests,
            "price_usd": usd(self.price_microusd),
            "new": self.new,
            "new_price_usd": usd(self.new_price_microusd),
            "done": self.done,
            "in_flight": self.in_flight,
            "unknown": self.unknown,
            "failed": self.failed,
            "resend": self.resend,
            "resend_price_usd": usd(self.resend_price_microusd),
            **({} if self.keepers is None else {"keepers": self.keepers.as_json()}),
            "skipped": self.skipped,
            "duplicates": self.duplicates,
            "by_model": {
                model: {"requests": share.requests, "price_usd": usd(share.price_microusd)}
                for model, share in sorted(self.by_model.items())
            },
        }


def split(
    rows: Iterable[Request | Cell | FoldedRow],
    states_of: Callable[[list[str]], Mapping[str, State]],
    visit: Callable[[Request, State], None] | None = None,
) -> Plan:
    """Counts and prices of `rows` against the ledger, in one pass.

    Args:
        states_of: request ids -> the state of those that the ledger knows.
        visit: called with each request and its state, in the manifest's order.
    """
    plan = Plan()
    sha, requests_sha = hashlib.sha256(), hashlib.sha256()
    counts: dict[tuple[State, str, int], int] = {}
    ends: dict[tuple[State, int], str] = {}
    stream = iter(rows)
    while chunk := list(islice(stream, _CHUNK)):
        requests = [row for row in chunk if isinstance(row, Request)]
        if len(requests) < len(chunk):
            plan.skipped += sum(1 for row in chunk if isinstance(row, Cell))
        request_ids = [request.request_id for request in requests]
        known = states_of(request_ids)
        lines = []
        for request in requests:
            state, price = known.get(request.request_id, State.PLANNED), request.price_microusd
            kind = (state, request.params.model, price)
            counts[kind] = counts.get(kind, 0) + 1
            end = ends.get((state, price))
            if end is None:
                end = ends[state, price] = f" {state.value} {price}\n"
            lines.append(request.request_id + end)
            if visit is not None:
                visit(request, state)
        requests_sha.update("".join(request_ids).encode())
        sha.update("".join(lines).encode())
    for (state, model, price), count in counts.items():
        _add(plan, state, model, count, count * price)
    plan.state_digest = sha.hexdigest()
    plan.requests_digest = requests_sha.hexdigest()
    return plan


def _add(plan: Plan, state: State, model: str, count: int, price_microusd: int) -> None:
    plan.requests += count
    plan.price_microusd += price_microusd
    share = plan.by_model.setdefault(model, ModelShare())
    share.requests += count
    share.price_microusd += price_microusd
    if state is State.PLANNED:
        plan.new += count
        plan.new_price_microusd += price_microusd
    elif state is State.DONE:
        plan.done += count
    elif state in IN_FLIGHT:
        plan.in_flight += count
    elif state is State.UNKNOWN:
        plan.unknown += count
    elif state in FAILED_FOR_GOOD:
        plan.failed += count
