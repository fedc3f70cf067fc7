"""The plots at the end of the sheet, as inline SVG that takes its colours from the page. Pure: numbers in, markup out.

Every plot comes with the numbers it shows as rows of a table, for those who cannot see it. No plot library: one inline
copy of such a library weighs more than a thousand cells.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from markupsafe import Markup

from pipeline.records import Attempt
from pipeline.reports.sheet.run_view import RateSample, RunView
from pipeline.reports.tables import generation_s

_Say = Callable[[float], str]

WIDTH, HEIGHT = 420, 220
"""Width and height of a chart, in units of its drawing; the page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 30
"""Margins of a chart, in the same units: room for the numbers of both axes."""
BINS, MIN_BINS = 48, 10
"""Bars of a histogram: about so many, and at least so many, so that a short range is no single block."""
DOTS = 240
"""At most so many single clips are drawn for a model; the box is made of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot: title, one sentence that says what it shows, the markup, and its numbers as a table."""

    title: str
    says: str
    svg: Markup
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[tuple[str, str], ...] = ()


def charts_of(view: RunView) -> list[Chart]:
    """The plots that the run has numbers for: jobs over time, generation time by model, pace and 429 answers."""
    attempts = [attempt for attempt in view.attempts() if attempt.bought_in is None]
    drawn = (jobs_over_time(attempts), generation_by_model(attempts), pace(view.samples or samples_of(attempts)))
    return [chart for chart in drawn if chart is not None]


def samples_of(attempts: Iterable[Attempt]) -> tuple[RateSample, ...]:
    """The pace as the attempts themselves remember it: each one's 429 answers are counted when it was sent."""
    sent = sorted((attempt.submitted_at, attempt.throttled) for attempt in attempts if attempt.submitted_at is not None)
    return tuple(RateSample(at=at, submitted=1, throttled=throttled) for at, throttled in sent)


def jobs_over_time(attempts: Sequence[Attempt]) -> Chart | None:
    """How many jobs were sent and how many had ended, over the run's time."""
    sent = sorted(attempt.submitted_at for attempt in attempts if attempt.submitted_at is not None)
    ended = sorted(attempt.finished_at for attempt in attempts if attempt.finished_at is not None)
    if not sent:
        return None
    start, end = sent[0], max([sent[-1], *ended[-1:]])
    frame = _PlotArea(x_max=max(end - start, 1.0), y_max=float(len(sent)))
    lines = [
        f'<path class="line {name}" d="{_steps(frame, [at - start for at in times], end - start)}"/>'
        for name, times in (("s1", sent), ("s2", ended))
    ]
    rows = tuple(
        (_seconds_text(after), str(_until(sent, start + after)), str(_until(ended, start + after)))
        for after in (part * frame.x_max / 4 for part in range(5))
    )
    return Chart(
        title="Jobs over time",
        says=f"{len(sent)} sent and {len(ended)} ended within {_seconds_text(end - start)}.",
        svg=_svg(frame, lines, x_label=_seconds_text, has_counts=True),
        head=("time", "sent", "ended"),
        rows=rows,
        legend=(("s1", "sent"), ("s2", "ended")),
    )


def generation_by_model(attempts: Iterable[Attempt]) -> Chart | None:
    """Seconds from acceptance to the end, per model: each clip a dot, the middle half a box, the median a line."""
    times: dict[str, list[float]] = defaultdict(list)
    for attempt in attempts:
        seconds = generation_s(attempt)
        if seconds is not None:
            times[attempt.params.model].append(seconds)
    if not times:
        return None
    top = max(max(values) for values in times.values())
    frame = _PlotArea(x_max=max(top, 1.0), y_max=float(len(times)), left=96)
    marks = [mark for row, model in enumerate(sorted(times)) for mark in _box(frame, row, model, sorted(times[model]))]
    rows = tuple((model, str(len(times[model])), *_spread(sorted(times[model]))) for model in sorted(times))
    middle = "; ".join(f"{model} {median(times[model]):.1f} s" for model in sorted(times))
    return Chart(
        title="Generation time by model",
        says=f"Median: {middle}.",
        svg=_svg(frame, marks, x_label=_seconds_text, has_counts=False),
        head=("model", "clips", "fastest", "median", "slowest"),
        rows=rows,
    )


