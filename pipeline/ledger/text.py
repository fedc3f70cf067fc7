"""Text from other programs as both ledgers can store it. Pure; every text of a change passes here, and nowhere else."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
"""Takes the place of each character that is removed, so that a reader sees that something was there."""

_NOT_STORABLE = re.compile("[\x00\x80-\x9f\ud800-\udfff]")


def storable(text: str) -> str:
    """`text` without what a database, a terminal or a JSON reader chokes on.

    PostgreSQL refuses NUL, SQLite and UTF-8 refuse half a surrogate pair, and C1 controls move a terminal's cursor.
    """
    return text if text.isascii() and "\0" not in text else _NOT_STORABLE.sub(REPLACEMENT, text)


def storable_value(value: object) -> object:
    """The same for a column's value of any type; only texts change."""
    return storable(value) if isinstance(value, str) else value
