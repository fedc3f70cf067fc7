"""Is the ledger whole, and can it be made whole again from its journal?"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import LedgerError
from pipeline.ledger.budget import Caps
from pipeline.ledger.journal_check import JournalWalk, lines_of
from pipeline.ledger.recovery import rebuild
from pipeline.ledger.side_files import journal_path
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.records import Attempt, CostState, State
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, RUN, accept, change, make_run, money, opened, read, requests, reserve, start

WHOLE = "select * from attempts order by request_id, attempt"
SUMS = "select * from spend where confirmed + disputed + reserved > 0 order by 1, 2, 3, 4"
STORY = "select request_id, attempt, at, event, state, detail from history order by seq"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with one request of each fate, one of them bought twice, on two days."""
    path = tmp_path / "ledger.db"
    with opened(path) as (ledger, queries):
        rows = requests(9)
        start(queries, rows)
        for number, row in enumerate(rows[:8]):
            ledger.apply_now(reserve(row, at=AT + number * 20_000))
        for number, row in enumerate(rows[:6]):
            ledger.apply_now(accept(row, f"job-{number}"))
        done, failed, refused, canceled, stalled, _, lost, rejected = rows[:8]
        ledger.apply_now(change(done, Event.COMPLETE, values={"video_url": "https://cdn.example.com/1.mp4"}))
        ledger.apply_now(
            change(done, Event.SAVE, values={"local_path": "run/videos/1.mp4", "size_bytes": 9, "sha256": "0" * 64})
        )
        ledger.apply_now(change(failed, Event.FAIL, values={"reason": "out of memory"}))
        ledger.apply_now(change(refused, Event.REFUSE))
        ledger.apply_now(change(canceled, Event.CANCEL))
        ledger.apply_now(change(stalled, Event.STALL))
        ledger.apply_now(change(lost, Event.LOSE, token="token", detail="502 <html>"))
        ledger.apply_now(change(rejected, Event.REJECT, token="token"))
        queries.new_attempts([failed.request_id])
        ledger.apply_now(reserve(failed, "again"))
    return path


def tamper(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def problems_of(path: Path) -> list[str]:
    ledger = SqliteLedger(path, inline=True)
    try:
        return ledger.problems()
    finally:
        ledger.close(clean=False)


def test_a_whole_ledger_has_no_problems(path: Path) -> None:
    assert problems_of(path) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("update attempts set state = 'planned' where state = 'accepted'", "does not match its checksum"),
        ("update attempts set price_microusd = 1 where state = 'done'", "does not match its checksum"),
        ("update attempts set price_microusd = 'x' where state = 'done'", "no readable state or price"),
        ("update attempts set state = 'dome' where state = 'done'", "no readable state or price"),
        ("update attempts set params = replace(params, 'lake', 'cake')", "what it says was changed"),
        ("update spend set reserved = reserved + 1", "does not equal its requests"),
        ("update spend set run_id = 'another'", "does not equal its requests"),
        ("update spend set reserved = 'x'", "does not equal its requests"),
        ("delete from spend", "does not equal its requests"),
        ("update attempts set superseded = 0", "two live attempts"),
    ],
)
def test_what_was_changed_by_hand_is_reported(path: Path, statement: str, words: str) -> None:
    tamper(path, statement)
    assert any(words in problem for problem in problems_of(path))


def test_a_ledger_rebuilt_from_its_journal_is_the_same(path: Path) -> None:
    before = [read(path, WHOLE), read(path, SUMS), read(path, STORY)]
    found = rebuild(path, now=AT)
    never_sent = [row for row in before[0] if row[7] == "planned"]
    after = [read(path, WHOLE), read(path, SUMS), read(path, STORY)]
    assert after == [[row for row in before[0] if row not in never_sent], before[1], before[2]]
    assert (found.events, found.requests, found.runs) == (len(before[2]), len(after[0]), 1)
    assert found.kept is not None
    assert found.kept.name == "ledger.db.damaged-20260921T141320Z"
    assert read(found.kept, WHOLE) == before[0]
    with opened(path) as (ledger, queries):
        assert ledger.problems() == []
        assert queries.run(RUN) is not None
        assert queries.totals(RUN).count(State.ACCEPTED, State.SUBMITTING) == 2


