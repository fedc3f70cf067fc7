"""The fields that the mappings of a YAML manifest set, under the manifest's own names, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path as FilePath

from pydantic import BaseModel

from pipeline.config.strict_yaml import Path
from pipeline.manifest import yaml_model
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.resolution import ALIASES, REQUEST_FIELDS, ROW_FIELDS
from pipeline.manifest.spec import INVALID, VAR

ROW_ID = "row.id"
FIELDS = (*REQUEST_FIELDS, "take")
EVERYTHING = "*"
"""The key that means all keys of a mapping, in `InvalidKeys`."""
EXTRA_TAGS = "+tags:"
"""Tags that an axis or an override adds to the row's: `+tags:NAME`."""

InvalidKeys = Mapping[Path, Collection[str]]


class FieldCompiler:
    """Reads fields from mappings of one document, and collects the mistakes with their places.

    Args:
        invalid: places of mappings -> their keys whose values were rejected; '*' means all of a mapping.
    """

    def __init__(self, file: FilePath | None, mistakes: Diagnostics, invalid: InvalidKeys) -> None:
        self._file = file
        self._mistakes = mistakes
        self._invalid = invalid

    def report(self, message: str, path: Path) -> None:
        """Add a mistake at a place of the document."""
        self.add(Diagnostic(file=self._file, message=message, path=path))

    def add(self, mistake: Diagnostic) -> None:
        """Add a mistake of another file."""
        self._mistakes.add(mistake)

    def invalid(self, path: Path) -> Collection[str]:
        """The keys of the mapping at `path` whose values were rejected."""
        return self._invalid.get(path, ())

    def own(self, shape: BaseModel, path: Path) -> dict[str, object]:
        """The fields that a mapping sets, under the manifest's names; rejected ones are INVALID."""
        invalid = self.invalid(path)
        given = [name for name in type(shape).model_fields if name in shape.model_fields_set or name in invalid]
        own: dict[str, object] = {}
        for name in given:
            field_name = ALIASES.get(name, name)
            if field_name in own and name != field_name:
                self.report(f"is the same field as {field_name!r}: give one of them", (*path, name))
            elif field_name in (*FIELDS, *ROW_FIELDS):
                own[field_name] = INVALID if name in invalid else getattr(shape, name)
        own.update(self.variables(getattr(shape, "vars", None), (*path, "vars")))
        return own

    def variables(self, given: Mapping[str, str] | None, path: Path) -> dict[str, object]:
        """Template variables as fields."""
        for name in given or ():
            if name != name.strip() or not name or set(name) & set("{}\n") or name == ROW_ID:
                self.report(f"{name!r} cannot be a variable's name", (*path, name))
        return {VAR + name: value for name, value in (given or {}).items()}

    def check_alternatives(self, own: Mapping[str, object], shape: yaml_model.DefaultsModel, path: Path) -> None:
        """Report fields that say the same thing twice."""
        if "take" in own and "repeat" in own:
            self.report("repeat buys takes 1..n, take buys exactly one: give one of them", (*path, "repeat"))
        if "seed" in own and shape.seeds is not None:
            self.report("seed is one value, seeds an axis: give one of them", (*path, "seeds"))
