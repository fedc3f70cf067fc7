"""How long modules, classes and functions may be, so that each can be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
"""Without the docstring."""

MAX_CLASS_LINES = 220
"""A class beyond it has several responsibilities, each of which deserves a name of its own."""

LONG_CLASSES: dict[str, int] = {}
"""Classes that are longer, with the lines that they may have. The list only shrinks: a class that becomes short enough
is taken out, and no class is added."""

TABLES = frozenset({"pipeline/cli/parser.py", "pipeline/manifest/yaml_model.py"})
"""Modules that are one table: the flags of each command, the keys of each part of a manifest."""


def too_long(root: Path) -> list[str]:
    """Each module and function of the package `pipeline` below `root` that is longer than its limit."""
    found: list[str] = []
    for file in sorted((root / "pipeline").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        name = file.relative_to(root).as_posix()
        lines = text.count("\n")
        if lines > MAX_MODULE_LINES and name not in TABLES:
            found.append(f"{name}: {lines} lines, more than {MAX_MODULE_LINES}")
        tree = ast.parse(text)
        found += [f"{name}: {words}" for words in _long_functions(tree)]
        found += _long_classes(tree, name)
    return found


def short_enough(root: Path) -> list[str]:
    """The entries of LONG_CLASSES that are no longer needed: the class is short by now, or is gone."""
    lengths: dict[str, int] = {}
    for name in sorted({entry.partition(":")[0] for entry in LONG_CLASSES}):
        if (root / name).exists():
            lengths.update(_class_lengths(ast.parse((root / name).read_text(encoding="utf-8")), name))
    return [entry for entry in LONG_CLASSES if lengths.get(entry, 0) <= MAX_CLASS_LINES]


def _class_lengths(tree: ast.Module, file: str) -> dict[str, int]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {f"{file}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1 for node in classes}


def _long_classes(tree: ast.Module, file: str) -> Iterator[str]:
    for name, lines in _class_lengths(tree, file).items():
        most = LONG_CLASSES.get(name, MAX_CLASS_LINES)
        if lines > most:
            yield f"{name} has {lines} lines, more than {most}"


def _long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            described = (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - described
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"
