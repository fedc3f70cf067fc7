"""A rate limit's whole state as a few kilobytes, so that several workers share it in one row of a database.

The state is what one run has: the phase, the followed limiter, what the fits need of the history, holds and tests.
Times are kept to 0.1 ms, calls as differences to the one before, all of it compressed: 2 to 4 KB for 1,200 calls.

The format is the fields of the classes, so it is named by their code (`FORMAT`): a row that other code wrote is
ignored, and the limit is looked for from the beginning.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import pkgutil
import zlib
from collections import deque
from collections.abc import Sequence
from enum import Enum
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from pipeline.gateway.ratelimit.controller import ControllerPhase, RateController
from pipeline.gateway.ratelimit.history import Calls
from pipeline.gateway.ratelimit.window_follower import WindowFollower

TICKS_PER_S = 10_000
"""Resolution of kept times: 0.1 ms, a tenth of what the fits distinguish."""
FIT_CALLS = 1_300
"""Calls kept while a limit is followed: `identification.MAX_CALLS` and some that are in flight."""
SPARE_CALLS = 100
"""A window keeps so many calls more than it counts."""

LAYOUT = "1"
"""The part of the format that this module decides."""

_WITHOUT_STATE = {"snapshot", "identification", "fixed_windows"}
"""Modules that are no part of the format; two of them need numpy, which not every worker does."""
_MODULES = [
    importlib.import_module(f"{__package__}.{module.name}")
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if module.name not in _WITHOUT_STATE
]
_CLASSES = {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and kind.__module__ == module.__name__
}


class UnknownFormatError(ValueError):
    """The state was written by other code."""


@cache
def format_name() -> str:
    """The format that this code reads and writes."""
    text = LAYOUT + "".join(inspect.getsource(module) for module in _MODULES)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def on_grid(at: float) -> float:
    """The time (seconds) as it is kept: calls are found again by the time at which they were sent."""
    return round(at * TICKS_PER_S) / TICKS_PER_S


def packed(root: object) -> bytes:
    """`root`, an object of this package's classes or a list or dict of such, as bytes."""
    encoder = _Encoder()
    text = json.dumps([format_name(), encoder.value(root), encoder.objects], separators=(",", ":"))
    return zlib.compress(text.encode(), 1)


def unpacked(state: bytes) -> Any:
    """What `packed` was given.

    Raises:
        UnknownFormatError: other code wrote it, or it is damaged.
    """
    try:
        written_by, root, objects = json.loads(zlib.decompress(state))
    except (zlib.error, ValueError) as error:
        raise UnknownFormatError("not a state of a rate limit") from error
    if written_by != format_name():
        raise UnknownFormatError(f"written by {written_by}")
    return _Decoder(objects).value(root)


class _Encoder:
    """Objects are kept once, however many refer to them."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self._places: dict[int, int] = {}

    def value(self, it: object) -> Any:
        if isinstance(it, Enum):
            return {"enum": [type(it).__name__, it.name]}
        if it is None or isinstance(it, bool | int | float | str):
            return it
        if isinstance(it, list | tuple):
            return {"tuple" if isinstance(it, tuple) else "list": [self.value(each) for each in it]}
        if isinstance(it, deque):
            return {"deque": [it.maxlen, [self.value(each) for each in it]]}
        if isinstance(it, dict):
            return {"dict": [[self.value(key), self.value(each)] for key, each in it.items()]}
        return {"object": self._place(it)}

    def _place(self, it: object) -> int:
        if id(it) not in self._places:
            self._places[id(it)] = len(self.objects)
            # Its place first: what it refers to may refer back to it.
            self.objects.append(None)
            if isinstance(it, RateController):
                _drop_old_calls(it)
            self.objects[self._places[id(it)]] = [type(it).__name__, self._fields(it)]
        return self._places[id(it)]

    def _fields(self, it: object) -> Any:
        if isinstance(it, Calls):
            return _packed_calls(it)
        if type(it).__name__ not in _CLASSES:
            raise TypeError(f"{type(it)} is no part of a rate limit's state")
        names = vars(it) if hasattr(it, "__dict__") else it.__slots__  # type: ignore[attr-defined]
        return {name: self.value(getattr(it, name)) for name in names}


class _Decoder:
    def __init__(self, objects: list[Any]) -> None:
        self._raw = objects
        self._made: dict[int, Any] = {}

    def value(self, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        ((kind, content),) = raw.items()
        if kind == "object":
            return self._object(content)
        if kind == "enum":
            return _CLASSES[content[0]][content[1]]  # type: ignore[index]
        if kind == "deque":
            return deque((self.value(each) for each in content[1]), maxlen=content[0])
        if kind == "dict":
            return {self.value(key): self.value(each) for key, each in content}
        values = [self.value(each) for each in content]
        return tuple(values) if kind == "tuple" else values

    def _object(self, place: int) -> Any:
        if place not in self._made:
            name, fields = self._raw[place]
            kind = _CLASSES[name]
            it: Any = object.__new__(kind)
            # Known before its fields are read, for the same reason.
            self._made[place] = it
            if isinstance(it, Calls):
                it.__init__(*_unpacked_calls(fields))  # type: ignore[misc]
            else:
                for field, raw in fields.items():
                    # Past the class's own way, for some of them are frozen.
                    object.__setattr__(it, field, self.value(raw))
        return self._made[place]


def _drop_old_calls(law: RateController) -> None:
    """Until a limit is followed every call counts; then the newest ones do."""
    if law.phase is not ControllerPhase.FOLLOW:
        return
    follower = law.follower
    count = follower.count if isinstance(follower, WindowFollower) else 0
    law.history.keep(max(FIT_CALLS, count + SPARE_CALLS))


def _packed_calls(calls: Calls) -> list[Any]:
    sent = [round(at * TICKS_PER_S) for at in calls.sent]
    there, whole = (
        [round(at * TICKS_PER_S) - begin for at, begin in zip(times, sent, strict=True)]
        for times in (calls.arrived, calls.answered)
    )
    return [sent[:1], [after - before for before, after in pairwise(sent)], there, whole]


def _unpacked_calls(packed_calls: Sequence[Any]) -> list[list[float]]:
    first, steps, there, whole = packed_calls
    sent = list(accumulate([*first, *steps]))
    later = ([begin + trip for begin, trip in zip(sent, trips, strict=True)] for trips in (there, whole))
    return [[at / TICKS_PER_S for at in times] for times in (sent, *later)]
