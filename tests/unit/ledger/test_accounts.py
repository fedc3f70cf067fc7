"""Which ledger an account has bought with: remembered without its key, and missed when it lacks what it had."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline.config.key_origins import state_folder
from pipeline.errors import LedgerError, UsageError
from pipeline.ledger.accounts import Account, AccountMemory, account_name, check_account, remember
from pipeline.records import State
from tests.support.ledgers import RUN, accept, opened, requests, reserve, start

KEY, GATEWAY = "a-key-that-no-file-may-hold", "https://gateway.example:443"


@pytest.fixture
def memory(tmp_path: Path) -> AccountMemory:
    return AccountMemory(tmp_path / "state")


def account(memory: AccountMemory, *, allow_new_ledger: bool = False) -> Account:
    return Account(name=account_name(KEY, GATEWAY), memory=memory, allow_new_ledger=allow_new_ledger)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_STATE_HOME": "/var/state"}, "/var/state/dop-batch"),
        ({"XDG_STATE_HOME": "relative"}, "/home/me/.local/state/dop-batch"),
        ({}, "/home/me/.local/state/dop-batch"),
    ],
)
def test_the_state_folder_is_where_other_programs_have_theirs(environ: dict[str, str], folder: str) -> None:
    assert state_folder(environ, Path("/home/me")) == Path(folder)


def test_an_account_is_a_key_at_a_gateway() -> None:
    names = {account_name(key, gateway) for key in (KEY, "other") for gateway in (GATEWAY, "sandbox")}
    assert len(names) == 4
    assert all(KEY not in name for name in names)


def test_a_second_ledger_needs_an_agreement(tmp_path: Path, memory: AccountMemory) -> None:
    with opened(tmp_path / "one.db") as (one, _), opened(tmp_path / "two.db") as (two, _):
        assert check_account(one, account(memory), outputs=tmp_path, gateway=GATEWAY) == []
        with pytest.raises(UsageError, match=r"one\.db.*--new-ledger"):
            check_account(two, account(memory), outputs=tmp_path, gateway=GATEWAY)
        agreed = account(memory, allow_new_ledger=True)
        assert check_account(two, agreed, outputs=tmp_path, gateway=GATEWAY) == []
        assert check_account(two, account(memory), outputs=tmp_path, gateway=GATEWAY) == []
    records = list((tmp_path / "state").rglob("*.json"))
    assert len(records) == 1
    assert KEY not in records[0].read_text()
    assert stat.S_IMODE(records[0].stat().st_mode) == 0o600


def test_files_that_were_put_back_to_an_older_state_buy_nothing_again(tmp_path: Path, memory: AccountMemory) -> None:
    """MONEY: the ledger and its journal together; only the account's record knows that more was bought."""
    folder = tmp_path / "out"
    path = folder / "ledger.db"
    one, two, three = requests(3)
    with opened(path) as (ledger, queries):
        start(queries, [one, two, three])
        ledger.apply_now(reserve(one))
        ledger.apply_now(accept(one, "job-1"))
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with opened(path) as (ledger, _):
        ledger.apply_now(reserve(two))
        ledger.apply_now(accept(two, "job-2"))
        remember(ledger, account(memory))
    for file, content in before.items():
        file.write_bytes(content)  # in place: the same files for the system
    with opened(path) as (ledger, queries):
        with pytest.raises(LedgerError, match=r"put back to an older state.*dop resolve"):
            check_account(ledger, account(memory), outputs=folder, gateway=GATEWAY)
        assert queries.totals(RUN).counts == {State.ACCEPTED: 1, State.UNKNOWN: 2}
        assert check_account(ledger, account(memory), outputs=folder, gateway=GATEWAY) == []
        start_again = [one, two, three, *requests(1, prompt="a new row")]
        queries.sync_rows(RUN, start_again, rows_digest="digest")
        assert queries.totals(RUN).counts == {State.ACCEPTED: 1, State.UNKNOWN: 3}
        assert ledger.problems() == []


def test_a_damaged_record_is_reported_and_not_passed_over(tmp_path: Path, memory: AccountMemory) -> None:
    with opened(tmp_path / "one.db") as (one, _):
        check_account(one, account(memory), outputs=tmp_path, gateway=GATEWAY)
        (record,) = (tmp_path / "state").rglob("*.json")
        record.write_text("{")
        with pytest.raises(LedgerError, match="can't be read"):
            check_account(one, account(memory), outputs=tmp_path, gateway=GATEWAY)
