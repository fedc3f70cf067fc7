"""Durations and sizes with units, as numbers of seconds and bytes. No I/O."""

from __future__ import annotations

import re
from decimal import Decimal

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")


_UNIT_S = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMG]i?)?B?")


_SIZE_UNIT = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def duration_s(text: str) -> float:
    """Seconds of "30s", "2h", "1h30m", "250ms" or a plain number of seconds.

    Raises:
        ValueError: anything else.
    """
    parts = _DURATION.findall(text)
    if parts and not _DURATION.sub("", text).strip():
        return float(sum(Decimal(number) * _UNIT_S[unit] for number, unit in parts))
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    raise ValueError(f"{text!r} is not a duration: write seconds or e.g. 30s, 5m, 2h")


def size_bytes(text: str) -> int:
    """Bytes of "512MB" (decimal), "512MiB" (binary) or a plain number of bytes.

    Raises:
        ValueError: anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes or e.g. 512MB")
    return int(Decimal(match[1]) * _SIZE_UNIT.get(match[2] or "", 1))
