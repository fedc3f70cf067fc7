"""What the checks found survives a rebuild of the ledger from its journal, row by row, as far as it is whole."""

from __future__ import annotations

from pathlib import Path

from pipeline.ledger.recovery import rebuild
from pipeline.ledger.shots import CheckRecord, read_checks, save_checks
from tests.support.ledgers import AT, accept, opened, requests, reserve, start, tamper


def test_a_rebuild_keeps_the_results_of_checks_that_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    rows = requests(3)
    found = [
        CheckRecord(request_id=row.request_id, attempt=1, grade=grade, reasons=("frozen 1.2 s from 3.8 s",))
        for row, grade in zip(rows, ("bad", "warn", "ok"), strict=True)
    ]
    with opened(path) as (ledger, queries):
        start(queries, rows)
        for row in rows[:2]:
            ledger.apply_now(reserve(row))
            ledger.apply_now(accept(row, f"job-{row.params.seed}"))
        ledger.transact(lambda connection: save_checks(connection, found, AT))
    tamper(path, f"update clip_checks set reasons = '[\"cut' where request_id = '{rows[1].request_id}'")
    tamper(path, "update attempts set price_microusd = 1")  # no row has its checksum: the journal makes the ledger
    rebuild(path, now=AT)
    with opened(path) as (ledger, _):
        assert ledger.transact(read_checks) == {(rows[0].request_id, 1): found[0]}  # the third was never bought
