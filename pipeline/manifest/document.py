"""A manifest that was read: its caps, its sheet, and the stream of cells that tells its mistakes at the end.

It reads its files again for every stream, never touches the network and writes nothing. What it hands out may be acted
on only when everything was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ManifestError, Problem
from pipeline.manifest import source_files
from pipeline.manifest.axes import Draw
from pipeline.manifest.csv_reader import CsvRows
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.expansion import Expander
from pipeline.manifest.resolution import ValidationContext
from pipeline.manifest.row_merging import ExpansionSize
from pipeline.manifest.spec import ManifestSpec
from pipeline.records import Cell

DEFAULT_MAX_ROWS = 256
"""Videos that axes may multiply to without being asked for: 256 cost tens of dollars, a typing mistake thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestBudget:
    """The caps of a manifest in micro-dollars; None where it sets none."""

    max_cost_microusd: int | None = None
    per_day_microusd: int | None = None
    per_month_microusd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetAxes:
    """Which axes the contact sheet shows as columns, rows and tabs."""

    x: str | None = None
    y: str | None = None
    tabs: str | None = None


class TooManyRowsError(ManifestError):
    """The axes multiply to more cells than `max_rows`. Nothing was expanded.

    `axes` are name and size of each axis, `total` what they multiply to, `by_model` the cells of each model (before
    exclusions), from which the caller can tell the price.
    """

    def __init__(self, problems: Iterable[Problem], measure: ExpansionSize, max_rows: int, file: Path) -> None:
        self.axes = measure.axes
        self.total = measure.total
        self.by_model = dict(measure.by_model)
        self.max_rows = max_rows
        sizes = " x ".join(f"{name} {size:,}" for name, size in measure.axes)
        upto = "" if measure.even else " at most (rows differ)"
        message = f"{sizes}{upto} = {measure.total:,} videos, more than max_rows {max_rows:,}"
        super().__init__([*problems, Problem(file=file, message=f"{message}. Raise max_rows if you mean it")])


@dataclass(frozen=True, slots=True, kw_only=True)
class PartColumn:
    """A column of a sheet of which `empty` of `rows` cells take the default."""

    column: str
    empty: int
    rows: int
    default: str

    def __str__(self) -> str:
        return f"{self.column}: {self.empty} of {self.rows} rows are empty there and take the default {self.default}"


@dataclass(slots=True, kw_only=True)
class Manifest:
    """A manifest that was read. `cells()` streams what it asks for and tells its mistakes.

    `origin` is where the user has it: `path`, unless it came from stdin. `sha256` covers the manifest's bytes and
    those of the sheet it names. `axes` are name and size of the shared axes, `size` what the axes multiply to in all,
    None where a sheet's lines decide it. `warnings` is filled by `cells()`. `drawn` holds the random seeds by place,
    as `cells()` drew them; `uses_random_seeds` says whether there are any.
    """

    path: Path
    origin: Path
    name: str
    sha256: str
    files: tuple[Path, ...]
    budget: ManifestBudget = field(default_factory=ManifestBudget)
    sheet: SheetAxes | None = None
    axes: tuple[tuple[str, int], ...] = ()
    size: int | None = None
    max_rows: int = DEFAULT_MAX_ROWS
    uses_random_seeds: bool = False
    warnings: list[str] = field(default_factory=list)
    drawn: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _program: ManifestSpec
    _surroundings: ValidationContext
    _mistakes: Diagnostics
    _texts: Mapping[Path, str]
    _draw: Draw | None
    _stamps: tuple[tuple[int, int, int], ...]
    _sheet_rows: CsvRows | None = None
    _sheet_defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def partly_filled(self) -> list[PartColumn]:
        """The columns of the sheet that some rows fill and others leave to a default; known after `cells()`."""
        if self._sheet_rows is None:
            return []
        counted = self._sheet_rows.partly_filled
        return [
            PartColumn(column=name, empty=empty, rows=counted.rows, default=self._sheet_defaults[name])
            for name, empty in counted.empty.items()
            if 0 < empty < counted.rows and name in self._sheet_defaults
        ]

    def cells(self) -> Iterator[Cell]:
        """The cells in the manifest's order, streamed; each call starts again. Act on them only after the last one.

        Raises:
            ManifestError: all mistakes, when everything was read; after the first one no more cells come.
            TooManyRows: the axes multiply to more than `max_rows`.
        """
        # A copy for each stream, or the second one would report what the first one found a second time.
        mistakes = self._mistakes.copy()
        expansion = Expander(self._program, mistakes, self._drawing() if self._draw is not None else None)
        try:
            yield from expansion.cells()
        except source_files.UNREADABLE as error:
            mistakes.add(source_files.unreadable(self.files[-1], error))
        # A sheet saved while it was read gave rows of two versions.
        self._report_changes(mistakes)
        self.warnings[:] = self._surroundings.warnings
        self.warnings += self._about_variables(expansion)
        if expansion.too_many:
            raise TooManyRowsError(mistakes.problems(self._texts), expansion.measure, self.max_rows, self.path)
        if mistakes:
            raise mistakes.error(self._texts)

    def _about_variables(self, expansion: Expander) -> list[str]:
        """One warning of the variables that are given and used in no prompt."""
        program = self._program
        # Wherever a variable can be given. A column of a sheet counts only if some cell of it is filled.
        defined = {*program.defaults.fields, *(name for axis in program.axes for name in axis.sets)}
        defined.update(name for change in program.changes for name in change.sets)
        for row in (*(program.rows(Diagnostics()) if program.measured else ()), *program.includes):
            defined.update(row.own, *(axis.sets for axis in row.axes), row.zipped.sets if row.zipped else ())
        if self._sheet_rows is not None:
            counted = self._sheet_rows.partly_filled
            defined.update(name for name, empty in counted.empty.items() if empty < counted.rows)
        unused = expansion.unused_variables(defined)
        if not unused:
            return []
        named = ", ".join(repr(name) for name in unused)
        return [f"no prompt uses the variable{'s' if len(unused) > 1 else ''} {named}"]

    def _drawing(self) -> Draw:
        def draw(place: str, count: int) -> tuple[int, ...]:
            # Drawn once: the seeds of the plan that was shown are those that are bought.
            known = self.drawn.get(place)
            if known is None or len(known) != count:
                assert self._draw is not None
                known = self.drawn[place] = self._draw(place, count)
            return known

        return draw

    def _report_changes(self, mistakes: Diagnostics) -> None:
        for path, before in zip(self.files, self._stamps, strict=True):
            try:
                same = source_files.stamp(path) == before
            except OSError:
                same = False
            if not same:
                mistakes.add(Diagnostic(file=path, message="changed while it was read: start again"))
