"""`dop ledger` and `dop prune`: what they find, what they say, and what they never touch."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from pipeline.cli.main import main
from pipeline.errors import LedgerError
from pipeline.ledger.journal import Journal
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.writer import LedgerWriter
from tests.support.ledgers import AT, accept, change, make_run, opened, read, requests, reserve, start

DAY_S = 86_400.0
Say = pytest.CaptureFixture[str]


def buy(ledger: LedgerWriter, queries: LedgerQueries, outputs: Path, run_id: str, *, first: int, last: int) -> None:
    """A run that bought seeds `first`..`last` and saved their videos; it lists all seeds up to `last`."""
    rows = requests(last)
    start(queries, rows, make_run(run_id, manifest_path=f"/tmp/{run_id}.csv"))
    folder = outputs / run_id / "videos"
    folder.mkdir(parents=True)
    for row in rows[first - 1 :]:
        ledger.apply_now(reserve(row, run_id=run_id))
        ledger.apply_now(accept(row, f"job-{row.params.seed}"))
        ledger.apply_now(change(row, Event.COMPLETE, values={"video_url": "https://cdn.example.com/1.mp4"}))
        name = f"{run_id}/videos/{row.params.seed}.mp4"
        (outputs / name).write_bytes(b"clip" * 100)
        ledger.apply_now(change(row, Event.SAVE, values={"local_path": name, "size_bytes": 400, "sha256": "0" * 64}))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """One run of two videos in an outputs folder, ended long ago."""
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        buy(ledger, queries, tmp_path, "old", first=1, last=2)
        queries.end_run("old", AT)
    return tmp_path


def dop(outputs: Path, *words: str) -> int:
    return main([*words, "--outputs", str(outputs)])


def test_a_whole_ledger_is_called_whole(outputs: Path, capsys: Say) -> None:
    assert dop(outputs, "ledger", "check") == 0
    assert "is whole" in capsys.readouterr().out


def test_a_ledger_that_is_not_there_yet_is_no_problem(tmp_path: Path, capsys: Say) -> None:
    assert dop(tmp_path, "ledger", "check") == 0
    assert "does not exist yet" in capsys.readouterr().out


def test_every_problem_is_listed_with_its_remedy(outputs: Path, capsys: Say) -> None:
    with closing(sqlite3.connect(outputs / "ledger.db")) as connection, connection:
        connection.execute("update attempts set price_microusd = 1")
        connection.execute("update meta set value = '1' where name = 'inode'")
    journal = outputs / "ledger.db.journal"
    journal.write_text(journal.read_text().replace("job-1", "job-9"))
    assert dop(outputs, "ledger", "check") == 7
    said = capsys.readouterr().out
    assert said.count("does not match its checksum") == 2
    assert "does not equal its requests" in said
    assert "is a copy" in said
    assert re.search(r"lacks events? \d.*line \d+.* is damaged", said)
    for remedy in ("dop ledger rebuild", "dop ledger adopt", "writes the journal again from the ledger"):
        assert remedy in said


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "unmounted" / path.name)


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [a_folder, a_pipe, a_link_to_nothing, a_loop])
def test_a_journal_that_is_no_file_stops_the_spending_with_a_word(
    outputs: Path, make: Callable[[Path], None], capsys: Say
) -> None:
    journal = outputs / "ledger.db.journal"
    journal.unlink()
    make(journal)
    ledger = SqliteLedger(outputs / "ledger.db", inline=True)
    with pytest.raises(LedgerError, match=r"the journal .*/ledger\.db\.journal (is|can't).*nothing is bought"):
        ledger.ready_to_spend()
    ledger.close()
    assert dop(outputs, "ledger", "check") == 7
    assert str(journal) in capsys.readouterr().out
    assert dop(outputs, "ledger", "rebuild") == 0
    assert dop(outputs, "ledger", "check") == 0


def test_a_journal_that_takes_no_line_stops_the_spending_with_a_word(outputs: Path) -> None:
    journal = outputs / "ledger.db.journal"
    journal.write_bytes(b"")
    ledger = SqliteLedger(outputs / "ledger.db", inline=True)
    with (
        mock.patch.object(Journal, "append", side_effect=OSError(errno.EROFS, os.strerror(errno.EROFS))),
        pytest.raises(LedgerError, match=r"can't be used \(Read-only file system\); nothing is bought"),
    ):
        ledger.ready_to_spend()
    ledger.close()


def test_a_lost_ledger_whose_journal_is_no_file_is_a_problem(outputs: Path, capsys: Say) -> None:
    for file in outputs.glob("ledger.db*"):
        file.unlink()
    (outputs / "ledger.db.journal").mkdir()
    assert dop(outputs, "ledger", "check") == 7
    assert "is a folder" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"\0" * 9000])
def test_an_unreadable_ledger_is_checked_rebuilt_and_then_whole(outputs: Path, content: bytes, capsys: Say) -> None:
    if content:
        (outputs / "ledger.db").write_bytes(content)
    else:
        (outputs / "ledger.db").unlink()
    assert dop(outputs, "ledger", "check") == 7
    assert "dop ledger rebuild" in capsys.readouterr().out
    assert dop(outputs, "ledger", "rebuild") == 0
    said = capsys.readouterr().out
    assert "was made from 8 events: 2 requests" in said
    assert ("damaged-" in said) is bool(content)
    assert dop(outputs, "ledger", "check") == 0
    assert read(outputs / "ledger.db", "select sum(confirmed) from spend") == [(270_000,)]


def test_a_copy_reads_but_spends_only_when_it_is_adopted(outputs: Path, tmp_path: Path, capsys: Say) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert dop(outputs, "ledger", "copy", str(elsewhere / "ledger.db")) == 0
    assert dop(outputs, "ledger", "copy", str(elsewhere / "ledger.db")) == 7
    assert dop(elsewhere, "list") == 0
    assert dop(elsewhere, "collect") == 7
    assert "dop ledger adopt" in capsys.readouterr().err
    assert dop(elsewhere, "ledger", "adopt") == 0
    assert dop(elsewhere, "collect") == 0
    assert dop(elsewhere, "ledger", "adopt") == 0
    assert "nothing to adopt" in capsys.readouterr().out


def test_a_ledger_beside_which_nothing_can_be_written_is_not_called_damaged(outputs: Path, capsys: Say) -> None:
    for file in outputs.glob("ledger.db-*"):
        file.unlink()
    (outputs / "ledger.db-shm").mkdir()
    assert dop(outputs, "list") == 7
    said = capsys.readouterr().err
    assert "read-only" in said
    assert "dop ledger check" not in said


def test_a_damaged_copy_is_not_adopted(outputs: Path) -> None:
    with closing(sqlite3.connect(outputs / "ledger.db")) as connection, connection:
        connection.execute("update attempts set price_microusd = 1")
        connection.execute("update meta set value = '1' where name = 'inode'")
    assert dop(outputs, "ledger", "adopt") == 7
    assert dop(outputs, "collect") == 7


def test_care_of_a_ledger_waits_for_no_run(outputs: Path, capsys: Say) -> None:
    from pipeline.ledger.file_lock import locked

    with locked(outputs / "ledger.db", wait_s=0, now=AT):
        for words in (["ledger", "rebuild"], ["ledger", "adopt"], ["prune", "--keep", "1d", "--yes"]):
            assert dop(outputs, *words) == 11
        assert dop(outputs, "ledger", "check") == 0
    assert (outputs / "old" / "videos" / "1.mp4").exists()


def test_pruning_shows_what_goes_and_removes_only_that(outputs: Path, capsys: Say) -> None:
    (outputs / "latest").symlink_to("old")
    before = read(outputs / "ledger.db", "select * from attempts")
    assert dop(outputs, "prune", "--keep", "30d", "--dry-run") == 0
    assert "2 files, 0.0 MB" in capsys.readouterr().out
    assert (outputs / "old").is_dir()
    assert dop(outputs, "prune", "--keep", "30d", "--yes") == 0
    assert not (outputs / "old").exists()
    assert not (outputs / "latest").is_symlink()
    assert read(outputs / "ledger.db", "select * from attempts") == before


def test_without_a_terminal_pruning_needs_a_yes(
    outputs: Path, capsys: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open("/dev/null", encoding="ascii") as empty_input:
        monkeypatch.setattr("sys.stdin", empty_input)
        assert dop(outputs, "prune", "--keep", "30d") == 2
    assert "give --yes" in capsys.readouterr().err
    assert (outputs / "old").is_dir()


def test_videos_that_a_younger_report_points_to_are_kept(outputs: Path, capsys: Say) -> None:
    with opened(outputs / "ledger.db") as (ledger, queries):
        buy(ledger, queries, outputs, "young", first=3, last=3)
    assert dop(outputs, "prune", "--keep", "30d", "--yes") == 0
    assert "a younger report still points to its videos" in capsys.readouterr().out
    assert (outputs / "old" / "videos" / "1.mp4").exists()


@pytest.mark.parametrize("ended_at", [None, 4_000_000_000.0])
def test_unfinished_and_young_runs_are_kept(tmp_path: Path, ended_at: float | None) -> None:
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        buy(ledger, queries, tmp_path, "run", first=1, last=1)
        if ended_at is not None:
            queries.end_run("run", ended_at)
    assert dop(tmp_path, "prune", "--keep", "30d", "--yes") == 0
    assert (tmp_path / "run" / "videos" / "1.mp4").exists()


def test_a_run_name_never_leads_out_of_the_outputs_folder(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    outputs = tmp_path / "outputs"
    (outputs / "linked").parent.mkdir()
    (outputs / "linked").symlink_to(precious)
    with opened(outputs / "ledger.db") as (_, queries):
        for name in ("../precious", "..", ".", "linked"):
            queries.sync_rows(name, [], rows_digest="digest", new=make_run(name, ended_at=AT))
            queries.end_run(name, AT)
    assert dop(outputs, "prune", "--keep", "30d", "--yes") == 0
    assert precious.is_dir()
    assert (outputs / "ledger.db").exists()


def test_a_wrong_duration_is_a_usage_error(outputs: Path) -> None:
    assert dop(outputs, "prune", "--keep", "soon", "--yes") == 2
