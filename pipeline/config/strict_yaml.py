"""YAML text -> plain values, straight from the event stream, so that nothing is expanded before it is allowed.

No aliases, anchors or tags, at most 32 levels, no key twice, one document. Plain scalars follow YAML 1.2 (`NO` is a
text) without its traps: 010, 0x10, 1_000 and .inf stay texts. Numbers with a point are Decimal. Nothing is constructed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

import yaml

MAX_LEVELS = 32
"""Levels of nesting that a document may have; a manifest needs six, and a hostile file must not exhaust the stack."""
MAX_BYTES = 20_000_000
"""Bytes (20 MB) of a YAML file that is read: its values are all in memory, a CSV file is streamed."""
MAX_DIGITS = 40
"""Longer numbers stay texts: they are no amount, seed or strength."""

Path: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,2})?")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_COMMENT = re.compile(r"[ \t]+#")
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
    if len(text) <= MAX_DIGITS:
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return Decimal(text)
    return text


@dataclass(slots=True)
class _OpenCollection:
    """A collection whose end has not come yet; `key` is the key that waits for its value."""

    items: Any
    key: str | None = None
    keys: set[str] = field(default_factory=set)

    def at(self, *, inside: bool) -> str | int:
        """The key or number of what is being read: `inside` its last value, or the one that comes next."""
        return len(self.items) - inside if isinstance(self.items, list) else self.key or ""


def _events(text: str) -> Iterator[yaml.Event]:
    # libyaml's parser where the installed package has it: a large manifest takes seconds with the one in Python.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        yield from yaml.parse(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = (mark.line + 1, mark.column + 1) if mark else (None, None)
        lines = text.splitlines()
        line = lines[mark.line] if mark and mark.line < len(lines) else ""
        problem = str(error.problem or error.context)
        raise YamlTextError(f"not YAML: {problem}: {_remedy(problem, line)}", *where) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlTextError(f"not YAML: {str(error).splitlines()[0]}") from error


_VALUE = re.compile(r"(?:^|[\s{,-])([A-Za-z_][\w:]*):\s+(\S.*)$")
_NEEDS_QUOTES = re.compile(r"[:#\[\]{}\"'`@%&*!|>?,\\]")


def _remedy(problem: str, line: str) -> str:
    """What to do about a line that the parser cannot read."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "the line begins with a tab, and YAML is indented with spaces"
    if "escape" in problem:
        return "a backslash in double quotes begins an escape; write the text in single quotes"
    value = _VALUE.search(line)
    if value and _NEEDS_QUOTES.search(value[2]):
        kind = "single quotes, and a quote inside it twice" if value[2].startswith(('"', "'")) else "quotes"
        return f"put the text of {value[1]!r} in {kind}"
    return "compare the indentation with the lines above, and put texts with punctuation in quotes"


def _refused(event: yaml.Event) -> str | None:
    anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
    if isinstance(event, yaml.AliasEvent):
        return f"aliases (*{anchor}) are not read: write the value out (a text that begins with '*' needs quotes)"
    if anchor:
        return f"anchors (&{anchor}) are not read: write the value out (a text that begins with '&' needs quotes)"
    return f"tags ({tag}) are not read (a text that begins with '!' needs quotes)" if tag else None


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutText:
    """A plain text behind which a comment begins, at `line` and `column` (from 1)."""

    path: Path
    text: str
    line: int
    column: int


@dataclass(slots=True)
class ParsedYaml:
    """A read text: `value`, the line of each of its `rows` (from 1), where a null is (`nulls`), and `cut` texts."""

    value: Any = None
    row_lines: list[int] = field(default_factory=list)
    nulls: list[Path] = field(default_factory=list)
    repeated: list[tuple[Path, int, int]] = field(default_factory=list)
    cut: list[CutText] = field(default_factory=list)


KeepsText: TypeAlias = Callable[[Path], bool]
"""Whether a plain scalar at a place stays text as written."""


def is_variable(path: Path) -> bool:
    """Whether a value is below a key `vars` of a manifest: it goes into a prompt as written, e.g. 1.50, True, +7."""
    return "vars" in path[:-1]


def read(text: str, keeps_text: KeepsText = is_variable) -> ParsedYaml:
    """The values of a YAML text: dict, list, str, int, Decimal, bool. Keys without a value are left out, see `nulls`.

    Raises:
        YamlTextError: syntax, an alias, an anchor, a tag, too many levels, a key that is no word, a second document.
    """
    reader = _Reader(text, keeps_text)
    for event in _events(text):
        reader.take(event)
    return reader.document


