"""The read shape of a YAML manifest -> a program: aliases normalize_name, axes built, patterns settled. Pure.

After a mistake it continues: a refused value becomes INVALID and the rest is still checked, so one reading reports all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.config.strict_yaml import Path
from pipeline.manifest import field_types, labels, ranges, yaml_model
from pipeline.manifest.axes import (
    SCALES,
    Axis,
    AxisValue,
    DerivedSeedAxis,
    RandomSeedAxis,
    SeedAxis,
    ValueAxis,
    numbers,
    repeated,
    scalars,
)
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.labels import did_you_mean
from pipeline.manifest.resolution import ALIASES, REQUEST_FIELDS, ROW_FIELDS, VALIDATORS, ValidationContext
from pipeline.manifest.sheet_row import default_id, seeds_of
from pipeline.manifest.spec import INVALID, VAR, ZIP, CellFilter, Defaults, OverrideRule, SourceLocation, SpecRow

ROW_ID = "row.id"
FIELDS = (*REQUEST_FIELDS, "take")
EVERYTHING = "*"
"""Poison of a whole mapping."""
EXTRA_TAGS = "+tags:"
"""Tags that an axis or an override adds to the row's: `+tags:NAME`."""

InvalidKeys = Mapping[Path, Collection[str]]


class Compiler:
    """Turns the parts of one document into values of a program and tells what does not fit together.

    Args:
        poison: places of mappings -> their keys whose values were refused; '*' means all of a mapping.
    """

    def __init__(
        self, spot: SourceLocation, surroundings: ValidationContext, mistakes: Diagnostics, poison: InvalidKeys
    ) -> None:
        self._file = spot.file
        self._surroundings = surroundings
        self._mistakes = mistakes
        self._poison = poison

    def report(self, message: str, path: Path) -> None:
        """Keeps a mistake at a place of the document."""
        self.add(Diagnostic(file=self._file, message=message, path=path))

    def add(self, mistake: Diagnostic) -> None:
        """Keeps a mistake of another file."""
        self._mistakes.add(mistake)

    # fields ---------------------------------------------------------------------------------------------------------

    def own(self, shape: BaseModel, path: Path) -> dict[str, object]:
        """The fields that a mapping sets, under the manifest's names; refused ones are BAD."""
        poisoned = self._poison.get(path, ())
        given = [name for name in type(shape).model_fields if name in shape.model_fields_set or name in poisoned]
        own: dict[str, object] = {}
        for name in given:
            field_name = ALIASES.get(name, name)
            if field_name in own and name != field_name:
                self.report(f"is the same field as {field_name!r}: give one of them", (*path, name))
            elif field_name in (*FIELDS, *ROW_FIELDS):
                own[field_name] = INVALID if name in poisoned else getattr(shape, name)
        own.update(self.variables(getattr(shape, "vars", None), (*path, "vars")))
        return own

    def variables(self, given: Mapping[str, str] | None, path: Path) -> dict[str, object]:
        """Template variables as fields."""
        for name in given or ():
            if name != name.strip() or not name or set(name) & set("{}\n") or name == ROW_ID:
                self.report(f"{name!r} cannot be a variable's name", (*path, name))
        return {VAR + name: value for name, value in (given or {}).items()}

    def defaults(self, shape: yaml_model.DefaultsModel | None, path: Path) -> Defaults:
        """The defaults of a document or a configuration."""
        if shape is None:
            return Defaults()
        own = self.own(shape, path)
        self.one_of(own, shape, path)
        if "seeds" in self._poison.get(path, ()):
            own["seed"] = INVALID
        seeds = self.axis("seeds", shape.seeds, (*path, "seeds")) if shape.seeds is not None else None
        return Defaults(fields=own, seeds=seeds)

    def one_of(self, own: Mapping[str, object], shape: yaml_model.DefaultsModel, path: Path) -> None:
        """Tells of fields that say the same thing twice."""
        if "take" in own and "repeat" in own:
            self.report("repeat buys takes 1..n, take buys exactly one: give one of them", (*path, "repeat"))
        if "seed" in own and shape.seeds is not None:
            self.report("seed is one value, seeds an axis: give one of them", (*path, "seeds"))

    # axes -----------------------------------------------------------------------------------------------------------

    def axes(self, shape: yaml_model.AxesModel | None, written: Mapping[str, object], path: Path) -> tuple[Axis, ...]:
        """The axes of a `matrix`, in the order in which they are written."""
        if shape is None:
            return ()
        extra = shape.__pydantic_extra__ or {}
        poisoned = self._poison.get(path, ())
        axes: list[Axis] = []
        for name in (*written, *(name for name in sorted(poisoned) if name not in written)):
            if name == EVERYTHING or (name in yaml_model.PATTERNS and isinstance(shape, yaml_model.MatrixModel)):
                continue
            if name in poisoned:
                axes.append(self._refused(name))
            elif name in yaml_model.PATTERNS:
                self.report("belongs in the matrix at the top, not in a row's", (*path, name))
            elif name in yaml_model.NO_AXES:
                self.report(f"an axis cannot be called {name!r}.{_write_instead(name)}", (*path, name))
            elif name in extra or name in shape.model_fields_set:
                value = extra[name] if name in extra else getattr(shape, name)
                axes.append(self.axis(name, value, (*path, name)))
        self.apart(axes, path)
        return tuple(axes)

    def _refused(self, name: str) -> ValueAxis:
        field_name = "seed" if name == "seeds" else ALIASES.get(name, name)
        sets = {field_name: INVALID} if field_name in FIELDS else {}
        return ValueAxis(name=name, values=(AxisValue(label=name, sets=sets),))

    def apart(self, axes: Iterable[Axis], path: Path) -> None:
        """Tells of fields that two axes set."""
        setters: dict[str, str] = {}
        for axis in axes:
            for name in sorted(axis.sets):
                if name in setters:
                    self.report(f"the axis {setters[name]!r} sets {name} too", (*path, axis.name))
                setters[name] = axis.name

    def axis(self, name: str, value: Any, path: Path) -> Axis:
        """One axis; `seeds` is the row's way to say the axis `seed`."""
        field_name = "seed" if name == "seeds" else name
        try:
            return self._axis(field_name, value, path)
        except ValueError as error:
            self.report(str(error), path)
            return self._refused(field_name)

    def _axis(self, name: str, value: Any, path: Path) -> Axis:
        match value:
            case list():
                return self._listed(name, value, path)
            case yaml_model.RangeModel():
                count = value.count
                return numbers(name, ranges.spread(SCALES[name], value.first, value.last, step=value.step, count=count))
            case yaml_model.DerivedSeedsModel():
                return DerivedSeedAxis(count=value.count, key=value.key)
            case yaml_model.RandomSeedsModel():
                return RandomSeedAxis(count=value.random)
        return seeds_of(value) if name == "seed" else numbers(name, ranges.values_of(SCALES[name], value))

    def _listed(self, name: str, values: list[Any], path: Path) -> Axis:
        if name == "seed" and all(isinstance(value, int) for value in values):
            twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
            if twice is not None:
                raise ValueError(f"{twice} is given twice")
            return SeedAxis(values=tuple(values))
        plain_values = [value for value in values if not isinstance(value, yaml_model.LabeledValues)]
        for place, value in enumerate(plain_values):
            if value in plain_values[:place]:
                raise ValueError(f"{labels.label(name, value)} is given twice")
        named = iter(scalars(name, plain_values).values)
        points = tuple(
            self._linked(name, value, (*path, place)) if isinstance(value, yaml_model.LabeledValues) else next(named)
            for place, value in enumerate(values)
        )
        twice_named = repeated(points)
        if twice_named is not None:
            raise ValueError(f"two values are called {twice_named!r}: say each once, or give labels that differ")
        return ValueAxis(name=name, values=points)

    def _linked(self, axis: str, shape: yaml_model.LabeledValues, path: Path) -> AxisValue:
        own = self.own(shape, path)
        skip = own.pop("skip", False) is True
        tags = own.pop("tags", None)
        settled = [(name, value) for name, value in own.items() if value is not INVALID]
        if shape.label is None and len(settled) != 1:
            self.report("needs a label, which names the value in ids and on the sheet", path)
        if tags is not None:
            own[EXTRA_TAGS + axis] = tags
        label = shape.label or (labels.label(*settled[0]) if settled else "?")
        return AxisValue(label=label, sets=own, skip=skip)

    def zipped(self, shape: yaml_model.ZipModel | None, written: object, path: Path) -> ValueAxis | None:
        """The axis of lists that are walked together; None if there is none."""
        if shape is None:
            return None
        names = written if isinstance(written, dict) else shape.model_fields_set
        given = {name: list(getattr(shape, name)) for name in names if name != "vars"}
        given.update(self._zipped_variables(shape.vars, (*path, "vars")))
        sizes = {name: len(values) for name, values in given.items()}
        if len(set(sizes.values())) != 1 or set(given) == {"label"}:
            factors = ", ".join(f"{name.removeprefix(VAR)} {size}" for name, size in sizes.items()) or "nothing"
            self.report(f"needs lists of equal length, and has {factors}", path)
            return ValueAxis(name=ZIP, values=(AxisValue(label="?", sets=dict.fromkeys(given, INVALID)),))
        named = given.pop("label", None) or self._zip_labels(given)
        points = tuple(
            AxisValue(label=label, sets=dict(zip(given, values, strict=True)))
            for label, values in zip(named, zip(*given.values(), strict=True), strict=True)
        )
        twice = repeated(points)
        if twice is not None:
            self.report(f"two items are called {twice!r}: give labels that differ", path)
        return ValueAxis(name=ZIP, values=points)

    def _zipped_variables(
        self, shape: list[dict[str, str]] | dict[str, list[str]] | None, path: Path
    ) -> dict[str, list[Any]]:
        """Variables of a `zip` as lists, one for each name, whichever way they are written."""
        if isinstance(shape, list):
            if any(item.keys() != shape[0].keys() for item in shape):
                self.report("the items need the same names, each of them all", path)
            shape = {name: [item.get(name, "") for item in shape] for name in shape[0]}
        self.variables(dict.fromkeys(shape or (), ""), path)
        return {VAR + name: list(values) for name, values in (shape or {}).items()}

    def _zip_labels(self, given: Mapping[str, list[Any]]) -> list[str]:
        name, values = next(iter(given.items()))
        items = list(zip(*given.values(), strict=True))
        return labels.distinct([labels.label(name, value) for value in values], items)

    # rows -----------------------------------------------------------------------------------------------------------

    def row(
        self, shape: yaml_model.RowModel, written: Mapping[str, Any], path: Path, line: int | None, *, shared: bool
    ) -> SpecRow:
        """A row of the document."""
        own = self.own(shape, path)
        self.one_of(own, shape, path)
        poisoned = self._poison.get(path, ())
        matrix = written.get("matrix")

        def made_id() -> str:
            return default_id(str(written.get("prompt", "")), json.dumps(written, sort_keys=True, default=str))

        return SpecRow(
            location=SourceLocation(file=self._file, path=path, line=line),
            own=own,
            row_id=shape.id,
            default_id=lambda: default_id(
                str(written.get("prompt", "")), json.dumps(written, sort_keys=True, default=str)
            ),
            axes=self.axes(shape.matrix, matrix if isinstance(matrix, dict) else {}, (*path, "matrix")),
            zipped=self.zipped(shape.zip, written.get(ZIP), (*path, ZIP)),
            seeds=self.axis("seeds", shape.seeds, (*path, "seeds")) if shape.seeds is not None else None,
            shared=shared,
            has_errors=bool({"matrix", ZIP, "seeds", EVERYTHING} & set(poisoned)),
        )

    # patterns -------------------------------------------------------------------------------------------------------

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
                self.report(str(error), (*path, key))
                wrong = True
        return None if wrong else CellFilter(values=values, labels=named, row_id=row_id, path=path)

    def change(self, shape: yaml_model.OverrideModel, linked: Collection[str], path: Path) -> OverrideRule | None:
        """An override, None if its `where` is wrong."""
        sets = self.own(shape.set, (*path, "set"))
        if not sets:
            self.report("sets nothing", (*path, "set"))
        tags = sets.pop("tags", None)
        if tags is not None:
            sets[f"{EXTRA_TAGS}{path[-1]}"] = tags
        where = self.pattern(shape.where, linked, (*path, "where"))
        return None if where is None else OverrideRule(where=where, sets=sets)


def _write_instead(name: str) -> str:
    instead = {"seeds": "seed", "repeat": "take", **ALIASES}.get(name)
    return f" Write {instead!r}." if instead else ""
