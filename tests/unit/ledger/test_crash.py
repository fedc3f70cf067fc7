"""Power cuts, flipped bits and full disks, acted out on the ledger's files.

What a power cut leaves is acted out by SQLite's own promise: bytes before the last sync are there, later ones may be
there, torn, or not. A disk that lies about its syncs can't be acted out here, and no program can stand against it.
"""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from pipeline.errors import DopError, LedgerError
from pipeline.ledger.budget import Caps
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.side_files import journal_path
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import State
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import RUN, accept, change, opened, read, requests, reserve, start

MEMORY = Path("/dev/shm")
SUMS = "select gateway, run_id, day, model, confirmed, disputed, reserved from spend order by 1, 2, 3, 4"
PAGE = 4096


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose syncs cost nothing, where there is one."""
    made = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


def put(folder: Path, db: bytes, wal: bytes, journal: bytes) -> Path:
    """The files of a ledger as a power cut left them, in a folder of their own."""
    there = Path(tempfile.mkdtemp(dir=folder))
    path = there / "ledger.db"
    path.write_bytes(db)
    path.with_name("ledger.db-wal").write_bytes(wal)
    journal_path(path).write_bytes(journal)
    return path


def after_the_cut(path: Path) -> list[str]:
    """The ledger opened again (it is in its old place for the purpose); its events, once it is found whole."""
    ledger = SqliteLedger(path, inline=True)
    ledger.facts["inode"] = str(path.stat().st_ino)
    ledger.facts.pop("copy", None)
    ledger.ready_to_spend()
    assert ledger.problems() == []
    ledger.close()
    return [str(event) for (event,) in read(path, "select request_id || ' ' || event from history order by seq")]


class Camera:
    """Takes the files of a ledger after each commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shots: list[tuple[bytes, bytes, bytes]] = []
        self.events: list[str] = []

    def take(self, event: str) -> None:
        self.events.append(event)
        names = (self.path, self.path.with_name("ledger.db-wal"), journal_path(self.path))
        self.shots.append(tuple(name.read_bytes() if name.exists() else b"" for name in names))  # type: ignore[arg-type]


def filmed(path: Path, count: int) -> Camera:
    camera = Camera(path)
    with opened(path) as (ledger, queries):
        rows = requests(count)
        start(queries, rows)
        for row in rows:
            for event in (reserve(row), accept(row, f"job-{row.params.seed}"), change(row, Event.COMPLETE)):
                assert isinstance(ledger.apply_now(event), Applied)
                camera.take(f"{row.request_id} {event.event}")
    return camera


@pytest.mark.parametrize("seed", range(40))
def test_a_power_cut_between_two_commits_loses_no_reported_event(folder: Path, seed: int) -> None:
    """The next commit's bytes are torn anywhere; the journal, which is not synced, is cut anywhere."""
    chance = random.Random(seed)
    camera = filmed(folder / "ledger.db", 6)
    event = chance.randrange(len(camera.shots) - 1)
    (db, wal, _), (_, next_wal, journal) = camera.shots[event], camera.shots[event + 1]
    assert next_wal.startswith(wal[32:48]) or len(next_wal) > len(wal)
    torn = next_wal[: chance.randrange(len(wal), len(next_wal))]
    if chance.random() < 0.5:
        torn += chance.randbytes(chance.randrange(1, 3 * PAGE))
    path = put(folder, db, torn, journal[: chance.randrange(len(journal) + 1)])
    events = after_the_cut(path)
    assert events[: event + 1] == camera.events[: event + 1]
    assert len(events) <= event + 2


@pytest.mark.parametrize("seed", range(10))
def test_a_power_cut_while_the_file_is_brought_up_to_its_log_loses_nothing(folder: Path, seed: int) -> None:
    """A checkpoint copies synced pages into the file: any of them may be there or not, the log is still whole."""
    chance = random.Random(seed)
    camera = filmed(folder / "ledger.db", 5)
    db, wal, journal = camera.shots[-1]
    path = put(folder, db, wal, journal)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        done = path.read_bytes()
    mixed = b"".join(
        (db if chance.random() < 0.5 and place < len(db) else done)[place : place + PAGE]
        for place in range(0, len(done), PAGE)
    )
    assert after_the_cut(put(folder, mixed, wal, journal)) == camera.events


