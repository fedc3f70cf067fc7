"""Figures as they were measured: a JSON file a benchmark in benchmarks/measured; the document is written from them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("measured")
Figures = dict[str, Any]


def middle(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def keep(name: str, figures: Figures, *, rounds: int, loads: Iterable[float]) -> None:
    """Writes the figures with the day, the machine and its load (median and most of the minute's averages)."""
    seen = sorted(loads)
    circumstances = {
        "day": datetime.now(UTC).date().isoformat(),
        "rounds": rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": [round(middle(seen), 1), round(seen[-1], 1)],
    }
    MEASURED.mkdir(exist_ok=True)
    text = json.dumps({**circumstances, **figures}, indent=1, sort_keys=True)
    (MEASURED / f"{name}.json").write_text(text + "\n", encoding="ascii")


def kept(name: str) -> Figures | None:
    """The figures of the last run, None when there was none."""
    file = MEASURED / f"{name}.json"
    found: Figures | None = json.loads(file.read_text(encoding="ascii")) if file.exists() else None
    return found
