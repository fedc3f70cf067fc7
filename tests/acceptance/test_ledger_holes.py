"""A hole in the ledger is closed when its rows were listed and settled, not with the mark of a copy."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.ledger.journal import entry_of
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


# --- every state of the ledger's file beside every state of its journal


def _lines(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines(keepends=True)


def _of_backup(journal: Path) -> list[bytes]:
    """The lines of the events that the backup holds: without what follows, the journal ends where the backup does."""
    with closing(sqlite3.connect(journal.parents[1] / "backup.db")) as backup:
        ((seq,),) = backup.execute("SELECT value FROM meta WHERE name = 'seq'").fetchall()
    return [line for line in _lines(journal) if int(str((entry_of(line.decode()) or {})["seq"])) <= int(seq)]


def _as_folder(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


DATABASES: dict[str, Callable[[Path, Path], object]] = {
    "whole": lambda file, backup: None,
    "gone": lambda file, backup: file.unlink(),
    "older": lambda file, backup: shutil.copyfile(backup, file),
    "empty": lambda file, backup: file.write_bytes(b""),
    "garbage": lambda file, backup: file.write_bytes(b"\0garbage" * 2_000),
}
"""What becomes of the database: its file, and a backup from before four of six rows were bought."""

JOURNALS: dict[str, Callable[[Path], object]] = {
    "whole": lambda file: None,
    "without its first lines": lambda file: file.write_bytes(b"".join(_lines(file)[3:])),
    "with a damaged line": lambda file: file.write_bytes(
        b"".join(b"0" * len(line.strip()) + b"\n" if at == 9 else line for at, line in enumerate(_lines(file)))
    ),
    "without its last lines": lambda file: file.write_bytes(b"".join(_lines(file)[:-6])),
    "gone": lambda file: file.unlink(),
    "a folder": _as_folder,
    "garbage": lambda file: file.write_bytes(os.urandom(4_000)),
    "zeroed": lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    "zeroed from the backup on": lambda file: file.write_bytes(b"".join(_of_backup(file)) + b"\0" * 4_000),
    "damaged from the backup on": lambda file: file.write_bytes(
        b"".join(_of_backup(file) + [b"?" + line[1:] for line in _lines(file)[len(_of_backup(file)) :]])
    ),
}
"""What becomes of the journal."""

UNNOTICED = {("older", "gone"), ("older", "a folder")}
"""With the user's state folder gone as well: nothing is left that tells of the lost events (docs/reliability.md)."""

EVERY = [
    (database, journal, memory)
    for database, journal, memory in itertools.product(DATABASES, JOURNALS, ("kept", "lost"))
    if (database, journal) != ("whole", "whole") and not (memory == "lost" and (database, journal) in UNNOTICED)
]


def after_every_advice(dop: Dop, database: str, journal: str, memory: str) -> list[str]:
    """Buys six rows, spoils the two books, and calls every verb that a message may have named; what they said."""
    assert dop.buy(dop.csv(shots(2))).code == 0
    assert care(dop, "copy", str(dop.folder / "backup.db")).code == 0
    manifest = dop.csv(shots(6))
    assert dop.buy(manifest).code == 0
    for side in ("-wal", "-shm"):
        (dop.outputs / f"ledger.db{side}").unlink(missing_ok=True)
    DATABASES[database](dop.outputs / "ledger.db", dop.folder / "backup.db")
    JOURNALS[journal](dop.outputs / "ledger.db.journal")
    if memory == "lost":
        shutil.rmtree(dop.folder / "home" / ".local" / "state")  # the command of these tests has a bare environment
    said = []
    for words in (("check",), (), ("adopt",), (), ("rebuild",), (), ("adopt",), ()):
        end = care(dop, *words) if words else dop.buy(manifest)
        said.append(f"{words}: {end.code} {end.err[-300:]}")
        assert "Error" not in end.err, said
    return said


@pytest.mark.long
@pytest.mark.parametrize(("database", "journal", "memory"), EVERY)
def test_no_state_of_the_two_books_and_no_advice_buys_a_row_again(
    against: Against, database: str, journal: str, memory: str
) -> None:
    dop, double = against()
    said = after_every_advice(dop, database, journal, memory)
    assert len(double.submits) == 6, said


@pytest.mark.long
def test_the_matrix_sees_a_row_that_is_bought_again(against: Against) -> None:
    """The twin: where nothing is left that tells of the lost events, rows are bought again."""
    dop, double = against()
    after_every_advice(dop, "older", "gone", "lost")
    assert len(double.submits) == 10
