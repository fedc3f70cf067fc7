"""The validated model of a YAML manifest -> a spec: rows with their axes, defaults, exclusions and overrides.

After a mistake it continues: a rejected value becomes INVALID and the rest is checked, so one reading reports all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from pipeline.config.strict_yaml import Path
from pipeline.manifest import field_types, yaml_model
from pipeline.manifest.axes import ValueAxis
from pipeline.manifest.axis_compiler import AxisCompiler
from pipeline.manifest.diagnostics import Diagnostics
from pipeline.manifest.field_compiler import EVERYTHING, EXTRA_TAGS, FIELDS, FieldCompiler, InvalidKeys
from pipeline.manifest.labels import did_you_mean
from pipeline.manifest.resolution import ALIASES, REQUEST_FIELDS, VALIDATORS, ValidationContext
from pipeline.manifest.sheet_row import default_id
from pipeline.manifest.spec import (
    INVALID,
    ZIP,
    CellFilter,
    Defaults,
    ManifestSpec,
    OverrideRule,
    SourceLocation,
    SpecRow,
)


class Compiler:
    """Turns the parts of one document into values of a spec and reports what does not fit together.

    Attributes:
        fields: reads the fields of single mappings, and takes mistakes.
        axes: reads axes.
    """

    def __init__(
        self, spot: SourceLocation, surroundings: ValidationContext, mistakes: Diagnostics, invalid: InvalidKeys
    ) -> None:
        self._file = spot.file
        self._surroundings = surroundings
        self._mistakes = mistakes
        self.fields = FieldCompiler(spot.file, mistakes, invalid)
        self.axes = AxisCompiler(self.fields)

    def defaults(self, shape: yaml_model.DefaultsModel | None, path: Path) -> Defaults:
        """The defaults of a document or a configuration."""
        if shape is None:
            return Defaults()
        own = self.fields.own(shape, path)
        self.fields.check_alternatives(own, shape, path)
        if "seeds" in self.fields.invalid(path):
            own["seed"] = INVALID
        seeds = self.axes.one("seeds", shape.seeds, (*path, "seeds")) if shape.seeds is not None else None
        return Defaults(fields=own, seeds=seeds)

    def row(
        self, shape: yaml_model.RowModel, written: Mapping[str, Any], path: Path, line: int | None, *, shared: bool
    ) -> SpecRow:
        """A row of the document."""
        own = self.fields.own(shape, path)
        self.fields.check_alternatives(own, shape, path)
        matrix = written.get("matrix")

        return SpecRow(
            location=SourceLocation(file=self._file, path=path, line=line),
            own=own,
            row_id=shape.id,
            default_id=lambda: default_id(
                str(written.get("prompt", "")), json.dumps(written, sort_keys=True, default=str)
            ),
            axes=self.axes.of_matrix(shape.matrix, matrix if isinstance(matrix, dict) else {}, (*path, "matrix")),
            zipped=self.axes.zipped(shape.zip, written.get(ZIP), (*path, ZIP)),
            seeds=self.axes.one("seeds", shape.seeds, (*path, "seeds")) if shape.seeds is not None else None,
            shared=shared,
            has_errors=bool({"matrix", ZIP, "seeds", EVERYTHING} & set(self.fields.invalid(path))),
        )

    def patterns(self, spec: ManifestSpec, matrix: yaml_model.MatrixModel, written: Mapping[str, Any]) -> None:
        """Fill in the exclusions, overrides and included rows of a `matrix`; the axes of `spec` are known by then."""
        # Rows of a sheet are not at hand, and have no axes of their own either.
        given = spec.rows(self._mistakes) if spec.measured else ()
        axes = [*spec.axes, *(axis for row in given for axis in row.axes)]
        linked = {
            axis.name for axis in axes if isinstance(axis, ValueAxis) and axis.name not in (*REQUEST_FIELDS, "take")
        }
        excludes = (
            self.pattern(pattern, linked, ("matrix", "exclude", place))
            for place, pattern in enumerate(matrix.exclude or ())
        )
        spec.excludes = tuple(pattern for pattern in excludes if pattern is not None)
        changes = (
            self.change(change, linked, ("matrix", "override", place))
            for place, change in enumerate(matrix.override or ())
        )
        spec.changes = tuple(change for change in changes if change is not None)
        included = written.get("include", ())
        spec.includes = tuple(
            self.row(row, included[place], ("matrix", "include", place), None, shared=False)
            for place, row in enumerate(matrix.include or ())
        )

    def pattern(self, written: Mapping[str, object], linked: Collection[str], path: Path) -> CellFilter | None:
        """A partial match, None if it is wrong. `linked` are the axes whose values have labels."""
        values: dict[str, object] = {}
        named: dict[str, str] = {}
        row_id = None
        wrong = False
        for key, value in written.items():
            name = ALIASES.get(key, key)
            try:
                if name in linked:
                    named[name] = field_types.scalar_text(value)
                elif name == "id":
                    row_id = field_types.word(value)
                elif name in FIELDS:
                    values[name] = VALIDATORS[name](self._surroundings, value)
                else:
                    known = (*FIELDS, *linked, "id")
                    raise ValueError(f"is not a field or an axis.{did_you_mean(key, known)}")
            except ValueError as error:
                self.fields.report(str(error), (*path, key))
                wrong = True
        return None if wrong else CellFilter(values=values, labels=named, row_id=row_id, path=path)

    def change(self, shape: yaml_model.OverrideModel, linked: Collection[str], path: Path) -> OverrideRule | None:
        """An override, None if its `where` is wrong."""
        sets = self.fields.own(shape.set, (*path, "set"))
        if not sets:
            self.fields.report("sets nothing", (*path, "set"))
        tags = sets.pop("tags", None)
        if tags is not None:
            sets[f"{EXTRA_TAGS}{path[-1]}"] = tags
        where = self.pattern(shape.where, linked, (*path, "where"))
        return None if where is None else OverrideRule(where=where, sets=sets)
