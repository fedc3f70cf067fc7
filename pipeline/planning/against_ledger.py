"""A bound manifest compared with the ledger: what is new, done, in flight, unknown or failed."""

from __future__ import annotations

import time

from pipeline.assets.object_checks import check_objects
from pipeline.config.loader import gateway_id
from pipeline.config.settings import Settings
from pipeline.ledger.workspace import ledger_exists, open_for_reading
from pipeline.manifest.reader import TooManyRowsError
from pipeline.planning.plan import Plan, split
from pipeline.planning.requests import BoundManifest, with_price
from pipeline.planning.saved_plan import SavedPlan


def looked_at_objects(bound: BoundManifest, settings: Settings) -> list[str]:
    """Looks at the images that lie in an object store; returns warnings. Asks the store, for free.

    Raises:
        ManifestError: some are not there, or no pictures.
        UsageError: the store does not answer.
    """
    return check_objects(settings, bound.objects(), manifest=bound.manifest.path, now=time.time())


def saved_plan(bound: BoundManifest, found: Plan, settings: Settings, *, max_rows: int) -> SavedPlan:
    """What `--out` keeps: the seeds that were drawn, and what everything depended on."""
    seeds = dict(bound.manifest.drawn)
    bound.frozen_seeds = seeds
    return SavedPlan(
        manifest=bound.manifest.path,
        gateway=gateway_id(settings),
        rows_digest=bound.digest(),
        state_digest=found.state_digest,
        seeds=seeds,
        selection=bound.selection,
        max_rows=max_rows,
        counts=found.as_json(),
    )


def plan_against_ledger(bound: BoundManifest, settings: Settings) -> Plan:
    """The manifest split against the ledger; a ledger that does not exist yet knows nothing.

    Raises:
        ManifestError: mistakes, all of them.
    """
    return split_with_ledger(bound, settings, against_ledger=ledger_exists(settings))


def split_with_ledger(bound: BoundManifest, settings: Settings, *, against_ledger: bool) -> Plan:
    try:
        if against_ledger:
            with open_for_reading(settings) as workspace:
                bound.states, bound.row_names = workspace.book.states, workspace.book.row_names
                found = split(bound.rows(), workspace.book.states)
        else:
            found = split(bound.rows(), lambda _: {})
    except TooManyRowsError as error:
        raise with_price(error, settings) from None
    found.duplicates = bound.folding.duplicates
    return found
