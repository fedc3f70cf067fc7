"""A ledger that is damaged, copied or newer spends nothing, says what to do, and is whole again after that."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, Ended, shots
from tests.support.fake_gateway import GatewayDouble

Against = Callable[..., Opened]


def bought(against: Against) -> Opened:
    dop, double = against()
    assert dop.buy(dop.csv(shots(3))).code == 0
    return dop, double


def refused(dop: Dop, double: GatewayDouble, *words: str) -> None:
    """More rows are asked for, and nothing is sent."""
    end = dop.buy(dop.csv(shots(5)))
    assert end.code == 7, end.err
    assert all(word in end.err for word in words), end.err
    assert len(double.submits) == 3


def care(dop: Dop, *words: str) -> Ended:
    return dop.typed("ledger", *words, "--outputs", str(dop.outputs))


def tamper(dop: Dop, statement: str) -> None:
    with closing(sqlite3.connect(dop.outputs / "ledger.db")) as connection, connection:
        connection.execute(statement)


def continues(dop: Dop, double: GatewayDouble) -> None:
    end = dop.buy(dop.csv(shots(5)))
    assert end.code == 0, end.err
    assert len(double.submits) == 5
    assert dop.ledger_mills() == double.charged_mills == 5 * 135


def test_a_damaged_ledger_is_rebuilt_and_buys_nothing_twice(against: Against) -> None:
    dop, double = bought(against)
    (dop.outputs / "ledger.db").write_bytes(os.urandom(9_000))
    refused(dop, double, "dop ledger check")
    assert dop.call("doctor").code == 7
    check = care(dop, "check")
    assert (check.code, "dop ledger rebuild" in check.out) == (7, True)
    rebuilt = care(dop, "rebuild")
    assert rebuilt.code == 0, rebuilt.err
    assert "3 requests" in rebuilt.out
    assert care(dop, "check").code == 0
    continues(dop, double)


def test_sums_that_were_changed_stop_the_next_run(against: Against) -> None:
    dop, double = bought(against)
    tamper(dop, "update spend set confirmed = 0")
    refused(dop, double, "does not equal its requests", "dop ledger rebuild")
    assert care(dop, "rebuild").code == 0
    continues(dop, double)


def test_a_copied_ledger_is_adopted_first(against: Against) -> None:
    dop, double = bought(against)
    shutil.copyfile(dop.outputs / "ledger.db", dop.outputs / "copy.db")
    (dop.outputs / "copy.db").replace(dop.outputs / "ledger.db")
    refused(dop, double, "dop ledger adopt")
    assert care(dop, "adopt").code == 0
    continues(dop, double)


def test_an_older_backup_put_in_place_is_brought_up_to_date_by_the_journal(against: Against) -> None:
    dop, double = against()
    assert dop.buy(dop.csv(shots(1))).code == 0
    assert care(dop, "copy", "backup.db").code == 0
    assert dop.buy(dop.csv(shots(3))).code == 0
    shutil.copyfile(dop.folder / "backup.db", dop.outputs / "ledger.db")
    continues(dop, double)


def test_a_newer_ledger_is_left_alone(against: Against) -> None:
    dop, double = bought(against)
    tamper(dop, "update meta set value = '99' where name = 'schema_version'")
    refused(dop, double, "newer dop")
    assert care(dop, "check").code == 7