def pace(samples: Sequence[RateSample]) -> Chart | None:
    """Submits taken and 429 answers per stretch of time."""
    if not samples:
        return None
    start, end = min(sample.at for sample in samples), max(sample.at for sample in samples)
    width_s = max(_nice(max(end - start, 1.0) / BINS), 1.0)
    count = max(int((end - start) // width_s) + 1, MIN_BINS)
    taken, refused = [0] * count, [0] * count
    for sample in samples:
        at = int((sample.at - start) // width_s)
        taken[at] += sample.submitted
        refused[at] += sample.throttled
    frame = _PlotArea(x_max=count * width_s, y_max=float(max(*taken, *refused, 1)))
    marks = [mark for at in range(count) for mark in _bars(frame, at, width_s, taken[at], refused[at])]
    total = sum(refused)
    rows = tuple((_seconds_text(at * width_s), str(taken[at]), str(refused[at])) for at in range(count))
    return Chart(
        title=f"Pace, per {_seconds_text(width_s)}",
        says=f"{sum(taken)} submits taken, {total} answered with 429.",
        svg=_svg(frame, marks, x_label=_seconds_text, has_counts=True),
        head=("from", "taken", "429"),
        rows=rows,
        legend=(("s1", "taken"), ("s3", "429")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlotArea:
    """Where values fall on the paper."""

    x_max: float
    y_max: float
    left: int = LEFT

    def x(self, value: float) -> float:
        return round(self.left + (WIDTH - self.left - RIGHT) * min(value / self.x_max, 1.0), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value / self.y_max, 1.0), 1)


def _steps(frame: _PlotArea, times: Sequence[float], end: float) -> str:
    """A staircase; of a long one only as many steps as there are points on the paper."""
    every = max(1, len(times) // (WIDTH * 2))
    path = [f"M{frame.x(0)} {frame.y(0)}"]
    path += [f"H{frame.x(at)}V{frame.y(count)}" for count, at in enumerate(times, start=1) if count % every == 0]
    return "".join([*path, f"H{frame.x(end)}V{frame.y(len(times))}"])


def _until(times: Sequence[float], at: float) -> int:
    """How many of the times, which are in order, are no later than `at`."""
    return bisect_right(times, at + 1e-6)


def _box(frame: _PlotArea, row: int, model: str, values: Sequence[float]) -> list[str]:
    middle = frame.y(row + 0.5)
    low, high = (values[0], values[-1]) if len(values) < 2 else (quantiles(values, n=4)[0], quantiles(values, n=4)[2])
    low, high = max(low, values[0]), min(high, values[-1])
    every = max(1, math.ceil(len(values) / DOTS))
    dots = [
        f'<circle class="dot" cx="{frame.x(value)}" cy="{round(middle + _spread_by(place), 1)}" r="2.5"/>'
        for place, value in enumerate(values[::every])
    ]
    label = f'<text class="tick" x="{frame.left - 8}" y="{middle + 4}" text-anchor="end">{Markup.escape(model)}</text>'
    box = (
        f'<rect class="half" x="{frame.x(low)}" y="{middle - 13}" width="{max(frame.x(high) - frame.x(low), 1):.1f}" '
        f'height="26" rx="3"/>'
    )
    line = f'<path class="median" d="M{frame.x(median(values))} {middle - 15}v30"/>'
    return [label, box, *dots, line]


def _spread_by(place: int) -> float:
    """Dots of the same value side by side, always alike: the golden ratio leaves no stripes."""
    return (place * 0.618034 % 1 - 0.5) * 20


def _spread(values: Sequence[float]) -> tuple[str, str, str]:
    return f"{values[0]:.1f} s", f"{median(values):.1f} s", f"{values[-1]:.1f} s"


def _bars(frame: _PlotArea, at: int, width_s: float, taken: int, refused: int) -> list[str]:
    left, right = frame.x(at * width_s), frame.x((at + 1) * width_s)
    half = max((right - left) / 2 - 0.4, 0.5)
    bars = []
    for count, name, x in ((taken, "s1", left), (refused, "s3", left + half)):
        if count:
            width = half if refused else 2 * half
            bars.append(
                f'<rect class="column {name}" x="{x:.1f}" y="{frame.y(count)}" width="{width:.1f}" '
                f'height="{frame.y(0) - frame.y(count):.1f}"/>'
            )
    return bars


def _svg(frame: _PlotArea, marks: Iterable[str], *, x_label: _Say, has_counts: bool) -> Markup:
    """The paper with its axes; hidden from screen readers, which get the sentence and the table."""
    grid = [f'<path class="axis" d="M{frame.left} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>']
    for value in ticks(frame.x_max):
        x = frame.x(value)
        grid.append(
            f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x_label(value)}</text>'
        )
    for value in ticks(frame.y_max) if has_counts else ():
        y = frame.y(value)
        grid.append(f'<path class="rule" d="M{frame.left} {y}H{WIDTH - RIGHT}"/>')
        grid.append(f'<text class="tick" x="{frame.left - 8}" y="{y + 4}" text-anchor="end">{value:,.0f}</text>')
    inside = "".join([*grid, *marks])
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true" focusable="false">{inside}</svg>')  # noqa: S704 # numbers of ours; the one name in it is escaped


def ticks(top: float) -> list[float]:
    """Round numbers from 0 to `top`, in about four steps."""
    step = _nice(top / 4)
    return [step * number for number in range(int(top / step + 1e-9) + 1)]


def _nice(rough: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50... at or above `rough`."""
    size = 10.0 ** math.floor(math.log10(rough))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= rough - 1e-12)


def _seconds_text(seconds: float) -> str:
    """A length of time short enough for an axis: 45s, 2m, 2m30s, 1h05m."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    return f"{minutes // 60}h{minutes % 60:02d}m"
