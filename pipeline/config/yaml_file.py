"""One configuration file as the values in it, each with its place. Knows no setting.

Scalars stay text (digits of money are never floats) except where a caller asks for typed ones. `strict_yaml` reads the
text, as it reads manifests.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import strict_yaml
from pipeline.errors import Problem, UsageError

MAX_FILE_BYTES = 1_000_000
"""No honest configuration or `.env` is larger."""

KEY_DEPTH = 2
"""A setting is a key of a section; a section without a value says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawValue:
    """One value as written: text or None, a list or mapping of such, and the place."""

    value: object
    source: str
    where: str
    file: Path | None = None
    line: int | None = None
    column: int | None = None

    def problem(self, message: str) -> Problem:
        return Problem(file=self.file, line=self.line, column=self.column, where=self.where, message=message)


RawValues = dict[tuple[str, ...], RawValue]


def file_text(file: Path) -> str:
    """The file's text, UTF-8 with or without BOM.

    Raises:
        UsageError: missing, unreadable, too large, or another encoding.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"{file}: is larger than {MAX_FILE_BYTES} bytes")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: is not UTF-8 (byte {error.start})") from error


def read_leaves(file: Path, *, typed: Container[str], problems: list[Problem]) -> RawValues:
    """`(section, key)` -> value as written, `(name,)` for a value at the top; mistakes go to `problems`.

    Args:
        typed: sections whose plain scalars become booleans, integers and decimals.
    """
    text = file_text(file)
    try:
        parsed = strict_yaml.read(text, keeps_text=lambda path: path[0] not in typed)
    except strict_yaml.YamlTextError as error:
        problems.append(Problem(file=file, line=error.line, column=error.column, message=str(error)))
        return {}
    for repeated, line, column in parsed.repeated:
        message = f"{'.'.join(map(str, repeated))} is given twice"
        problems.append(Problem(file=file, line=line, column=column, message=message))
    if parsed.value is None:
        return {}
    if not isinstance(parsed.value, dict):
        problems.append(Problem(file=file, line=1, column=1, message="must hold sections with keys"))
        return {}
    values = dict(_leaves(parsed))
    places = strict_yaml.places(text, values)
    return {path: _raw_value(file, path, value, places[path]) for path, value in values.items()}


def _leaves(parsed: strict_yaml.ParsedYaml) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in parsed.value.items():
        if isinstance(value, dict):
            yield from (((name, key), child) for key, child in value.items())
        else:
            yield (name,), value
    yield from ((tuple(map(str, path)), None) for path in parsed.nulls if len(path) == KEY_DEPTH)


def _raw_value(file: Path, path: tuple[str, ...], value: object, place: strict_yaml.Place) -> RawValue:
    line, column = place
    return RawValue(value=value, source=f"{file}:{line}", where=".".join(path), file=file, line=line, column=column)
