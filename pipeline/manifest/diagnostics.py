"""Mistakes gathered while a manifest is read, each with its place, and reported all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import strict_yaml
from pipeline.errors import ManifestError, Problem

MAX_SHOWN = 10_000
"""Mistakes reported one by one; of the rest only the number is kept, so that a million bad lines fit in memory."""

_WORD = re.compile(r"[^\s.\[\]:'\"]+")


def format_path(path: strict_yaml.Path) -> str:
    """A path in the user's words: rows[0].strength."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _WORD.fullmatch(part) and part.isprintable() else repr(part)
            text += f".{name}" if text else name
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One mistake. `path` is its place in a YAML text; `line` and `column` are known at once for CSV."""

    message: str
    file: Path | None = None
    path: strict_yaml.Path | None = None
    where: str = ""
    line: int | None = None
    column: int | None = None


@dataclass(slots=True)
class Diagnostics:
    """All mistakes of one reading. The same one is reported once."""

    found: dict[Diagnostic, None] = field(default_factory=dict)
    untold: int = 0

    def add(self, mistake: Diagnostic) -> None:
        """Keeps a mistake, or only counts it when there are too many to tell."""
        if len(self.found) < MAX_SHOWN or mistake in self.found:
            self.found[mistake] = None
        else:
            self.untold += 1

    def __bool__(self) -> bool:
        return bool(self.found)

    def copy(self) -> Diagnostics:
        """A second list that begins with the same mistakes."""
        return Diagnostics(dict(self.found), self.untold)

    def problems(self, texts: Mapping[Path, str]) -> tuple[Problem, ...]:
        """The mistakes with line and column, in the order of the files' lines. `texts` are the YAML texts by file."""
        problems = [problem for mistakes in _by_file(self.found) for problem in _problems(mistakes, texts)]
        if self.untold:
            problems.append(Problem(file=problems[0].file, message=f"{self.untold:,} more mistakes of these kinds"))
        return tuple(problems)

    def error(self, texts: Mapping[Path, str]) -> ManifestError:
        """The error that tells them all."""
        return ManifestError(self.problems(texts))


def _by_file(found: Iterable[Diagnostic]) -> list[list[Diagnostic]]:
    groups: dict[Path | None, list[Diagnostic]] = {}
    for mistake in found:
        groups.setdefault(mistake.file, []).append(mistake)
    return list(groups.values())


def _problems(mistakes: list[Diagnostic], texts: Mapping[Path, str]) -> list[Problem]:
    """The problems of one file, in the order of its lines; those without a line at the end."""
    file = mistakes[0].file
    text = texts.get(file) if file is not None else None
    # With everything around it: what is missing has no place in the text, and is reported at the nearest that has one.
    paths = {mistake.path[:size] for mistake in mistakes if mistake.path for size in range(1, len(mistake.path) + 1)}
    places = strict_yaml.places(text, paths) if text is not None and paths else {}
    problems = [_problem(mistake, places) for mistake in mistakes]
    return sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0, problem.column or 0))


def _problem(mistake: Diagnostic, places: Mapping[strict_yaml.Path, strict_yaml.Place]) -> Problem:
    line, column = mistake.line, mistake.column
    path = mistake.path or ()
    if line is None:
        nearest = next((path[:size] for size in range(len(path), 0, -1) if path[:size] in places), None)
        line, column = places[nearest] if nearest is not None else (None, None)
    where = mistake.where or format_path(path)
    return Problem(file=mistake.file, message=mistake.message, where=where, line=line, column=column)