def test_a_log_that_is_gone_is_made_up_for_by_the_journal(folder: Path) -> None:
    """Beyond what SQLite promises: ledger.db-wal was removed. The journal has it all."""
    camera = filmed(folder / "ledger.db", 4)
    db, _, journal = camera.shots[-1]
    path = put(folder, db, b"", journal)
    events = after_the_cut(path)
    assert sorted(events) == sorted(camera.events)
    assert read(path, "select sum(confirmed) from spend") == [(4 * LITE_MICROUSD,)]


# --- flipped bits


def ledger_with_history(path: Path) -> None:
    with opened(path) as (ledger, queries):
        rows = requests(12)
        start(queries, rows)
        for row in rows[:9]:
            ledger.apply_now(reserve(row))
            ledger.apply_now(accept(row, f"job-{row.params.seed}"))
        for row in rows[:5]:
            ledger.apply_now(change(row, Event.COMPLETE, values={"video_url": "https://cdn.example.com/a.mp4"}))
        ledger.apply_now(change(rows[5], Event.FAIL, values={"reason": "out of memory"}))


def what_it_says(path: Path) -> tuple[object, ...]:
    """What money and resume depend on."""
    hot = "request_id, attempt, superseded, run_id, price_microusd, state, job_set_id, idempotency_key, params"
    return read(path, SUMS), read(path, f"select {hot} from attempts order by 1, 2")


def flips(path: Path, count: int, seed: int) -> Iterator[bytes]:
    """The file with one bit flipped, so many times; half of them where something is written."""
    chance, whole = random.Random(seed), path.read_bytes()
    written = [place for place, byte in enumerate(whole) if byte]
    for number in range(count):
        place = chance.choice(written) if number % 2 else chance.randrange(len(whole))
        yield whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :]


def _flip_through(folder: Path, count: int, seed: int) -> tuple[int, int]:
    path = folder / "ledger.db"
    ledger_with_history(path)
    before = what_it_says(path)
    noticed = harmless = 0
    for flipped in flips(path, count, seed):
        path.write_bytes(flipped)
        for side in ("ledger.db-wal", "ledger.db-shm"):
            (folder / side).unlink(missing_ok=True)
        try:
            ledger = SqliteLedger(path, inline=True)
        except LedgerError:
            noticed += 1
            continue
        problems = ledger.problems()
        ledger.close(clean=False)
        if problems:
            noticed += 1
            continue
        assert what_it_says(path) == before, "a flipped bit went unnoticed"
        harmless += 1
    return noticed, harmless


def test_a_flipped_bit_is_harmless_or_noticed(folder: Path) -> None:
    noticed, harmless = _flip_through(folder, 120, seed=1)
    assert noticed > 20
    assert harmless > 20, "the check would cry about anything"


@pytest.mark.long
def test_two_thousand_flipped_bits_are_harmless_or_noticed(folder: Path) -> None:
    noticed, harmless = _flip_through(folder, 2_000, seed=2)
    assert noticed + harmless == 2_000


def test_a_run_never_starts_on_sums_that_a_flipped_bit_changed(folder: Path) -> None:
    """Without the full check, which only an unclean end brings: the caps' sums are right, or nothing is bought."""
    path = folder / "ledger.db"
    ledger_with_history(path)
    before, refused = read(path, SUMS), 0
    for flipped in flips(path, 150, seed=3):
        path.write_bytes(flipped)
        for side in ("ledger.db-wal", "ledger.db-shm"):
            (folder / side).unlink(missing_ok=True)
        with suppress(LedgerError):
            ledger = SqliteLedger(path, inline=True)
            try:
                ledger.ready_to_spend()
                assert read(path, SUMS) == before
                continue
            finally:
                ledger.close(clean=False)
        refused += 1
    assert refused > 5


# --- a full disk


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `size_bytes`; writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def at_work(folder: Path) -> Iterator[tuple[SqliteLedger, LedgerQueries]]:
    """A ledger with one submit in flight, and one still to come."""
    ledger = SqliteLedger(folder / "ledger.db", inline=True)
    ledger.ready_to_spend()
    queries = LedgerQueries(ledger)
    start(queries, requests(3))
    ledger.apply_now(reserve(requests(1)[0]))
    yield ledger, queries
    ledger.close()


def test_on_a_full_disk_no_intent_is_booked_so_nothing_is_sent(at_work: tuple[SqliteLedger, LedgerQueries]) -> None:
    ledger, queries = at_work
    wal = ledger.path.with_name("ledger.db-wal").stat().st_size
    _, two, three = requests(3)
    with full_disk(wal):
        for row in (two, three):
            with pytest.raises(LedgerError, match="free some disk space"):
                ledger.apply_now(reserve(row))
    assert queries.totals(RUN).counts == {State.SUBMITTING: 1, State.PLANNED: 2}
    with pytest.raises(LedgerError):  # room again: this run stays careful, the next one buys
        ledger.apply_now(reserve(two))


