"""The journal: torn tails are repaired, damaged lines are noticed, and the ledger can be rebuilt from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.files import UMASK
from pipeline.ledger.identity import GENESIS
from pipeline.ledger.journal import Journal, SealedEntry, change_entry, entry_of, last_seq, line_of, link_of, sealed
from pipeline.ledger.journal_check import JournalWalk, lines_of
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange

plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)


def entries(path: Path, after: int = -1) -> list[dict[str, object]]:
    """Every whole entry of a file with a number above `after`."""
    return list(JournalWalk(str(path), after=after).entries(lines_of(path)))


def written(path: Path, count: int, **more: object) -> list[str]:
    """A journal of so many lines; its lines."""
    journal = Journal(path)
    journal.append([{"seq": number, **more} for number in range(1, count + 1)])
    journal.close()
    return path.read_text().splitlines(keepends=True)


@given(st.dictionaries(st.text(), plain | st.lists(plain), max_size=6))
def test_a_line_reads_as_it_was_written_and_stays_one_line(entry: dict[str, object]) -> None:
    line = line_of(entry)
    assert line.isascii()
    assert line.count("\n") == 1
    assert entry_of(line) == entry


@given(st.dictionaries(st.text(), plain, max_size=4), st.none() | st.dictionaries(st.text(), plain, max_size=3))
def test_a_sealed_line_is_the_one_that_the_whole_entry_would_give(
    row: dict[str, object], cold: dict[str, object] | None
) -> None:
    entry = SealedEntry({"seq": 1, "row": row, "detail": "x"})
    link = sealed(entry, "ledger-1", GENESIS)
    if cold is not None:
        entry["cold"] = cold
    assert line_of(entry) == line_of(dict(entry))
    read = entry_of(line_of(entry))
    assert read is not None
    assert link_of(read, GENESIS) == link


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_of_a_line_is_noticed(place: int, bit: int) -> None:
    data = bytearray(line_of({"seq": 7, "event": "accept", "row": {"job_set_id": "a1"}}).encode())
    data[place % len(data)] ^= 1 << bit
    line = data.decode("ascii", "replace")
    assert entry_of(line) is None or entry_of(line) == {"seq": 7, "event": "accept", "row": {"job_set_id": "a1"}}


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_line_is_passed_over_and_cut_off_before_the_next(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "ledger.db.journal"
    *_, last = written(path, 3, detail="x" * 20)
    os.truncate(path, path.stat().st_size - min(cut, len(last)))
    assert [entry["seq"] for entry in entries(path)] == [1, 2]
    assert last_seq(path) == 2
    journal = Journal(path)
    journal.append([{"seq": 3}])
    journal.close()
    assert [entry["seq"] for entry in entries(path)] == [1, 2, 3]


def test_a_damaged_line_before_the_last_is_reported_with_its_number_and_event(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db.journal"
    lines = written(path, 4)
    lines[1] = lines[1].replace('"seq":2', '"seq":9')
    path.write_text("".join(lines))
    walk = JournalWalk(str(path))
    assert [entry["seq"] for entry in walk.entries(lines_of(path))] == [1, 3, 4]
    assert [str(gap) for gap in walk.lacks(0)] == ["event 2 (line 2 is damaged)"]
    assert walk.lacks(2) == []


def test_only_what_comes_after_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db.journal"
    written(path, 9)
    assert [entry["seq"] for entry in entries(path, 6)] == [7, 8, 9]


def test_a_missing_and_an_empty_journal_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db.journal"
    assert (list(entries(path)), last_seq(path)) == ([], 0)
    path.touch()
    assert (list(entries(path)), last_seq(path)) == ([], 0)
    assert len(written(path, 1)) == 1


def test_the_last_number_is_found_behind_lines_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db.journal"
    written(path, 3, detail="y" * 200_000)
    assert last_seq(path) == 3


def test_a_journal_is_for_its_group_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db.journal"
    written(path, 1)
    assert path.stat().st_mode & 0o777 == 0o660 & ~UMASK


def test_a_change_that_the_database_did_not_take_keeps_what_it_would_have_set() -> None:
    values = {"job_set_id": "j-1", "accepted_at": 5.0}
    change = LedgerChange(request_id="r", event=Event.ACCEPT, at=5.0, token="t", values=values, detail="raw")
    assert entry_of(line_of(change_entry(change, 3))) == {
        "seq": 3,
        "event": "accept",
        "at": 5.0,
        "request_id": "r",
        "change": {"token": "t", "values": values},
        "detail": "raw",
    }
