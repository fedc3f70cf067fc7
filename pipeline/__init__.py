"""Buy AI video in bulk without waste: a batch pipeline for the Higgsfield DoP image-to-video API.

For notebooks `plan`, `run` and `report` are functions (docs/notebook.md); nothing is loaded before one is asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import plan as plan
    from pipeline.api import report as report
    from pipeline.api import run as run

_FUNCTIONS = ("plan", "run", "report")
"""Names of functions of pipeline.api that are names of modules in here as well."""


class _Callable(ModuleType):
    """A module that is called like the function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        api = importlib.import_module("pipeline.api")
        return getattr(api, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """This package. Importing one of its modules sets an attribute here, which is where the three become callable."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FUNCTIONS and isinstance(value, ModuleType):
            value.__class__ = _Callable
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        if name in _FUNCTIONS:
            return importlib.import_module(f"{self.__name__}.{name}")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Package