def test_a_paid_id_survives_a_disk_that_filled_after_the_post(at_work: tuple[SqliteLedger, LedgerQueries]) -> None:
    ledger, _ = at_work
    wal = ledger.path.with_name("ledger.db-wal").stat().st_size
    one = requests(1)[0]
    with full_disk(wal), pytest.raises(LedgerError):
        ledger.apply_now(accept(one, "job-1"))
    assert not ledger.spare.exists(), "given up for it"
    ledger.close()
    path = ledger.path
    assert read(path, "select state from attempts where job_set_id is not null") == []
    with opened(path) as (again, queries):
        assert queries.states([one.request_id]) == {one.request_id: State.ACCEPTED}
        assert read(path, "select job_set_id from attempts where state = 'accepted'") == [("job-1",)]
        assert again.problems() == []


def test_what_happens_after_a_failed_write_never_hides_it(at_work: tuple[SqliteLedger, LedgerQueries]) -> None:
    """The disk is full for one answer only; the next ones could be written, and must not jump the queue."""
    ledger, _ = at_work
    one, two, _ = requests(3)
    ledger.apply_now(reserve(two, "second"))
    wal = ledger.path.with_name("ledger.db-wal").stat().st_size
    with full_disk(wal), pytest.raises(LedgerError):
        ledger.apply_now(accept(one, "job-1"))
    with pytest.raises(LedgerError):
        ledger.apply_now(accept(two, "job-2", "second"))
    with pytest.raises(LedgerError):
        ledger.apply_now(change(one, Event.COMPLETE, values={"video_url": "https://cdn.example.com/1.mp4"}))
    ledger.close()
    with opened(ledger.path) as (again, queries):
        assert queries.states([one.request_id, two.request_id]) == {
            one.request_id: State.DONE,
            two.request_id: State.ACCEPTED,
        }
        assert again.problems() == []


def test_an_answer_of_another_request_on_a_full_disk_becomes_unknown(
    at_work: tuple[SqliteLedger, LedgerQueries],
) -> None:
    ledger, _ = at_work
    one, two, _ = requests(3)
    ledger.apply_now(reserve(two, "second"))
    wal = ledger.path.with_name("ledger.db-wal").stat().st_size
    with full_disk(wal):
        for row, token in ((one, "token"), (two, "second")):
            with pytest.raises(LedgerError):
                ledger.apply_now(accept(row, "job-1", token))
    ledger.close()
    with opened(ledger.path) as (_, queries):
        assert queries.states([one.request_id, two.request_id]) == {
            one.request_id: State.ACCEPTED,
            two.request_id: State.UNKNOWN,
        }


def test_with_no_room_at_all_the_submit_is_still_known_to_be_open(at_work: tuple[SqliteLedger, LedgerQueries]) -> None:
    """Neither book could be written: the intent, written before, keeps the money and the question."""
    ledger, _ = at_work
    one = requests(1)[0]
    with full_disk(1), pytest.raises(LedgerError):
        ledger.apply_now(accept(one, "job-1"))
    with full_disk(1):
        ledger.close()
    with opened(ledger.path) as (_, queries):
        assert queries.abandoned_submits() == [one.request_id]
        assert queries.totals(RUN).reserved_microusd == LITE_MICROUSD


def test_a_journal_that_cannot_be_written_stops_buying_and_loses_nothing(folder: Path) -> None:
    path = folder / "ledger.db"
    one, two = requests(2)
    ledger = SqliteLedger(path, inline=True)
    ledger.ready_to_spend()
    start(LedgerQueries(ledger), [one, two])
    ledger.journal.close()
    journal_path(path).unlink()
    journal_path(path).mkdir()
    assert isinstance(ledger.apply_now(reserve(one, caps=Caps())), Applied)
    with pytest.raises(LedgerError, match="journal"):
        ledger.apply_now(reserve(two))
    assert isinstance(ledger.apply_now(accept(one, "job-1")), Applied)
    ledger.close()
    journal_path(path).rmdir()
    with opened(path) as (_, queries):
        assert queries.states([one.request_id]) == {one.request_id: State.ACCEPTED}


def test_a_ledger_in_a_folder_that_became_read_only_is_reported(folder: Path) -> None:
    with full_disk(1), pytest.raises(DopError, match=r"can't be|could not be"):
        SqliteLedger(folder / "new" / "ledger.db", inline=True)
