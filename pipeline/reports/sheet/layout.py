"""Which axes a run has and how they lie on the sheet. Pure: records in, an arrangement out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.manifest.labels import image_text, shortened, strength_text
from pipeline.records import Attempt
from pipeline.reports.sheet.lazy_sequence import LazySequence
from pipeline.reports.sheet.run_view import Line

ROW = "row"
"""The axis of the manifest's rows: a cell id without its axis values."""

RUN = "run"
"""The axis of runs, on a page that shows the clips of several."""

CLOSE_FILL = 0.6
"""Rows and columns are worth drawing when at least this part of their crossings has a clip.

More than a half: two rows with seeds of their own fill exactly half, and the second row's clips lie off the screen."""

MAX_STACKED = 4
"""So many clips may lie below each other at one crossing before they are parted into tabs."""

MAX_FEW_VALUES = 8
"""So many values of a single axis still fit beside each other."""

_REMEMBERED = 4_096
"""Texts of pictures, prompts and strengths that are remembered: thousands of cells have the same, and share it."""

_image_text = lru_cache(_REMEMBERED)(image_text)
_strength_text = lru_cache(_REMEMBERED)(strength_text)


@lru_cache(_REMEMBERED)
def _short_prompt(prompt: str) -> str:
    return shortened(" ".join(prompt.split()))


_DERIVED: Mapping[str, Callable[[Attempt], str]] = {
    "model": lambda attempt: attempt.params.model,
    "motion": lambda attempt: attempt.motion or attempt.params.motions_id[:8],
    "strength": lambda attempt: _strength_text(attempt.params.strength_hundredths),
    "seed": lambda attempt: str(attempt.params.seed),
    "image": lambda attempt: _image_text(attempt.params.input_images[0]),
    "prompt": lambda attempt: _short_prompt(attempt.params.prompt),
    "take": lambda attempt: str(attempt.take),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutAxis:
    """One way to tell the cells apart; `values` in the order of the manifest, "" where a cell has none."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetLayout:
    """Columns, rows and tabs; None for x: clips flow beside each other, for y: there is one row."""

    x: str | None
    y: str | None
    tabs: tuple[str, ...]


Place = Mapping[str, str]
"""One cell's value on each axis."""


class Places(LazySequence[Place]):
    """The place of each cell, kept as one column an axis: a record for each of 100,000 cells is 80 MB."""

    def __init__(self, columns: Mapping[str, Sequence[str]], count: int) -> None:
        super().__init__(count, self._place)
        self._columns = columns

    def column(self, name: str) -> Sequence[str]:
        """The value of each cell on an axis, "" where it has none."""
        return self._columns.get(name) or [""] * len(self)

    def replaced(self, columns: Mapping[str, Sequence[str]]) -> Places:
        """The same with some columns new."""
        return Places({**self._columns, **columns}, len(self))

    def _place(self, number: int) -> Place:
        return {name: column[number] for name, column in self._columns.items()}

    def __iter__(self) -> Iterator[Place]:
        names = tuple(self._columns)
        if not names:
            return ({} for _ in range(len(self)))
        return (dict(zip(names, values, strict=True)) for values in zip(*self._columns.values(), strict=True))


def places_of(lines: Sequence[Line]) -> Places:
    """Each cell's value on every axis that may matter: the manifest's own, the row, and what the paid fields say."""
    columns: dict[str, list[str]] = {ROW: [line.row_id.split("@", 1)[0] for line in lines]}
    if any(isinstance(line, Attempt) for line in lines):
        for name, value_of in _DERIVED.items():
            columns[name] = [value_of(line) if isinstance(line, Attempt) else "" for line in lines]
    for number, line in enumerate(lines):
        for name, value in line.axes:
            columns.setdefault(name, [""] * len(lines))[number] = value
    return Places(columns, len(lines))


def axes_of(lines: Sequence[Line], places: Places, wanted: Sequence[str] = ()) -> list[LayoutAxis]:
    """The axes worth offering: the manifest's first, then the row and what else varies in a way of its own.

    Args:
        wanted: names kept even where they do not vary.
    """
    named = dict.fromkeys(name for line in lines for name, _ in line.axes)
    order = [*named, *(name for name in (ROW, RUN, *_DERIVED) if name not in named)]
    kept: list[LayoutAxis] = []
    partitions: set[tuple[int, ...]] = set()
    for name in order:
        column = places.column(name)
        values = tuple(dict.fromkeys(column))
        number = {value: at for at, value in enumerate(values)}
        partition = tuple(map(number.__getitem__, column))
        count = len(values) if name in named else len([value for value in values if value])
        if name in wanted or (count > 1 and (name in named or partition not in partitions)):
            kept.append(LayoutAxis(name=name, values=values))
            partitions.add(partition)
    return kept


def arrange(
    axes: Sequence[LayoutAxis],
    places: Places,
    *,
    x: str | None = None,
    y: str | None = None,
    tabs: Sequence[str] = (),
) -> SheetLayout:
    """The sheet as asked for; what is not asked for is chosen so that rows and columns are well filled."""
    names = {axis.name for axis in axes}
    x, y = (name if name in names else None for name in (x, y))
    asked = [name for name in tabs if name in names and name not in (x, y)]
    if x is None and y is None:
        x, y = _chosen(axes, places, without=asked)
    elif x is None or y is None:
        other = _partner(axes, x or y or "", without=asked)
        x, y = x or other, y or other
    return SheetLayout(x=x, y=y, tabs=tuple(tabs_needed(axes, places, x=x, y=y, asked=asked)))


def _partner(axes: Sequence[LayoutAxis], taken: str, *, without: Sequence[str]) -> str | None:
    free = [axis.name for axis in axes if axis.name != taken and axis.name not in without and len(axis.values) > 1]
    return ROW if ROW in free else next(iter(free), None)


def _chosen(axes: Sequence[LayoutAxis], places: Places, *, without: Sequence[str]) -> tuple[str | None, str | None]:
    free = {axis.name: axis for axis in axes if axis.name not in without and len(axis.values) > 1}
    if not free:
        return None, None
    x = "seed" if "seed" in free else [name for name in free if name != ROW][-1:][0] if set(free) != {ROW} else ROW
    y = _partner(list(free.values()), x, without=without)
    if y is None:
        return (x, None) if len(free[x].values) <= MAX_FEW_VALUES else (None, None)
    crossings = set(zip(places.column(x), places.column(y), strict=True))
    if len(crossings) < CLOSE_FILL * len(free[x].values) * len(free[y].values):
        return (None, None) if len(free[y].values) * 2 > len(places) else (None, y)
    return x, y


def tabs_needed(
    axes: Sequence[LayoutAxis], places: Places, *, x: str | None, y: str | None, asked: Sequence[str] = ()
) -> list[str]:
    """The asked tabs, and more of them while more clips would share a crossing than can be stacked there.

    None is added where clips flow, and none that would not tell such clips apart.
    """
    tabs = list(asked)
    for axis in axes:
        if x is None:
            return tabs
        slots = list(zip(*(places.column(name) for name in (x, y, *tabs) if name), strict=True))
        if max(Counter(slots).values(), default=0) <= MAX_STACKED:
            return tabs
        is_free = axis.name not in (x, y, *tabs)
        if is_free and len(set(zip(slots, places.column(axis.name), strict=True))) > len(set(slots)):
            tabs.append(axis.name)
    return tabs
