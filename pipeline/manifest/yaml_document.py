"""The text of a YAML manifest, parsed strictly, with the mistakes that only its text shows: comments, empty values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import strict_yaml
from pipeline.errors import ManifestError, Problem
from pipeline.manifest import source_files
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.field_types import plain

COMMENTED_FIELDS = frozenset(
    {"model", "motion", "motions_id", "seed", "seeds", "strength", "motions_strength", "take", "x", "y", "tabs"}
)
"""Fields whose values never contain a '#', so that a comment behind them cuts nothing off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlDocument:
    """The text of a file and what it parses to: a mapping."""

    file: Path
    text: str
    parsed: strict_yaml.ParsedYaml


def read(path: Path, mistakes: Diagnostics) -> YamlDocument:
    """Read and parse a manifest; repeated keys and texts cut short by a comment go to `mistakes`.

    Raises:
        ManifestError: it is too large, is not YAML, or is not a mapping.
    """
    if source_files.size_bytes(path) > strict_yaml.MAX_BYTES:
        most = strict_yaml.MAX_BYTES // 1_000_000
        raise _rejected(path, f"is larger than {most} MB: put the rows into a CSV file")
    try:
        text = source_files.text(path)
        parsed = strict_yaml.read(text)
    except UnicodeDecodeError:
        mistake = source_files.undecodable(path)
        raise _rejected(path, mistake.message, mistake.line) from None
    except strict_yaml.YamlTextError as error:
        raise _rejected(path, str(error), error.line, error.column) from None
    if not isinstance(parsed.value, dict):
        message = "is empty" if parsed.value is None else "must be a mapping of keys: rows, defaults, matrix, ..."
        raise _rejected(path, message)
    for key_path, line, column in parsed.repeated:
        mistakes.add(Diagnostic(file=path, path=key_path, line=line, column=column, message="this key is given twice"))
    for cut in parsed.cut:
        if not _takes_comment(cut):
            message = (
                f"what follows '#' is a comment, and the text ends at {plain(cut.text[-20:])}: put it all in quotes"
            )
            mistakes.add(Diagnostic(file=path, path=cut.path, line=cut.line, column=cut.column, message=message))
    return YamlDocument(file=path, text=text, parsed=parsed)


def reject_nulls(document: YamlDocument, invalid: dict[strict_yaml.Path, set[str]], mistakes: Diagnostics) -> None:
    """Report every key without a value, and add it to the invalid keys of its mapping."""
    for path in document.parsed.nulls:
        message = "has no value: give one or take the key out (a text with a comma in it needs quotes)"
        mistakes.add(Diagnostic(file=document.file, path=path, message=message))
        if isinstance(path[-1], str):
            invalid.setdefault(path[:-1], set()).add(path[-1])


def _rejected(path: Path, message: str, line: int | None = None, column: int | None = None) -> ManifestError:
    return ManifestError([Problem(file=path, message=message, line=line, column=column)])


def _takes_comment(cut: strict_yaml.CutText) -> bool:
    """Whether what follows a plain text can only be a comment."""
    names = {part for part in cut.path if isinstance(part, str)}
    is_address = "://" in cut.text or cut.text.startswith("sandbox:")
    return ("vars" not in names and bool(names & COMMENTED_FIELDS)) or (is_address and " " not in cut.text)
