"""A journal written again from the rows of its ledger, where it lags behind, is lost, or speaks of other ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection

from pipeline.ledger.identity import JOURNAL_PLACE, LEDGER_ID, marks_in
from pipeline.ledger.integrity import every_attempt
from pipeline.ledger.journal import snapshot_end, snapshot_entry


def journal_again(
    connection: Connection, facts: Mapping[str, str], *, seq: int, chain: str
) -> Iterator[dict[str, object]]:
    """The lines of every request that was sent, as it is now, and the one that ends them.

    Only the last line bears the number of the newest event: a journal that is cut before it still lags behind.

    Args:
        facts: what the ledger knows of itself.
        seq, chain: of its newest event.
    """
    count = 0
    for row in every_attempt(connection):
        # What was never sent is planned again from its manifest, and would make the journal as large as the sheet.
        if row["submit_attempts"]:
            count += 1
            yield snapshot_entry(row, seq - 1, facts[LEDGER_ID], count)
    marks = marks_in(facts) | {name: facts[name] for name in (JOURNAL_PLACE,) if name in facts}
    yield snapshot_end(seq, ledger_id=facts[LEDGER_ID], chain=chain, count=count, marks=marks)
