"""A row with its defaults and its axes, ready to be multiplied, and how much that would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from pipeline.manifest.axes import Axis, ValueAxis
from pipeline.manifest.diagnostics import Diagnostic
from pipeline.manifest.spec import VAR, ZIP, ManifestSpec, SpecRow

TAKE = "take"


@dataclass(slots=True)
class ExpansionSize:
    """How much the axes multiply to, counted without expanding. Rows that no axis multiplies are not counted."""

    rows: int = 0
    total: int = 0
    largest: tuple[tuple[str, int], ...] = ()
    largest_total: int = 0
    even: bool = True
    by_model: Counter[str] = field(default_factory=Counter)

    def add(self, block: MergedRow) -> None:
        """Counts one row, if its axes multiply to more than one cell."""
        sizes = block.sizes
        size = prod(count for _, count in sizes)
        if size == 1:
            return
        self.even = self.even and (not self.rows or sizes == self.largest)
        self.rows += 1
        self.total += size
        if size > self.largest_total:
            self.largest, self.largest_total = sizes, size
        self.by_model.update(_by_model(block, size))

    @property
    def axes(self) -> tuple[tuple[str, int], ...]:
        """The size of each axis, rows first where there are several; the largest row's axes where rows differ."""
        return (("rows", self.rows), *self.largest) if self.rows > 1 else self.largest


@dataclass(slots=True)
class MergedRow:
    """A row ready to be multiplied: fields with defaults, axes in order, number of takes."""

    row: SpecRow
    fields: dict[str, Any]
    axes: tuple[Axis, ...]
    repeat: int
    row_id: str = ""

    @property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """Name and size of everything that multiplies it."""
        sizes = tuple((axis.name, axis.size) for axis in self.axes)
        return (*sizes, (TAKE, self.repeat)) if self.repeat > 1 else sizes


def merge_row(row: SpecRow, program: ManifestSpec) -> MergedRow:
    """The row laid over the defaults, with its axes; `take` and `repeat`, `seed` and `seeds` push each other out."""
    axes = _axes(row, program)
    defaults = program.defaults
    fields: dict[str, Any] = {**defaults.fields, **row.own}
    repeat = 1
    if "repeat" in fields:
        # The row's own `take` names one take, so a `repeat` of the defaults is not meant for it.
        repeat = 1 if TAKE in row.own else fields["repeat"]
        if "repeat" in row.own:
            fields.pop(TAKE, None)
    # A row's own seed, or an axis of seeds, takes the place of the defaults' seeds and is not multiplied by them.
    if defaults.seeds is not None and "seed" not in row.own and not any("seed" in axis.sets for axis in axes):
        axes = (*axes, defaults.seeds)
    return MergedRow(row, fields, axes, repeat if isinstance(repeat, int) else 1)


def _axes(row: SpecRow, program: ManifestSpec) -> tuple[Axis, ...]:
    """The shared axes, those of the row's own matrix in their places, new ones behind, seeds last."""
    shared = program.axes if row.shared else ()
    if not row.axes and row.zipped is None and row.seeds is None:
        return shared
    own = {axis.name: axis for axis in row.axes}
    if row.zipped is not None:
        own[ZIP] = row.zipped
    # In the place of the shared axis: the order of the axes is the order of the labels in ids, and of the purchases.
    axes = [own.pop(axis.name, axis) for axis in shared]
    if ZIP in own:
        axes.insert(0, own.pop(ZIP))
    axes += own.values()
    if row.seeds is not None:
        axes.append(row.seeds)
    return tuple(axes)


def conflicts(block: MergedRow, program: ManifestSpec) -> Iterator[Diagnostic]:
    """What is set twice: by the row and an axis, or by two axes of which one is the row's own."""
    row = block.row
    if row.has_errors:
        return
    setters: dict[str, Axis] = {}
    for axis in block.axes:
        for name in sorted(axis.sets):
            word = name.removeprefix(VAR)
            if name in row.own and axis is not row.seeds and not name.startswith(VAR):
                hint = f"give the row its own matrix, {{{axis.name}: [...]}}, or take it out of the row"
                hint = hint if row.location.path is not None else "empty the cell, or take the axis out of matrix"
                yield row.location.diagnostic(f"{word} is set in the row and by the axis {axis.name!r}: {hint}", name)
            other = setters.get(name)
            if other is not None and not (axis in program.axes and other in program.axes):
                mine = "seeds" if axis is row.seeds else f"the axis {axis.name!r}"
                yield row.location.diagnostic(f"{word} is set by {mine} and by the axis {other.name!r}")
            setters[name] = axis
    if block.repeat > 1 and TAKE in setters:
        yield row.location.diagnostic(
            f"repeat makes takes, and so does the axis {setters[TAKE].name!r}: keep one of them"
        )


def _by_model(block: MergedRow, size: int) -> Mapping[str, int]:
    """How many of a row's cells each model would have, before exclusions."""
    for axis in block.axes:
        if isinstance(axis, ValueAxis) and "model" in axis.sets:
            models: Counter[str] = Counter()
            for point in axis.values:
                models[str(point.sets.get("model", block.fields.get("model", "?")))] += size // axis.size
            return models
    return {str(block.fields.get("model", "?")): size}
