"""The Python interface, for notebooks and scripts: the same steps, ledger and rules as the command `dop`.

Nothing here decides about money: what `dop run` refuses is refused here, and at a live gateway each call must say what
it may spend.
"""

from __future__ import annotations

from pipeline.api.buying import arun, collect, run
from pipeline.api.reading import check, derive, picks, plan, report, spend

__all__ = ["arun", "check", "collect", "derive", "picks", "plan", "report", "run", "spend"]
