"""A hole in the ledger is closed when its rows were listed and settled, not with the mark of a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, shots
from tests.support.surroundings import care

Against = Callable[..., Opened]


def without_ledger(dop: Dop) -> None:
    """Removes the database, not its journal."""
    for ending in ("", "-wal", "-shm"):
        (dop.outputs / f"ledger.db{ending}").unlink(missing_ok=True)


def lose_first_lines(dop: Dop) -> None:
    """The database is gone, and the journal lacks its beginning: what is made of it is a copy with a hole."""
    journal = dop.outputs / "ledger.db.journal"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[3:]))
    without_ledger(dop)


def put_back_a_backup_without_journal(dop: Dop) -> None:
    """The ledger is an older backup, and its journal is a folder."""
    journal = dop.outputs / "ledger.db.journal"
    journal.unlink()
    journal.mkdir()
    without_ledger(dop)
    shutil.copyfile(dop.folder / "backup.db", dop.outputs / "ledger.db")


@pytest.mark.parametrize("lose", [lose_first_lines, put_back_a_backup_without_journal])
def test_adopt_closes_no_hole_of_which_nothing_was_listed(against: Against, lose: Callable[[Dop], None]) -> None:
    dop, double = against()
    assert dop.buy(dop.csv(shots(2))).code == 0
    assert care(dop, "copy", str(dop.folder / "backup.db")).code == 0
    manifest = dop.csv(shots(6))
    assert dop.buy(manifest).code == 0
    lose(dop)
    dop.buy(manifest)
    care(dop, "rebuild")
    for _ in range(3):
        dop.buy(manifest)
        care(dop, "adopt")
    end = dop.buy(manifest)
    assert len(double.submits) == 6, end.err
    assert end.code == 3, "what may be bought is listed as unknown"
    assert "unknown" in end.err
