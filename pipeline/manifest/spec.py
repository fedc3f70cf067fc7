"""A manifest whose values are resolved, before it is expanded: rows, shared axes, patterns. Values only; no I/O.

Fields of a row are in one flat mapping: the paid fields under the manifest's names (an image as a tuple, strength in
hundredths, motion as a Preset), `take`, `repeat`, `skip`, `tags`, and each template variable as `var:NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from pipeline.config import strict_yaml
from pipeline.manifest.axes import Axis, ValueAxis
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = _Invalid()
"""Takes the place of a rejected value: the field counts as given, and nothing more is said about it."""

VAR = "var:"
ZIP = "zip"


@dataclass(slots=True, kw_only=True)
class SourceLocation:
    """Where a row is: a file with a line (CSV) or a path (YAML)."""

    file: Path | None
    path: strict_yaml.Path | None = None
    line: int | None = None

    def diagnostic(self, message: str, name: str | None = None) -> Diagnostic:
        """A mistake of this row, or of one of its fields."""
        if self.path is not None:
            path = self.path if name is None else (*self.path, name)
            return Diagnostic(file=self.file, message=message, path=path)
        where = "" if name is None else f"column {name!r}"
        return Diagnostic(file=self.file, message=message, line=self.line, where=where)


@dataclass(slots=True, eq=False)
class SharedCells:
    """What the rows of a sheet have in common whose cells differ in id, prompt and seed alone: the other fields.

    `empty` are the columns that these rows leave empty. All such rows share one object, so that what follows from
    their fields is worked out once.
    """

    fields: dict[str, object]
    empty: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class SpecRow:
    """One row as written, resolved, without defaults. `axes` replace the shared ones of their names.

    `row_id` is None where the row has none; then `default_id` makes it. With `has_errors` a row had mistakes that hide
    what it really says, so nothing is concluded from what it lacks.
    """

    location: SourceLocation
    own: dict[str, object]
    row_id: str | None = None
    default_id: Callable[[], str]
    axes: tuple[Axis, ...] = ()
    zipped: ValueAxis | None = None
    seeds: Axis | None = None
    shared: bool = True
    has_errors: bool = False
    common: SharedCells | None = None
    """of a row of a sheet without mistakes in these cells"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFilter:
    """A partial match of a cell: resolved values of fields, labels of axes, the row's id."""

    values: Mapping[str, object]
    labels: Mapping[str, str]
    row_id: str | None = None
    path: strict_yaml.Path

    def matches(self, row_id: str, fields: Mapping[str, object], labels: Mapping[str, str]) -> bool:
        """Whether a cell has all of it."""
        if self.row_id is not None and self.row_id != row_id:
            return False
        if any(fields.get(name, INVALID) != value for name, value in self.values.items()):
            return False
        return all(labels.get(name) == label for name, label in self.labels.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideRule:
    """An override: what it sets on the cells it matches."""

    where: CellFilter
    sets: Mapping[str, object]


@dataclass(slots=True, kw_only=True)
class Defaults:
    """What every row has: fields, and seeds for rows that have no seed of their own."""

    fields: dict[str, object] = field(default_factory=dict)
    seeds: Axis | None = None

    def over(self, under: Defaults) -> Defaults:
        """These defaults laid over weaker ones; `seed` and `seeds`, `take` and `repeat` push each other out."""
        fields = dict(under.fields)
        seeds = self.seeds if self.seeds is not None or "seed" in self.fields else under.seeds
        if self.seeds is not None:
            fields.pop("seed", None)
        if "take" in self.fields:
            fields.pop("repeat", None)
        if "repeat" in self.fields:
            fields.pop("take", None)
        return Defaults(fields={**fields, **self.fields}, seeds=seeds)


RowReader: TypeAlias = Callable[[Diagnostics], Iterable[SpecRow]]
"""Gives the rows again each time it is called; the mistakes of reading them go to the list it is called with."""


@dataclass(slots=True, kw_only=True)
class ManifestSpec:
    """All that the expansion needs."""

    file: Path
    rows: RowReader
    defaults: Defaults = field(default_factory=Defaults)
    axes: tuple[Axis, ...] = ()
    excludes: tuple[CellFilter, ...] = ()
    changes: tuple[OverrideRule, ...] = ()
    includes: tuple[SpecRow, ...] = ()
    max_rows: int = 256
    measured: bool = False
    """whether the rows are at hand, so that they can be counted before anything is expanded"""