def test_what_was_never_sent_is_planned_again_when_the_manifest_is_read(path: Path) -> None:
    rebuild(path, now=AT)
    with opened(path) as (_, queries):
        run = queries.unfinished_run("/tmp/shots.csv", "sandbox")
        assert run is not None
        assert run.rows_digest is None
        assert queries.sync_rows(run.run_id, requests(9), rows_digest="digest") == 9
        assert queries.totals(RUN).counts[State.PLANNED] == 1
        assert len(list(queries.report(RUN))) == 10


def test_a_ledger_that_is_beyond_reading_is_rebuilt(path: Path) -> None:
    sums = read(path, SUMS)
    path.write_bytes(b"\0" * 5000)
    found = rebuild(path, now=AT)
    assert read(path, SUMS) == sums
    assert found.runs == 0, "which run lists which row was only in the file"


def test_a_ledger_that_is_gone_comes_back_automatically(path: Path) -> None:
    sums = read(path, SUMS)
    path.unlink()
    ledger = SqliteLedger(path, inline=True)
    (notice,) = ledger.ready_to_spend()
    ledger.close()
    assert "events behind its journal, and is level with it now" in notice
    assert read(path, SUMS) == sums


def test_a_planned_retry_that_was_never_sent_leaves_its_failure_as_the_latest(path: Path) -> None:
    with opened(path) as (ledger, queries):
        refused = requests(3)[2]
        queries.new_attempts([refused.request_id])
        assert isinstance(ledger, SqliteLedger)
        ledger.write_journal_again()  # what a lost journal would leave: only what was sent
    rebuild(path, now=AT)
    with opened(path) as (ledger, queries):
        assert ledger.problems() == []
        assert queries.states([refused.request_id]) == {refused.request_id: State.REFUSED}


def test_sums_that_were_changed_between_runs_stop_the_next_run(path: Path) -> None:
    tamper(path, "update spend set reserved = reserved - 135000")
    ledger = SqliteLedger(path, inline=True)
    with pytest.raises(LedgerError, match="does not equal its requests"):
        ledger.ready_to_spend()
    ledger.close(clean=False)


def test_a_request_that_was_changed_by_hand_is_not_handed_out_to_be_bought(path: Path) -> None:
    tamper(path, "update attempts set params = replace(params, 'lake', 'cake') where state = 'planned'")
    with opened(path) as (_, queries), pytest.raises(LedgerError, match="what it says was changed"):
        list(queries.iter_attempts(RUN, (State.PLANNED,)))


DAMAGES = pytest.mark.parametrize("damage", ["missing", "empty", "line"])


def damage_journal(path: Path, damage: str) -> None:
    journal = journal_path(path)
    if damage == "missing":
        journal.unlink()
    elif damage == "empty":
        journal.write_text("")
    else:
        journal.write_text(journal.read_text().replace("job-3", "job-9"))


@DAMAGES
def test_a_whole_ledger_writes_its_damaged_journal_again(path: Path, damage: str) -> None:
    before = [read(path, WHOLE), read(path, SUMS), read(path, STORY)]
    damage_journal(path, damage)
    found = rebuild(path, now=AT)
    assert (found.events, found.hole) == (0, None)
    assert [read(path, WHOLE), read(path, SUMS), read(path, STORY)] == before
    assert len(list(path.parent.glob("*.journal.damaged-*"))) == (damage != "missing")
    path.unlink()  # the new journal is enough
    ledger = SqliteLedger(path, inline=True)
    ledger.ready_to_spend()
    ledger.close()
    assert read(path, SUMS) == before[1]


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_without_ledger_and_journal_nothing_is_touched(path: Path, damage: str) -> None:
    path.write_bytes(b"\0" * 5000)
    damage_journal(path, damage)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="nothing was changed"):
        rebuild(path, now=AT)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if "rebuilding" in file.name or "damaged" in file.name] == []


