"""Every number that a module names has a sentence beside it, which says its unit and its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MIN_WORDS = 5
"""Words of a sentence at the least: fewer only repeat the name. It begins with a capital, as sentences do."""

_NAME = re.compile(r"_?[A-Z][A-Z0-9_]*")
_WORD = re.compile(r"[\w$%.'*-]+")
_CONVERSIONS = frozenset({"Decimal", "float", "timedelta"})


def unexplained_constants(root: Path) -> list[str]:
    """The number constants below `pipeline` without a sentence, as `file:line name`; the sandbox is exempt."""
    return [
        f"{file.relative_to(root).as_posix()}:{line} {name}"
        for file in sorted((root / "pipeline").rglob("*.py"))
        if "sandbox" not in file.parts
        for line, name in _unexplained(file.read_text(encoding="utf-8"))
    ]


def _unexplained(source: str) -> Iterator[tuple[int, str]]:
    lines, body = source.splitlines(), ast.parse(source).body
    for place, node in enumerate(body):
        names = [name for name in _names(node) if _NAME.fullmatch(name)]
        if names and _is_number(getattr(node, "value", None)):
            text = f"{_comment_above(lines, node.lineno)} {_docstring_below(body, place)}".strip()
            if len(_WORD.findall(text)) < MIN_WORDS or text[0].islower():
                yield node.lineno, ", ".join(names)


def _names(node: ast.stmt) -> list[str]:
    """The names that an assignment binds; `A, B = 1, 2` binds both."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _is_number(value: ast.expr | None) -> bool:
    """Whether a value is a finite number, a sum or product of numbers, or a tuple of numbers."""
    match value:
        case ast.Constant(value=bool()):
            return False
        case ast.Constant(value=int() | float()):
            return True
        case ast.UnaryOp(operand=operand):
            return _is_number(operand)
        case ast.BinOp(left=left, right=right):
            return _is_number(left) or _is_number(right)
        case ast.Tuple(elts=parts):
            return bool(parts) and all(_is_number(part) for part in parts)
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str() as text)]) if name in _CONVERSIONS:
            return "inf" not in text
    return False


def _comment_above(lines: list[str], line: int) -> str:
    """The lines `#: ...` directly above."""
    first = line - 1
    while first > 0 and lines[first - 1].startswith("#:"):
        first -= 1
    return " ".join(text[2:] for text in lines[first : line - 1])


def _docstring_below(body: list[ast.stmt], place: int) -> str:
    match body[place + 1 : place + 2]:
        case [ast.Expr(value=ast.Constant(value=str() as text))]:
            return text
    return ""
