"""What is asked of the ledger about shots: where they stand, what the checks found, what purchases came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.ledger.keepers import Candidate
from pipeline.ledger.purchase_outcomes import PurchaseOutcome, read_outcomes
from pipeline.ledger.shots import CheckRecord, Shots, Verdicts, read_candidates, read_checks, read_shots
from pipeline.ledger.writer import LedgerWriter


class ShotQueries:
    """Questions about shots to one open ledger."""

    ledger: LedgerWriter

    def shots(self, run_id: str, verdicts: Verdicts) -> Shots:
        """Where the shots of a run stand; without any where no row says `keep`."""
        with self.ledger.reader.connect() as connection:
            return read_shots(connection, run_id, verdicts)

    def candidates(self, request_ids: Iterable[str], verdicts: Verdicts) -> dict[str, Candidate]:
        """Request id -> what is known of its newest attempt, of those that the ledger knows."""
        with self.ledger.reader.connect() as connection:
            return read_candidates(connection, request_ids, verdicts)

    def outcomes(self, verdicts: Verdicts, gateway: str | None = None, day_prefix: str = "") -> list[PurchaseOutcome]:
        """What each purchase came to, of one gateway or of all, on some days or ever; the oldest first."""
        with self.ledger.reader.connect() as connection:
            return read_outcomes(connection, verdicts, gateway, day_prefix)

    def checks(self, request_ids: Sequence[str] | None = None) -> dict[tuple[str, int], CheckRecord]:
        """(request id, attempt) -> what the checks found in its clip, as the newest run saw it."""
        with self.ledger.reader.connect() as connection:
            return read_checks(connection, request_ids)
