"""A dataclass that is frozen for mypy and for the tests, and not for Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a record of which a large sheet has a million.

    That no field is set later is held by mypy, and by the test of foreign assignments, before the program runs. A
    frozen dataclass, which Python asks at each assignment, takes two and a half times as long to make.
    """
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
