"""What a run lists: rows that move, appear or are re-worded leave what is bought alone."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ledger.attempt_rows import SkippedRow
from pipeline.ledger.budget import Caps
from pipeline.ledger.states import Event
from pipeline.records import Attempt, Cell, Request, State
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, RUN, Place, accept, change, make_run, opened, requests, reserve, start


def listed(lines: list[Attempt | SkippedRow]) -> list[tuple[str, str]]:
    return [(line.row_id, line.state.value if isinstance(line, Attempt) else "skipped") for line in lines]


def test_sorting_inserting_and_rewording_keep_what_is_bought(place: Place) -> None:
    with opened(place) as (ledger, queries):
        one, two, three = requests(3)
        start(queries, [one, two, three])
        for row, job in ((one, "job-1"), (two, "job-2")):
            ledger.apply_now(reserve(row))
            ledger.apply_now(accept(row, job))
        reworded = requests(1, prompt="A lake in the rain")[0]
        new = requests(9)[8]
        again = [three, new, two, reworded]  # `one` was re-worded, the rest sorted again, `new` inserted
        assert queries.sync_rows(RUN, again, rows_digest="second") == 4
        assert listed(list(queries.report(RUN))) == [
            ("lake-3", "planned"),
            ("lake-9", "planned"),
            ("lake-2", "accepted"),
            ("lake-1", "planned"),
            ("lake-1", "accepted"),
        ]
        assert queries.totals(RUN).reserved_microusd == 2 * LITE_MICROUSD
        assert ledger.problems() == []


def test_rows_that_were_never_sent_leave_the_run(place: Place) -> None:
    with opened(place) as (_, queries):
        rows = requests(5)
        start(queries, rows)
        queries.sync_rows(RUN, rows[:2], rows_digest="second")
        assert len(list(queries.report(RUN))) == 2
        assert queries.totals(RUN).count(State.PLANNED) == 2


def test_a_listing_that_fails_half_way_changes_nothing(place: Place) -> None:
    with opened(place) as (_, queries):
        rows = requests(3)
        start(queries, rows)

        def broken() -> object:
            yield rows[2]
            raise ValueError("line 2 is wrong")

        with suppress(ValueError):
            queries.sync_rows(RUN, broken(), rows_digest="second")  # type: ignore[arg-type]
        assert [line.row_id for line in queries.report(RUN)] == ["lake-1", "lake-2", "lake-3"]


def test_placeholders_stay_in_their_place_and_cost_nothing(place: Place) -> None:
    with opened(place) as (_, queries):
        one, two = requests(2)
        run = make_run()
        rows: list[Request | Cell] = [one, Cell(row_id="later", params=None, axes=(("look", "calm"),)), two]
        queries.sync_rows(run.run_id, rows, rows_digest="d", new=run)
        lines = list(queries.report(run.run_id))
        assert lines[1] == SkippedRow(row_id="later", axes=(("look", "calm"),))
        assert queries.totals(run.run_id).count(State.PLANNED) == 2
        assert not [
            attempt
            for page in queries.iter_attempts(run.run_id, tuple(State))
            for attempt in page
            if not attempt.params
        ]


def test_what_another_run_bought_is_listed_and_costs_this_one_nothing(place: Place) -> None:
    with opened(place) as (ledger, queries):
        one, two = requests(2)
        start(queries, [one])
        ledger.apply_now(reserve(one))
        ledger.apply_now(accept(one, "job-1"))
        ledger.apply_now(change(one, Event.COMPLETE))
        second = start(queries, [one, two], make_run("second", started_at=AT + 1))
        bought, new = list(queries.report(second.run_id))
        assert isinstance(bought, Attempt)
        assert isinstance(new, Attempt)
        assert (bought.bought_in, bought.cost_microusd, bought.state) == (RUN, 0, State.DONE)
        assert (new.bought_in, new.state) == (None, State.PLANNED)
        assert queries.totals(second.run_id).worst_microusd == 0
        ledger.apply_now(reserve(two, run_id="second", caps=Caps(run_microusd=LITE_MICROUSD)))
        assert queries.totals(second.run_id).reserved_microusd == LITE_MICROUSD


def test_a_retry_is_a_new_attempt_with_a_key_of_its_own(place: Place) -> None:
    with opened(place) as (ledger, queries):
        one = requests(1)[0]
        start(queries, [one])
        ledger.apply_now(reserve(one))
        ledger.apply_now(accept(one, "job-1"))
        ledger.apply_now(change(one, Event.FAIL, values={"reason": "out of memory"}))
        assert queries.new_attempts([one.request_id, "not-there"]) == 1
        ledger.apply_now(reserve(one, "second"))
        first, second = list(queries.report(RUN))
        assert isinstance(first, Attempt)
        assert isinstance(second, Attempt)
        assert [(line.attempt, line.state) for line in (first, second)] == [(1, State.FAILED), (2, State.SUBMITTING)]
        assert first.idempotency_key != second.idempotency_key
        assert queries.totals(RUN).worst_microusd == 2 * LITE_MICROUSD
        assert queries.totals(RUN).counts == {State.SUBMITTING: 1}


def test_an_unfinished_run_is_found_again_and_an_ended_one_is_not(place: Place) -> None:
    with opened(place) as (_, queries):
        start(queries, requests(1))
        assert queries.unfinished_run("/tmp/shots.csv", "sandbox") is not None
        assert queries.unfinished_run("/tmp/shots.csv", "https://gateway.example:443") is None
        queries.end_run(RUN, AT)
        assert queries.unfinished_run("/tmp/shots.csv", "sandbox") is None
        queries.reopen_run(RUN)
        assert queries.unfinished_run("/tmp/shots.csv", "sandbox") is not None


def test_pages_are_read_as_they_are_asked_and_skip_what_moved_on(place: Place) -> None:
    with opened(place) as (ledger, queries):
        rows = requests(7)
        start(queries, rows)
        pages = queries.iter_attempts(RUN, (State.PLANNED,), size=3)
        assert [attempt.row_id for attempt in next(pages)] == ["lake-1", "lake-2", "lake-3"]
        ledger.apply_now(reserve(rows[4]))
        assert [attempt.row_id for attempt in next(pages)] == ["lake-4", "lake-6", "lake-7"]


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(8)), st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_any_new_reading_of_a_manifest_buys_nothing_twice(
    tmp_path_factory: object, order: list[int], bought: set[int], kept: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("book")  # type: ignore[attr-defined]
    rows = requests(8)
    with opened(folder / "ledger.db") as (ledger, queries):
        start(queries, rows)
        for number in bought:
            ledger.apply_now(reserve(rows[number]))
        queries.sync_rows(RUN, [rows[number] for number in order if number in kept], rows_digest="second")
        states = queries.states([row.request_id for row in rows])
        assert {number for number in range(8) if states.get(rows[number].request_id) == State.SUBMITTING} == bought
        planned = [attempt.request_id for page in queries.iter_attempts(RUN, (State.PLANNED,)) for attempt in page]
        assert planned == [rows[number].request_id for number in order if number in kept - bought]
        assert queries.totals(RUN).reserved_microusd == len(bought) * LITE_MICROUSD
