"""Every question that is asked of the ledger. Reads see one moment."""

from __future__ import annotations

from pipeline.ledger.purchase_queries import PurchaseQueries
from pipeline.ledger.request_queries import RequestQueries
from pipeline.ledger.run_queries import RunQueries
from pipeline.ledger.run_registry import RunRegistry
from pipeline.ledger.shot_queries import ShotQueries


class LedgerQueries(RunRegistry, RunQueries, RequestQueries, PurchaseQueries, ShotQueries):
    """Questions to one open ledger, and the keeping of its runs."""
