"""YAML text -> plain values, straight from the event stream, so that nothing is expanded before it is allowed. Pure.

No aliases, anchors or tags, at most 32 levels, no key twice, one document. Plain scalars follow YAML 1.2 (`NO` is a
text) without its traps: 010, 0x10, 1_000 and .inf stay texts. Numbers with a point are Decimal. Nothing is constructed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

import yaml

MOST_LEVELS = 32
MOST_BYTES = 20_000_000
MOST_DIGITS = 40
"""Longer numbers stay texts: they are no amount, seed or strength."""

Path: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,2})?")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class YamlTextError(ValueError):
    """The text cannot be read at all; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None, path: Path = ()) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.path = path


def scalar(text: str) -> object:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text in _NULLS:
        return None
    if len(text) <= MOST_DIGITS:
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return Decimal(text)
    return text


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet; `key` is the key that waits for its value."""

    items: Any
    path: Path
    key: str | None = None
    keys: set[str] = field(default_factory=set)


def _events(text: str) -> Iterator[yaml.Event]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        yield from yaml.parse(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise YamlTextError(f"not YAML: {error.problem or error.context}", *where) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlTextError(f"not YAML: {str(error).splitlines()[0]}") from error


def _refused(event: yaml.Event) -> str | None:
    anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
    if isinstance(event, yaml.AliasEvent):
        return f"aliases (*{anchor}) are not read: write the value out, or put it into defaults"
    if anchor:
        return f"anchors (&{anchor}) are not read: put shared values into defaults or vars"
    return f"tags ({tag}) are not read" if tag else None


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _walk(text: str) -> Iterator[tuple[yaml.Event, Path, list[_Open]]]:
    """Every event that begins a value or a key, with the path it stands at and the collections around it."""
    stack: list[_Open] = []
    documents = 0
    for event in _events(text):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlTextError("a second document begins here: one manifest, one document", *_place(event))
        why = _refused(event)
        if why:
            raise YamlTextError(why, *_place(event))
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
        elif isinstance(event, yaml.NodeEvent):
            yield event, _path_of(event, stack), stack


def _path_of(event: yaml.Event, stack: list[_Open]) -> Path:
    if not stack:
        return ()
    top = stack[-1]
    if isinstance(top.items, list):
        return (*top.path, len(top.items))
    if top.key is None:
        return (*top.path, getattr(event, "value", ""))
    return (*top.path, top.key)


@dataclass(slots=True)
class Document:
    """A read text: `value`, the line of each of its `rows` (from 1), and where a null stands (`nulls`)."""

    value: Any = None
    row_lines: list[int] = field(default_factory=list)
    nulls: list[Path] = field(default_factory=list)
    repeated: list[tuple[Path, int, int]] = field(default_factory=list)


def read(text: str) -> Document:
    """The values of a YAML text: dict, list, str, int, Decimal, bool. Keys without a value are left out, see `nulls`.

    Raises:
        YamlTextError: syntax, an alias, an anchor, a tag, too many levels, a key that is no word, a second document.
    """
    document = Document()
    for event, path, stack in _walk(text):
        if len(stack) >= MOST_LEVELS and not isinstance(event, yaml.ScalarEvent):
            raise YamlTextError(f"more than {MOST_LEVELS} levels deep", *_place(event))
        if len(path) == 2 and path[0] == "rows" and isinstance(path[1], int):
            document.row_lines.append(_place(event)[0])
        _take(document, event, path, stack)
    return document


def _take(document: Document, event: yaml.Event, path: Path, stack: list[_Open]) -> None:
    top = stack[-1] if stack else None
    if top is not None and isinstance(top.items, dict) and top.key is None:
        _take_key(document, event, path, top)
        return
    value: Any
    if isinstance(event, yaml.ScalarEvent):
        value = scalar(event.value) if event.implicit[0] else event.value
    else:
        value = {} if isinstance(event, yaml.MappingStartEvent) else []
    _put(document, top, path, value)
    if not isinstance(event, yaml.ScalarEvent):
        stack.append(_Open(items=value, path=path))


def _take_key(document: Document, event: yaml.Event, path: Path, top: _Open) -> None:
    if not isinstance(event, yaml.ScalarEvent):
        raise YamlTextError("a key must be a word", *_place(event))
    if event.value in top.keys:
        document.repeated.append((path, *_place(event)))
    top.keys.add(event.value)
    top.key = event.value


def _put(document: Document, top: _Open | None, path: Path, value: object) -> None:
    if top is None:
        document.value = value
    elif isinstance(top.items, list):
        top.items.append(value)
    else:
        if value is None:
            document.nulls.append(path)
        elif top.key not in top.items:
            top.items[top.key] = value
        top.key = None


def places(text: str, wanted: Collection[Path]) -> dict[Path, Place]:
    """Line and column (from 1) of the keys and list items at the wanted paths, as far as the text has them."""
    left = set(wanted)
    found: dict[Path, Place] = {}
    scratch = Document()
    for event, path, stack in _walk(text):
        if path in left:
            left.discard(path)
            found[path] = _place(event)
            if not left:
                break
        _take(scratch, event, path, stack)
    return found
