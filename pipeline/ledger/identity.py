"""What tells one ledger from every other: a random id, the place where it spends, and a hash chain over its events.

The id is drawn when a ledger is made and goes with it through moves, rebuilds and migrations. The place is the machine
and the inode of the file: a copy has another one. The chain makes each event depend on all before it, so that a
journal that lacks a line, or belongs to another history, is noticed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

GENESIS = "0" * 16
"""The chain's value before the first event, as 16 hex digits."""

LEDGER_ID = "ledger id"
CHAIN = "chain"
INODE = "inode"
MACHINE = "machine"
JOURNAL_PLACE = "journal place"
COPY = "copy"
MOVED = "moved to"
HOLE = "hole"
"""Names under which a ledger keeps what it knows of itself (table `meta`); CHAIN is the newest event's."""

MARKS = (MOVED, COPY, HOLE)
"""What keeps a ledger from spending until the operator decides; carried by the journal through every repair."""

_MACHINE_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_INSTANCE_FILE = "/var/lib/cloud/data/instance-id"
"""Written by cloud-init: unlike the machine id, it changes when a machine's disk is cloned into another instance."""


def new_ledger_id() -> str:
    """16 random hex digits."""
    return secrets.token_hex(8)


def machine_id() -> str:
    """What names this machine, as 16 hex digits; empty where nothing does (a container without a machine id)."""
    found = next((text for text in map(_content, _MACHINE_FILES) if text), "")
    return hashlib.blake2b(f"{found} {_content(_INSTANCE_FILE)}".encode(), digest_size=8).hexdigest() if found else ""


def _content(path: str) -> str:
    with suppress(OSError, UnicodeError):
        return Path(path).read_text(encoding="ascii").strip()
    return ""


def inode_of(path: Path) -> str:
    """What tells this very file from a copy of it on the same machine."""
    return str(os.stat(path).st_ino)


def place_of(path: Path) -> str:
    """Machine and inode of a file, as one text."""
    return f"{machine_id() or '?'}/{inode_of(path)}"


def is_elsewhere(known: str | None, here: str) -> bool:
    """Whether a place that was written down is another one than `here`; what is not known (`?`) contradicts nothing."""
    if known is None:
        return False
    return any(a != b and "?" not in (a, b) for a, b in zip(known.split("/"), here.split("/"), strict=False))


def next_link(chain: str, text: str) -> str:
    """The chain's value after an event, from its value before and the event's text."""
    return hashlib.blake2b(f"{chain} {text}".encode("ascii", "backslashreplace"), digest_size=8).hexdigest()


def marks_in(facts: Mapping[str, str]) -> dict[str, str]:
    """The marks that a ledger bears."""
    return {name: facts[name] for name in MARKS if name in facts}