def places(text: str, wanted: Collection[Path]) -> dict[Path, Place]:
    """Line and column (from 1) of the keys and list items at the wanted paths, as far as the text has them."""
    left = set(wanted)
    found: dict[Path, Place] = {}
    reader = _Reader(text)
    for event in _events(text):
        path = reader.path(event)
        if path in left:
            left.discard(path)
            found[path] = _place(event)
            if not left:
                break
        reader.take(event)
    return found


class _Reader:
    """Builds the values of one document, event by event."""

    def __init__(self, text: str, keeps_text: KeepsText = is_variable) -> None:
        self._text, self._keeps_text = text, keeps_text
        self.document = ParsedYaml()
        self._stack: list[_OpenCollection] = []
        self._begun = False

    def path(self, event: yaml.Event) -> Path | None:
        """Where the key or value of an event is; None for an event that is neither."""
        if not isinstance(event, yaml.NodeEvent):
            return None
        outer = self._here()
        if self._awaits_key and isinstance(event, yaml.ScalarEvent):
            return (*outer[:-1], event.value)
        return outer

    def _here(self) -> Path:
        return tuple(opened.at(inside=opened is not self._stack[-1]) for opened in self._stack)

    @property
    def _awaits_key(self) -> bool:
        top = self._stack[-1] if self._stack else None
        return top is not None and top.key is None and isinstance(top.items, dict)

    def take(self, event: yaml.Event) -> None:
        """Reads one event."""
        if isinstance(event, yaml.ScalarEvent):
            if event.anchor or event.tag:
                self._refuse(event)
            if self._awaits_key:
                self._key(event)
            else:
                self._line_of_row(event)
                self._put(self._value(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._stack.pop()
            if self._stack:
                self._stack[-1].key = None
        elif isinstance(event, yaml.NodeEvent):
            self._refuse(event)
            self._open(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            if self._begun:
                raise YamlTextError("a second document begins here: one file, one document", *_place(event))
            self._begun = True

    def _value(self, event: yaml.ScalarEvent) -> object:
        # Quoted, so it is a text whatever it looks like.
        if not event.implicit[0]:
            return event.value
        value = scalar(event.value)
        here = self._here()
        if value is not None and self._keeps_text(here):
            value = str(event.value)
        if isinstance(value, str):
            self._note_comment(event, here)
        return value

    def _note_comment(self, event: yaml.ScalarEvent, path: Path) -> None:
        end = event.end_mark
        if end is None:
            return
        behind = _COMMENT.match(self._text, end.index)
        if behind is not None:
            column = end.column + behind.end() - end.index
            self.document.cut.append(CutText(path=path, text=event.value, line=end.line + 1, column=column))

    def _refuse(self, event: yaml.NodeEvent) -> None:
        why = _refused(event)
        if why is not None:
            raise YamlTextError(why, *_place(event))

    def _line_of_row(self, event: yaml.Event) -> None:
        if len(self._stack) == 2 and self._stack[0].key == "rows" and isinstance(self._stack[1].items, list):
            self.document.row_lines.append(_place(event)[0])

    def _key(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1]
        top.key = event.value
        # `keys` and not `items`, which lack the keys without a value.
        if top.key in top.keys:
            self.document.repeated.append((self._here(), *_place(event)))
        top.keys.add(top.key)

    def _open(self, event: yaml.NodeEvent) -> None:
        if self._awaits_key:
            raise YamlTextError("a key must be a word: put a text with brackets or braces in quotes", *_place(event))
        if len(self._stack) >= MAX_LEVELS:
            raise YamlTextError(f"more than {MAX_LEVELS} levels deep", *_place(event))
        self._line_of_row(event)
        items: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        top = self._stack[-1] if self._stack else None
        key = top.key if top is not None else None
        self._put(items)
        # `_put` has cleared the key, but what is inside still needs it for its path; the collection's end clears it for
        # good.
        if top is not None:
            top.key = key
        self._stack.append(_OpenCollection(items))

    def _put(self, value: object) -> None:
        """Puts a value under the key that waits for it; the first of a doubled key stays."""
        if not self._stack:
            self.document.value = value
            return
        top = self._stack[-1]
        if isinstance(top.items, list):
            top.items.append(value)
            return
        if value is None:
            self.document.nulls.append(self._here())
        elif top.key not in top.items:
            top.items[top.key] = value
        top.key = None
