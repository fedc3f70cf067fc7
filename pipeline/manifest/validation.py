"""Plain values of a YAML text -> the shape of `model.Document`, whatever mistakes stand in it.

A refused value is cut out, reported and remembered as invalid, until the rest has the right shape: so one reading
reports every mistake, and a field that was refused is not called missing as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.strict_yaml import Path as Place
from pipeline.manifest import yaml_model
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.field_types import plain, which_seeds
from pipeline.manifest.labels import did_you_mean
from pipeline.manifest.resolution import FORBIDDEN_FIELDS, ValidationContext

Shape = TypeVar("Shape", bound=BaseModel)
EVERYTHING = "*"


@dataclass(slots=True)
class SchemaValidator:
    """Validates the parts of one text. `invalid_keys`: places of mappings -> keys whose values were rejected."""

    file: Path | None
    surroundings: ValidationContext
    mistakes: Diagnostics
    prefix: Place = ()
    invalid_keys: dict[Place, set[str]] = field(default_factory=dict)

    def shaped(self, kind: type[Shape], written: Any) -> Shape:
        """The shape of `written`, which loses what was refused."""
        while True:
            try:
                return kind.model_validate(written, context=self.surroundings)
            except ValidationError as error:
                details = error.errors(include_url=False, include_input=True)
                for detail in details:
                    self._report(kind, detail)
                # And once more without them: checks across several fields run only where each field alone is right.
                for place in {_cut(_place(detail)) for detail in details}:
                    self._cut_out(written, place)

    def _report(self, kind: type[BaseModel], detail: ErrorDetails) -> None:
        place = _place(detail)
        message = _message(kind, detail, place)
        self.mistakes.add(Diagnostic(file=self.file, path=(*self.prefix, *place), message=message))

    def _cut_out(self, written: Any, place: Place) -> None:
        """Takes the value at a place away; of a list's item only its insides, so that the others keep their numbers."""
        inside = written
        for step in place[:-1]:
            inside = inside[step]
        last = place[-1]
        if isinstance(last, int):
            inside[last] = {}
            self.invalid_keys.setdefault((*self.prefix, *place), set()).add(EVERYTHING)
        else:
            inside.pop(last, None)
            self.invalid_keys.setdefault((*self.prefix, *place[:-1]), set()).add(last)


def _place(detail: ErrorDetails) -> Place:
    """Where a mistake is, without pydantic's union tags."""
    return tuple(part for part in detail["loc"] if not (isinstance(part, str) and part.startswith(yaml_model.TAG)))


def _cut(place: Place) -> Place:
    """The smallest part around a mistake that can be missing."""
    # The less is cut, the more mistakes one reading finds: of a row only the wrong field, so that its other fields are
    # judged too. Where a whole section is wrong there is nothing smaller to cut.
    match place:
        case ("rows", int(), *_) if len(place) == 2:
            return place
        case ("rows", int(), *_):
            return place[:3]
        case ("matrix", "include", int(), *_):
            return place[:4] if len(place) > 3 else place
        case ("defaults" | "vars" | "motions" | "budget" | "sheet" | "matrix" | "zip", *_):
            return place[:2]
    return place[:1]


def _message(kind: type[BaseModel], detail: ErrorDetails, place: Place) -> str:
    found = detail["type"]
    value = detail["input"]
    if found == "value_error":
        return str(detail["ctx"]["error"])
    if found == "extra_forbidden":
        return _unknown(kind, str(place[-1]), place)
    if found == "missing":
        return "is missing"
    if found in ("model_type", "dict_type"):
        return _not_a_mapping(value, place)
    if (
        found == "list_type"
        and len(place) > 1
        and place[-2] == "matrix"
        and place[-1] not in yaml_model.AxesModel.model_fields
    ):
        return which_seeds(value) if place[-1] == "seeds" and _is_number(value) else _not_an_axis(str(place[-1]))
    if found == "list_type":
        return f"{plain(value)} is not a list: write [{value if isinstance(value, str) else plain(value)}]"
    if found == "too_short":
        return "is empty"
    return detail["msg"]


def _unknown(kind: type[BaseModel], key: str, place: Place) -> str:
    if key in FORBIDDEN_FIELDS:
        return FORBIDDEN_FIELDS[key]
    shape = _kind_at(kind, place[:-1])
    known = [info.alias or name for name, info in shape.model_fields.items()]
    if shape is yaml_model.LabeledValues:
        return f"unknown key in a linked value.{did_you_mean(key, known)}"
    elsewhere = next(
        (where for where, there in _HOMES.items() if key in there.model_fields and there is not shape), None
    )
    near = did_you_mean(key, known)
    if not near and elsewhere is not None:
        return f"unknown key here: it belongs in {elsewhere}"
    return f"unknown key.{near}"


def _not_a_mapping(value: object, place: Place) -> str:
    if (
        len(place) >= 3
        and "matrix" in place[:-2]
        and isinstance(place[-1], int)
        and place[-2] not in yaml_model.PATTERNS
    ):
        return _not_an_axis(str(place[-2]))
    return f"{plain(value)} is not a mapping of keys and values"


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _not_an_axis(name: str) -> str:
    near = did_you_mean(name, yaml_model.AxesModel.model_fields)
    return f"{name!r} is not a field, so this axis needs a list of mappings with labels.{near}"


_HOMES: Mapping[str, type[BaseModel]] = {
    "a row": yaml_model.RowModel,
    "the top of the manifest": yaml_model.DocumentModel,
    "matrix": yaml_model.MatrixModel,
    "budget": yaml_model.BudgetModel,
}


def _kind_at(kind: type[BaseModel], place: Place) -> type[BaseModel]:
    """The class of the mapping at a place."""
    if kind is not yaml_model.DocumentModel:
        return kind
    match place:
        case ():
            return yaml_model.DocumentModel
        case ("rows", int()) | ("matrix", "include", int()):
            return yaml_model.RowModel
        case ("rows",):
            return yaml_model.RowsFileModel
        case (*_, "zip"):
            return yaml_model.ZipModel
        case ("defaults",):
            return yaml_model.DefaultsModel
        case ("budget",):
            return yaml_model.BudgetModel
        case ("sheet",):
            return yaml_model.SheetAxesModel
        case ("matrix", "override", int()):
            return yaml_model.OverrideModel
        case (*_, "set"):
            return yaml_model.OverrideFields
        case (*_, str()):
            return yaml_model.RangeModel if place[-1] in yaml_model.AxesModel.model_fields else yaml_model.MatrixModel
    return yaml_model.LabeledValues
