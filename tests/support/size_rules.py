"""How long modules and functions may be, so that each can be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
"""Without the docstring."""

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
        found += [f"{name}: {words}" for words in _long_functions(ast.parse(text))]
    return found


def _long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            described = (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - described
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"
