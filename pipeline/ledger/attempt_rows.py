"""How attempts are read: the views that join them with what a run lists, and a row as a record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, select

from pipeline.errors import LedgerError
from pipeline.ledger.listing import FOLDED_PREFIX
from pipeline.ledger.schema import (
    attempts,
    digest,
    load_params,
    run_rows,
    spend,
)
from pipeline.records import Attempt, CostState, State


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendLine:
    """The money of one day, run and model of one gateway, in micro-dollars."""

    gateway: str
    run_id: str
    day: str
    model: str
    confirmed: int
    disputed: int
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRow:
    """A placeholder of the manifest, for the report and the sheet."""

    row_id: str
    axes: tuple[tuple[str, str], ...]


_LISTED = (run_rows.c.row_id.label("listed_as"), run_rows.c.tags, run_rows.c.axes, run_rows.c.wanted)
_VIEWED = len(attempts.columns) + len(_LISTED)
"""Every view begins with the columns of attempts, and those of the listed row follow."""

LISTED_VIEW = ", ".join(
    [*(f"a.{column.name}" for column in attempts.columns), "r.row_id AS listed_as", "r.tags", "r.axes", "r.wanted"]
)
"""The columns of a view for a statement that the driver runs itself; `a` is attempts there, and `r` run_rows."""

_NAMES = tuple(column.name for column in attempts.columns)

_PLANNED = State.PLANNED.value

_state = lru_cache(State)
"""The state of a row: asking the enumeration takes six times as long."""


def _items(text: str | None) -> Iterable[Any]:
    """A list that is kept as JSON; most are empty, and parsing `[]` costs as much as parsing a longer one."""
    return () if not text or text == "[]" else json.loads(text)


@lru_cache(maxsize=1_024)
def _shared(value: Any) -> Any:
    """The same object for equal texts: a driver makes one for each row, and 100,000 rows have few gateways and runs."""
    return value


def attempt_of(row: Any, run_id: str | None) -> Attempt:
    """A row of a view as a record; `run_id` names the run that is reported, if any.

    The columns are taken by their place: a report reads every attempt of a run, and looking each name up took longer
    than all the rest.
    """
    values = row[:_VIEWED]
    request_id, attempt, _, gateway, bought_by, _, price_microusd, state, token, idempotency_key = values[:10]
    job_set_id, polling_url, video_url, preview_url, local_path, size_bytes, sha256 = values[10:17]
    submit_attempts, throttled, polls, resends, _, submitted_at, accepted_at, finished_at = values[17:25]
    reason, _, _, row_id, params, motion, take, listed_as, tags, axes, wanted = values[25:]
    return Attempt(
        request_id=request_id,
        attempt=attempt,
        gateway=_shared(gateway),  # a report of 100,000 attempts has these texts once
        run_id=_shared(bought_by),
        row_id=listed_as or row_id,
        tags=tuple(_items(tags)),
        axes=tuple([(name, label) for name, label in _items(axes)]),
        params=load_params(params),
        motion=_shared(motion),
        take=take,
        price_microusd=price_microusd,
        state=_state(state),
        token=token,
        idempotency_key=idempotency_key,
        job_set_id=job_set_id,
        polling_url=polling_url,
        video_url=video_url,
        preview_url=preview_url,
        local_path=local_path,
        size_bytes=size_bytes,
        sha256=sha256,
        submit_attempts=submit_attempts,
        throttled=throttled,
        polls=polls,
        resends=resends,
        submitted_at=submitted_at,
        accepted_at=accepted_at,
        finished_at=finished_at,
        reason=reason,
        bought_in=bought_by if run_id is not None and bought_by != run_id and state != _PLANNED else None,
        is_spare=state == _PLANNED and wanted == 0,
    )


def check_unsent(rows: Iterable[Any]) -> None:
    """MONEY: what is about to be bought says what it said when it was planned."""
    for row in rows:
        _check_unsent(row._mapping)


def _check_unsent(row: Mapping[str, object]) -> None:
    if row["state"] == _PLANNED and row["digest"] != digest(row):
        raise LedgerError(
            f"the ledger is damaged: request {row['request_id']}: what it says was changed; nothing is bought. "
            "`dop ledger check` lists everything, `dop ledger rebuild` makes it again from its journal"
        )


def listed_attempt(row: Sequence[Any], run_id: str) -> Attempt | None:
    """The attempt in a row of `LISTED_VIEW`; None where an outer join found none.

    Raises:
        LedgerError: it is to be bought, and was changed since it was planned.
    """
    if row[0] is None:
        return None
    _check_unsent(dict(zip(_NAMES, row, strict=False)))
    return attempt_of(row, run_id)


def run_view(run_id: str) -> Select[Any]:
    """What a run lists, each line with its attempts, in the manifest's order."""
    return (
        select(
            attempts,
            *_LISTED,
            run_rows.c.request_id.label("listed_request"),
            run_rows.c.position,
        )
        .select_from(run_rows.outerjoin(attempts, attempts.c.request_id == run_rows.c.request_id))
        .where(run_rows.c.run_id == run_id)
        .order_by(run_rows.c.position, attempts.c.attempt)
    )


def plain_view() -> Select[Any]:
    """Attempts with what their own run lists for them."""
    listing = and_(run_rows.c.request_id == attempts.c.request_id, run_rows.c.run_id == attempts.c.run_id)
    return select(attempts, *_LISTED).select_from(attempts.outerjoin(run_rows, listing))


def folded(connection: Connection, listed: Row[Any], run_id: str) -> Iterator[Attempt]:
    """The latest attempt of another row's request, as this row shows it: with its own id and tags, and at no cost."""
    request_id = listed.listed_request.removeprefix(FOLDED_PREFIX).partition(":")[0]
    statement = run_view(run_id).where(attempts.c.request_id == request_id, attempts.c.superseded == 0)
    for row in connection.execute(statement):
        shown = attempt_of(row, run_id)
        yield replace(
            shown,
            row_id=listed.listed_as,
            tags=tuple(json.loads(listed.tags)),
            axes=tuple((name, label) for name, label in json.loads(listed.axes)),
            bought_in=shown.bought_in or run_id,
        )


def sums_of(connection: Connection, where: Any) -> dict[str, int]:
    """The three sums of the spend book over some of its lines, micro-dollars."""
    kinds = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
    sums = [func.coalesce(func.sum(spend.c[kind.value]), 0) for kind in kinds]
    row = connection.execute(select(*sums).where(where)).one()
    return {f"{kind.value}_microusd": int(amount) for kind, amount in zip(kinds, row, strict=True)}
