"""Buy AI video in bulk: a batch pipeline for the Higgsfield DoP image-to-video API, as functions.

    import pipeline

    plan = pipeline.plan("shots.csv")                    what it would buy, and the price; sends nothing
    result = pipeline.run("shots.csv", max_cost=2.00)    buys, waits, downloads; the same call again continues
    result.frame                                         the table of the videos

A manifest is a file, a DataFrame, a list of dictionaries, or a whole YAML manifest as a dictionary. Without `config`
everything goes to the sandbox: no key, no money.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pipeline.api import arun as arun
    from pipeline.api import check as check
    from pipeline.api import collect as collect
    from pipeline.api import derive as derive
    from pipeline.api import picks as picks
    from pipeline.api import plan as plan
    from pipeline.api import report as report
    from pipeline.api import run as run
    from pipeline.api import spend as spend

__all__ = ["arun", "check", "collect", "derive", "picks", "plan", "report", "run", "spend"]


def __getattr__(name: str) -> object:
    """Load a function of pipeline.api when it is first used, so that importing a submodule stays fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("pipeline.api"), name)


def __dir__() -> list[str]:
    """The functions; the modules below are the program's own."""
    return sorted([*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__"])


class _Finder(Protocol):
    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None: ...

    def invalidate_caches(self) -> None: ...


class _FinderWithoutList:
    """The finder of this folder, which imports every module and lists none.

    `help(pipeline)` asks the folder's finder for its modules, and would print fifteen of the program's own.
    """

    def __init__(self, finder: _Finder) -> None:
        self.find_spec = finder.find_spec
        self.invalidate_caches = finder.invalidate_caches

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """No module."""
        return iter(())


for _folder in __path__:
    _found = pkgutil.get_importer(_folder)
    if _found is not None:
        sys.path_importer_cache[_folder] = _FinderWithoutList(_found)  # type: ignore[arg-type] # duck-typed
