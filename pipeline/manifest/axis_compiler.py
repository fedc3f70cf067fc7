"""The axes of a YAML manifest: lists, ranges, seeds and values that set several fields, each with its labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config.strict_yaml import Path
from pipeline.manifest import labels, ranges, yaml_model
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
from pipeline.manifest.field_compiler import EVERYTHING, EXTRA_TAGS, FIELDS, FieldCompiler
from pipeline.manifest.resolution import ALIASES
from pipeline.manifest.sheet_row import seeds_of
from pipeline.manifest.spec import INVALID, VAR, ZIP


class AxisCompiler:
    """Builds the axes of one document. A wrong axis is reported, and replaced by one that has a single invalid value.

    After a mistake it continues, so that one reading reports all mistakes.
    """

    def __init__(self, fields: FieldCompiler) -> None:
        self._fields = fields

    def of_matrix(
        self, shape: yaml_model.AxesModel | None, written: Mapping[str, object], path: Path
    ) -> tuple[Axis, ...]:
        """The axes of a `matrix`, in the order in which they are written."""
        if shape is None:
            return ()
        extra = shape.__pydantic_extra__ or {}
        invalid = self._fields.invalid(path)
        axes: list[Axis] = []
        for name in (*written, *(name for name in sorted(invalid) if name not in written)):
            if name == EVERYTHING or (name in yaml_model.PATTERNS and isinstance(shape, yaml_model.MatrixModel)):
                continue
            if name in invalid:
                axes.append(self._rejected(name))
            elif name in yaml_model.PATTERNS:
                self._fields.report("belongs in the matrix at the top, not in a row's", (*path, name))
            elif name in yaml_model.NO_AXES:
                self._fields.report(f"an axis cannot be called {name!r}.{_write_instead(name)}", (*path, name))
            elif name in extra or name in shape.model_fields_set:
                value = extra[name] if name in extra else getattr(shape, name)
                axes.append(self.one(name, value, (*path, name)))
        self.check_overlaps(axes, path)
        return tuple(axes)

    def _rejected(self, name: str) -> ValueAxis:
        field_name = "seed" if name == "seeds" else ALIASES.get(name, name)
        sets = {field_name: INVALID} if field_name in FIELDS else {}
        return ValueAxis(name=name, values=(AxisValue(label=name, sets=sets),))

    def check_overlaps(self, axes: Iterable[Axis], path: Path) -> None:
        """Report fields that two axes set."""
        setters: dict[str, str] = {}
        for axis in axes:
            for name in sorted(axis.sets):
                if name in setters:
                    self._fields.report(f"the axis {setters[name]!r} sets {name} too", (*path, axis.name))
                setters[name] = axis.name

    def one(self, name: str, value: Any, path: Path) -> Axis:
        """One axis; `seeds` is the row's way to say the axis `seed`."""
        field_name = "seed" if name == "seeds" else name
        try:
            return self._axis(field_name, value, path)
        except ValueError as error:
            self._fields.report(str(error), path)
            return self._rejected(field_name)

    def _axis(self, name: str, value: Any, path: Path) -> Axis:
        match value:
            case list():
                return self._listed(name, value, path)
            case yaml_model.RangeModel():
                count = value.count
                return numbers(name, ranges.spread(SCALES[name], value.first, value.last, step=value.step, count=count))
            case yaml_model.DerivedSeedsModel():
                return DerivedSeedAxis(size=value.count, key=value.key)
            case yaml_model.RandomSeedsModel():
                return RandomSeedAxis(size=value.random)
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
        own = self._fields.own(shape, path)
        skip = own.pop("skip", False) is True
        tags = own.pop("tags", None)
        valid = [(name, value) for name, value in own.items() if value is not INVALID]
        if shape.label is None and len(valid) != 1:
            self._fields.report("needs a label, which names the value in ids and on the sheet", path)
        if tags is not None:
            own[EXTRA_TAGS + axis] = tags
        label = shape.label or (labels.label(*valid[0]) if valid else "?")
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
            self._fields.report(f"needs lists of equal length, and has {factors}", path)
            return ValueAxis(name=ZIP, values=(AxisValue(label="?", sets=dict.fromkeys(given, INVALID)),))
        named = given.pop("label", None) or self._zip_labels(given)
        points = tuple(
            AxisValue(label=label, sets=dict(zip(given, values, strict=True)))
            for label, values in zip(named, zip(*given.values(), strict=True), strict=True)
        )
        twice = repeated(points)
        if twice is not None:
            self._fields.report(f"two items are called {twice!r}: give labels that differ", path)
        return ValueAxis(name=ZIP, values=points)

    def _zipped_variables(
        self, shape: list[dict[str, str]] | dict[str, list[str]] | None, path: Path
    ) -> dict[str, list[Any]]:
        """Variables of a `zip` as lists, one for each name, whichever way they are written."""
        if isinstance(shape, list):
            if any(item.keys() != shape[0].keys() for item in shape):
                self._fields.report("the items need the same names, each of them all", path)
            shape = {name: [item.get(name, "") for item in shape] for name in shape[0]}
        self._fields.variables(dict.fromkeys(shape or (), ""), path)
        return {VAR + name: list(values) for name, values in (shape or {}).items()}

    def _zip_labels(self, given: Mapping[str, list[Any]]) -> list[str]:
        name, values = next(iter(given.items()))
        items = list(zip(*given.values(), strict=True))
        return labels.distinct([labels.label(name, value) for value in values], items)


def _write_instead(name: str) -> str:
    instead = {"seeds": "seed", "repeat": "take", **ALIASES}.get(name)
    return f" Write {instead!r}." if instead else ""
