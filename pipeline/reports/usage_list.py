"""The gateway's own list of what it charged, as CSV: job ids, and amounts where the list has them."""

from __future__ import annotations

import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import MICROUSD, Attempt, canonical_job_id

ID_COLUMNS = ("job_set_id", "request_id", "job_id", "id")
AMOUNT_COLUMNS = ("amount_usd", "cost_usd", "price_usd", "amount", "cost", "price", "charge", "usd", "total")
"""Headings under which a usage export names a job and its price. Inferred: no such export is documented."""


def jobs_by_id(workspace: OpenLedger) -> dict[str, Attempt]:
    """The ledger's jobs at this gateway, under the ids that a usage list is compared by."""
    return {canonical_job_id(str(one.job_set_id)): one for one in workspace.queries.jobs(workspace.gateway)}


def read_usage(path: Path) -> dict[str, int | None]:
    """Job id -> micro-dollars charged; None where the list has no amounts.

    Raises:
        UsageError: it can't be read, or no column holds job ids.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
            id_column = next((names[name] for name in ID_COLUMNS if name in names), None)
            amount_column = next((names[name] for name in AMOUNT_COLUMNS if name in names), None)
            if id_column is None:
                raise UsageError(f"{path}: no column of job ids; one must be called {', '.join(ID_COLUMNS)}")
            found: dict[str, int | None] = {}
            for row in reader:
                job = canonical_job_id((row[id_column] or "").strip())
                if job:
                    amount = _amount(path, reader.line_num, row[amount_column]) if amount_column else None
                    found[job] = amount if job not in found else (found[job] or 0) + (amount or 0)
            return found
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} can't be read as CSV ({error})") from None


def _amount(path: Path, line: int, text: str | None) -> int | None:
    cleaned = (text or "").strip().lstrip("$")
    if not cleaned:
        return None
    try:
        return int((Decimal(cleaned) * MICROUSD).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):  # OverflowError: an infinite amount
        raise UsageError(f"{path}:{line}: {text!r} is not an amount") from None
