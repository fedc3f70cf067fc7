"""Reviews: every change is kept, the newest counts, reviewers do not overwrite each other, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.errors import LedgerError, UsageError
from pipeline.ledger.identity import MOVED
from pipeline.ledger.recovery import rebuild, rebuild_on_server
from pipeline.ledger.reviews import (
    Review,
    all_reviews,
    clip_reviews,
    latest_verdicts,
    moment,
    record,
    reviews_in,
)
from pipeline.ledger.side_files import journal_path, reviews_path
from pipeline.ledger.sqlite_ledger import SqliteLedger
from tests.support.ledgers import AT, Place, accept, ledger_at, opened, read, requests, reserve, start, tamper


def said(request_id: str, second: float, who: str = "ana", **fields: object) -> Review:
    """One change, so many seconds after AT."""
    return reviews_in([{"request_id": request_id, "at": moment(AT + second), **fields}], who=who, now=AT + 999)[0]


@pytest.fixture
def bought(tmp_path: Path) -> Path:
    """A ledger with one purchase and three reviews, closed."""
    path = tmp_path / "ledger.db"
    with opened(path) as (ledger, queries):
        rows = requests(2)
        start(queries, rows)
        ledger.apply_now(reserve(rows[0]))
        ledger.apply_now(accept(rows[0], "job-1"))
        record(ledger, [said("a", 1, verdict="keep"), said("a", 2, stars=4), said("b", 3, verdict="reject")])
    return path


def test_the_newest_change_of_each_field_counts_and_every_change_is_kept(place: Place) -> None:
    with opened(place) as (ledger, _):
        record(ledger, [said("a", 1, verdict="keep", stars=3), said("b", 1, verdict="keep")])
        record(ledger, [said("a", 2, verdict="reject"), said("b", 3, verdict=""), said("c", 4, note="soft")])
        assert latest_verdicts(ledger) == {"a": "reject"}
        found = clip_reviews(ledger)
        assert (found["a"].stars, found["c"].note, "b" in found) == (3, "soft", False)
    assert len(read(place, "select 1 from reviews")) == 5


def test_two_reviewers_do_not_overwrite_each_other(place: Place) -> None:
    with opened(place) as (ledger, _):
        record(ledger, [said("a", 1, "ana", verdict="keep", note="the hand"), said("a", 2, "ben", verdict="reject")])
        found = clip_reviews(ledger)["a"]
        assert (found.verdict, found.note) == ("reject", "the hand")
        assert found.by == {"ana": {"verdict": "keep", "note": "the hand"}, "ben": {"verdict": "reject"}}
        record(ledger, [said("a", 3, "ben", verdict="")])
        assert latest_verdicts(ledger) == {"a": "keep"}


def test_a_change_that_comes_later_and_is_older_does_not_count(place: Place) -> None:
    with opened(place) as (ledger, _):
        record(ledger, [said("a", 5, verdict="reject")])
        record(ledger, [said("a", 2, "ben", verdict="keep")])
        assert latest_verdicts(ledger) == {"a": "reject"}


def test_what_is_sent_twice_is_there_once(place: Place) -> None:
    changes = [said("a", 1, verdict="keep"), said("a", 1, stars=5)]
    with opened(place) as (ledger, _):
        assert record(ledger, changes) == 2
        assert record(ledger, [*changes, said("b", 2, stars=1)]) == 1


def test_duels_are_kept_and_taken_back(place: Place) -> None:
    won = said("a", 1, rival="b", duel=1)
    with opened(place) as (ledger, _):
        record(ledger, [won, said("a", 2, rival="b", duel=1), said("c", 3, rival="a", duel=1)])
        record(ledger, [said("c", 4, rival="a", duel=-1)])
        kept = [(one.request_id, one.rival, one.duel) for one in all_reviews(ledger)]
        assert kept == [("a", "b", 1), ("a", "b", 1), ("c", "a", 1), ("c", "a", -1)]
        assert latest_verdicts(ledger) == {}


def test_reviews_of_several_threads_and_a_run_that_buys_are_all_there(place: Place) -> None:
    with opened(place, inline=False) as (ledger, queries):
        rows = requests(8)
        start(queries, rows)
        others = [ledger_at(place, inline=False) for _ in range(3)]

        def review(number: int) -> None:
            for second in range(10):
                record(others[number], [said(f"clip-{second}", second, f"reviewer-{number}", stars=1 + number)])

        threads = [threading.Thread(target=review, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for row in rows:
            ledger.apply_now(reserve(row))
            ledger.apply_now(accept(row, f"job-{row.params.seed}"))
        for thread in threads:
            thread.join()
        for other in others:
            other.close(clean=False)
        assert len(all_reviews(ledger)) == 30
        assert all(len(found.by) == 3 for found in clip_reviews(ledger).values())
        assert ledger.problems() == []
    with opened(place) as (ledger, _):  # the run's own journal has no gap
        assert ledger.head[0] == len(read(place, "select 1 from history")) + len(_marks(place))


def _marks(place: Place) -> list[str]:
    with opened(place) as (ledger, _):
        return [line for line in ledger.journal_lines() if '"event":"mark"' in line]


def test_a_ledger_that_was_moved_takes_no_more_reviews(bought: Path) -> None:
    with opened(bought) as (ledger, _):
        ledger.mark({MOVED: "elsewhere"})
        with pytest.raises(LedgerError, match="moved to elsewhere"):
            record(ledger, [said("a", 9, verdict="keep")])


# --- the second copy


def verdicts_of(path: Path) -> dict[str, str]:
    ledger = SqliteLedger(path, inline=True)
    try:
        return dict(latest_verdicts(ledger))
    finally:
        ledger.close(clean=False)


@pytest.mark.parametrize("damage", ["gone", "overwritten", "table emptied", "copy gone", "both journals gone"])
def test_a_rebuild_carries_every_review(bought: Path, damage: str) -> None:
    if damage == "gone":
        bought.unlink()
    elif damage == "overwritten":
        bought.write_bytes(b"\0" * 20_000)
    elif damage == "table emptied":
        tamper(bought, "delete from reviews where number > 1")
    else:
        reviews_path(bought).unlink()
    if damage == "both journals gone":
        journal_path(bought).unlink()
    rebuild(bought, now=AT)
    assert verdicts_of(bought) == {"a": "keep", "b": "reject"}
    assert len(reviews_path(bought).read_text().splitlines()) == 3


def test_a_rebuild_without_the_second_copy_would_lose_them(bought: Path) -> None:
    """The broken twin: it is the copy that saves the reviews of a ledger whose file is gone."""
    bought.unlink()
    reviews_path(bought).unlink()
    rebuild(bought, now=AT)
    assert verdicts_of(bought) == {}


def test_the_next_review_makes_table_and_copy_equal(bought: Path) -> None:
    lines = reviews_path(bought).read_text().splitlines(keepends=True)
    reviews_path(bought).write_text("".join(lines[:1]) + lines[1][:20])  # cut while it was written
    with opened(bought) as (ledger, _):
        record(ledger, [said("c", 9, verdict="keep")])
    assert len(reviews_path(bought).read_text().splitlines()) == 4
    tamper(bought, "delete from reviews where number > 2")
    with opened(bought) as (ledger, _):
        record(ledger, [said("d", 10, verdict="keep")])
        assert len(all_reviews(ledger)) == 5


def test_ledger_check_names_a_copy_that_lacks_reviews(bought: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reviews_path(bought).unlink()
    assert main(["ledger", "check", "--outputs", str(bought.parent)]) == 7
    assert "lacks 3 of the ledger's reviews" in capsys.readouterr().out
    assert main(["ledger", "rebuild", "--outputs", str(bought.parent)]) == 0
    assert main(["ledger", "check", "--outputs", str(bought.parent)]) == 0


def test_a_ledger_of_the_version_before_gets_the_table(bought: Path) -> None:
    tamper(bought, "drop table reviews")
    tamper(bought, "update meta set value = '2' where name = 'schema_version'")
    reviews_path(bought).unlink()
    ledger = SqliteLedger(bought, inline=True, may_migrate=True)
    assert latest_verdicts(ledger) == {}
    record(ledger, [said("a", 1, verdict="keep")])
    assert latest_verdicts(ledger) == {"a": "keep"}
    ledger.close(clean=False)


def _review_and_die(path: Path, acknowledged: multiprocessing.Queue[int]) -> None:
    ledger = SqliteLedger(path)
    for number in range(1_000):
        record(ledger, [said(f"clip-{number}", number / 1000, stars=1)])
        acknowledged.put(number)


def test_a_review_that_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path):
        pass
    context = multiprocessing.get_context("spawn")
    acknowledged: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_review_and_die, args=(path, acknowledged))
    process.start()
    heard = {acknowledged.get(timeout=60) for _ in range(20)}
    process.kill()
    process.join()
    with opened(path) as (ledger, _):
        record(ledger, [said("after", 9, stars=1)])
        assert {f"clip-{number}" for number in heard} <= clip_reviews(ledger).keys()
    assert len(reviews_path(path).read_text().splitlines()) == len(read(path, "select 1 from reviews"))


# --- PostgreSQL


def test_a_server_keeps_reviews_append_only_and_through_a_rebuild(postgres: str) -> None:
    import psycopg

    with opened(postgres) as (ledger, queries):
        rows = requests(1)
        start(queries, rows)
        ledger.apply_now(reserve(rows[0]))
        record(ledger, [said("a", 1, verdict="keep")])
    for statement in ("delete from reviews", "update reviews set verdict = 'reject'"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            tamper(postgres, statement)
    rebuild_on_server(postgres, now=AT)
    with opened(postgres) as (ledger, _):
        assert latest_verdicts(ledger) == {"a": "keep"}


def test_a_server_of_the_version_before_gets_the_table(postgres: str) -> None:
    with opened(postgres):
        pass
    tamper(postgres, "drop table reviews")
    tamper(postgres, "drop function dop_reviews_stay")
    tamper(postgres, "update meta set value = '2' where name = 'schema_version'")
    from pipeline.ledger.postgres_ledger import PostgresLedger
    from pipeline.ledger.postgres_session import LockMode

    ledger = PostgresLedger(postgres, hold=LockMode.EXCLUSIVE, may_migrate=True, inline=True)
    record(ledger, [said("a", 1, verdict="keep")])
    assert latest_verdicts(ledger) == {"a": "keep"}
    ledger.close()


# --- what a page or a file may say


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("no object", "is no object"),
        ({"verdict": "keep"}, "request_id is no text"),
        ({"request_id": "a", "verdict": "maybe"}, "verdict is 'maybe'"),
        ({"request_id": "a", "stars": 6}, "stars is 6"),
        ({"request_id": "a", "stars": True}, "stars is True"),
        ({"request_id": "a", "note": 5}, "note is no text"),
        ({"request_id": "a", "note": "x" * 2_001}, "2000 is the most"),
        ({"request_id": "a", "at": "yesterday"}, "not a time"),
        ({"request_id": "a", "rival": "b"}, "a duel names"),
    ],
)
def test_what_is_no_review_is_refused_with_its_number_and_why(item: object, why: str) -> None:
    good = {"request_id": "a", "stars": 1}
    with pytest.raises(UsageError, match=f"review 2.*{why}"):
        reviews_in([good, item], who="ana", now=AT)


def test_a_time_from_the_future_becomes_now_and_another_zone_utc() -> None:
    items = [{"request_id": "a", "at": "2999-01-01T00:00:00Z"}, {"request_id": "a", "at": "2020-01-01T02:00:00+02:00"}]
    first, second = reviews_in(items, who="ana", now=AT)
    assert (first.at, second.at) == (moment(AT), "2020-01-01T00:00:00.000000Z")
