"""Buy AI video in bulk without waste: a batch pipeline for the Higgsfield DoP image-to-video API.

For notebooks `plan`, `run` and `report` are functions (docs/notebook.md). They are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.api import plan as plan
    from pipeline.api import report as report
    from pipeline.api import run as run

_FUNCTIONS = frozenset({"plan", "run", "report"})


def __getattr__(name: str) -> object:
    """Load a function of pipeline.api when it is first used, so that importing a submodule stays fast."""
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("pipeline.api"), name)
