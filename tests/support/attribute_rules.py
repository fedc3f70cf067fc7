"""Who sets an attribute of whom: a reader of syntax trees that reports assignments from outside an object.

An object is complete when it is built: what it works with is passed in, and only its own methods change it. Then a
reader can follow who calls whom. Exempt are plain records (a dataclass with fields and properties only has no methods
that could change it, so the code that holds one does) and dataclasses within the module that defines them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignAssignment:
    """`module` sets `target`, an attribute of another object, in line `line`."""

    module: str
    target: str
    line: int


def foreign_assignments(root: Path) -> list[ForeignAssignment]:
    """Every assignment in the package `pipeline` below `root` to an attribute of anything but self, cls or a record."""
    trees = {_name(root, path): ast.parse(path.read_text(encoding="utf-8")) for path in _files(root)}
    records = {name: dict(_records(tree, plain=True)) for name, tree in trees.items()}
    found = []
    for module, tree in trees.items():
        fields = set[str]().union(*_imported_records(tree, records), *dict(_records(tree, plain=False)).values())
        found += [
            ForeignAssignment(module=module, target=ast.unparse(target), line=target.lineno)
            for target in _targets(tree)
            if not (isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"))
            and target.attr not in fields
        ]
    return sorted(found, key=lambda one: (one.module, one.line))


def _files(root: Path) -> list[Path]:
    return sorted((root / "pipeline").rglob("*.py"))


def _name(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def _targets(tree: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            first, name = node.args[0], node.args[1]
            text = name.value if isinstance(name, ast.Constant) else ast.unparse(name)
            yield ast.Attribute(value=first, attr=str(text), ctx=ast.Store(), lineno=node.lineno, col_offset=0)


def _records(tree: ast.Module, *, plain: bool) -> Iterator[tuple[str, set[str]]]:
    """Open dataclasses of a module, only those without methods if `plain`: name -> their fields."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _is_open_dataclass(node) and not (plain and _has_methods(node)):
            yield (
                node.name,
                {
                    part.target.id
                    for part in node.body
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
                },
            )


def _is_open_dataclass(node: ast.ClassDef) -> bool:
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    return any(mark.startswith("dataclass") and "frozen=True" not in mark for mark in marks)


def _has_methods(node: ast.ClassDef) -> bool:
    return any(
        isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        and not {"property", "classmethod", "staticmethod"} & {ast.unparse(mark) for mark in part.decorator_list}
        for part in node.body
    )


def _imported_records(tree: ast.Module, records: dict[str, dict[str, set[str]]]) -> Iterator[set[str]]:
    """Fields of the plain records that a module imports by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in records:
            yield from (records[node.module][alias.name] for alias in node.names if alias.name in records[node.module])
