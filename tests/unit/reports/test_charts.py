"""The plots: numbers that are true, and markup that no name can break out of."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Attempt, State, Totals
from pipeline.reports.sheet.charts import charts_of, generation_by_model, jobs_over_time, pace, ticks
from pipeline.reports.sheet.run_view import RateSample, RunView
from tests.support.factories import make_attempt


def done(seed: int, *, at: float, took: float, **other: Any) -> Attempt:
    return make_attempt(seed=seed, state=State.DONE, submitted_at=at, accepted_at=at, finished_at=at + took, **other)


def test_jobs_over_time_counts_what_was_sent_and_what_had_ended() -> None:
    chart = jobs_over_time([done(seed, at=100.0 + 10 * seed, took=20.0) for seed in range(1, 4)])
    assert chart is not None
    assert chart.rows[0] == ("0s", "1", "0")
    assert chart.rows[-1] == ("40s", "3", "3")


def test_generation_times_are_grouped_by_model() -> None:
    attempts = [done(seed, at=0.0, took=float(seed), model="dop-lite") for seed in range(1, 6)]
    attempts.append(done(9, at=0.0, took=60.0, model="dop-turbo"))
    chart = generation_by_model(attempts)
    assert chart is not None
    assert chart.rows == (
        ("dop-lite", "5", "1.0 s", "3.0 s", "5.0 s"),
        ("dop-turbo", "1", "60.0 s", "60.0 s", "60.0 s"),
    )


def test_the_pace_counts_every_submit_and_every_429_once() -> None:
    samples = [RateSample(at=float(at), submitted=2, throttled=at % 3) for at in range(200)]
    chart = pace(samples)
    assert chart is not None
    assert sum(int(taken) for _, taken, _ in chart.rows) == 400
    assert sum(int(refused) for _, _, refused in chart.rows) == sum(sample.throttled for sample in samples)


def test_a_run_without_numbers_has_no_plots() -> None:
    view = RunView(run="r", title="t", gateway="g", lines=(make_attempt(),), totals=Totals(), outputs=Path("/o"))
    assert charts_of(view) == []


def test_a_model_name_stays_text() -> None:
    chart = generation_by_model([done(1, at=0.0, took=1.0, model="</svg><script>x</script>&")])
    assert chart is not None
    texts = [node.text for node in ElementTree.fromstring(str(chart.svg)).iter("text")]
    assert "</svg><script>x</script>&" in texts


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e5)), min_size=1, max_size=30))
def test_any_times_give_a_plot_that_stays_on_the_paper(times: list[tuple[float, float]]) -> None:
    attempts = [done(seed, at=at, took=took) for seed, (at, took) in enumerate(times, start=1)]
    samples = [RateSample(at=at, submitted=1, throttled=0) for at, _ in times]
    for chart in (jobs_over_time(attempts), generation_by_model(attempts), pace(samples)):
        assert chart is not None
        for bar in ElementTree.fromstring(str(chart.svg)).iter("rect"):
            left, width = float(bar.attrib["x"]), float(bar.attrib["width"])
            assert 0 <= left <= left + width <= 421


@given(st.floats(0.001, 1e9))
def test_ticks_are_few_and_start_at_zero(top: float) -> None:
    marks = ticks(top)
    assert marks[0] == 0
    assert 2 <= len(marks) <= 6
    assert marks[-1] <= top * 1.001