def test_a_ledger_that_is_lost_beside_a_damaged_journal_gets_a_hole_and_buys_nothing_again(path: Path) -> None:
    """MONEY: what the missing line bought is not known, so every row that the ledger does not know is unknown."""
    damage_journal(path, "line")
    path.unlink()
    ledger = SqliteLedger(path, inline=True)
    with pytest.raises(LedgerError, match=r"may be bought already; nothing is bought.*dop resolve"):
        ledger.ready_to_spend()
    ledger.close(clean=False)
    found = rebuild(path, now=AT)
    assert found.hole is not None
    with opened(path) as (again, queries):
        start(queries, [*requests(9), *requests(1, prompt="a new row")])
        counts = queries.totals(RUN).counts
        assert counts.get(State.PLANNED, 0) == 0, "nothing that may be bought already is bought again"
        assert counts[State.UNKNOWN] == 3, "two that it does not know, and one that was unknown before"
        assert counts[State.SUBMITTING] == 2, "one whose answer is lost counts as in flight"
        assert again.problems() == []
        again.adopt(AT)
        start(queries, requests(1, prompt="after the hole was closed"), make_run("run-2"))
        assert queries.totals("run-2").counts == {State.PLANNED: 1}


def test_a_lost_journal_is_rewritten_and_enough_to_rebuild(path: Path) -> None:
    before = read(path, SUMS), [row for row in read(path, WHOLE) if row[7] != "planned"]
    journal_path(path).unlink()
    with opened(path):
        pass
    rebuild(path, now=AT)
    assert (read(path, SUMS), read(path, WHOLE)) == before


def test_the_journal_brings_back_what_an_older_copy_of_the_file_lacks(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    one, two = requests(2)
    with opened(path) as (ledger, queries):
        start(queries, [one, two])
        ledger.apply_now(reserve(one))
    old = path.read_bytes()
    with opened(path) as (ledger, _):
        ledger.apply_now(accept(one, "job-1"))
        ledger.apply_now(reserve(two))
    path.write_bytes(old)  # restored in place: the same file for the system
    with opened(path) as (ledger, queries):
        assert queries.states([one.request_id, two.request_id]) == {
            one.request_id: State.ACCEPTED,
            two.request_id: State.SUBMITTING,
        }
        assert money(queries)[CostState.RESERVED] == 2 * LITE_MICROUSD
        assert ledger.problems() == []


def test_totals_the_spend_book_and_the_rows_say_the_same(path: Path) -> None:
    with opened(path) as (_, queries):
        totals = queries.totals(RUN)
        lines = list(queries.report(RUN))
        for kind in (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED):
            of_rows = sum(row.cost_microusd for row in lines if isinstance(row, Attempt) and row.cost_state is kind)
            assert money(queries)[kind] == of_rows == getattr(totals, f"{kind}_microusd")


def test_a_budget_counts_money_of_days_and_months_by_gateway(path: Path) -> None:
    with opened(path) as (ledger, queries):
        other = requests(1, prompt="another lake")[0]
        start(queries, [other], make_run("run-2"))
        spent = queries.spent("sandbox", "2026-09").worst_microusd
        assert spent == 8 * LITE_MICROUSD
        caps = Caps(month_microusd=spent + LITE_MICROUSD - 1)
        refused = ledger.apply_now(reserve(other, run_id="run-2", caps=caps))
        assert getattr(refused, "span", None) == "month"
        assert ledger.apply_now(reserve(other, run_id="run-2", caps=Caps(month_microusd=spent + LITE_MICROUSD)))


def test_every_event_is_in_the_journal_once_and_in_order(path: Path) -> None:
    numbers = [entry["seq"] for entry in JournalWalk(str(path)).entries(lines_of(journal_path(path)))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert read(path, "select value from meta where name = 'seq'") == [(str(len(numbers)),)]


@pytest.mark.parametrize("cut", [1, 40, 400, 2_000])
def test_a_journal_that_was_cut_while_it_was_rewritten_is_rewritten_again(path: Path, cut: int) -> None:
    before = read(path, SUMS), [row for row in read(path, WHOLE) if row[7] != "planned"]
    journal = journal_path(path)
    journal.unlink()
    with opened(path):
        pass
    journal.write_bytes(journal.read_bytes()[:-cut])
    with opened(path):
        pass
    rebuild(path, now=AT)
    assert (read(path, SUMS), read(path, WHOLE)) == before
