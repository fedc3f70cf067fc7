"""Failed rows that the operator has dismissed: no command names them any more. States and money stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt

NAME = "dismissed"
"""Under which name the ledger keeps them: request id and attempt -> Unix seconds."""


def _key(attempt: Attempt) -> str:
    """A later attempt of the same request that fails is not dismissed with the earlier one."""
    return f"{attempt.request_id} {attempt.attempt}"


def dismissals(workspace: OpenLedger) -> Mapping[str, object]:
    """Every dismissed attempt."""
    return workspace.ledger.saved_states.load(NAME)


def not_dismissed(attempts: Iterable[Attempt], known: Mapping[str, object]) -> list[Attempt]:
    """Those of the attempts that still need the operator."""
    return [attempt for attempt in attempts if _key(attempt) not in known]


def dismiss(workspace: OpenLedger, attempts: Iterable[Attempt], *, now: float) -> None:
    """Remember that the operator has dismissed these."""
    workspace.ledger.saved_states.save(NAME, {**dismissals(workspace), **{_key(attempt): now for attempt in attempts}})
