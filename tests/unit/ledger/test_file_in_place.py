"""A ledger whose file is removed, replaced or mounted apart while it is in use buys nothing more, and is not lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import LedgerError
from pipeline.ledger import file_in_place
from pipeline.ledger.file_in_place import is_mounted_alone
from pipeline.ledger.file_lock import locked
from pipeline.ledger.queries import LedgerQueries
from tests.support.ledgers import AT, accept, ledger_at, read, requests, reserve, start


def removed(path: Path) -> None:
    for file in path.parent.glob("ledger.db*"):
        file.unlink()


def replaced(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.touch()


@pytest.mark.parametrize("lose", [removed, replaced])
def test_a_ledger_that_lost_its_file_buys_no_more_and_leaves_a_copy(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    path = tmp_path / "ledger.db"
    first, second = requests(2)
    ledger = ledger_at(path)
    ledger.ready_to_spend()
    start(LedgerQueries(ledger), [first, second])
    ledger.apply_now(reserve(first))
    lose(path)
    with pytest.raises(LedgerError, match="was removed or replaced"):
        ledger.apply_now(reserve(second))
    ledger.apply_now(accept(first, "job-1"))
    with pytest.raises(LedgerError, match=r"was removed or replaced.*ledger\.db\.rescued"):
        ledger.close()
    (copy,) = tmp_path.glob("*.rescued")
    assert read(copy, "select state, job_set_id from attempts order by 1") == [("accepted", "job-1"), ("planned", None)]
    for file in tmp_path.glob("ledger.db*"):
        if file != copy:
            file.unlink()
    copy.rename(path)
    with closing(ledger_at(path)) as again, pytest.raises(LedgerError, match="dop ledger adopt"):
        again.ready_to_spend()


def test_a_question_to_a_ledger_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = ledger_at(path)
    removed(path)
    with pytest.raises(LedgerError, match=r"can't be opened \(No such file or directory\)"):
        ledger.saved_states.load("anything")
    ledger.close()
    assert list(tmp_path.glob("ledger.db*")) == []


def test_a_file_that_is_a_mount_of_its_own_is_not_bought_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a mount needs a privilege that tests have not: the kernel's list is written by hand."""
    path, mounts = tmp_path / "led ger.db", tmp_path / "mountinfo"
    here = str(path.resolve()).replace(" ", "\\040")
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda rw\n43 22 8:1 /a {here} rw,relatime - ext4 /dev/sda rw\n")
    assert not is_mounted_alone(path)
    monkeypatch.setattr(file_in_place, "_MOUNTS", mounts)
    assert is_mounted_alone(path.resolve())
    with pytest.raises(LedgerError, match="a mount of its own"), locked(path, wait_s=0, now=AT):
        pass
