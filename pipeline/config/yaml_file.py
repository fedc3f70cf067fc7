"""One configuration file as the values in it, each with its place. Knows YAML; knows no setting.

Scalars stay text (digits of money are never floats) except where a caller asks for typed ones. YAML 1.2 words only:
`no` is text. Aliases and names given twice are refused.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import Problem, UsageError

MAX_FILE_BYTES = 1_000_000
"""No honest configuration or `.env` is larger."""

MAX_DEPTH = 16

_INTEGER, _DECIMAL = re.compile(r"[-+]?\d+"), re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")
_NULL = {"", "~", "null", "Null", "NULL"}


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
    reader = _Reader(file=file, typed=typed, problems=problems)
    return dict(reader.leaves(reader.root()))


def typed_scalar(text: str) -> object:
    """What a plain YAML 1.2 scalar means: a boolean, an integer, a decimal, else the text."""
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return Decimal(text) if _DECIMAL.fullmatch(text) else text


def is_null(text: str) -> bool:
    """Whether a plain scalar says that there is no value."""
    return text in _NULL


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    file: Path
    typed: Container[str]
    problems: list[Problem]

    def root(self) -> yaml.Node | None:
        """The file's node tree, or None. A few lines of aliases unfold to gigabytes; deep nesting costs minutes."""
        text = file_text(self.file)
        try:
            if self._has_trap(yaml.parse(text, Loader=yaml.SafeLoader)):
                return None
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            self._wrong(str(error.problem or error.context), error.problem_mark)
            return None
        except yaml.YAMLError:
            self._wrong("is not YAML: it holds a control character", None)
            return None
        if node is not None and not _is_empty(node) and not isinstance(node, yaml.MappingNode):
            self._wrong("must hold sections with keys", node.start_mark)
        return node

    def _has_trap(self, events: Iterator[yaml.Event]) -> bool:
        """Whether the text holds an alias or nests deeper than a configuration does; stops reading at the first."""
        depth = 0
        for event in events:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
                message = "is nested too deeply" if depth > MAX_DEPTH else "aliases are not allowed"
                self._wrong(message, event.start_mark)
                return True
        return False

    def leaves(self, root: yaml.Node | None) -> Iterator[tuple[tuple[str, ...], RawValue]]:
        for name, key_node, node in self._entries(root, ()):
            if isinstance(node, yaml.MappingNode):
                for key, child_key, child in self._entries(node, (name,)):
                    yield (name, key), self._given((name, key), child_key, child)
            elif not _is_empty(node):
                yield (name,), self._given((name,), key_node, node)

    def _entries(
        self, node: yaml.Node | None, path: tuple[str, ...]
    ) -> Iterator[tuple[str, yaml.ScalarNode, yaml.Node]]:
        """Name, key node and value node; a name given twice is a problem, not the last one's victory."""
        seen: set[str] = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                self._wrong("a key must be a word", key.start_mark)
                continue
            if key.value in seen:
                self._wrong(f"{'.'.join((*path, key.value))} is given twice", key.start_mark)
            seen.add(key.value)
            yield key.value, key, value

    def _given(self, path: tuple[str, ...], key: yaml.ScalarNode, node: yaml.Node) -> RawValue:
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        return RawValue(
            value=self._value(node, typed=path[0] in self.typed),
            source=f"{self.file}:{line}",
            where=".".join(path),
            file=self.file,
            line=line,
            column=column,
        )

    def _value(self, node: yaml.Node, *, typed: bool) -> object:
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, typed=typed) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            return {name: self._value(child, typed=typed) for name, _, child in self._entries(node, ())}
        if _is_empty(node):
            return None
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        return typed_scalar(node.value) if typed and plain else node.value

    def _wrong(self, message: str, mark: Any) -> None:
        """`mark` is a place of the YAML library (its two parsers have a class each), counted from 0, or None."""
        line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        self.problems.append(Problem(file=self.file, line=line, column=column, message=message))


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and is_null(node.value)
