"""Figures as they were measured: a JSON file a benchmark in benchmarks/measured; the document is written from them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("measured")
Figures = dict[str, Any]
Unrest = tuple[float, float]
"""The load average after a bout, and how late 99 in 100 timers of its gateway rang at most, seconds."""


def middle(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def keep(name: str, figures: Figures, *, rounds: int, unrest: Sequence[Unrest]) -> None:
    """Writes the figures with the day, the machine and how unquiet it was (median and worst)."""
    loads, lates_s = zip(*unrest, strict=True)
    circumstances = {
        "day": datetime.now(UTC).date().isoformat(),
        "rounds": rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": [round(middle(loads), 1), round(max(loads), 1)],
        "late_ms": [round(1000 * middle(lates_s)), round(1000 * max(lates_s))],
    }
    MEASURED.mkdir(exist_ok=True)
    text = json.dumps({**circumstances, **figures}, indent=1, sort_keys=True)
    (MEASURED / f"{name}.json").write_text(text + "\n", encoding="ascii")


def kept(name: str) -> Figures | None:
    """The figures of the last run, None when there was none."""
    file = MEASURED / f"{name}.json"
    found: Figures | None = json.loads(file.read_text(encoding="ascii")) if file.exists() else None
    return found
